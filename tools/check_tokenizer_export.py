#!/usr/bin/env python3
"""Compares a tokenizer.json that spear exported with ids that spear gave, by the Python package `tokenizers`.

usage: check_tokenizer_export.py EXPORTED.json TEXT IDS     (IDS: one number a line, without begin and end tokens)
"""
import pathlib
import sys

from tokenizers import Tokenizer


def main():
    exported, text, ids = sys.argv[1:4]
    tokenizer = Tokenizer.from_file(exported)
    wanted = [int(line) for line in pathlib.Path(ids).read_text(encoding="ascii").split()]
    found = tokenizer.encode(pathlib.Path(text).read_bytes().decode("utf-8"), add_special_tokens=False).ids
    for place, (a, b) in enumerate(zip(found, wanted)):
        if a != b:
            sys.exit(f"token {place}: `tokenizers` gives {a}, spear {b}")
    if len(found) != len(wanted):
        sys.exit(f"`tokenizers` gives {len(found)} tokens, spear {len(wanted)}")
    print(f"{len(found)} tokens agree")


main()
