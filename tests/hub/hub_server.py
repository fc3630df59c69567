"""A model hub on 127.0.0.1 with all the troubles a real one can have; used by hub_pull_test.cpp.

Two servers run: the hub and the storage that it redirects large files to. The first segment of the
path is the scenario. Prints one line, "PORT_OF_HUB PORT_OF_STORAGE", then serves until its standard
input closes. Every request is appended to the file named in argv[1] as one JSON line.
"""
import hashlib
import json
import random
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = random.Random(7).randbytes(300_000)
SMALL = {
    "config.json": b'{"model_type": "llama"}\n',
    "tokenizer.json": b'{"version": "1.0"}\n',
    "tokenizer_config.json": b"{}\n",
    "README.md": b"not needed\n",
    "LICENSE": b"Apache License\n",
}
REPOSITORIES = {
    "acme/tiny": {
        **SMALL,
        "model.safetensors": WEIGHTS,
        "pytorch_model.bin": WEIGHTS,
        "onnx/model.onnx": b"x",
    },
    "acme/sharded": {
        **SMALL,
        "model.safetensors.index.json": b'{"weight_map": {}}',
        "model-00001-of-00002.safetensors": WEIGHTS[:1000],
        "model-00002-of-00002.safetensors": WEIGHTS[1000:2000],
        "consolidated.safetensors": WEIGHTS,
    },
    "acme/gguf": {"q4.gguf": WEIGHTS, "sub/q8.gguf": WEIGHTS[:5000], "README.md": b"x"},
    "acme/torch": {**SMALL, "pytorch_model.bin": WEIGHTS},
}
HOSTILE = ("../../tokenizer.json", "/etc/tokenizer.json", "a\\tokenizer.json", "", "x\ny.json")
counts = {}
lock = threading.Lock()
log_file = open(sys.argv[1], "a")


def nth(key):
    """How often this was asked before."""
    with lock:
        counts[key] = counts.get(key, 0) + 1
        return counts[key] - 1


def git_sha1(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def is_large(name):
    return name.endswith((".safetensors", ".gguf", ".bin"))


def listing(scenario, repository, files):
    siblings = []
    for name, data in files.items():
        entry = {"rfilename": name}
        if not scenario.startswith("noblobs"):
            entry["size"] = len(data)
            entry["blobId"] = git_sha1(data)
            if is_large(name):
                entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        siblings.append(entry)
    if scenario == "hostile":
        siblings += [{"rfilename": name, "size": 1} for name in HOSTILE]
        siblings += ["text", 7, None]
    return {"id": repository, "sha": COMMIT, "siblings": siblings, "tags": ["license:apache-2.0"]}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def reply(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def record(self):
        entry = {"server": self.server.role, "path": self.path,
                 "range": self.headers.get("Range", ""),
                 "token": self.headers.get("Authorization", "")}
        with lock:
            log_file.write(json.dumps(entry) + "\n")
            log_file.flush()

    def do_GET(self):
        self.record()
        _, scenario, rest = self.path.split("/", 2)
        if self.server.role == "storage":
            return self.storage(scenario, rest)
        if scenario == "loop":
            return self.reply(302, Location=self.path)
        if scenario == "html":
            return self.reply(200, b"<html>not a hub</html>")
        if scenario == "badsha":
            return self.reply(200, b'{"sha": "../..", "siblings": []}')
        if scenario == "endless":
            return self.reply(200, b'{"sha": "' + b"x" * (40 << 20) + b'"}')
        if scenario.isdigit():
            return self.refuse(int(scenario))
        if scenario == "gated":
            return self.reply(403, X_Error_Code="GatedRepo", X_Error_Message="Access is restricted")
        if scenario == "busy" and nth("busy") < 2:
            return self.reply(429 if nth("busy429") == 0 else 503, Retry_After="0")
        if scenario == "private" and self.headers.get("Authorization") != "Bearer right":
            return self.reply(401, X_Error_Code="RepoNotFound")
        if rest.startswith("api/models/"):
            return self.listing(scenario, rest)
        return self.resolve(scenario, rest)

    def refuse(self, status):
        if status == 429:
            return self.reply(429, Retry_After="100000")
        return self.reply(status)

    def listing(self, scenario, rest):
        asked = rest[len("api/models/"):].partition("?")[0]
        repository, _, revision = asked.partition("/revision/")
        if repository not in REPOSITORIES:
            return self.reply(404, X_Error_Code="RepoNotFound")
        if revision not in ("main", "v1", "refs%2Fpr%2F1", COMMIT):
            return self.reply(404, X_Error_Code="RevisionNotFound")
        answer = listing(scenario, repository, REPOSITORIES[repository])
        self.reply(200, json.dumps(answer).encode())

    def resolve(self, scenario, rest):
        owner, name, _, commit, file = rest.split("/", 4)
        data = REPOSITORIES[owner + "/" + name].get(file)
        if data is None or commit != COMMIT:
            return self.reply(404, X_Error_Code="EntryNotFound")
        if not is_large(file):
            return self.reply(200, data, ETag=f'"{git_sha1(data)}"')
        digest = hashlib.sha256(data).hexdigest()
        if scenario == "changed":
            digest = "0" * 64
        target = f"http://127.0.0.1:{storage.server_port}/{scenario}/{owner}/{name}/{file}"
        self.reply(302, X_Linked_Etag=f'"{digest}"', X_Linked_Size=str(len(data)), Location=target)

    def storage(self, scenario, rest):
        owner, name, file = rest.split("/", 2)
        data = REPOSITORIES[owner + "/" + name][file]
        asked = nth((scenario, rest))
        if scenario in ("wrong", "noblobswrong") or (scenario == "wrongonce" and asked == 0):
            data = data[:-1] + bytes([data[-1] ^ 1])
        if scenario == "toolong":
            data = data + b"more"
        begin = 0
        wanted = self.headers.get("Range", "")
        if wanted.startswith("bytes=") and scenario != "norange":
            begin = int(wanted[6:].split("-")[0])
            if begin >= len(data):
                return self.reply(416, Content_Range="bytes */%d" % len(data))
        body = data[begin:]
        self.send_response(206 if begin else 200)
        shown = begin + 10 if scenario == "misplaced" and begin else begin
        if begin:
            self.send_header("Content-Range", "bytes %d-%d/%d" % (shown, len(data) - 1, len(data)))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.send_body(scenario, body, asked)

    def send_body(self, scenario, body, asked):
        breaks = {"cut": 100, "norange": 1, "misplaced": 1, "dead": 10**9}.get(scenario, 0)
        if asked < breaks and len(body) > 70_000:
            self.wfile.write(body[:70_000] if scenario != "dead" else b"")
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
            return
        if scenario == "slow":
            for i in range(0, len(body), 2000):
                self.wfile.write(body[i:i + 2000])
                self.wfile.flush()
                time.sleep(0.05)
            return
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # a client that hung up is what some tests are about


def start(role):
    server = Server(("127.0.0.1", 0), Handler)
    server.role = role
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


hub = start("hub")
storage = start("storage")
print(hub.server_port, storage.server_port, flush=True)
sys.stdin.read()
