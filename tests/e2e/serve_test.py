"""`spear serve` as its users start, ask and stop it, on a tiny random model."""
import json
import re
import signal
import threading
import unittest

from serve_support import ServeTest
from support import ROOT


class Serve(ServeTest):
    def test_answers_and_ends_with_what_is_under_way(self):
        process, port = self.start("--max-running", "4", "--context", "96")
        status, data = self.ask(port, "POST", "/v1/completions",
                                {"prompt": "the cat", "max_tokens": 8, "temperature": 0, "ignore_eos": True})
        self.assertEqual(status, 200, data)
        whole = json.loads(data)
        self.assertEqual(whole["usage"]["completion_tokens"], 8)
        status, data = self.ask(port, "POST", "/v1/completions",
                                {"prompt": "the cat", "max_tokens": 8, "temperature": 0, "ignore_eos": True,
                                 "stream": True})
        events = [json.loads(line[6:]) for line in data.split("\n\n") if line.startswith("data: {")]
        self.assertEqual("".join(event["choices"][0]["text"] for event in events), whole["choices"][0]["text"])
        self.assertTrue(data.endswith("data: [DONE]\n\n"))
        status, data = self.ask(port, "GET", "/v1/models")
        self.assertEqual(json.loads(data)["data"][0]["id"], "llama")
        self.assertEqual(json.loads(data)["data"][0]["max_model_len"], 96)

        answers = []
        client = threading.Thread(target=lambda: answers.append(
            self.ask(port, "POST", "/v1/completions", {"prompt": "the cat", "max_tokens": 80, "ignore_eos": True})))
        client.start()
        while True:  # until it runs, or has already ended
            status, data = self.ask(port, "GET", "/metrics")
            if answers or 'num_requests_running{model_name="llama",engine="0"} 1' in data:
                break
        process.send_signal(signal.SIGTERM)
        client.join(60)
        output, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0, errors)
        self.assertEqual(answers[0][0], 200, answers)
        self.assertEqual(json.loads(answers[0][1])["usage"]["completion_tokens"], 80)
        self.assertEqual([json.loads(line)["event"] for line in output.splitlines()], ["draining", "stopped"])
        logged = [json.loads(line) for line in errors.splitlines() if line.startswith("{")]
        self.assertIn("/v1/completions", [line["route"] for line in logged])
        self.assertNotIn("the cat", errors)

    def test_bad_settings_are_said(self):
        _, port = self.start(SPEAR_API_KEY="sesame")
        self.assertEqual(self.ask(port, "GET", "/v1/models")[0], 401)
        self.assertEqual(self.ask(port, "GET", "/v1/models", headers={"Authorization": "Bearer sesame"})[0], 200)
        self.refused(6, [str(port), "--port"], "serve", "llama.gguf", "--port", str(port))
        keys = self.folder / "keys"
        keys.write_text("key\n")
        keys.chmod(0o644)
        self.refused(2, ["keys", "chmod"], "serve", "llama.gguf", "--port", "0", "--api-key-file", keys)
        keys.chmod(0o600)
        keys.write_text("# none\n")
        self.refused(2, ["keys", "found none"], "serve", "llama.gguf", "--port", "0", "--api-key-file", keys)
        self.refused(2, ["TLS", "found one of them"], "serve", "llama.gguf", "--port", "0", "--tls-cert", keys)
        self.refused(2, ["keys", "certificate"], "serve", "llama.gguf", "--port", "0", "--tls-cert", keys,
                     "--tls-key", keys)
        self.refused(3, ["nowhere.spear"], "serve", "nowhere.spear", "--port", "0")
        self.refused(2, ["--max-running"], "serve", "llama.gguf", "--port", "0", "--max-running", "0")

    def test_dashboards_show_what_is_measured(self):
        _, port = self.start()
        self.ask(port, "POST", "/v1/completions", {"prompt": "the cat", "max_tokens": 4},
                 {"x-slo-ttft-ms": "60000", "x-slo-tpot-ms": "60000"})
        self.ask(port, "GET", "/health")
        text = self.ask(port, "GET", "/metrics")[1]
        measured = set(re.findall(r"^([a-z_:]+)[ {]", text, re.M))
        dashboard = json.loads((ROOT / "deploy/grafana-dashboard.json").read_text(encoding="utf-8"))
        expressions = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
        shown = set(re.findall(r"(?:vllm|spear):[a-z_]+|http_requests_total", expressions))
        shown |= set(re.findall(r"'(spear:[a-z_]+)\{", (ROOT / "deploy/kubernetes.yaml").read_text(encoding="utf-8")))
        self.assertGreater(len(shown), 15)
        self.assertEqual(shown - measured, set())


if __name__ == "__main__":
    unittest.main()
