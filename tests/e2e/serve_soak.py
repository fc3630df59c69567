#!/usr/bin/env python3
"""Soaks `spear serve` on a tiny model: whole answers, streams, cancels, disconnects, slow readers and malformed bodies for
some minutes, a check of every whole answer against the greedy text of its prompt, and at the end of what is left: memory,
descriptors, pages of the cache, requests. Prints one line of JSON; exit code 1 where something leaked, was lost or wrong.
Not part of the tests that run everywhere. usage: serve_soak.py MINUTES       (SPEAR_PROGRAM: the program)
"""
import http.client
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from serve_support import ServeTest  # noqa: E402  pylint: disable=wrong-import-position

PROMPTS = [f"the {animal} sat on the {place}" for animal in ("cat", "dog", "hen", "owl") for place in ("mat", "hat", "log")]
KINDS = ("whole", "stream", "leave", "reset", "slow", "malformed", "health", "tokenize")
MALFORMED = (b"GET /\r\n\r\n", b"POST /v1/completions HTTP/1.1\r\nContent-Length: 99\r\n\r\n{", b"\x16\x03\x01\x02\x00\x01",
             b"POST /v1/completions HTTP/1.1\r\nContent-Length: 9\r\n\r\n{\"prompt\"", b"POST /tokenize HTTP/1.1\r\n\r\n")


class Soak(ServeTest):
    def runTest(self):
        pass

    def body(self, prompt, **more):
        return dict({"prompt": prompt, "max_tokens": 24, "temperature": 0, "ignore_eos": True}, **more)

    def whole_text(self, port, prompt):
        return json.loads(self.ask(port, "POST", "/v1/completions", self.body(prompt))[1])["choices"][0]["text"]

    def begin_stream(self, port, prompt, tokens):
        data = json.dumps(self.body(prompt, stream=True, max_tokens=tokens)).encode()
        client = socket.create_connection(("127.0.0.1", port), timeout=60)
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
        client.recv(64)
        return client

    def one(self, port, kind, random_, expected):
        """What is wrong, or nothing."""
        prompt = random_.choice(PROMPTS)
        if kind == "whole":
            status, data = self.ask(port, "POST", "/v1/completions", self.body(prompt))
            good = status == 429 or json.loads(data)["choices"][0]["text"] == expected[prompt]
            return "" if good else f"{status} {data}"
        if kind == "stream":
            status, data = self.ask(port, "POST", "/v1/completions", self.body(prompt, stream=True))
            events = [json.loads(line[6:]) for line in data.split("\n\n") if line.startswith("data: {")]
            good = status == 429 or "".join(e["choices"][0]["text"] for e in events) == expected[prompt]
            return "" if good and (status == 429 or data.endswith("data: [DONE]\n\n")) else f"{status} {data}"
        if kind in ("leave", "reset"):
            client = self.begin_stream(port, prompt, 200)
            if kind == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            client.close()
        elif kind == "slow":
            client = self.begin_stream(port, prompt, 100)
            for _ in range(5):
                time.sleep(0.05)
                client.recv(16)
            client.close()
        elif kind == "malformed":
            with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
                client.sendall(random_.choice(MALFORMED))
        elif kind == "tokenize":
            status, data = self.ask(port, "POST", "/tokenize", {"prompt": prompt})
            return "" if status == 200 and json.loads(data)["count"] > 0 else data
        else:
            status, data = self.ask(port, "GET", "/health")
            return "" if status == 200 else data
        return ""


def figures(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]), len(os.listdir(f"/proc/{pid}/fd"))


def gauge(text, name):
    return float(re.search(rf"^{re.escape(name)}{{[^\n]*}} ([-+.e0-9]+)$", text, re.M)[1])


def main():
    seconds = 60 * float(sys.argv[1])
    soak = Soak()
    soak.setUp()
    try:
        process, port = soak.start("--context", "512", "--max-running", "8", log=subprocess.DEVNULL)
        expected = {prompt: soak.whole_text(port, prompt) for prompt in PROMPTS}
        counts, wrong, memory = dict.fromkeys(KINDS, 0), [], []
        over = time.monotonic() + seconds
        lock = threading.Lock()

        def client(seed):
            random_ = random.Random(seed)
            while time.monotonic() < over and not wrong:
                kind = random_.choice(KINDS)
                try:
                    trouble = soak.one(port, kind, random_, expected)
                except (OSError, http.client.HTTPException, ValueError) as error:
                    trouble = repr(error)
                with lock:
                    counts[kind] += 1
                    if trouble:
                        wrong.append(f"{kind}: {trouble}"[:500])
        clients = [threading.Thread(target=client, args=(seed,)) for seed in range(6)]
        for thread in clients:
            thread.start()
        while any(thread.is_alive() for thread in clients):
            memory.append(figures(process.pid)[0])
            time.sleep(min(5, seconds / 20))
        deadline = time.monotonic() + 60
        while True:  # what was left by its clients ends at the next step
            metrics = soak.ask(port, "GET", "/metrics")[1]
            running = gauge(metrics, "vllm:num_requests_running") + gauge(metrics, "vllm:num_requests_waiting")
            if running == 0 or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        time.sleep(1)
        cache = gauge(metrics, "vllm:kv_cache_usage_perc")
        resident, descriptors = figures(process.pid)
        code = soak.stop(process, signal.SIGTERM)[0]
        quarter = max(1, len(memory) // 4)
        growth = max(memory[-quarter:]) - max(memory[quarter:2 * quarter] or memory)
        print(json.dumps({"minutes": seconds / 60, "requests": counts, "wrong": wrong, "still_running": running,
                          "cache_in_use": cache, "descriptors": descriptors, "resident_kib": resident,
                          "grown_kib_in_last_half": growth, "exit_code": code}))
        bad = wrong or running or cache > 0 or descriptors > 40 or growth > 4096 or code
        return 1 if bad else 0
    finally:
        soak.doCleanups()


if __name__ == "__main__":
    sys.exit(main())
