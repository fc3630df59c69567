"""Runs the program on tiny models in a folder of its own. Standard library only."""
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("SPEAR_PROGRAM", str(ROOT / "build/release/spear"))
# A compression of a tiny model in a second or two.
SMALL = ["--samples", "8", "--real-sequences", "8", "--certificate", "none", "--threads", "2"]
TEXT = "The cat sat on the mat and looked at the hat of the man who read the tale. " * 60


class ProgramTest(unittest.TestCase):
    """Each test has a folder with `llama/` and `llama.gguf`, a cache of its own, and no texts but its own."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="spear-e2e-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        subprocess.run([sys.executable, ROOT / "tools/make_tiny_model.py", self.folder, "--families", "llama"],
                       check=True, stdout=subprocess.DEVNULL)
        self.text = self.folder / "text.txt"
        self.text.write_text(TEXT, encoding="utf-8")

    def run_spear(self, *arguments, **options):
        environment = dict(os.environ, SPEAR_CACHE=str(self.folder / "cache"), SPEAR_DATA=str(self.folder),
                           NO_COLOR="1", HOME=str(self.folder))
        return subprocess.run([PROGRAM, *map(str, arguments)], cwd=self.folder, env=environment, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=240, **options)

    def succeed(self, *arguments, **options):
        result = self.run_spear(*arguments, **options)
        self.assertEqual(result.returncode, 0, f"{arguments}: {result.stdout}{result.stderr}")
        return result.stdout

    def refused(self, code, words, *arguments, **options):
        """The program ends with `code` and one sentence of error that has every one of `words`."""
        result = self.run_spear(*arguments, "--quiet", **options)
        errors = [line for line in result.stderr.splitlines() if line]
        shown = f"{arguments}: exit {result.returncode}\n{result.stdout}{result.stderr}"
        self.assertEqual(result.returncode, code, shown)
        self.assertEqual(len(errors), 1, shown)
        for word in words:
            self.assertIn(word, errors[0], shown)
        return errors[0]


def read_safetensors(path):
    """(header, {name: bytes}); the header without __metadata__."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    body = data[8 + length:]
    return header, {name: body[slice(*entry["data_offsets"])] for name, entry in header.items()}


def write_safetensors(path, header, tensors):
    offset, entries, body = 0, {}, b""
    for name, entry in header.items():
        raw = tensors[name]
        entries[name] = dict(entry, data_offsets=[offset, offset + len(raw)])
        offset += len(raw)
        body += raw
    text = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def edit_json(path, change):
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")
