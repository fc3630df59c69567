"""A headless Chromium, driven over WebDriver by Debian's chromedriver. Standard library only."""
import base64
import http.client
import json
import shutil
import subprocess
import tempfile
import time

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
WHY_NOT = "" if CHROMIUM and DRIVER else "chromium and chromedriver are not here (apt-get install chromium chromium-driver)"
KEYS = {"Tab": "\ue004", "Enter": "\ue007", "Shift": "\ue008", "Escape": "\ue00c", "End": "\ue010", "Home": "\ue011",
        "ArrowLeft": "\ue012", "ArrowRight": "\ue014", "Space": "\ue00d"}


class Browser:
    def __init__(self, width=1200, height=900):
        self.folder = tempfile.mkdtemp(prefix="spear-browser-")
        self.driver = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            self.port = self.find_port()
            flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                     "--disable-background-networking", "--disable-component-update", f"--user-data-dir={self.folder}",
                     f"--window-size={width},{height}"]
            wanted = {"goog:chromeOptions": {"binary": CHROMIUM, "args": flags},
                      "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
            reply = self.ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
            self.session = f"/session/{reply['sessionId']}"
        except BaseException:
            self.close()
            raise

    def find_port(self):
        for line in self.driver.stdout:
            if "started successfully on port " in line:
                return int(line.split("successfully on port ")[1].strip(" .\n"))
        raise RuntimeError("chromedriver did not start")

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request(method, path, json.dumps(body if body is not None else {}) if method == "POST" else None,
                           {"Content-Type": "application/json"})
        value = json.loads(connection.getresponse().read())["value"]
        connection.close()
        if isinstance(value, dict) and "error" in value:
            raise RuntimeError(f"{path}: {value['error']}: {value['message']}")
        return value

    def close(self):
        if hasattr(self, "session"):
            self.ask("DELETE", self.session)
        self.driver.terminate()
        self.driver.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)

    def go(self, url):
        self.ask("POST", f"{self.session}/url", {"url": url})

    def run(self, script, *arguments):
        """A function's body; what it returns."""
        return self.ask("POST", f"{self.session}/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, expression, seconds=60):
        """Until the expression is true; its value."""
        deadline = time.monotonic() + seconds
        while True:
            value = self.run(f"return {expression};")
            if value:
                return value
            if time.monotonic() > deadline:
                raise AssertionError(f"not true after {seconds} s: {expression}\n{self.run('return document.body.innerText;')}")
            time.sleep(0.05)

    def press(self, *keys):
        """Names of KEYS, or text to type; "Shift+Tab" holds the first."""
        actions = []
        for key in keys:
            held, _, last = key.rpartition("+") if key.startswith("Shift+") else ("", "", key)
            codes = [KEYS[last]] if last in KEYS else list(last)
            actions += [{"type": "keyDown", "value": KEYS[held]}] if held else []
            for code in codes:
                actions += [{"type": "keyDown", "value": code}, {"type": "keyUp", "value": code}]
            actions += [{"type": "keyUp", "value": KEYS[held]}] if held else []
        self.ask("POST", f"{self.session}/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def devtools(self, command, **parameters):
        return self.ask("POST", f"{self.session}/goog/cdp/execute", {"cmd": command, "params": parameters})

    def size(self, width, height):
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                      mobile=width < 600)

    def scheme(self, name):
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def screenshot(self, path):
        shot = self.devtools("Page.captureScreenshot", captureBeyondViewport=True)
        with open(path, "wb") as file:
            file.write(base64.b64decode(shot["data"]))

    def console(self):
        """Warnings and errors of the console since the last call, refused requests among them."""
        entries = self.ask("POST", f"{self.session}/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] in ("WARNING", "SEVERE")]

    def requested(self):
        """URLs that were asked for since the last call."""
        entries = self.ask("POST", f"{self.session}/se/log", {"type": "performance"})
        messages = [json.loads(entry["message"])["message"] for entry in entries]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
