#!/usr/bin/env python3
"""Prints the table in src/spear/tokenizer/unicode_delta.cpp: what Unicode 15, 15.1 and 16 added to each category.

Run with a Python whose unicodedata is version 14 (3.11) and with the `tokenizers` package (Unicode 16):
the difference of the two is what a PCRE2 built on Unicode 14 does not know yet.
"""
import sys
import unicodedata

from tokenizers import Regex, pre_tokenizers

CATEGORIES = ["L", "Lu", "Ll", "Lt", "Lm", "Lo", "M", "Mn", "Mc", "Me", "N", "Nd", "Nl", "No", "P", "S"]


def members(category):
    """Code points that the package's regular expressions put into the category."""
    split = pre_tokenizers.Split(Regex("\\p{%s}" % category), "removed")
    found = set()
    for base in range(0, 0x110000, 0x1000):
        points = [c for c in range(base, base + 0x1000) if not 0xD800 <= c < 0xE000]
        if not points:
            continue
        kept = set()
        for _, (start, end) in split.pre_tokenize_str("".join(map(chr, points))):
            kept.update(points[start:end])
        found.update(set(points) - kept)
    return found


def ranges(points):
    runs = []
    for point in sorted(points):
        if runs and runs[-1][1] == point - 1:
            runs[-1][1] = point
        else:
            runs.append([point, point])
    return runs


def main():
    if unicodedata.unidata_version != "14.0.0":
        sys.exit("needs a Python with Unicode 14 tables (3.11), found " + unicodedata.unidata_version)
    for category in CATEGORIES:
        old = {c for c in range(0x110000) if unicodedata.category(chr(c)).startswith(category)}
        new = members(category) - old - set(range(0xD800, 0xE000))
        if not new:
            continue
        text = "".join("\\x{%x}" % a + ("" if a == b else "-\\x{%x}" % b) for a, b in ranges(new))
        print('    {"%s",' % category)
        for i in range(0, len(text), 84):
            print('     R"(%s)"' % text[i:i + 84] + ("}," if i + 84 >= len(text) else ""))


main()
