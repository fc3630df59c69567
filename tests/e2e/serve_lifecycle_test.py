"""What happens to `spear serve` from outside: signals at every moment, kill -9 and a restart, a log that cannot be
written, a model file that is replaced, a clock that jumps."""
import http.client
import json
import os
import signal
import threading
import time
import unittest

from serve_support import ServeTest


class ServeLifecycle(ServeTest):
    LONG = {"prompt": "the cat", "max_tokens": 80, "temperature": 0, "ignore_eos": True}

    def start_asking(self, port, body):
        """A client of its own; the list holds its (status, body) once it has an answer, or an exception's name."""
        answers = []

        def work():
            try:
                answers.append(self.ask(port, "POST", "/v1/completions", body))
            except (OSError, http.client.HTTPException) as error:
                answers.append(type(error).__name__)
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread, answers

    def wait_for(self, port, text, answers=()):
        deadline = time.monotonic() + 60
        while text not in self.ask(port, "GET", "/metrics")[1] and not answers:
            self.assertLess(time.monotonic(), deadline)

    def test_sigterm_at_every_moment(self):
        process, _ = self.start(until="listening")
        self.assertEqual(self.stop(process, signal.SIGTERM)[0], 0, "while loading")
        for prompt, when in (("the cat " * 40, "prefill"), ("the cat", "decode")):
            process, port = self.start("--context", "512")
            thread, answers = self.start_asking(port, dict(self.LONG, prompt=prompt))
            time.sleep(0.005 if when == "prefill" else 0.05)
            code, _, errors = self.stop(process, signal.SIGTERM)
            thread.join(60)
            self.assertEqual(code, 0, errors)
            # Whoever was taken is answered whole; whoever came too late was told so.
            if isinstance(answers[0], tuple) and answers[0][0] == 200:
                self.assertEqual(json.loads(answers[0][1])["usage"]["completion_tokens"], 80)
            elif isinstance(answers[0], tuple):
                self.assertEqual(answers[0][0], 503, answers)
            else:
                self.assertIn(answers[0], ("ConnectionRefusedError", "ConnectionResetError", "RemoteDisconnected"))

    def test_draining_refuses_and_a_second_signal_ends_at_once(self):
        process, port = self.start("--drain-delay", "30")
        process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 30
        while self.ask(port, "GET", "/ready")[0] != 503:
            self.assertLess(time.monotonic(), deadline)
        self.assertEqual(self.ask(port, "GET", "/health")[0], 200, "alive, not ready")
        begun = time.monotonic()
        code, _, _ = self.stop(process, signal.SIGTERM)
        self.assertEqual(code, 128 + signal.SIGTERM)
        self.assertLess(time.monotonic() - begun, 10)

    def test_kill_and_restart_under_retrying_clients(self):
        process, port = self.start("--context", "96")
        expected = json.loads(self.ask(port, "POST", "/v1/completions", self.LONG)[1])["choices"][0]["text"]
        texts, tries = [], []

        def client():
            for _ in range(6):
                while True:
                    tries.append(1)
                    try:
                        status, data = self.ask(port, "POST", "/v1/completions", self.LONG)
                    except (OSError, http.client.HTTPException):
                        status = 0
                    if status == 200:
                        break
                    time.sleep(0.02)
                texts.append(json.loads(data)["choices"][0]["text"])
        clients = [threading.Thread(target=client, daemon=True) for _ in range(4)]
        for thread in clients:
            thread.start()
        while len(texts) < 6:
            time.sleep(0.002)
        process.kill()
        process.communicate()
        self.start("--context", "96", port=port)
        for thread in clients:
            thread.join(60)
        self.assertEqual(texts, [expected] * 24)
        self.assertGreater(len(tries), 24, "the kill came between requests; nothing was retried")

    def test_a_log_that_cannot_be_written_disturbs_nobody(self):
        with open("/dev/full", "w", encoding="utf-8") as full:
            process, port = self.start(log=full)
            for _ in range(3):
                self.assertEqual(self.ask(port, "POST", "/v1/completions", self.LONG)[0], 200)
            self.assertEqual(self.stop(process, signal.SIGTERM)[0], 0)

    def test_a_replaced_model_file_changes_nothing(self):
        _, port = self.start("--context", "96")
        before = json.loads(self.ask(port, "POST", "/v1/completions", self.LONG)[1])["choices"]
        other = self.folder / "other"
        other.write_bytes(b"not a model" * 1000)
        os.replace(other, self.folder / "llama.gguf")
        self.assertEqual(json.loads(self.ask(port, "POST", "/v1/completions", self.LONG)[1])["choices"], before)
        self.refused(4, ["llama.gguf", "GGUF"], "serve", "llama.gguf", "--port", "0")

    def test_a_clock_that_jumps_changes_nothing(self):
        shim = os.environ.get("SPEAR_CLOCK_JUMPS")
        if not shim:
            self.skipTest("SPEAR_CLOCK_JUMPS names no library")
        process, port = self.start("--context", "96", LD_PRELOAD=shim)
        for _ in range(3):
            status, data = self.ask(port, "POST", "/v1/completions", dict(self.LONG, include_metrics=True))
            self.assertEqual(status, 200, data)
        code, _, errors = self.stop(process, signal.SIGTERM)
        self.assertEqual(code, 0, errors)
        for line in map(json.loads, filter(lambda text: text.startswith("{"), errors.splitlines())):
            self.assertTrue(0 <= line["seconds"] < 60, line)
            self.assertTrue(0 <= line.get("ttft_seconds", 0) < 60, line)


if __name__ == "__main__":
    unittest.main()
