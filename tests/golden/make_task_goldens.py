#!/usr/bin/env python3
"""Log likelihoods and accuracies of the tasks, for tests/eval/task_golden_test.cpp, independent of spear.

  make_task_goldens.py FOLDER      FOLDER as tools/make_tiny_model.py writes it

Questions of our own in the formats of PIQA, ARC-Easy and WinoGrande (tests/golden/tasks/tasks), a tiny model in
numpy's FP64, token ids by the package `tokenizers`. Scored as lm-evaluation-harness documents it: blanks that end a
context belong to the continuation; ids of context + continuation behind those of the context alone are scored;
acc_norm divides by the length of the answer; WinoGrande compares one continuation behind two contexts; the standard
error is that of a mean. Needs numpy and tokenizers.
"""
import json
import math
import pathlib
import struct
import sys

import numpy as np
import tokenizers

HERE = pathlib.Path(__file__).parent
QUESTIONS = HERE / "tasks" / "tasks"


def load_tensors(path):
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + length])
    out = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        assert entry["dtype"] == "BF16"
        begin, end = entry["data_offsets"]
        halves = np.frombuffer(data[8 + length + begin:8 + length + end], dtype="<u2").astype(np.uint32)
        out[name] = (halves << 16).view(np.float32).astype(np.float64).reshape(entry["shape"])
    return out


class Llama:
    def __init__(self, folder):
        self.config = json.loads((folder / "config.json").read_text())
        self.tensors = load_tensors(folder / "model.safetensors")

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.config["rms_norm_eps"]) * self.tensors[name]

    def heads(self, x, name, count):
        return (x @ self.tensors[name].T).reshape(len(x), count, self.config["head_dim"]).transpose(1, 0, 2)

    def rope(self, x):
        half = x.shape[-1] // 2
        angle = np.arange(x.shape[1])[:, None] * self.config["rope_theta"] ** (-np.arange(half) / half)
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], -1)

    def log_probabilities(self, ids):
        c, t = self.config, self.tensors
        x = t["model.embed_tokens.weight"][ids]
        mask = np.triu(np.full((len(ids), len(ids)), -np.inf), 1)
        for layer in range(c["num_hidden_layers"]):
            p = f"model.layers.{layer}."
            h = self.norm(x, p + "input_layernorm.weight")
            q = self.rope(self.heads(h, p + "self_attn.q_proj.weight", c["num_attention_heads"]))
            k = self.rope(self.heads(h, p + "self_attn.k_proj.weight", c["num_key_value_heads"]))
            v = self.heads(h, p + "self_attn.v_proj.weight", c["num_key_value_heads"])
            group = len(q) // len(k)
            k, v = k.repeat(group, 0), v.repeat(group, 0)
            score = q @ k.transpose(0, 2, 1) / math.sqrt(c["head_dim"]) + mask
            weight = np.exp(score - score.max(-1, keepdims=True))
            y = (weight / weight.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(len(ids), -1)
            x = x + y @ t[p + "self_attn.o_proj.weight"].T
            h = self.norm(x, p + "post_attention_layernorm.weight")
            gate = h @ t[p + "mlp.gate_proj.weight"].T
            x = x + (gate / (1 + np.exp(-gate)) * (h @ t[p + "mlp.up_proj.weight"].T)) @ t[p + "mlp.down_proj.weight"].T
        logits = self.norm(x, "model.norm.weight") @ t["model.embed_tokens.weight"].T
        return logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True)) - logits.max(
            -1, keepdims=True)


def lines(name):
    return [json.loads(line) for line in (QUESTIONS / name).read_text().splitlines()]


def piqa():
    labels = (QUESTIONS / "piqa/valid-labels.lst").read_text().split()
    for doc, label in zip(lines("piqa/valid.jsonl"), labels):
        context = f"Question: {doc['goal']}\nAnswer:"
        yield [(context, " " + doc[s], len(doc[s])) for s in ("sol1", "sol2")], int(label)


def arc_easy():
    for doc in lines("arc_easy/ARC-Easy-Test.jsonl"):
        context = f"Question: {doc['question']['stem']}\nAnswer:"
        choices = doc["question"]["choices"]
        yield ([(context, " " + c["text"], len(c["text"])) for c in choices],
               [c["label"] for c in choices].index(doc["answerKey"]))


def winogrande():
    for doc in lines("winogrande/dev.jsonl"):
        gap = doc["sentence"].index("_")
        rest = doc["sentence"][gap + 1:].strip()
        yield ([(doc["sentence"][:gap] + doc[o], " " + rest, len(rest)) for o in ("option1", "option2")],
               int(doc["answer"]) - 1)


def log_likelihood(model, tokenizer, context, continuation):
    blanks = len(context) - len(context.rstrip())
    if blanks:
        context, continuation = context[:-blanks], context[-blanks:] + continuation
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
    whole, begin = encode(context + continuation), len(encode(context))
    rows = model.log_probabilities(whole)
    return sum(rows[i - 1, whole[i]] for i in range(begin, len(whole)))


def score(model, tokenizer, questions):
    scores, right, right_norm = [], [], []
    for choices, answer in questions:
        row = [log_likelihood(model, tokenizer, context, continuation) for context, continuation, _ in choices]
        scores.append([round(value, 6) for value in row])
        right.append(int(np.argmax(row)) == answer)
        right_norm.append(int(np.argmax([value / length for value, (_, _, length) in zip(row, choices)])) == answer)
    n = len(right)
    mean, norm = sum(right) / n, sum(right_norm) / n
    return {"log_likelihoods": scores, "accuracy": mean, "accuracy_norm": norm,
            "stderr": math.sqrt(mean * (1 - mean) / (n - 1)), "n": n}


def main():
    folder = pathlib.Path(sys.argv[1]) / "smollm2"
    model, tokenizer = Llama(folder), tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    out = {"made_by": f"numpy {np.__version__} in FP64, tokenizers {tokenizers.__version__}"}
    for task in (piqa, arc_easy, winogrande):
        out[task.__name__] = score(model, tokenizer, task())
    rows = ",\n".join(f" {json.dumps(name)}: {json.dumps(value)}" for name, value in out.items())
    (HERE / "tasks/scores.json").write_text("{\n" + rows + "\n}\n")


if __name__ == "__main__":
    main()
