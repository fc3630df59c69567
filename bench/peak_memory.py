#!/usr/bin/env python3
"""Measures the peak memory of `spear compress` on a random model, against the bar 1.5 x its BF16 bytes + 2 GB.

  bench/peak_memory.py [--spear build/release/spear] [--work bench-memory] [--recipe closed] [--layers 16]
                       [--hidden 2048] [--intermediate 8192] [--vocab 128256] [--text FILE] [-- OPTIONS OF COMPRESS]

Writes a random model of Llama-3.2-1B's shape (BF16 safetensors in shards, streamed to the disk: 2.5 GB) unless it is
there, compresses it with a cache of its own that is emptied first, and prints the highest resident memory of each
phase and of the whole run. Exit code 1: above the bar. Fewer layers or a smaller vocabulary make a quick look at what
grows with what. Standard library only; Linux.
"""
import argparse
import json
import os
import pathlib
import random
import re
import shutil
import struct
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import make_tiny_model  # noqa: E402  its tokenizer serves here too

SHARD_BYTES = 1 << 30
SLICE = 1 << 15  # values copied at one time from the pool of random ones


def shapes(config):
    """Tensors in the order of their bytes: (name, shape)."""
    hidden, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    q, kv = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    yield "model.embed_tokens.weight", [config["vocab_size"], hidden]
    for layer in range(config["num_hidden_layers"]):
        p = f"model.layers.{layer}."
        yield p + "input_layernorm.weight", [hidden]
        for name, n, k in (("self_attn.q_proj", q, hidden), ("self_attn.k_proj", kv, hidden),
                           ("self_attn.v_proj", kv, hidden), ("self_attn.o_proj", hidden, q),
                           ("mlp.gate_proj", inner, hidden), ("mlp.up_proj", inner, hidden),
                           ("mlp.down_proj", hidden, inner)):
            yield f"{p}{name}.weight", [n, k]
        yield p + "post_attention_layernorm.weight", [hidden]
    yield "model.norm.weight", [hidden]


def count(shape):
    return shape[0] * (shape[1] if len(shape) > 1 else 1)


class RandomBf16:
    """Endless normal values of deviation 0.02: slices at random places of one pool."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        values = [self.random.gauss(0, 0.02) for _ in range(1 << 20)]
        whole = struct.pack(f"<{len(values)}f", *values)
        self.pool = b"".join(whole[i + 2:i + 4] for i in range(0, len(whole), 4))

    def write(self, file, values):
        while values > 0:
            n = min(values, SLICE)
            at = 2 * self.random.randrange(len(self.pool) // 2 - n + 1)
            file.write(self.pool[at:at + 2 * n])
            values -= n


def write_model(folder, config):
    """config.json, tokenizer and shards; returns the bytes of all tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    make_tiny_model.write_hf(folder, config, {}, "BF16", 1)  # all but the weights
    (folder / "model.safetensors").unlink()
    tokenizer = make_tiny_model.tokenizer_json()  # filled up with pieces that no merge reaches
    pieces = tokenizer["model"]["vocab"]
    pieces.update({f"unused {i}": i for i in range(len(pieces), config["vocab_size"])})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    shards, size = [[]], 0
    for name, shape in shapes(config):
        if size + 2 * count(shape) > SHARD_BYTES and shards[-1]:
            shards.append([])
            size = 0
        shards[-1].append((name, shape))
        size += 2 * count(shape)
    source, places, total = RandomBf16(1), {}, 0
    for number, shard in enumerate(shards):
        file_name = f"model-{number + 1:05}-of-{len(shards):05}.safetensors"
        header, offset = {}, 0
        for name, shape in shard:
            end = offset + 2 * count(shape)
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, end]}
            offset, places[name] = end, file_name
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(folder / file_name, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for name, shape in shard:
                if len(shape) == 1:
                    file.write(b"\x80\x3f" * shape[0])  # a norm of ones
                else:
                    source.write(file, count(shape))
        total += offset
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def config_of(options):
    return {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu",
            "hidden_size": options.hidden, "intermediate_size": options.intermediate,
            "num_hidden_layers": options.layers, "num_attention_heads": options.hidden // 64,
            "num_key_value_heads": max(1, options.hidden // 256), "head_dim": 64, "vocab_size": options.vocab,
            "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
            "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 0, "torch_dtype": "bfloat16"}


class Watch:
    """The resident memory of a process, looked at every 20 ms, by the phase its progress lines name."""

    def __init__(self, process):
        self.process, self.phase, self.peaks = process, "start", {}
        self.reader = threading.Thread(target=self.read_lines)
        self.reader.start()

    def read_lines(self):
        for line in self.process.stderr:
            sys.stderr.write(line)
            named = re.match(r"spear: ([a-z][a-z :,]*?) +\d+%", line)
            if named:
                self.phase = named[1]

    def look(self):
        try:
            status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return
        resident = re.search(r"VmRSS:\s+(\d+) kB", status)
        if resident:
            self.peaks[self.phase] = max(self.peaks.get(self.phase, 0), int(resident[1]) * 1024)


def compress(options, model, work):
    cache = work / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    text = ["--text", options.text] if options.text else ["--no-text"]
    command = [options.spear, "compress", model, "--recipe", options.recipe, "-o", work / "model.spear", *text,
               *options.more]
    process = subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True,
                               env=dict(os.environ, SPEAR_CACHE=str(cache)))
    watch, done = Watch(process), 0
    while done == 0:
        watch.look()
        time.sleep(0.02)
        done, status, usage = os.wait4(process.pid, os.WNOHANG)
    process.returncode = os.waitstatus_to_exitcode(status)
    watch.reader.join()
    if process.returncode != 0:
        sys.exit(f"peak_memory: compress ended with exit code {process.returncode}")
    return usage.ru_maxrss * 1024, watch.peaks


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--spear", type=pathlib.Path, default=ROOT / "build/release/spear")
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("bench-memory"))
    parser.add_argument("--recipe", default="closed")
    parser.add_argument("--text", help="calibrate on this text too; without it on the model's own samples alone")
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--intermediate", type=int, default=8192)
    parser.add_argument("--vocab", type=int, default=128256)
    parser.add_argument("more", nargs="*", help="after --: more options of compress")
    options = parser.parse_args()
    config = config_of(options)
    model = options.work / f"random-{options.layers}x{options.hidden}x{options.intermediate}-{options.vocab}"
    if not (model / "model.safetensors.index.json").exists():
        write_model(model, config)
    parameters = sum(count(shape) for _, shape in shapes(config))
    begin = time.monotonic()
    peak, phases = compress(options, model, options.work)
    bar = 1.5 * 2 * parameters + 2e9
    print(f"{parameters / 1e6:.0f} M parameters, {2 * parameters / 1e9:.2f} GB in BF16; "
          f"{time.monotonic() - begin:.0f} s on {os.cpu_count()} cores")
    for phase, resident in phases.items():
        print(f"  {phase:<24}{resident / 1e9:6.2f} GB")
    print(f"peak {peak / 1e9:.2f} GB; bar {bar / 1e9:.2f} GB: {'met' if peak <= bar else 'MISSED'}")
    sys.exit(0 if peak <= bar else 1)


if __name__ == "__main__":
    main()
