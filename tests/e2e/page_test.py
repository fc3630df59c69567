"""The web page of `spear serve` in a headless Chromium: what its users press, see and hear, on a tiny compressed model.
Skips where chromium or chromedriver is missing. Asked for by SPEAR_PAGE_PICTURES=FOLDER, it leaves pictures there."""
import http.client
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

from browser import WHY_NOT, Browser
from support import PROGRAM, ROOT, SMALL, TEXT

KEY = "open-sesame"


def setUpModule():
    if WHY_NOT:
        print(f"SKIPPED: the page was not tested: {WHY_NOT}", file=sys.stderr)
        raise unittest.SkipTest(WHY_NOT)


def visible(text):
    """Without the marks for bytes that are no character: how many stand for a run is each decoder's own affair."""
    return re.sub("\ufffd+", "\ufffd", text)


class Page(unittest.TestCase):
    """One server without keys, one with, and one browser for all cases; each case loads the page anew."""

    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="spear-e2e-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        cls.environment = dict(os.environ, SPEAR_CACHE=str(cls.folder / "cache"), SPEAR_DATA=str(cls.folder),
                               HOME=str(cls.folder), NO_COLOR="1")
        subprocess.run([sys.executable, ROOT / "tools/make_tiny_model.py", cls.folder, "--families", "llama",
                        "--layers", "6"], check=True, stdout=subprocess.DEVNULL)
        (cls.folder / "text.txt").write_text(TEXT, encoding="utf-8")
        made = subprocess.run([PROGRAM, "compress", "llama.gguf", "-o", "tiny.spear", "--text", "text.txt", "--budget", "20%",
                               *SMALL], cwd=cls.folder, env=cls.environment, text=True, capture_output=True)
        assert made.returncode == 0, made.stderr
        cls.port = cls.serve("tiny.spear", "--slo-itl", "5000")
        cls.locked = cls.serve("tiny.spear", SPEAR_API_KEY=KEY)
        cls.browser = Browser()
        cls.addClassCleanup(cls.browser.close)

    @classmethod
    def serve(cls, model, *options, **environment):
        process = subprocess.Popen([PROGRAM, "serve", model, "--json", "--port", "0", "--threads", "2", *options],
                                   cwd=cls.folder, env=dict(cls.environment, **environment), text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        cls.addClassCleanup(process.communicate)
        cls.addClassCleanup(process.kill)
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "ready":
                return event["port"]
        raise AssertionError(f"{model} was not served")

    def setUp(self):
        self.browser.size(1200, 900)
        self.browser.scheme("light")
        self.open(self.port)
        self.browser.wait("document.getElementById('state').textContent === 'ready'")

    def tearDown(self):
        """Nothing was asked of any other server."""
        own = tuple(f"http://127.0.0.1:{port}/" for port in (self.port, self.locked))
        for url in self.browser.requested():
            if not url.startswith(("about:", "data:", "chrome:")):
                self.assertTrue(url.startswith(own), url)

    def open(self, port):
        self.browser.go("about:blank")
        self.browser.console()
        self.browser.requested()
        self.browser.go(f"http://127.0.0.1:{port}/")

    def metric(self, name):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    def text(self, name):
        return self.browser.run("return document.getElementById(arguments[0]).textContent;", name)

    def set(self, **values):
        for name, value in values.items():
            self.browser.run("document.getElementById(arguments[0]).value = arguments[1];", name.replace("_", "-"), value)

    def click(self, name):
        self.browser.run("document.getElementById(arguments[0]).click();", name)

    def focused(self):
        return self.browser.run("return document.activeElement.id;")

    def picture(self, name):
        folder = os.environ.get("SPEAR_PAGE_PICTURES")
        if folder:
            self.browser.screenshot(os.path.join(folder, f"{name}.png"))

    def test_chat_streams_and_remembers(self):
        self.set(max_tokens=40, temperature=0, prompt="the cat")
        self.browser.run("""
            window.sizes = [];
            new MutationObserver(() => {
              const said = document.querySelector('#log li:last-child .text');
              if (said) window.sizes.push(said.textContent.length);
            }).observe(document.getElementById('log'), { subtree: true, childList: true, characterData: true });""")
        self.click("send")
        self.browser.wait("document.querySelectorAll('#log .note')[1]?.textContent.includes('40 tokens')")
        sizes = self.browser.run("return [...new Set(window.sizes)];")
        self.assertGreater(len(sizes), 5, "the answer came at once, not as a stream")
        self.assertEqual(sizes, sorted(sizes))
        self.assertEqual(self.text("prompt"), "")
        self.assertIn("tokens/s, first after", self.text("log"))
        self.assertIn("cut off at the most tokens", self.text("spoken"))
        # The second question carries the first and its answer: its prompt is longer than both alone.
        before = self.metric("vllm:prompt_tokens_total")
        self.set(prompt="the cat")
        self.click("send")
        self.browser.wait("document.querySelectorAll('#log .note')[3]?.textContent.includes('40 tokens')")
        self.assertGreater(self.metric("vllm:prompt_tokens_total") - before, 40)
        self.click("clear")
        self.assertEqual(self.text("log"), "")
        self.assertEqual(self.browser.console(), [])

    def test_stop_ends_the_answer_here_and_at_the_server(self):
        self.set(max_tokens=400, temperature=1, seed=4, prompt="the cat")
        aborted = self.metric('vllm:request_success_total{model_name="tiny",engine="0",finished_reason="abort"')
        self.browser.run("""
            new MutationObserver((_, own) => {
              if (!document.querySelector('#log li:last-child .text')?.textContent) return;
              own.disconnect();
              document.getElementById('stop').click();
            }).observe(document.getElementById('log'), { subtree: true, childList: true, characterData: true });""")
        self.click("send")
        self.browser.wait("document.querySelectorAll('#log .note')[1]?.textContent === 'stopped'")
        self.assertEqual(self.focused(), "prompt")
        self.assertTrue(self.browser.run("return document.getElementById('stop').disabled;"))
        deadline = time.monotonic() + 30
        while self.metric('vllm:request_success_total{model_name="tiny",engine="0",finished_reason="abort"') == aborted:
            self.assertLess(time.monotonic(), deadline, "the server went on")
            time.sleep(0.05)
        self.assertEqual(self.browser.console(), [])

    def test_text_of_the_model_is_text(self):
        hostile = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"
        self.set(max_tokens=4, prompt=hostile)
        self.click("send")
        self.browser.wait("document.querySelectorAll('#log .note')[1]?.textContent")
        self.assertIn(hostile, self.text("log"))
        self.assertEqual(self.browser.run("return document.querySelectorAll('#log img, #log script').length;"), 0)
        self.assertNotEqual(self.browser.run("return document.title;"), "run")
        # And if a line of the page ever made HTML of a string, the browser would refuse it.
        self.assertTrue(self.browser.run("try { document.body.innerHTML = '<p>'; return false; } catch { return true; }"))
        self.browser.console()

    def test_compare_marks_what_differs(self):
        self.click("tab-compare")
        self.set(compare_prompt="the cat", compare_tokens=60, compare_seed=3)
        self.click("compare-run")
        self.browser.wait("/token/.test(document.getElementById('compare-summary').textContent)")
        notes = [self.text("with-note"), self.text("without-note")]
        self.assertTrue(all("60 tokens" in note for note in notes), notes)
        texts = [self.text("with-text"), self.text("without-text")]
        marks = self.browser.run("return document.querySelectorAll('.side mark').length;")
        self.assertEqual(texts[0] != texts[1], marks > 0)
        self.assertNotEqual(texts[0], texts[1], "compensators change nothing; the comparison compares nothing")
        self.assertRegex(self.text("compare-summary"), r"They part at token \d+: .* \d+ of \d+ tokens are not in both")
        # What the page shows is what the API says, with and without.
        for compensators, text in zip(("full", "none"), texts):
            self.assertEqual(visible(self.answer(compensators)), visible(text))
        self.picture("tiny-compare")
        self.assertEqual(self.browser.console(), [])

    def answer(self, compensators):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("POST", "/v1/chat/completions", json.dumps(
            {"messages": [{"role": "user", "content": "the cat"}], "max_tokens": 60, "seed": 3, "temperature": 0,
             "compensators": compensators}), {"Content-Type": "application/json"})
        body = json.loads(connection.getresponse().read())
        connection.close()
        self.assertEqual(body["usage"].get("compensators"), "none" if compensators == "none" else None)
        return body["choices"][0]["message"]["content"]

    def test_everything_by_keyboard(self):
        press = self.browser.press
        press("Tab")  # the way past the header
        press("Enter")
        self.assertEqual(self.focused(), "main")
        press("Tab")
        self.assertEqual(self.focused(), "tab-chat")
        self.assertTrue(self.browser.run("return getComputedStyle(document.activeElement).outlineStyle === 'solid';"))
        for key, tab in (("ArrowRight", "compare"), ("ArrowRight", "model"), ("ArrowRight", "chat"), ("ArrowLeft", "model"),
                         ("Home", "chat"), ("End", "model"), ("Home", "chat")):
            press(key)
            self.assertEqual(self.focused(), f"tab-{tab}")
            self.assertFalse(self.browser.run("return document.getElementById(arguments[0]).hidden;", f"panel-{tab}"))
        self.set(max_tokens=300)
        press("Tab")
        press("Tab") if self.focused() == "log" else None
        self.assertEqual(self.focused(), "prompt")
        press("the cat")
        press("Shift+Enter")
        press("sat")
        self.assertEqual(self.browser.run("return document.getElementById('prompt').value;"), "the cat\nsat")
        press("Enter", "Escape")  # in one go: however fast the model is
        self.browser.wait("document.getElementById('stop').disabled")
        self.assertIn("stopped", self.text("spoken"))
        self.assertEqual(self.focused(), "prompt")
        press("Tab")
        self.assertEqual(self.focused(), "send")
        press("Shift+Tab")
        self.assertEqual(self.focused(), "prompt")

    def test_what_a_screen_reader_is_told(self):
        names = self.browser.run("""
            return [...document.querySelectorAll('input, textarea, button, [role=tabpanel], [role=img], [tabindex="0"]')]
              .filter((each) => !(each.labels?.length || each.getAttribute('aria-label') || each.textContent.trim() ||
                                  document.getElementById(each.getAttribute('aria-labelledby'))?.textContent))
              .map((each) => each.outerHTML);""")
        self.browser.wait("document.querySelector('.plot svg')?.getAttribute('aria-label')")
        self.assertEqual([name for name in names if not name.startswith("<svg")], [])
        tree = self.browser.devtools("Accessibility.getFullAXTree")["nodes"]
        roles = {(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node["ignored"]}
        self.assertIn(("tab", "Compare"), roles)
        self.assertIn(("textbox", "Your message"), roles)
        self.assertIn(("complementary", "Live"), roles)
        self.assertEqual(self.browser.run("return document.documentElement.lang;"), "en")
        self.assertEqual(self.browser.run("return document.querySelectorAll('h1').length;"), 1)

    def test_the_model_and_its_figures_are_shown(self):
        self.click("tab-model")
        facts = self.browser.run("return document.getElementById('facts').innerText;")
        for words in ("tiny", "Layers", "Compensators", "Context served"):
            self.assertIn(words, facts)
        self.assertIn("no certificate", self.text("certificate-about"))
        self.set(max_tokens=300, prompt="the cat")
        self.click("send")
        self.browser.wait("document.querySelectorAll('.plot').length === 6")
        self.browser.wait("/ms|s/.test(document.querySelectorAll('.plot b')[2].textContent)")
        labels = self.browser.run("return [...document.querySelectorAll('.plot svg')].map((s) => s.getAttribute('aria-label'));")
        self.assertRegex(labels[2], r"^Between tokens: median .+, 99 % .+; objective 5 s$")
        self.assertRegex(labels[5], r"^Cache in use: \d[\d.]* %$")
        self.assertTrue(self.browser.run("return document.querySelector('.plot path:last-child').getAttribute('d').startsWith('M');"))

    def test_a_key_is_asked_for_and_forgotten(self):
        self.open(self.locked)
        self.browser.wait("!document.getElementById('key-form').hidden")
        self.assertEqual(self.focused(), "key")
        self.assertIn("wants an API key", self.text("key-error"))
        for wrong in ("wrong", "with space", "schl\u00fcssel"):
            self.set(key="")
            self.browser.press(wrong, "Enter")
            self.browser.wait("document.getElementById('key-error').textContent.includes('does not take this key')")
        self.set(key="")
        self.browser.press(KEY, "Enter")
        self.browser.wait("document.getElementById('state').textContent === 'ready'")
        self.assertTrue(self.browser.run("return document.getElementById('key-form').hidden;"))
        self.assertEqual(self.focused(), "prompt")
        self.set(max_tokens=4, prompt="the cat")
        self.click("send")
        self.browser.wait("document.querySelectorAll('#log .note')[1]?.textContent.includes('4 tokens')")
        refused = [message for message in self.browser.console() if "401" not in message]
        self.assertEqual(refused, [], "only the refused keys are on the console")
        kept = self.browser.run("return [localStorage.length, sessionStorage.length, document.cookie, location.href];")
        self.assertEqual(kept, [0, 0, "", f"http://127.0.0.1:{self.locked}/"])
        self.open(self.locked)
        self.browser.wait("!document.getElementById('key-form').hidden")

    def test_errors_are_said_and_the_question_is_kept(self):
        self.set(temperature=-1, prompt="the cat")
        self.click("send")
        self.browser.wait("document.getElementById('chat-error').textContent.includes('temperature')")
        self.assertEqual(self.browser.run("return document.getElementById('prompt').value;"), "the cat")
        self.assertEqual(self.text("log"), "")
        self.set(temperature=0, max_tokens=4)
        self.click("send")
        self.browser.wait("document.querySelectorAll('#log .note')[1]?.textContent.includes('4 tokens')")
        self.assertEqual(self.text("chat-error"), "")
        self.browser.console()

    def test_schemes_and_widths(self):
        contrast = """
            const parts = (c) => c.match(/[\\d.]+/g).slice(0, 3).map((v) => {
              v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
            const light = (c) => { const [r, g, b] = parts(c); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
            const ground = light(getComputedStyle(document.body).backgroundColor);
            return [...document.querySelectorAll('h1, .hint, label, #state')].map((each) => {
              const own = light(getComputedStyle(each).color);
              return (Math.max(own, ground) + 0.05) / (Math.min(own, ground) + 0.05); });"""
        grounds = []
        for scheme in ("light", "dark"):
            self.browser.scheme(scheme)
            self.assertGreaterEqual(min(self.browser.run(contrast)), 4.5, scheme)
            grounds.append(self.browser.run("return getComputedStyle(document.body).backgroundColor;"))
        self.assertNotEqual(*grounds)
        self.set(prompt="w" * 300, max_tokens=4)
        self.click("send")
        self.browser.wait("document.querySelectorAll('#log .note')[1]?.textContent.includes('tokens')")
        for width in (320, 390, 768, 1600):
            self.browser.size(width, 844)
            for tab in ("chat", "compare", "model"):
                self.click(f"tab-{tab}")
                over = self.browser.run("return document.documentElement.scrollWidth - innerWidth;")
                self.assertLessEqual(over, 0, f"{tab} at {width} px scrolls sideways")
                self.picture(f"tiny-{tab}-{width}")
        self.assertEqual(self.browser.console(), [])


if __name__ == "__main__":
    unittest.main()
