"""A headless Chromium, driven through chromedriver's HTTP interface (W3C WebDriver)."""

import base64
import contextlib
import http.client
import json
import os
import re
import shutil
import subprocess

TIMEOUT_SECONDS = 60
# How long the browser looks for an element that is not there yet.
PATIENCE_MILLISECONDS = 20000

BROWSERS = "chromium chromium-browser google-chrome google-chrome-stable chrome".split()
# W3C's key of an element's id.
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


def missing():
    """Returns what is missing for a browser, "" if nothing is."""
    if not shutil.which("chromedriver"):
        return "chromedriver is not installed"
    if not any(map(shutil.which, BROWSERS)):
        return "Chromium is not installed"
    return ""


class Element:
    """An element of a page."""

    def __init__(self, browser, identifier):
        self._browser, self._path = browser, "/element/" + identifier

    def _call(self, method, path, **body):
        return self._browser.call(method, self._path + path, **body)

    @property
    def text(self):
        """What a reader sees."""
        return self._call("GET", "/text")

    def click(self):
        """Clicks, or touches."""
        self._call("POST", "/click")

    def write(self, text):
        """Replaces the content of a field."""
        self._call("POST", "/clear")
        self._call("POST", "/value", text=text)


class Browser:
    """One window."""

    def __init__(self, port, session):
        self._port, self._session = port, session

    def call(self, method, path, **body):
        """Calls chromedriver; returns the value."""
        path = "/session/{}{}".format(self._session, path)
        return _call(self._port, method, path, body)

    def open(self, address):
        """Loads a page."""
        self.call("POST", "/url", url=address)

    def find(self, selector):
        """Returns the first `Element` of a CSS selector, waiting for it to appear."""
        found = self.call("POST", "/element", using="css selector", value=selector)
        return Element(self, found[_ELEMENT])

    def find_all(self, selector):
        """Returns the list of `Element`s of a CSS selector now."""
        find = 'return [...document.querySelectorAll("{}")]'
        return [Element(self, e[_ELEMENT]) for e in self.run(find.format(selector))]

    def run(self, script):
        """Runs JavaScript; returns what it returns."""
        return self.call("POST", "/execute/sync", script=script, args=[])

    def screenshot(self, path):
        """Writes a picture of the window, PNG."""
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.call("GET", "/screenshot")))


def _call(port, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, TIMEOUT_SECONDS)
    with contextlib.closing(connection):
        content = None if method == "GET" else json.dumps(body)
        connection.request(method, path, content)
        value = json.loads(connection.getresponse().read().decode("utf-8"))["value"]
    if isinstance(value, dict) and "error" in value:
        raise AssertionError("{error}: {message}".format(**value))
    return value


@contextlib.contextmanager
def driver():
    """Runs chromedriver; yields its port."""
    process = subprocess.Popen(
        ["chromedriver", "--port=0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        # It and its browsers keep their files in a folder of their own.
        env=dict(os.environ, LC_ALL="C.UTF-8"),
    )
    try:
        for line in process.stdout:
            found = re.search(rb"started successfully on port (\d+)", line)
            if found:
                break
        yield int(found.group(1))
    finally:
        process.terminate()
        process.wait(TIMEOUT_SECONDS)
        process.stdout.close()


@contextlib.contextmanager
def window(port, width, height, language="zh-CN"):
    """Opens a window of chromedriver's; yields `Browser`.

    Args:
      port: from `driver`.
      width, height: of the page, in CSS pixels.
      language: that the user prefers.
    """
    options = {
        "binary": next(filter(None, map(shutil.which, BROWSERS))),
        # Containers have no sandbox, and little shared memory.
        "args": "--headless=new --no-sandbox --disable-dev-shm-usage --disable-gpu "
        "--accept-lang={0} --lang={0}".format(language).split(),
        "prefs": {"intl.accept_languages": language},
        "mobileEmulation": {
            "deviceMetrics": {"width": width, "height": height, "pixelRatio": 1}
        },
    }
    capabilities = {"alwaysMatch": {"goog:chromeOptions": options}}
    body = {"capabilities": capabilities}
    session = _call(port, "POST", "/session", body)["sessionId"]
    browser = Browser(port, session)
    try:
        browser.call("POST", "/timeouts", implicit=PATIENCE_MILLISECONDS)
        yield browser
    finally:
        browser.call("DELETE", "")
