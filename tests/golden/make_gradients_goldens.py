#!/usr/bin/env python3
"""Writes tests/golden/gradients/*.bin: tiny quantized students and the gradients PyTorch's autograd gives them, in FP64.

The model is written here from its definition, sharing nothing with the program: Llama-family decoder with grouped-query
attention, biases on q, k and v, per-head norms of q and k, a rotated residual stream, per-channel or grouped codes, gated
compensators, and the mean KL to given teacher hidden states over all positions.

Each file is a list of named arrays: uint32 length of the name, the name, uint32 type (0 f64, 1 u8, 2 i32, 3 f32),
uint32 count, the values. `value.NAME` and `gradient.NAME` belong to the parameter NAME of the student.
Usage: apt-get install python3-torch python3-numpy; python3 tests/golden/make_gradients_goldens.py
"""
import math
import pathlib
import struct

import numpy as np
import torch

torch.set_default_dtype(torch.float64)
HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 12, 20, 2, 4, 2, 4, 30
SEQUENCES, LENGTH, EPS, THETA = 2, 5, 1e-5, 10000.0
P, H = 3, 4  # the rotation's factors of HIDDEN
SHAPES = {"self_attn.q_proj": (HEADS * HEAD_DIM, HIDDEN), "self_attn.k_proj": (KV_HEADS * HEAD_DIM, HIDDEN),
          "self_attn.v_proj": (KV_HEADS * HEAD_DIM, HIDDEN), "self_attn.o_proj": (HIDDEN, HEADS * HEAD_DIM),
          "mlp.gate_proj": (INNER, HIDDEN), "mlp.up_proj": (INNER, HIDDEN), "mlp.down_proj": (HIDDEN, INNER)}
TYPES = {np.dtype(np.float64): 0, np.dtype(np.uint8): 1, np.dtype(np.int32): 2, np.dtype(np.float32): 3}


class Case:
    def __init__(self, seed: int, group: int, rank: int, gate: int, temperature: float):
        self.rng = np.random.default_rng(seed)
        self.group, self.rank, self.gate, self.temperature = group, rank, gate, temperature
        self.out: dict[str, np.ndarray] = {}
        self.values: dict[str, torch.Tensor] = {}
        self.frozen: dict[str, torch.Tensor] = {}

    def normal(self, *shape: int, scale: float = 1.0) -> np.ndarray:
        return self.rng.standard_normal(shape) * scale

    def trainable(self, name: str, value: np.ndarray) -> None:
        self.values[name] = torch.tensor(value, requires_grad=True)

    def keep(self, name: str, value: np.ndarray) -> None:
        self.out[name] = value

    def build(self) -> None:
        self.keep("tokens", self.rng.integers(0, VOCAB, SEQUENCES * LENGTH).astype(np.int32))
        self.keep("teacher", self.normal(SEQUENCES * LENGTH, HIDDEN))
        self.keep("teacher_head", self.normal(VOCAB, HIDDEN, scale=0.8))
        self.keep("embedding.codes", self.rng.integers(0, 256, (VOCAB, HIDDEN)).astype(np.uint8))
        self.keep("embedding.scales", (0.01 + 0.01 * self.rng.random(VOCAB)).astype(np.float16).astype(np.float32))
        self.keep("embedding.zeros", (120 + 16 * self.rng.random(VOCAB)).astype(np.float16).astype(np.float32))
        orthogonal, _ = np.linalg.qr(self.normal(P, P))
        self.keep("rotation.factor", orthogonal.astype(np.float32))
        for side in ("in", "out"):
            self.keep(f"rotation.signs_{side}", (self.rng.integers(0, 2, HIDDEN) * 2 - 1).astype(np.float32))
        for layer in range(LAYERS):
            prefix = f"layers.{layer}"
            for norm, width in (("input_norm", HIDDEN), ("post_attention_norm", HIDDEN), ("q_norm", HEAD_DIM),
                                ("k_norm", HEAD_DIM)):
                self.trainable(f"{prefix}.{norm}", 1 + self.normal(1, width, scale=0.2))
            for module, (n, k) in SHAPES.items():
                self.build_linear(f"{prefix}.{module}", n, k)
        self.trainable("final_norm", 1 + self.normal(1, HIDDEN, scale=0.2))

    def build_linear(self, name: str, n: int, k: int) -> None:
        groups = k // self.group if self.group else 1
        self.keep(f"{name}.codes", self.rng.integers(0, 16, (n, k)).astype(np.uint8))
        scales = (0.03 + 0.05 * self.rng.random((n, groups))).astype(np.float16).astype(np.float32)
        self.keep(f"{name}.scales", scales)
        self.trainable(f"{name}.scale", 1 + self.normal(n, groups, scale=0.1))
        self.trainable(f"{name}.zero", 7.5 + self.normal(n, groups))
        self.trainable(f"{name}.bias", self.normal(1, n, scale=0.1))
        if self.rank == 0:
            return
        self.trainable(f"{name}.factor_a", self.normal(self.rank, k, scale=0.5))
        self.trainable(f"{name}.factor_b", self.normal(self.rank, n, scale=0.5))
        if self.gate == 0:
            return
        self.trainable(f"{name}.gate_w1", self.normal(self.gate, self.rank, scale=0.7))
        self.trainable(f"{name}.gate_b1", self.normal(1, self.gate, scale=0.3))
        self.trainable(f"{name}.gate_w2", self.normal(self.rank, self.gate, scale=0.5))
        self.trainable(f"{name}.gate_b2", self.normal(1, self.rank, scale=0.3))

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        codes = torch.tensor(self.out[f"{name}.codes"].astype(np.float64))
        n, k = codes.shape
        groups = k // self.group if self.group else 1
        scale = torch.tensor(self.out[f"{name}.scales"].astype(np.float64)) * self.values[f"{name}.scale"]
        weight = (codes.view(n, groups, -1) - self.values[f"{name}.zero"].unsqueeze(-1)) * scale.unsqueeze(-1)
        y = x @ weight.reshape(n, k).T + self.values[f"{name}.bias"]
        if self.rank:
            z = x @ self.values[f"{name}.factor_a"].T
            if self.gate:
                h = torch.relu(z @ self.values[f"{name}.gate_w1"].T + self.values[f"{name}.gate_b1"])
                z = z * (1 + torch.tanh(h @ self.values[f"{name}.gate_w2"].T + self.values[f"{name}.gate_b2"]))
            y = y + z @ self.values[f"{name}.factor_b"]
        return y

    def rotation(self) -> torch.Tensor:
        hadamard = np.ones((1, 1))
        while len(hadamard) < H:
            hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
        core = np.kron(self.out["rotation.factor"].astype(np.float64), hadamard / math.sqrt(H))
        full = self.out["rotation.signs_in"][:, None].astype(np.float64) * core * self.out["rotation.signs_out"]
        return torch.tensor(full)

    def forward(self) -> torch.Tensor:
        table = ((self.out["embedding.codes"].astype(np.float32) - self.out["embedding.zeros"][:, None])
                 * self.out["embedding.scales"][:, None]).astype(np.float64)
        head = torch.tensor(table)
        q_matrix = self.rotation()
        x = head[torch.tensor(self.out["tokens"].astype(np.int64)).view(SEQUENCES, LENGTH)] @ q_matrix
        for layer in range(LAYERS):
            prefix = f"layers.{layer}"
            a = rms(x, self.values[f"{prefix}.input_norm"])
            q = self.linear(f"{prefix}.self_attn.q_proj", a).view(SEQUENCES, LENGTH, HEADS, HEAD_DIM)
            k = self.linear(f"{prefix}.self_attn.k_proj", a).view(SEQUENCES, LENGTH, KV_HEADS, HEAD_DIM)
            v = self.linear(f"{prefix}.self_attn.v_proj", a).view(SEQUENCES, LENGTH, KV_HEADS, HEAD_DIM)
            q = rope(rms(q, self.values[f"{prefix}.q_norm"].view(-1)))
            k = rope(rms(k, self.values[f"{prefix}.k_norm"].view(-1)))
            k, v = (t.repeat_interleave(HEADS // KV_HEADS, 2) for t in (k, v))
            scores = torch.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(HEAD_DIM)
            mask = torch.ones(LENGTH, LENGTH).triu(1).bool()
            weights = scores.masked_fill(mask, -math.inf).softmax(-1)
            y = torch.einsum("bhij,bjhd->bihd", weights, v).reshape(SEQUENCES, LENGTH, -1)
            x = x + self.linear(f"{prefix}.self_attn.o_proj", y)
            m = rms(x, self.values[f"{prefix}.post_attention_norm"])
            gate = self.linear(f"{prefix}.mlp.gate_proj", m)
            up = self.linear(f"{prefix}.mlp.up_proj", m)
            x = x + self.linear(f"{prefix}.mlp.down_proj", torch.nn.functional.silu(gate) * up)
        hidden = rms(x @ q_matrix.T, self.values["final_norm"])
        student = (hidden @ head.T).view(-1, VOCAB) / self.temperature
        teacher = torch.tensor(self.out["teacher"]) @ torch.tensor(self.out["teacher_head"]).T / self.temperature
        log_p, log_q = teacher.log_softmax(-1), student.log_softmax(-1)
        return (log_p.exp() * (log_p - log_q)).sum(-1).mean()

    def write(self, path: pathlib.Path) -> None:
        self.build()
        kl = self.forward()
        (kl * self.temperature**2).backward()
        self.keep("kl", np.array([kl.item()]))
        self.keep("shape", np.array([self.group, self.rank, self.gate], dtype=np.int32))
        self.keep("temperature", np.array([self.temperature]))
        for name, value in self.values.items():
            self.keep("value." + name, value.detach().numpy())
            self.keep("gradient." + name, value.grad.numpy())
        with path.open("wb") as file:
            for name, array in self.out.items():
                file.write(struct.pack("<I", len(name)) + name.encode())
                file.write(struct.pack("<II", TYPES[array.dtype], array.size) + np.ascontiguousarray(array).tobytes())


def rms(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * weight


def rope(x: torch.Tensor) -> torch.Tensor:  # [batch, length, heads, head_dim]
    half = HEAD_DIM // 2
    frequency = THETA ** (-torch.arange(half) * 2.0 / HEAD_DIM)
    angle = torch.arange(LENGTH).double()[:, None] * frequency
    cos, sin = (torch.cat([f(angle)] * 2, -1)[None, :, None, :] for f in (torch.cos, torch.sin))
    turned = torch.cat([-x[..., half:], x[..., :half]], -1)
    return x * cos + turned * sin


def main() -> None:
    folder = pathlib.Path(__file__).parent / "gradients"
    folder.mkdir(exist_ok=True)
    Case(seed=1, group=0, rank=3, gate=8, temperature=1.0).write(folder / "channel.bin")
    Case(seed=2, group=4, rank=2, gate=0, temperature=2.0).write(folder / "group.bin")


if __name__ == "__main__":
    main()
