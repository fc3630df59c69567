#!/usr/bin/env python3
"""Logits of an independent implementation (transformers on torch), for tests/model/golden_logits_test.cpp.

  make_logits_goldens.py tiny FOLDER          FOLDER as tools/make_tiny_model.py writes it (transformers >= 4.51)
  make_logits_goldens.py gguf FILE.gguf NAME  a Llama model; its tensors are dequantized by the package gguf

Writes tests/golden/logits/NAME.json: token ids, and per chosen position log-sum-exp and the largest logits.
"""
import json
import pathlib
import sys

import numpy as np
import torch
import transformers

OUT = pathlib.Path(__file__).parent / "logits"
POSITIONS = [0, 1, 2, 9, 30, 63]
LARGEST = 24


def record(name, model, vocab):
    ids = [(7 * i * i + 13 * i + 5) % vocab for i in range(64)]
    with torch.no_grad():
        logits = model.float()(torch.tensor([ids])).logits[0].double()
    rows = []
    for p in POSITIONS:
        top = torch.topk(logits[p], LARGEST)
        rows.append({"position": p, "log_sum_exp": round(torch.logsumexp(logits[p], 0).item(), 6),
                     "ids": top.indices.tolist(), "logits": [round(v, 6) for v in top.values.tolist()]})
    made_by = f"transformers {transformers.__version__}, torch {torch.__version__}, FP32"
    OUT.mkdir(exist_ok=True)
    (OUT / f"{name}.json").write_text(json.dumps({"made_by": made_by, "ids": ids, "rows": rows}) + "\n")
    print(name, rows[-1]["log_sum_exp"], rows[-1]["ids"][:4])


def tiny(folder):
    for path in sorted(pathlib.Path(folder).iterdir()):
        if not (path / "config.json").exists():
            continue
        model = transformers.AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager")
        record("tiny-" + path.name, model, model.config.vocab_size)


def gguf_llama(file, name):
    import gguf
    reader = gguf.GGUFReader(file)
    field = lambda key: reader.fields["llama." + key].parts[-1][0].item()
    heads, kv_heads, hidden = field("attention.head_count"), field("attention.head_count_kv"), field("embedding_length")
    config = transformers.LlamaConfig(
        hidden_size=hidden, intermediate_size=field("feed_forward_length"), num_hidden_layers=field("block_count"),
        num_attention_heads=heads, num_key_value_heads=kv_heads, rms_norm_eps=field("attention.layer_norm_rms_epsilon"),
        rope_theta=field("rope.freq_base"), vocab_size=len(reader.fields["tokenizer.ggml.tokens"].data),
        tie_word_embeddings=True, attn_implementation="eager")
    names = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
             "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
             "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
    state = {}
    for tensor in reader.tensors:
        value = np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        part = tensor.name.split(".")
        if part[0] == "blk":
            if part[2] in ("attn_q", "attn_k"):  # back from interleaved to half-split RoPE
                n = heads if part[2] == "attn_q" else kv_heads
                value = value.reshape(n, value.shape[0] // n // 2, 2, hidden).swapaxes(1, 2).reshape(value.shape)
            target = f"model.layers.{part[1]}.{names[part[2]]}.weight"
        else:
            target = {"token_embd": "model.embed_tokens.weight", "output_norm": "model.norm.weight"}[part[0]]
        state[target] = torch.from_numpy(np.ascontiguousarray(value))
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model = transformers.LlamaForCausalLM(config)
    model.load_state_dict(state)
    record(name, model.eval(), config.vocab_size)


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "tiny":
        tiny(sys.argv[2])
    elif len(sys.argv) == 4 and sys.argv[1] == "gguf":
        gguf_llama(sys.argv[2], sys.argv[3])
    else:
        sys.exit(__doc__)
