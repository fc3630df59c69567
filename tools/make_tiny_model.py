#!/usr/bin/env python3
"""Writes tiny random decoders in the two formats that spear imports, for tests: standard library only.

  make_tiny_model.py FOLDER [--families llama,qwen3] [--seed 1] [--layers 2]

For each family: FOLDER/FAMILY/ (config.json, safetensors, tokenizer.json, ...) and FOLDER/FAMILY.gguf hold the same
model, bit for bit: every value is exact in F32, F16 and BF16. The same seed gives the same bytes everywhere.
"""
import argparse
import json
import math
import pathlib
import random
import struct

MERGES = """Ġ t|h e|i n|r e|a n|Ġ a|o n|Ġt he|e r|n d|i t|e s|o r|Ġ s|Ġ w|e n|a t|o u|i s|in g|Ġ o|Ġ b|a l|Ġ c|a r|e d|Ġo f|l e|
Ġ f|Ġa nd|Ġ in|o m|Ġ h|i c|Ġ m|Ġ p|Ġ d|a s|i on|en t|Ġt o|r o|v e|l l|s t|Ġ is|a c|Ġ l|Ġ n|l y|Ġ he|u r|Ġ re|e t|c h|Ġ g|
o w|i d|Ġ on|u t|Ġ e""".replace("\n", "").split("|")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>'"
            " + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")

BASE = dict(hidden_size=64, intermediate_size=128, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
            max_position_embeddings=512, rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)
# What sets each family apart: model_type, architecture class, dtype of the safetensors, shards, geometry.
FAMILIES = {
    "llama": ("llama", "LlamaForCausalLM", "BF16", 2, dict(rope_scaling=LLAMA3)),
    "smollm2": ("llama", "LlamaForCausalLM", "BF16", 1, dict(tie_word_embeddings=True)),
    "linear": ("llama", "LlamaForCausalLM", "F32", 1, dict(rope_scaling=dict(type="linear", factor=2.0))),
    "mistral": ("mistral", "MistralForCausalLM", "F16", 1, dict(head_dim=32, sliding_window=256)),
    "qwen2": ("qwen2", "Qwen2ForCausalLM", "BF16", 1, dict(tie_word_embeddings=True, rope_theta=1000000.0)),
    "qwen3": ("qwen3", "Qwen3ForCausalLM", "F32", 3, dict(head_dim=32)),
}


def byte_alphabet():
    """GPT-2's 256 visible characters, by byte."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in visible]
    return [chr(b) if b in visible else chr(256 + hidden.index(b)) for b in range(256)]


def vocabulary():
    return SPECIAL + sorted(byte_alphabet()) + [merge.replace(" ", "") for merge in MERGES]


def config_of(family, layers):
    model_type, architecture, dtype, shards, own = FAMILIES[family]
    config = {"model_type": model_type, "architectures": [architecture], "_name_or_path": f"tiny {family}",
              "hidden_act": "silu", "num_hidden_layers": layers, "vocab_size": len(vocabulary()),
              "bos_token_id": 0, "eos_token_id": 0, **BASE, **own}
    return config, dtype, shards


class Weights:
    """Tensors by Hugging Face's names: (shape, values). All values are small multiples of a power of two."""

    def __init__(self, config, seed):
        self.random = random.Random(seed)
        self.tensors = {}
        hidden, inner = config["hidden_size"], config["intermediate_size"]
        q = config["num_attention_heads"] * config["head_dim"]
        kv = config["num_key_value_heads"] * config["head_dim"]
        self.matrix("model.embed_tokens.weight", config["vocab_size"], hidden)
        for layer in range(config["num_hidden_layers"]):
            p = f"model.layers.{layer}."
            self.norm(p + "input_layernorm.weight", hidden)
            for name, n, k in (("self_attn.q_proj", q, hidden), ("self_attn.k_proj", kv, hidden),
                               ("self_attn.v_proj", kv, hidden), ("self_attn.o_proj", hidden, q),
                               ("mlp.gate_proj", inner, hidden), ("mlp.up_proj", inner, hidden),
                               ("mlp.down_proj", hidden, inner)):
                self.matrix(p + name + ".weight", n, k)
                if config["model_type"] == "qwen2" and name[-6:] in ("q_proj", "k_proj", "v_proj"):
                    self.norm(p + name + ".bias", n, middle=0)
            if config["model_type"] == "qwen3":
                self.norm(p + "self_attn.q_norm.weight", config["head_dim"])
                self.norm(p + "self_attn.k_norm.weight", config["head_dim"])
            self.norm(p + "post_attention_layernorm.weight", hidden)
        self.norm("model.norm.weight", hidden)
        if not config["tie_word_embeddings"]:
            self.matrix("lm_head.weight", config["vocab_size"], hidden)

    def matrix(self, name, n, k):
        scale = 2.0 ** round(math.log2(math.sqrt(3.0 / k) / 127))  # deviation near 1 / sqrt(k)
        draw = self.random.randint
        self.tensors[name] = ([n, k], [draw(-127, 127) * scale for _ in range(n * k)])

    def norm(self, name, n, middle=1):
        self.tensors[name] = ([n], [middle + self.random.randint(-16, 16) / 64 for _ in range(n)])


def to_bytes(values, dtype):
    if dtype == "F32":
        return struct.pack(f"<{len(values)}f", *values)
    if dtype == "F16":
        return struct.pack(f"<{len(values)}e", *values)
    whole = struct.pack(f"<{len(values)}f", *values)
    return b"".join(whole[i + 2:i + 4] for i in range(0, len(whole), 4))


def write_safetensors(path, tensors, dtype):
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, (shape, values) in tensors.items():
        packed = to_bytes(values, dtype)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(packed)]}
        data += packed
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def write_hf(folder, config, tensors, dtype, shards):
    folder.mkdir(parents=True, exist_ok=True)

    def write(name, value):
        (folder / name).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write("config.json", config)
    write("generation_config.json", {"bos_token_id": 0, "eos_token_id": [0, 2]})
    write("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": SPECIAL[0],
                                    "eos_token": SPECIAL[0], "chat_template": TEMPLATE})
    write("tokenizer.json", tokenizer_json())
    if shards == 1:
        write_safetensors(folder / "model.safetensors", tensors, dtype)
        return
    names, places = list(tensors), {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = {name: tensors[name] for name in names[shard::shards]}
        write_safetensors(folder / file, part, dtype)
        places.update({name: file for name in part})
    write("model.safetensors.index.json", {"metadata": {}, "weight_map": places})


def tokenizer_json():
    added = [{"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": True} for i, text in enumerate(SPECIAL)]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
            "pre_tokenizer": byte_level, "post_processor": byte_level, "decoder": byte_level,
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                      "vocab": {piece: i for i, piece in enumerate(vocabulary())}, "merges": MERGES}}


class Gguf:
    """A writer of GGUF version 3 with the value types that models need."""

    def __init__(self):
        self.entries, self.tensors = [], []

    @staticmethod
    def text(value):
        value = value.encode("utf-8")
        return struct.pack("<Q", len(value)) + value

    def add(self, key, kind, payload):
        self.entries.append(self.text(key) + struct.pack("<I", kind) + payload)

    def add_u32(self, key, value):
        self.add(key, 4, struct.pack("<I", value))

    def add_f32(self, key, value):
        self.add(key, 6, struct.pack("<f", value))

    def add_text(self, key, value):
        self.add(key, 8, self.text(value))

    def add_texts(self, key, values):
        self.add(key, 9, struct.pack("<IQ", 8, len(values)) + b"".join(map(self.text, values)))

    def add_i32s(self, key, values):
        self.add(key, 9, struct.pack(f"<IQ{len(values)}i", 5, len(values), *values))

    def write(self, path):
        head = struct.pack("<4sIQQ", b"GGUF", 3, len(self.tensors), len(self.entries)) + b"".join(self.entries)
        data = b""
        for name, shape, values, dtype in self.tensors:
            data += b"\0" * (-len(data) % 32)
            kind = {"F32": 0, "F16": 1, "BF16": 30}[dtype]
            head += self.text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], kind, len(data))
            data += to_bytes(values, dtype)
        path.write_bytes(head + b"\0" * (-len(head) % 32) + data)


GGUF_NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
              "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
              "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
              "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
OUTER = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
         "lm_head.weight": "output.weight"}


def gguf_name(name):
    if name in OUTER:
        return OUTER[name]
    _, _, layer, *middle, suffix = name.split(".")
    return f"blk.{layer}.{GGUF_NAMES['.'.join(middle)]}.{suffix}"


def interleave(values, heads, columns):
    """The order in which llama.cpp's converter stores the rows of q and k of llama models: pair after pair."""
    rows = [values[i:i + columns] for i in range(0, len(values), columns)]
    size = len(rows) // heads
    out = []
    for head in range(heads):
        for i in range(size // 2):
            out += rows[head * size + i] + rows[head * size + size // 2 + i]
    return out


def llama3_factors(config):
    scaling, out = config["rope_scaling"], []
    original = scaling["original_max_position_embeddings"]
    low, high = original / scaling["low_freq_factor"], original / scaling["high_freq_factor"]
    for i in range(0, config["head_dim"], 2):
        wavelength = 2 * math.pi * config["rope_theta"] ** (i / config["head_dim"])
        if wavelength < high:
            out.append(1.0)
        elif wavelength > low:
            out.append(scaling["factor"])
        else:
            smooth = (original / wavelength - scaling["low_freq_factor"]) / (
                scaling["high_freq_factor"] - scaling["low_freq_factor"])
            out.append(1 / ((1 - smooth) / scaling["factor"] + smooth))
    return out


def write_gguf(path, config, tensors):
    arch = "llama" if config["model_type"] == "mistral" else config["model_type"]
    file = Gguf()
    file.add_text("general.architecture", arch)
    file.add_text("general.name", config["_name_or_path"])
    file.add_text("general.license", "cc0-1.0")
    for key, name in (("block_count", "num_hidden_layers"), ("embedding_length", "hidden_size"),
                      ("feed_forward_length", "intermediate_size"), ("context_length", "max_position_embeddings"),
                      ("attention.head_count", "num_attention_heads"), ("attention.key_length", "head_dim"),
                      ("attention.value_length", "head_dim"), ("rope.dimension_count", "head_dim"),
                      ("attention.head_count_kv", "num_key_value_heads"), ("vocab_size", "vocab_size")):
        file.add_u32(f"{arch}.{key}", config[name])
    file.add_f32(f"{arch}.attention.layer_norm_rms_epsilon", config["rms_norm_eps"])
    file.add_f32(f"{arch}.rope.freq_base", config["rope_theta"])
    scaling = config.get("rope_scaling", {})
    if scaling.get("type") == "linear":
        file.add_text(f"{arch}.rope.scaling.type", "linear")
        file.add_f32(f"{arch}.rope.scaling.factor", scaling["factor"])
    if scaling.get("rope_type") == "llama3":
        factors = llama3_factors(config)
        file.tensors.append(("rope_freqs.weight", [len(factors)], factors, "F32"))
    add_gguf_tokenizer(file)
    for name, (shape, values) in tensors.items():
        heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(name.split(".")[-2])
        if arch == "llama" and heads:
            values = interleave(values, config[heads], shape[1])
        file.tensors.append((gguf_name(name), shape, values, "F32" if len(shape) == 1 else "F16"))
    file.write(path)


def add_gguf_tokenizer(file):
    words = vocabulary()
    file.add_text("tokenizer.ggml.model", "gpt2")
    file.add_text("tokenizer.ggml.pre", "gpt-2")
    file.add_texts("tokenizer.ggml.tokens", words)
    file.add_i32s("tokenizer.ggml.token_type", [3 if word in SPECIAL else 1 for word in words])
    file.add_texts("tokenizer.ggml.merges", MERGES)
    file.add_u32("tokenizer.ggml.bos_token_id", 0)
    file.add_u32("tokenizer.ggml.eos_token_id", 0)
    file.add_u32("tokenizer.ggml.eot_token_id", 2)
    file.add_text("tokenizer.chat_template", TEMPLATE)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--layers", type=int, default=2)
    options = parser.parse_args()
    for family in options.families.split(","):
        config, dtype, shards = config_of(family, options.layers)
        tensors = Weights(config, options.seed).tensors
        write_hf(options.folder / family, config, tensors, dtype, shards)
        write_gguf(options.folder / f"{family}.gguf", config, tensors)


if __name__ == "__main__":
    main()
