#!/usr/bin/env python3
"""Scores ARC-Easy and PIQA twice, by the unmodified `lm-eval` package (its `local-completions`) over a running server and
by `spear eval`, and demands accuracies within 0.2 points. Not part of the tests that run everywhere: it needs the packages
`lm_eval[api]` and `transformers`. The tokenizer of the client is what `spear export-tokenizer` writes.

usage: lm_eval_client.py PROGRAM MODEL.spear REFERENCE DATA [--limit N]      DATA holds tasks/arc_easy and tasks/piqa
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

METRICS = ("acc,none", "acc_norm,none")
# Keys and values in F32, activations in 16 bits on both sides: rounding to 8 bits would turn the last bits of a sum, which
# differ by how rows are batched, into near ties decided differently.
SAME = ["--kv", "f32", "--path", "exact"]


def arc_questions(data):
    for line in (data / "tasks/arc_easy/ARC-Easy-Test.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        choices = row["question"]["choices"]
        yield {"context": f"Question: {row['question']['stem']}\nAnswer:", "choices": [c["text"] for c in choices],
               "answer": [c["label"] for c in choices].index(row["answerKey"])}


def piqa_questions(data):
    labels = (data / "tasks/piqa/valid-labels.lst").read_text(encoding="utf-8").split()
    for line, label in zip((data / "tasks/piqa/valid.jsonl").read_text(encoding="utf-8").splitlines(), labels):
        row = json.loads(line)
        yield {"context": f"Question: {row['goal']}\nAnswer:", "choices": [row["sol1"], row["sol2"]], "answer": int(label)}


def write_task(folder, name, questions):
    rows = folder / f"{name}.jsonl"
    rows.write_text("".join(json.dumps(q) + "\n" for q in questions), encoding="utf-8")
    (folder / f"{name}.yaml").write_text(
        f"task: spear_{name}\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {rows}\ntest_split: test\n"
        "output_type: multiple_choice\ndoc_to_text: \"{{context}}\"\ndoc_to_choice: \"{{choices}}\"\ndoc_to_target: answer\n"
        "metric_list:\n  - metric: acc\n  - metric: acc_norm\n", encoding="utf-8")
    return rows


def scores_of_client(port, folder, names):
    arguments = [f"base_url=http://127.0.0.1:{port}/v1/completions", "model=served", f"tokenizer={folder / 'tokenizer'}",
                 "tokenized_requests=True", "tokenizer_backend=huggingface", "num_concurrent=8", "max_retries=1"]
    subprocess.run([sys.executable, "-m", "lm_eval", "--model", "local-completions", "--model_args", ",".join(arguments),
                    "--tasks", ",".join(f"spear_{name}" for name in names), "--include_path", folder, "--batch_size", "16",
                    "--output_path", folder / "scores"],
                   check=True, stdout=subprocess.DEVNULL, env=dict(os.environ, HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1",
                                                                   HF_HOME=str(folder / "cache")))
    report = json.loads(next((folder / "scores").rglob("results*.json")).read_text(encoding="utf-8"))["results"]
    return {name: [report[f"spear_{name}"][metric] for metric in METRICS] for name in names}


def scores_of_spear(program, model, reference, files):
    command = [program, "eval", model, "--reference", reference, *SAME, "--json"]
    for path in files.values():
        command += ["--choices", path]
    result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    tasks = result["models"][-1]["tasks"]
    return {name: [tasks[name]["accuracy"], tasks[name]["accuracy_norm"]] for name in files}


def serve(program, model):
    process = subprocess.Popen([program, "serve", model, "--port", "0", "--json", "--served-model-name", "served", *SAME],
                               text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "ready":
            return process, event["port"]
    sys.exit("the server did not start")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("model")
    parser.add_argument("reference", help="the full-precision model that `spear eval` asks for")
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--limit", type=int, default=None)
    options = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        files = {task: write_task(folder, task, list(questions(options.data))[:options.limit])
                 for task, questions in (("arc_easy", arc_questions), ("piqa", piqa_questions))}
        subprocess.run([options.program, "export-tokenizer", options.model, folder / "tokenizer", "--quiet"], check=True)
        process, port = serve(options.program, options.model)
        try:
            client = scores_of_client(port, folder, files)
        finally:
            process.terminate()
            process.wait()
        own = scores_of_spear(options.program, options.model, options.reference, files)
    for task in client:
        for label, a, b in zip(("accuracy", "accuracy by length"), client[task], own[task]):
            bad = abs(a - b) > 0.002
            wrong += bad
            print(f"{'WRONG' if bad else 'ok'}  {task}: {label} {100 * a:.2f} by lm-eval, {100 * b:.2f} by spear eval")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
