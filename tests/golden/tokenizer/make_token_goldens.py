#!/usr/bin/env python3
"""Ids by the Python packages `tokenizers` and `sentencepiece`, for tests/tokenizer/*_golden_test.cpp.

usage: make_token_goldens.py ASSETS DATA     (ASSETS: the folder of tools/fetch_test_assets.py, DATA: the texts)
Writes beside itself: token_goldens.json, and the tiny vocabularies that make the tests independent of ASSETS.
The real vocabularies are those of the GGUF files; each is put behind its family's published pre-tokenizer.
Files and generated texts are compared by the number and the SHA-256 of their ids (little-endian int32).
"""
import hashlib
import json
import pathlib
import struct
import sys

import sentencepiece
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers,
                        processors, trainers)

HERE = pathlib.Path(__file__).parent
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")

TEXTS = [
    "", " ", "  ", "\n", "\t\r\n \n\n", "Hello, world!", " Hello  world ", "don't I'll WE'VE they'D 'S 's",
    "1234567890 3.14 x86_64 ½ ²³ ١٢٣ Ⅷ", "naïve café", "naïve", "Å Å Å", "ﬁ ﬂ ＡＢＣ １２３",
    "日本語のテキスト。", "한국어 한국어", "Привет, мир! Ёлка", "שלום עולם", "مرحبا بالعالم", "สวัสดีชาวโลก", "हिन्दी",
    "🙂 👩‍👩‍👧‍👦 🇨🇭 ✌🏽", "́lone", "à̖̗" * 3, "​‌‍﻿", "a b c　d᠎e\u0085f g",
    "ſ 'ſ Kelvin K 'Kelvin", "<|endoftext|> <|im_start|>x<|im_end|>", "<s>[INST] x [/INST]</s>", "<unk><pad>",
    "<0x0A> <0x41>", "▁▁a▁b ▁", "x" * 300, "ab" * 200, " " * 100, "\n" * 40, "a\0b", "\u007f\u0080ÿ",
    "if (x) {\n\tfor (int i = 0; i < n; ++i)\r\n\t\ty[i] += x[i];\n}\n", "http://example.org/a?b=c&d=%20#e",
    "\U00010348\U0001d11e\U000e0001\U0010ffff퟿￿", "㐀\U00020000\U0002ebf0\U00031350𞤀ꟋᲉ",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "the the THE The", "mixed漢字kana ひらがなABC123абв",
    "<sep>one<sep>two three", "[TOK] a [TOK]b x[TOK]", "wordless word words", "  <pad>  <mask>  .",
]

DATA_FILES = [
    "wikitext2/wiki.test.raw", "wikitext2/wiki.valid.raw", "wikitext2/wiki.train.first1m.raw",
    "web/c4_calib.txt", "web/dclm_web_docs.jsonl", "text/moby_dick.txt", "text/great_expectations.txt",
    "text/federalist_papers.txt", "tasks/arc_easy/ARC-Easy-Test.jsonl", "tasks/piqa/valid.jsonl",
    "tasks/winogrande/dev.jsonl", "prompts/mt_bench_question.jsonl", "prompts/vicuna_bench_question.jsonl",
    "traces/AzureLLMInferenceTrace_conv.csv",
]


# The same three texts are made by tests/tokenizer/hostile_texts.cpp.
def scalars():
    return [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def hostile_texts():
    points = scalars()
    state = 1
    picked = []
    for _ in range(300000):
        state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        picked.append(state >> 33)
    marks = [c for c in points if 0x300 <= c < 0x370 or 0x591 <= c < 0x5C8 or 0x1DC0 <= c < 0x1E00]
    pool = [points[p % len(points)] for p in picked[:64]] + [ord(c) for c in "ab 1'sLL.\n\t\r e"]
    mixed = []
    for p in picked:
        mixed.append(marks[(p >> 4) % len(marks)] if p % 4 == 0 else pool[(p >> 4) % len(pool)])
    return {
        "every character": "".join(map(chr, points)),
        "every character spaced": "".join(chr(c) + " " for c in points),
        "marks and scripts mixed": "".join(map(chr, mixed)),
        "1 MB without a space": "".join(chr(ord("a") + p % 26) for p in picked)[:250000] * 4,
    }


def digest(ids):
    return {"count": len(ids), "sha256": hashlib.sha256(struct.pack("<%di" % len(ids), *ids)).hexdigest()}


def read_gguf_metadata(path):
    with open(path, "rb") as stream:
        def number(form):
            return struct.unpack("<" + form, stream.read(struct.calcsize("<" + form)))[0]

        def value(kind):
            if kind == 8:
                return stream.read(number("Q"))
            if kind == 9:
                inner, count = number("I"), number("Q")
                return [value(inner) for _ in range(count)]
            return number({0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q",
                           12: "d"}[kind])

        assert stream.read(4) == b"GGUF"
        number("I")
        number("Q")
        entries = {}
        for _ in range(number("Q")):
            key = stream.read(number("Q")).decode()
            entries[key] = value(number("I"))
        return entries


def from_gguf(path):
    """A byte-level vocabulary behind its family's published pre-tokenizer."""
    entries = read_gguf_metadata(path)
    tokens = [t.decode() for t in entries["tokenizer.ggml.tokens"]]
    kinds = entries["tokenizer.ggml.token_type"]
    merges = [tuple(m.decode().split(" ", 1)) for m in entries["tokenizer.ggml.merges"]]
    family = entries["tokenizer.ggml.pre"].decode()
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges,
                                     ignore_merges=family == "llama-bpe"))
    if family == "gpt-2":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    elif family == "smollm":
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    else:
        pattern = LLAMA3 if family == "llama-bpe" else QWEN2
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(pattern), "isolated"),
             pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    if family == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False)
                                  for t, kind in zip(tokens, kinds) if kind == 3])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False)
                          for t, kind in zip(tokens, kinds) if kind == 4])
    return tokenizer


def ids_of(tokenizer, text, add_special=False):
    return tokenizer.encode(text, add_special_tokens=add_special).ids


def read_text(path):
    return path.read_bytes().decode("utf-8")


def big_goldens(tokenizer, data):
    return {"texts": [ids_of(tokenizer, text) for text in TEXTS],
            "files": {name: digest(ids_of(tokenizer, read_text(data / name))) for name in DATA_FILES},
            "hostile": {name: digest(ids_of(tokenizer, text)) for name, text in hostile_texts().items()}}


def tiny_byte_level(lines):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
         pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(lines, trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<s>", "</s>", "<pad>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.add_tokens([AddedToken("[TOK]", lstrip=True, rstrip=True, normalized=False),
                          AddedToken("word", single_word=True, normalized=True),
                          AddedToken("é", normalized=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    return tokenizer


def tiny_metaspace(lines):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    tokenizer.train_from_iterator(lines, trainers.UnigramTrainer(
        vocab_size=500, special_tokens=["<unk>", "<s>"], unk_token="<unk>", show_progress=False))
    return tokenizer


def tiny_llama(lines):
    """What Llama 2's tokenizer.json looks like: SentencePiece's BPE told as merges, with byte fallback."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    special = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256)]
    tokenizer.train_from_iterator((w for line in lines for w in line.split(" ")), trainers.BpeTrainer(
        vocab_size=800, special_tokens=special, limit_alphabet=100, show_progress=False))
    described = json.loads(tokenizer.to_str())
    described["added_tokens"] = [t for t in described["added_tokens"] if not t["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(described))


def tiny_sentencepiece(name, lines, **options):
    source = HERE / "lines.tmp"
    source.write_text("\n".join(lines), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(source), model_prefix=str(HERE / name), vocab_size=options.pop("vocab_size", 600),
        max_sentence_length=20000, minloglevel=2, **options)
    source.unlink()
    (HERE / (name + ".vocab")).unlink()
    return sentencepiece.SentencePieceProcessor(model_file=str(HERE / (name + ".model")))


def tiny_goldens(data):
    lines = [line for line in read_text(data / "wikitext2/wiki.valid.raw").split("\n") if line.strip()][:400]
    lines += [text for text in TEXTS if "\0" not in text]
    goldens = {}
    for name, make in {"tiny_byte_level": tiny_byte_level, "tiny_metaspace": tiny_metaspace,
                       "tiny_llama": tiny_llama}.items():
        tokenizer = make(lines)
        (HERE / (name + ".json")).write_text(tokenizer.to_str(), encoding="utf-8")
        goldens[name + ".json"] = {"texts": [ids_of(tokenizer, text) for text in TEXTS],
                                   "with special": [ids_of(tokenizer, text, True) for text in TEXTS]}
    rules = HERE / "rules.tmp"  # ﬁ → fi, full-width ABC → ABC, ideographic space → space, ZWSP → nothing
    rules.write_text("FB01\t66 69\nFF21\t41\nFF22\t42\nFF23\t43\n3000\t20\n200B\t\n65 301\tE9\n", encoding="utf-8")
    for name, options in {
        "tiny_sp_bpe": {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity",
                        "remove_extra_whitespaces": False, "character_coverage": 0.995, "vocab_size": 700},
        "tiny_sp_unigram": {"model_type": "unigram", "normalization_rule_tsv": str(rules),
                            "user_defined_symbols": ["<sep>", "three"], "character_coverage": 0.995},
        "tiny_sp_rules": {"model_type": "bpe", "normalization_rule_tsv": str(rules),
                          "user_defined_symbols": ["<sep>"], "character_coverage": 0.995},
    }.items():
        processor = tiny_sentencepiece(name, lines, **options)
        goldens[name + ".model"] = {"texts": [processor.encode(text) for text in TEXTS]}
    rules.unlink()
    return goldens


def main():
    assets, data = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    big = {name: big_goldens(from_gguf(assets / name), data)
           for name in ["smollm2-135m.gguf", "qwen2.5-coder-0.5b.gguf", "vocab/ggml-vocab-llama-bpe.gguf",
                        "vocab/ggml-vocab-gpt-2.gguf"]}
    goldens = {"texts": TEXTS, "tiny": tiny_goldens(data), "big": big}
    with open(HERE / "token_goldens.json", "w", encoding="utf-8") as out:
        json.dump(goldens, out, ensure_ascii=True, separators=(",", ":"))
        out.write("\n")


main()
