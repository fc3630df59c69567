#!/usr/bin/env python3
"""Reads a .spear file as docs/artifact-format.md describes it: standard library and numpy, no code of spear.

  read_artifact.py MODEL.spear                     sections and tensors, as JSON
  read_artifact.py MODEL.spear --section NAME      the bytes of a section, to standard output
  read_artifact.py MODEL.spear --tensor NAME ...   shapes and values of tensors, as JSON

Checksums are verified when the package `xxhash` is installed.
"""
import argparse
import json
import struct
import sys

import numpy as np

try:
    from xxhash import xxh3_64_intdigest as checksum
except ImportError:
    checksum = None

VERSION = 1
WHOLE = {"f32": "<f4", "f16": "<f2", "bf16": "<u2", "i32": "<i4", "i8": "i1", "u8": "u1"}
PACKED = {"u2": 2, "u3": 3, "u4": 4, "i4": 4, "u6": 6}


def expect(condition, sentence):
    if not condition:
        sys.exit(f"read_artifact: {sentence}")


class Artifact:
    def __init__(self, path):
        self.bytes = np.memmap(path, np.uint8, "r")
        head = self.bytes[:64].tobytes()
        expect(len(head) == 64 and head[:8] == b"\x89SPEAR\r\n", f"{path}: not a .spear file")
        version, count, size, table_at, table_sum = struct.unpack_from("<IIQQQ", head, 8)
        expect(version <= VERSION, f"{path}: version {version}, this reader knows {VERSION}")
        expect(size == len(self.bytes), f"{path}: {len(self.bytes)} bytes, the header says {size}")
        self.check("header", head[:56], struct.unpack_from("<Q", head, 56)[0])
        table = self.bytes[table_at:].tobytes()
        expect(len(table) == 128 * count, f"{path}: the table does not end the file")
        self.check("table", table, table_sum)
        self.sections, self.sums = {}, {}
        for i in range(count):
            offset, length, digest = struct.unpack_from("<QQQ", table, 128 * i)
            name = table[128 * i + 32:128 * i + 128].rstrip(b"\0").decode("ascii")
            expect(offset % 64 == 0 and offset + length <= table_at, f"section {name}: misplaced")
            self.sections[name] = self.bytes[offset:offset + length]
            self.sums[name] = digest
        manifest = json.loads(self.section("manifest"))
        self.tensors = {name: (section, dtype, shape, offset)
                        for section, items in manifest["tensors"].items()
                        for name, dtype, shape, offset in items}

    @staticmethod
    def check(what, data, digest):
        expect(checksum is None or checksum(data) == digest, f"{what}: the checksum does not match")

    def section(self, name):
        expect(name in self.sections, f"no section {name}")
        data = self.sections[name].tobytes()
        self.check(f"section {name}", data, self.sums[name])
        return data

    def tensor(self, name):
        expect(name in self.tensors, f"no tensor {name}")
        section, dtype, shape, offset = self.tensors[name]
        bits = PACKED.get(dtype) or 8 * np.dtype(WHOLE[dtype]).itemsize
        rows, row_bytes = int(np.prod(shape[:-1])), (shape[-1] * bits + 7) // 8
        raw = self.sections[section][offset:offset + rows * row_bytes]
        if dtype == "bf16":
            return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
        if dtype in WHOLE:
            return raw.view(WHOLE[dtype]).reshape(shape)
        stream = np.unpackbits(raw.reshape(rows, row_bytes), axis=1, count=shape[-1] * bits, bitorder="little")
        stream = stream.reshape(rows, shape[-1], bits)
        values = (stream << np.arange(bits, dtype=np.uint8)).sum(axis=2, dtype=np.int8)
        return (values - 16 * (values > 7) if dtype == "i4" else values).reshape(shape)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file")
    parser.add_argument("--section")
    parser.add_argument("--tensor", nargs="+")
    options = parser.parse_args()
    artifact = Artifact(options.file)
    if options.section:
        sys.stdout.buffer.write(artifact.section(options.section))
    elif options.tensor:
        print(json.dumps({name: {"shape": artifact.tensor(name).shape, "values": artifact.tensor(name).ravel().tolist()}
                          for name in options.tensor}))
    else:
        print(json.dumps({"sections": {name: len(data) for name, data in artifact.sections.items()},
                          "tensors": {name: [t[1], t[2]] for name, t in artifact.tensors.items()}}, indent=1))


if __name__ == "__main__":
    main()
