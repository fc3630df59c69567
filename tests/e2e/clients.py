#!/usr/bin/env python3
"""Runs the unmodified clients of others against `spear serve`: openai, guidellm, schemathesis, and the parser of
prometheus_client over /metrics. Not part of the tests that run everywhere; it needs those four packages.
lm_eval_client.py is apart, since it needs minutes and a full-precision model. schemathesis asks for some thousand answers:
give it a tiny model (tools/make_tiny_model.py).

usage: clients.py PROGRAM MODEL [CLIENT ...]          CLIENT: openai, guidellm, schemathesis, metrics; all unless named
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
KEY = "sesame"


def start(program, model, *options):
    process = subprocess.Popen([program, "serve", model, "--port", "0", "--json", *options], text=True,
                               env=dict(os.environ, SPEAR_API_KEY=KEY), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "ready":
            return process, f"http://127.0.0.1:{event['port']}"
    sys.exit("the server did not start")


def run_openai(url, _program, _model, _folder):
    return subprocess.run([sys.executable, HERE / "openai_client.py", url + "/v1"], check=False,
                          env=dict(os.environ, OPENAI_API_KEY=KEY)).returncode == 0


def run_guidellm(url, program, model, folder):
    tokenizer, report = folder / "tokenizer", folder / "guidellm.json"
    subprocess.run([program, "export-tokenizer", model, tokenizer, "--quiet"], check=True)
    backend = f"kind=openai_http,target={url},request_format=/v1/completions,api_key={KEY}"
    subprocess.run([pathlib.Path(sys.executable).parent / "guidellm", "run", "--backend", backend,
                    "--profile", "kind=poisson,rate=1.0", "--data", "kind=synthetic_text,prompt_tokens=64,output_tokens=32",
                    "--constraint", "kind=max_duration,seconds=20", "--tokenizer", f"kind=hf_auto,model={tokenizer}",
                    "--output", f"kind=json,path={report}", "--disable-console"],
                   check=True, env=dict(os.environ, HF_HUB_OFFLINE="1"))
    totals = json.loads(report.read_text(encoding="utf-8"))["benchmarks"][0]["metrics"]["request_totals"]
    print(f"guidellm: {totals}")
    return totals["successful"] > 5 and totals["errored"] == 0


def run_schemathesis(url, _program, _model, folder):
    return subprocess.run([pathlib.Path(sys.executable).parent / "schemathesis", "--config-file", HERE / "schemathesis.toml",
                           "run", url + "/openapi.json", "-H", f"Authorization: Bearer {KEY}", "-n", "100", "--seed", "1",
                           "--no-color"], check=False, cwd=folder,
                          env=dict(os.environ, SCHEMATHESIS_HOOKS="schemathesis_hooks", PYTHONPATH=str(HERE))).returncode == 0


def run_metrics(url, _program, _model, _folder):
    from prometheus_client.parser import text_string_to_metric_families  # pylint: disable=import-outside-toplevel
    request = urllib.request.Request(url + "/metrics", headers={"Authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(request) as reply:
        families = list(text_string_to_metric_families(reply.read().decode()))
    undocumented = [family.name for family in families if not family.documentation or family.type == "unknown"]
    print(f"prometheus_client: {len(families)} families, {sum(len(f.samples) for f in families)} samples; {undocumented}")
    return len(families) > 30 and not undocumented


RUNS = {"openai": run_openai, "guidellm": run_guidellm, "schemathesis": run_schemathesis, "metrics": run_metrics}


def main():
    if len(sys.argv) < 3 or any(name not in RUNS for name in sys.argv[3:]):
        sys.exit(__doc__)
    program, model = (str(pathlib.Path(path).resolve()) for path in sys.argv[1:3])
    process, url = start(program, model)
    try:
        with tempfile.TemporaryDirectory() as folder:
            good = {name: RUNS[name](url, program, model, pathlib.Path(folder)) for name in sys.argv[3:] or RUNS}
    finally:
        process.terminate()
        code = process.wait()
    print(json.dumps(dict(good, exit_code=code)))
    sys.exit(0 if all(good.values()) and code == 0 else 1)


if __name__ == "__main__":
    main()
