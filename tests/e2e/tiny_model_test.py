"""The whole way on a tiny random model, in seconds: compress, inspect, eval, diagnose, report, chat."""
import json
import shutil
import unittest

from support import SMALL, ProgramTest


class TinyModel(ProgramTest):
    def test_from_a_checkpoint_to_an_answer(self):
        self.succeed("compress", "llama.gguf", "--recipe", "closed", "-o", "tiny.spear", "--text", self.text, *SMALL)
        first = (self.folder / "tiny.spear").read_bytes()
        self.assertGreater(len(first), 10000)

        self.succeed("inspect", "tiny.spear", "--verify")

        result = json.loads(self.succeed("eval", "tiny.spear", "--reference", "llama.gguf", "--text", "text.txt@64",
                                         "--json"))
        measured = next(iter(result["models"][0]["texts"].values()))
        reference = next(iter(result["reference"]["texts"].values()))
        self.assertGreater(measured["tokens"], 100)
        self.assertGreater(measured["kl_mean"], 0)
        self.assertLess(measured["kl_mean"], 0.5)
        self.assertLess(abs(measured["perplexity"] / reference["perplexity"] - 1), 0.5)
        total = result["models"][0]["bytes"]["total"]  # of tensors: without the tokenizer and the manifest
        self.assertLess(total, len(first))
        self.assertGreater(total, len(first) // 2)
        (self.folder / "eval.json").write_text(json.dumps(result))

        self.succeed("diagnose", "llama.gguf", "--quick")

        self.succeed("report", "tiny.spear", "eval.json", "--reference", "llama.gguf", "--sample-tokens", "8", "-o",
                     "report.html")
        page = (self.folder / "report.html").read_text(encoding="utf-8")
        self.assertIn("<svg", page)
        self.assertIn("prefers-color-scheme", page)
        self.assertNotIn("src=\"http", page)

        answer = self.succeed("chat", "tiny.spear", "--prompt", "the cat", "--max-tokens", "8")
        self.assertTrue(answer.strip())

    def test_the_same_command_gives_the_same_bytes(self):
        results = []
        for _ in range(2):
            self.succeed("compress", "llama", "--recipe", "closed", "-o", "one.spear", "--no-text", *SMALL)
            results.append((self.folder / "one.spear").read_bytes())
            shutil.rmtree(self.folder / "cache")  # nothing of the first run may help the second
        self.assertEqual(*results)


if __name__ == "__main__":
    unittest.main()
