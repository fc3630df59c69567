"""Every test that docs/hostile-inputs.md names is there."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def main():
    sources = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").rglob("*_test.*")))
    there = {".".join(match) for match in re.findall(r"TEST(?:_F|_P)?\((\w+), (\w+)\)", sources)}
    suite = ""
    for line in sources.splitlines():
        if match := re.match(r"class (\w+)\(\w*Test\w*\):", line):
            suite = match[1]
        if match := re.match(r"    def (test_\w+)\(self\)", line):
            there.add(f"{suite}.{match[1]}")
    text = (ROOT / "docs/hostile-inputs.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+\.\w+)`", text))
    missing = sorted(named - there)
    print(f"{len(named)} tests are named, {len(missing)} of them do not exist: {missing}")
    return 1 if missing or len(named) < 30 else 0


if __name__ == "__main__":
    sys.exit(main())
