#!/usr/bin/env python3
"""Writes tests/golden/ggml/*.bin: packed blocks of each GGUF tensor type and what the Python package `gguf`
(an implementation that shares nothing with ours) makes of them.

Each file: uint32 type, rows, columns; the packed rows; float32 [rows, columns].
Usage: pip install gguf numpy; python3 tests/golden/make_ggml_goldens.py
"""
import pathlib
import struct

import gguf
import numpy as np

ROWS, COLUMNS = 2, 256
# Where the float16 scales of a block stand, so that random bytes do not make infinities of them.
SCALES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
          "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}


def packed_rows(name: str, rng: np.random.Generator) -> np.ndarray:
    kind = gguf.GGMLQuantizationType[name]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    values = rng.standard_normal((ROWS, COLUMNS)).astype(np.float32)
    if name == "F32":
        return values.view(np.uint8)
    if name == "F16":
        return values.astype(np.float16).view(np.uint8)
    if name == "BF16":
        return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    blocks = rng.integers(0, 256, (ROWS * COLUMNS // block, size), dtype=np.uint8)
    for at in SCALES[name]:
        scale = (rng.standard_normal(len(blocks)) * 0.01).astype(np.float16)
        blocks[:, at:at + 2] = scale.view(np.uint8).reshape(-1, 2)
    return blocks.reshape(ROWS, -1)


def main() -> None:
    folder = pathlib.Path(__file__).parent / "ggml"
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(20240607)
    for name in ["F32", "F16", "BF16", *SCALES]:
        kind = gguf.GGMLQuantizationType[name]
        packed = packed_rows(name, rng)
        floats = gguf.quants.dequantize(packed, kind).astype(np.float32).reshape(ROWS, COLUMNS)
        header = struct.pack("<III", int(kind), ROWS, COLUMNS)
        (folder / f"{name.lower()}.bin").write_bytes(header + packed.tobytes() + floats.tobytes())


if __name__ == "__main__":
    main()
