#!/usr/bin/env python3
"""Measures what each quantizer and recipe recovers: one table from one command.

  bench/quality.py MODEL [--spear build/release/spear] [--device auto] [--seeds 1,2,3] [--rows all] [--jobs 1]
                   [--work bench-quality] [-o results.json]

Compresses MODEL (a path or a pulled name) by every row, evaluates all files against it at context 2048 on WikiText-2
test and on a text that no recipe may see (Moby-Dick), and prints a Markdown table. Rows marked "no wiki" calibrate
without WikiText; "paper" rows with alpha and start are its sweep. Finished files and evaluations are reused: the same
command goes on after an interruption. --jobs N works on N files at once, each with its share of the threads: for many
processor cores. Processes that share one GPU take turns, and seven at once were slower than one after the other (an
evaluation of 1.4 s took 30 to 220). Standard library only.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

# Quantizers alone: covariances of 512 self-sampled and 512 real sequences, as the known values had.
GRID = ["--recipe", "plain", "--zeros", "u4", "--samples", "512", "--real-sequences", "512"]
NO_ROTATION = ["--no-rotate"]
ROWS = {
    # name: (title, seeded, options)
    "rtn": ("RTN per channel", False, GRID + NO_ROTATION + ["--method", "rtn"]),
    "rtn-clip": ("RTN per channel, ranges searched", False, GRID + NO_ROTATION + ["--method", "rtn", "--clip"]),
    "rtn-g64": ("RTN, groups of 64", False,
                GRID + NO_ROTATION + ["--method", "rtn", "--group", "64"]),
    "gptq": ("GPTQ per channel", False, GRID + NO_ROTATION + ["--method", "gptq"]),
    "rot-gptq": ("rotated GPTQ per channel", False, GRID + ["--method", "gptq"]),
    "rot-gptq-g64": ("rotated GPTQ, groups of 64", False,
                     GRID + ["--method", "gptq", "--group", "64"]),
    "rot-gptq-clip": ("rotated GPTQ per channel, ranges searched", False, GRID + ["--method", "gptq", "--clip"]),
    "closed": ("`closed`", True, ["--recipe", "closed"]),
    "fast": ("`fast`", True, ["--recipe", "fast"]),
    "best": ("`best`", True, ["--recipe", "best"]),
    "best-4.5": ("`best --bits 4.5`", True, ["--recipe", "best", "--bits", "4.5"]),
    "paper": ("`paper`", True, ["--recipe", "paper", "--budget", "1%"]),
    **{f"paper-{alpha}-{start}": (f"`paper`, α = {alpha}, B {'at zero' if start == 'zero' else 'small'}", False,
                                  ["--recipe", "paper", "--budget", "1%", "--alpha", str(alpha), "--start", start])
       for alpha in (1, 2, 8) for start in ("zero", "small")},
    "best-nowiki": ("`best`, no wiki", True, ["--recipe", "best", "--text", "C4"]),
    "best-4.5-nowiki": ("`best --bits 4.5`, no wiki", True, ["--recipe", "best", "--bits", "4.5", "--text", "C4"]),
    "closed-nowiki": ("`closed`, no wiki", True, ["--recipe", "closed", "--text", "C4"]),
    "fast-nowiki": ("`fast`, no wiki", True, ["--recipe", "fast", "--text", "C4"]),
}
TEXTS = ["wikitext2@2048", "moby_dick@2048"]


def run(command):
    begin = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"quality.py: {' '.join(command)}: exit code {done.returncode}: {done.stdout.strip()}")
    return json.loads(done.stdout), time.monotonic() - begin


def build(args, name, seed):
    """Compresses a row once, evaluates it once; what both said."""
    path = args.work / f"{name}-{seed}.spear"
    said = path.with_suffix(".json")
    judged = path.with_suffix(".eval.json")
    threads = ["--threads", str(max(1, (os.cpu_count() or 1) // args.jobs))] if args.jobs > 1 else []
    common = ["--json", "--quiet", "--device", args.device, *threads]
    if not (path.exists() and said.exists()):
        options = [str(args.data / "web" / "c4_calib.txt") if o == "C4" else o for o in ROWS[name][2]]
        result, seconds = run([args.spear, "compress", args.model, "-o", str(path), "--certificate", "none",
                               "--seed", str(seed), *common, *options])
        result["wall_seconds"] = seconds
        said.write_text(json.dumps(result))
        print(f"{name} seed {seed}: compressed in {seconds:.0f} s", file=sys.stderr, flush=True)
    if not judged.exists():
        result, seconds = run([args.spear, "eval", str(path), "--path", "ref", "--reference", args.model,
                               "--data", str(args.data), *common, *[word for text in TEXTS for word in ("--text", text)]])
        judged.write_text(json.dumps(result))
        print(f"{name} seed {seed}: evaluated in {seconds:.0f} s", file=sys.stderr, flush=True)
    return json.loads(said.read_text()), json.loads(judged.read_text())


def spread(values, digits):
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def table(results):
    reference = {t: v["perplexity"] for t, v in results["reference"]["texts"].items()}
    plain = {t: v["perplexity"] for t, v in results["rows"]["rtn"][0]["texts"].items()}
    lines = ["| model | extra bytes | WikiText-2 ppl | gap closed | KL | top-1 | Moby-Dick ppl | gap closed | KL |",
             "|---|---|---|---|---|---|---|---|---|",
             f"| reference | | {reference[TEXTS[0]]:.2f} | | 0 | 1 | {reference[TEXTS[1]]:.2f} | | 0 |"]
    for name, runs in results["rows"].items():
        cells = [f"{100 * statistics.mean(r['extra_share'] for r in runs):+.2f} %"]
        for text in TEXTS:
            ppl = [r["texts"][text]["perplexity"] for r in runs]
            closed = [100 * (plain[text] - p) / (plain[text] - reference[text]) for p in ppl]
            cells += [spread(ppl, 2), "" if name == "rtn" else f"{statistics.mean(closed):.1f} %",
                      spread([r["texts"][text]["kl_mean"] for r in runs], 3)]
            if text == TEXTS[0]:
                cells.append(spread([r["texts"][text]["top1_agreement"] for r in runs], 3))
        lines.append(f"| {ROWS[name][0]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--spear", default="build/release/spear")
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path("../shared/data"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seeds", default="1,2,3", help="for recipes; quantizers alone use the first")
    parser.add_argument("--rows", default="all", help="names, or all: " + ", ".join(ROWS))
    parser.add_argument("--jobs", type=int, default=1, help="files worked on at once")
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("bench-quality"))
    parser.add_argument("-o", "--output", type=pathlib.Path, help="write the figures as JSON as well")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    seeds = [int(s) for s in args.seeds.split(",")]
    names = list(ROWS) if args.rows == "all" else args.rows.split(",")
    unknown = [n for n in names if n not in ROWS]
    if unknown:
        parser.error(f"unknown rows {', '.join(unknown)}; known: {', '.join(ROWS)}")
    if "rtn" not in names:  # what every gap is measured from
        names.insert(0, "rtn")
    wanted = [(name, seed) for seed in seeds for name in names if ROWS[name][1] or seed == seeds[0]]
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        built = list(pool.map(lambda one: build(args, *one), wanted))
    results = {"model": args.model, "device": args.device, "seeds": seeds, "reference": built[0][1]["reference"],
               "rows": {}}
    for (name, _), (said, judged) in sorted(zip(wanted, built), key=lambda one: names.index(one[0][0])):
        measured = judged["models"][0]
        results["rows"].setdefault(name, []).append(
            {"extra_share": said["extra_share"], "bits_per_weight": measured["bits_per_weight"],
             "file_bytes": measured["bytes"]["total"], "wall_seconds": said["wall_seconds"],
             "phases": said.get("phases"), "texts": measured["texts"]})
    if args.output:
        args.output.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
