#!/usr/bin/env python3
"""Checks the floors of ARCHITECTURE.md: who may include and link whom, and which folder may see which package.

usage: check_layers.py [ROOT]       prints one line a violation, exits 1 if there is any
       check_layers.py --self-test  checks this program on small trees with known violations
"""
import pathlib
import re
import sys
import tempfile

FLOORS = {
    "base": 0,
    "kernels": 1, "formats": 1, "tokenizer": 1, "scheduler": 1,
    "backend": 2,
    "model": 3,
    "engine": 4,
    "quantize": 5, "eval": 5, "diagnose": 5, "compensate": 5,
    "report": 6, "hub": 6, "serve": 6,
    "cli": 7,
}
# Workshops that may use a neighbour on their own floor.
SIDEWAYS = {
    ("compensate", "diagnose"), ("compensate", "eval"), ("compensate", "quantize"),
    ("diagnose", "eval"), ("diagnose", "quantize"),
    ("eval", "quantize"),
}
# Third-party headers: the path prefixes below src/spear that may include them.
VISIBLE = [
    (r"nlohmann/", ["base/json.h", "base/json_fwd.h"]),
    (r"tl/expected\.hpp", ["base/error.h"]),
    (r"fmt/", [""]),
    (r"xxhash\.h", ["base/hash.cpp"]),
    (r"openssl/", ["base/hash.cpp", "hub/", "serve/http_tls.cpp"]),
    (r"CLI/", ["cli/"]),
    (r"curl/", ["hub/"]),
    (r"boost/", ["serve/http_"]),
    (r"oneapi/|dnnl|omp\.h|cblas\.h|openblas|lapacke?\.h", ["kernels/"]),
    (r"(eigen3/)?Eigen/", ["kernels/", "quantize/"]),
    (r"pcre2\.h|utf8proc\.h", ["tokenizer/"]),
    (r"(cuda|cublas|cooperative_groups|cub/|mma|nv)", ["kernels/gpu/", "backend/gpu/"]),
    (r"(x86|imm|amx|avx|arm_neon|arm_)\w*\.h", ["kernels/"]),
    (r"cpuid\.h|cpu_features\.h", ["base/cpu_features.cpp"]),
]
HEADER_HATES = re.compile(r"fmt/")  # kept out of headers: it costs every file that includes them
SYSTEM = re.compile(
    r"(sys|linux|net|netinet|arpa)/\w+\.h|(unistd|fcntl|sched|signal|poll|dirent|pthread|termios|"
    r"spawn|dlfcn|stdio|stdlib|stddef|stdint|math|string|errno)\.h")
STANDARD = re.compile(r"[a-z_0-9]+")
CODE = {".h", ".cpp", ".inl", ".cu", ".cuh"}
DEVICE = {".cu", ".cuh"}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def may_use(user, used):
    return user == used or FLOORS[used] < FLOORS[user] or (user, used) in SIDEWAYS


def check_own_include(folder, target, source_root):
    parts = target.split("/")
    if len(parts) < 3 or parts[0] != "spear":
        return f'"{target}": write own headers as "spear/<folder>/<file>"'
    if parts[1] not in FLOORS:
        return f'"{target}": unknown folder {parts[1]}'
    if not may_use(folder, parts[1]):
        return f'"{target}": {folder} (floor {FLOORS[folder]}) may not see {parts[1]} (floor {FLOORS[parts[1]]})'
    if not (source_root / target[len("spear/"):]).is_file():
        return f'"{target}": no such file'
    return None


def check_system_include(path, target):
    if STANDARD.fullmatch(target) or SYSTEM.fullmatch(target):
        return None
    for pattern, places in VISIBLE:
        if re.match(pattern, target):
            if not any(path.as_posix().startswith(place) for place in places):
                return f"<{target}>: seen only by {', '.join(places)}"
            if path.suffix == ".h" and HEADER_HATES.match(target):
                return f"<{target}>: include it in .cpp files only"
            if path.suffix in DEVICE and places[0] != "kernels/gpu/":
                return f"<{target}>: no third-party header in device code"
            return None
    return f"<{target}>: unknown package (tools/check_layers.py lists who may see what)"


def check_file(path, source_root):
    """Violations of one source file; `path` is relative to src/spear."""
    folder = path.parts[0]
    if folder not in FLOORS:
        yield 0, f"unknown folder {folder}"
        return
    if path.suffix in DEVICE and not path.as_posix().startswith("kernels/gpu/"):
        yield 0, "device code lives in kernels/gpu only"
    text = (source_root / path).read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), 1):
        found = INCLUDE.match(line)
        if not found:
            continue
        own, target = found[1] == '"', found[2]
        if own and path.as_posix().startswith("kernels/") and "/" not in target and target.endswith(".inl"):
            continue  # a loop body shared by the files of one folder
        problem = check_own_include(folder, target, source_root) if own else check_system_include(path, target)
        if problem:
            yield number, problem


def check_links(path, source_root):
    """Libraries that a folder's CMakeLists.txt links, by the same floors."""
    folder = path.parts[0]
    text = (source_root / path).read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), 1):
        for name in re.findall(r"\bspear_([a-z]+)\b", line.split("#")[0]):
            if name in FLOORS and not may_use(folder, name):
                yield number, f"{folder} may not link spear_{name}"


def check_tree(root):
    source_root = pathlib.Path(root) / "src/spear"
    problems, files = [], 0
    for path in sorted(source_root.rglob("*")):
        relative = path.relative_to(source_root)
        if path.suffix in CODE:
            found = check_file(relative, source_root)
        elif path.name == "CMakeLists.txt" and len(relative.parts) > 1:
            found = check_links(relative, source_root)
        else:
            continue
        files += 1
        problems += [f"src/spear/{relative}:{line}: {text}" for line, text in found]
    return problems, files


SELF_TEST = [  # file below src/spear, its text, a piece of the expected violation (None: fine)
    ("base/a.h", "#include <vector>\n", None),
    ("base/b.cpp", '#include "spear/base/a.h"\n#include <sys/stat.h>\n#include <fmt/format.h>\n', None),
    ("base/up.h", '#include "spear/model/m.h"\n', "may not see model"),
    ("base/fmt.h", "#include <fmt/format.h>\n", ".cpp files only"),
    ("model/m.h", '#include "spear/base/a.h"\n#include "spear/formats/f.h"\n', None),
    ("formats/f.h", '#include "spear/base/a.h"\n', None),
    ("kernels/k.cpp", '#include "spear/formats/f.h"\n', "kernels (floor 1) may not see formats"),
    ("kernels/isa.cpp", "#include <immintrin.h>\n", None),
    ("model/isa.cpp", "#include <immintrin.h>\n", "seen only by kernels/"),
    ("kernels/gpu/good.cu", '#include <cuda_runtime.h>\n#include "spear/base/a.h"\n', None),
    ("kernels/gpu/bad.cu", "#include <fmt/core.h>\n", "no third-party header in device code"),
    ("backend/gpu/bad.cu", "", "device code lives in kernels/gpu"),
    ("compensate/c.cpp", '#include "spear/eval/e.h"\n', None),
    ("eval/e.h", "", None),
    ("eval/sideways.cpp", '#include "spear/compensate/c.h"\n', "eval (floor 5) may not see compensate"),
    ("formats/json.cpp", "#include <nlohmann/json.hpp>\n", "seen only by base/json.h"),
    ("cli/main.cpp", "#include <CLI/CLI.hpp>\n", None),
    ("report/r.cpp", "#include <CLI/CLI.hpp>\n", "seen only by cli/"),
    ("report/s.cpp", "#include <boost/asio.hpp>\n", "seen only by serve/http_"),
    ("serve/http_server.cpp", "#include <boost/asio.hpp>\n", None),
    ("serve/service.cpp", '#include "spear/report/r.h"\n', "serve (floor 6) may not see report"),
    ("report/t.cpp", '#include "a.h"\n', 'write own headers as "spear/'),
    ("report/u.cpp", '#include "spear/base/missing.h"\n', "no such file"),
    ("scheduler/s.cpp", '#include "spear/kernels/k.h"\n', "scheduler (floor 1) may not see kernels"),
    ("engine/e.cpp", '#include "spear/model/m.h"\n#include "spear/scheduler/q.h"\n', None),
    ("scheduler/q.h", '#include "spear/base/a.h"\n', None),
    ("util/u.h", "", "unknown folder util"),
    ("formats/CMakeLists.txt", "spear_library(spear_formats DEPS spear_base spear_model)\n", "may not link spear_model"),
    ("diagnose/CMakeLists.txt", "spear_library(spear_diagnose DEPS spear_eval spear_base)\n", None),
]


def self_test():
    with tempfile.TemporaryDirectory() as root:
        for name, text, _ in SELF_TEST:
            path = pathlib.Path(root) / "src/spear" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        problems, files = check_tree(root)
    failed = 0
    for name, _, expected in SELF_TEST:
        found = [problem for problem in problems if problem.startswith(f"src/spear/{name}:")]
        good = not found if expected is None else len(found) == 1 and expected in found[0]
        if not good:
            failed += 1
            print(f"self-test: {name}: expected {expected!r}, found {found}")
    if files != len(SELF_TEST):
        failed += 1
        print(f"self-test: looked at {files} of {len(SELF_TEST)} files")
    print(f"self-test: {len(SELF_TEST)} files, {failed} wrong")
    return 1 if failed else 0


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    root = sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent.parent
    problems, files = check_tree(root)
    print("\n".join(problems + [f"check_layers: {files} files, {len(problems)} violations"]))
    return 1 if problems or files == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
