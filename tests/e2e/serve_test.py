"""`spear serve` as its users start, ask and stop it, on a tiny random model."""
import http.client
import json
import os
import signal
import subprocess
import threading
import unittest

from support import PROGRAM, ProgramTest


class Serve(ProgramTest):
    def start(self, *options, **environment):
        """The running server: its process and port, once the model is there."""
        full = dict(os.environ, SPEAR_CACHE=str(self.folder / "cache"), HOME=str(self.folder), **environment)
        process = subprocess.Popen([PROGRAM, "serve", "llama.gguf", "--port", "0", "--json", "--threads", "2", *options],
                                   cwd=self.folder, env=full, text=True, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        lines = []
        while not lines or lines[-1]["event"] != "ready":
            line = process.stdout.readline()
            self.assertTrue(line, process.stderr.read() if process.poll() is not None else "")
            lines.append(json.loads(line))
        self.assertEqual([line["event"] for line in lines], ["listening", "ready"])
        return process, lines[-1]["port"]

    def ask(self, port, method, path, body=None, headers=()):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request(method, path, json.dumps(body) if body is not None else None,
                           dict({"Content-Type": "application/json"}, **dict(headers)))
        reply = connection.getresponse()
        data = reply.read().decode()
        connection.close()
        return reply.status, data

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
        self.refused(3, ["nowhere.spear"], "serve", "nowhere.spear", "--port", "0")
        self.refused(2, ["--max-running"], "serve", "llama.gguf", "--port", "0", "--max-running", "0")


if __name__ == "__main__":
    unittest.main()
