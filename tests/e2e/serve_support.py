"""Starts `spear serve` on a tiny model and asks it. Standard library only."""
import http.client
import json
import os
import subprocess

from support import PROGRAM, ProgramTest


class ServeTest(ProgramTest):
    def start(self, *options, port=0, until="ready", log=subprocess.PIPE, **environment):
        """The running server: its process and port, once the model is there (or only the port is open)."""
        full = dict(os.environ, SPEAR_CACHE=str(self.folder / "cache"), HOME=str(self.folder), **environment)
        process = subprocess.Popen([PROGRAM, "serve", "llama.gguf", "--json", "--port", str(port), "--threads", "2", *options],
                                   cwd=self.folder, env=full, text=True, stdout=subprocess.PIPE,
                                   stderr=log)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        lines = []
        while not lines or lines[-1]["event"] != until:
            line = process.stdout.readline()
            self.assertTrue(line, process.stderr.read() if process.poll() is not None else "")
            lines.append(json.loads(line))
        return process, lines[-1]["port"]

    def ask(self, port, method, path, body=None, headers=()):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request(method, path, json.dumps(body) if body is not None else None,
                           dict({"Content-Type": "application/json"}, **dict(headers)))
        reply = connection.getresponse()
        data = reply.read().decode()
        connection.close()
        return reply.status, data

    def stop(self, process, number):
        """Sends the signal; exit code, standard output and the log."""
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
        return process.returncode, output, errors
