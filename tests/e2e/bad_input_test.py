"""Everything a user can get wrong: one clear sentence, the right exit code, earlier results whole. A test a line."""
import os
import re
import shutil
import struct
import subprocess
import unittest

from support import SMALL, ProgramTest, edit_json, read_safetensors, write_safetensors

USAGE, NOT_FOUND, BAD_FILE, UNSUPPORTED, IO, BUDGET = 2, 3, 4, 5, 6, 9


class BadInput(ProgramTest):
    def setUp(self):
        super().setUp()
        self.output = self.folder / "result.spear"
        self.output.write_bytes(b"an earlier result")
        self.addCleanup(self.check_earlier_result)

    def check_earlier_result(self):
        if self.output.exists():  # gone with the folder otherwise: cleanups run last to first
            self.assertEqual(self.output.read_bytes(), b"an earlier result")

    def compress_refused(self, code, words, model, *options, **how):
        message = self.refused(code, words, "compress", model, "-o", self.output, *SMALL, *options, **how)
        self.assertEqual(self.output.read_bytes(), b"an earlier result")
        left = [name for name in os.listdir(self.folder) if ".tmp" in name]
        self.assertEqual(left, [], "temporary files stayed")
        return message

    def edit_tensor(self, name, change):
        """Applies `change(header, tensors)` to the shard of the folder model that holds `name`."""
        for path in sorted((self.folder / "llama").glob("*.safetensors")):
            header, tensors = read_safetensors(path)
            if name in header:
                change(header, tensors)
                write_safetensors(path, header, tensors)
                return
        self.fail(f"the tiny model has no tensor {name}")

    def test_missing_model(self):
        self.compress_refused(NOT_FOUND, ["no-such-model"], "no-such-model", "--no-text")
        self.compress_refused(NOT_FOUND, ["missing.gguf"], "./missing.gguf", "--no-text")

    def test_unreadable_model(self):
        os.truncate(self.folder / "llama.gguf", 1000)
        self.compress_refused(BAD_FILE, ["llama.gguf"], "llama.gguf", "--no-text")
        (self.folder / "llama.gguf").write_bytes(b"this is no model at all")
        self.compress_refused(BAD_FILE, ["llama.gguf"], "llama.gguf", "--no-text")
        if os.geteuid() != 0:  # root reads everything
            os.chmod(self.folder / "llama/config.json", 0)
            self.compress_refused(IO, ["config.json"], "llama", "--no-text")

    def test_directory_without_weights(self):
        for path in (self.folder / "llama").glob("*.safetensors*"):
            path.unlink()
        self.compress_refused(NOT_FOUND, ["llama", "safetensors"], "llama", "--no-text")

    def test_unknown_architecture(self):
        edit_json(self.folder / "llama/config.json",
                  lambda c: c.update(model_type="mamba", architectures=["MambaForCausalLM"]))
        self.compress_refused(UNSUPPORTED, ["config.json", "amba"], "llama", "--no-text")

    def test_tensor_missing(self):
        name = "model.layers.1.mlp.down_proj.weight"

        def remove(header, tensors):
            del header[name]
        self.edit_tensor(name, remove)
        for index in (self.folder / "llama").glob("*.index.json"):
            edit_json(index, lambda value: value["weight_map"].pop(name))
        self.compress_refused(BAD_FILE, ["layers.1.mlp.down_proj"], "llama", "--no-text")

    def test_tensor_of_wrong_shape(self):
        name = "model.layers.0.self_attn.q_proj.weight"

        def flatten(header, tensors):
            rows, columns = header[name]["shape"]
            header[name]["shape"] = [rows // 2, columns * 2]
        self.edit_tensor(name, flatten)
        self.compress_refused(BAD_FILE, ["layers.0.self_attn.q_proj", "[32, 128]", "[64, 64]"], "llama", "--no-text")

    def test_tensor_of_wrong_type(self):
        name = "model.layers.0.self_attn.q_proj.weight"

        def to_integers(header, tensors):
            header[name]["dtype"] = "I16"
        self.edit_tensor(name, to_integers)
        self.compress_refused(UNSUPPORTED, ["layers.0.self_attn.q_proj", "I16"], "llama", "--no-text")

    def test_tokenizer_and_model_disagree(self):
        def add(value):
            vocabulary = value["model"]["vocab"]
            first = 1 + max([*vocabulary.values(), *(token["id"] for token in value["added_tokens"])])
            vocabulary.update({f"extra{i}": first + i for i in range(100)})
        edit_json(self.folder / "llama/tokenizer.json", add)
        self.compress_refused(BAD_FILE, ["tokenizer has 420 tokens", "320 rows"], "llama", "--no-text")

    def test_empty_calibration_text(self):
        self.text.write_text("")
        self.compress_refused(USAGE, ["text.txt", "0 tokens", "256"], "llama.gguf", "--text", self.text)

    def test_one_token_calibration_text(self):
        self.text.write_text("a")
        self.compress_refused(USAGE, ["text.txt", "1 tokens", "256"], "llama.gguf", "--text", self.text)

    def test_context_longer_than_the_models(self):
        self.succeed("compress", "llama.gguf", "-o", "good.spear", "--no-text", *SMALL)
        self.refused(USAGE, ["9999", "512"], "eval", "good.spear", "--reference", "llama.gguf", "--text",
                     "text.txt@9999")

    def test_rank_larger_than_a_module(self):
        """More bytes than any module's compensator can take: ranks stop at the modules' own, 64 or less here."""
        self.compress_refused(USAGE, ["--budget", "share"], "llama.gguf", "--no-text", "--budget", "100000%")
        self.succeed("compress", "llama.gguf", "-o", "good.spear", "--no-text", "--budget", "300%", *SMALL)
        ranks = re.search(r"14 compensators, ranks (\d+) to (\d+)", self.succeed("inspect", "good.spear"))
        self.assertIsNotNone(ranks)
        self.assertLessEqual(int(ranks[2]), 64)
        self.succeed("inspect", "good.spear", "--verify")

    def test_full_disk(self):
        """The whole command in a file system without room for the result."""
        room = self.folder / "small"
        room.mkdir()
        script = ('mount -t tmpfs -o size=64k tmpfs small && printf "an earlier result" > small/result.spear && '
                  '"$@"; status=$?; cat small/result.spear; ls -A small | wc -l; exit $status')
        namespaces = [["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"]]
        usable = [n for n in namespaces
                  if shutil.which("unshare") and subprocess.run([*n, "true"], capture_output=True).returncode == 0]
        if not usable:
            self.skipTest("this user may not mount a small file system")
        from support import PROGRAM
        environment = dict(os.environ, SPEAR_CACHE=str(self.folder / "cache"), SPEAR_DATA=str(self.folder))
        result = subprocess.run(
            [*usable[0], "sh", "-c", script, "sh", PROGRAM, "compress", "llama.gguf", "--no-text", "--quiet", "-o",
             "small/result.spear", *SMALL],
            cwd=self.folder, env=environment, text=True, capture_output=True, timeout=240)
        self.assertEqual(result.returncode, IO, result.stdout + result.stderr)
        self.assertIn("No space left on device", result.stderr)
        self.assertEqual(len(result.stderr.strip().splitlines()), 1, result.stderr)
        self.assertTrue(result.stdout.startswith("an earlier result"), result.stdout)
        self.assertEqual(result.stdout.strip().splitlines()[-1][-1], "1", "a temporary file stayed")

    def test_budget_too_small(self):
        self.compress_refused(BUDGET, ["budget"], "llama.gguf", "--no-text", "--budget", "0.0001%")

    def test_newer_artifact(self):
        self.succeed("compress", "llama.gguf", "-o", "good.spear", "--no-text", *SMALL)
        path = self.folder / "good.spear"
        data = bytearray(path.read_bytes())
        version = struct.unpack_from("<I", data, 8)[0]
        struct.pack_into("<I", data, 8, version + 1)
        path.write_bytes(data)
        for command in (["inspect", path], ["chat", path, "--prompt", "x"]):
            self.refused(UNSUPPORTED, ["good.spear", f"version {version + 1}", f"up to version {version}"], *command)


if __name__ == "__main__":
    unittest.main()
