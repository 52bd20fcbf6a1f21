"""Chromium without a window, driven over its debugging pipe: opens pages, evaluates, photographs, notes every error."""

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

REQUIRED = "INNA_TUNE_REQUIRE_CHROMIUM"
PATIENCE = 60.0  # seconds for one answer, on a machine that is busy


def find_chromium():
    """The browser; skips the test where there is none, and fails it where one must be."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{REQUIRED}=1, but there is no chromium on the path")
    return pytest.skip("no chromium on the path: apt-get install chromium")


class Browser:
    """One page of one browser.

    ``errors`` lists what the page logged as an error, raised, or failed to load; ``requests`` every address that it asked
    for.
    """

    def __init__(self):
        self.errors, self.requests = [], []
        self._folder = tempfile.mkdtemp(prefix="inna-tune-chromium-")
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        # Chromium reads from descriptor 3 and writes to 4; from above them they can be put there in any order.
        high_in, high_out = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 20) for fd in (theirs_in, theirs_out))

        def hand_over():
            os.dup2(high_in, 3)
            os.dup2(high_out, 4)

        options = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
        ]
        options += [
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--mute-audio",
        ]
        self._process = subprocess.Popen(
            [
                find_chromium(),
                *options,
                f"--user-data-dir={self._folder}",
                "--remote-debugging-pipe",
                "about:blank",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=hand_over,
            close_fds=False,
            start_new_session=True,
        )
        for fd in (theirs_in, theirs_out, high_in, high_out):
            os.close(fd)
        self._in, self._out = ours_in, ours_out
        self._buffer, self._sent, self._session, self._loaded = b"", 0, None, False
        pages = [t for t in self.send("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        page = (
            pages[0]["targetId"] if pages else self.send("Target.createTarget", url="about:blank")["targetId"]
        )
        self._session = self.send("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        with_its_children = os.getpgid(self._process.pid)
        os.killpg(with_its_children, signal.SIGKILL)
        self._process.wait()
        os.close(self._in)
        os.close(self._out)
        shutil.rmtree(self._folder, ignore_errors=True)

    def send(self, method, **params):
        """Ask for something, and return the answer."""
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + PATIENCE
        while True:
            found = self._receive(until, method)
            if found.get("id") == self._sent:
                assert "error" not in found, f"{method}: {found['error']}"
                return found["result"]
            self._note(found)

    def _receive(self, until, what):
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"no answer to {what} in {PATIENCE:.0f} seconds"
            got = os.read(self._in, 1 << 16)
            assert got, "the browser is gone"
            self._buffer += got
        first, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(first)

    def _note(self, event):
        method, params = event.get("method"), event.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Network.loadingFailed":
            self.errors.append(f"not loaded: {params.get('errorText')}")
        elif method == "Runtime.exceptionThrown":
            self.errors.append(params["exceptionDetails"].get("text", "exception"))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in {"error", "assert"}:
            self.errors.append(str([a.get("value") for a in params["args"]]))

    def open(self, address, *, width=1280, height=900, dark=False):
        """Go to a page, at a width in CSS pixels, and wait until it is there."""
        self.errors, self.requests = [], []
        self.resize(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", media="", features=[scheme])
        self._loaded = False
        self.send("Page.navigate", url=address)
        until = time.monotonic() + PATIENCE
        while not self._loaded:
            self._note(self._receive(until, f"opening {address}"))

    def resize(self, width, height=900):
        """Give the page another size; one below 600 pixels belongs to a phone."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    def evaluate(self, expression):
        """Value of a JavaScript expression, as JSON."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait_for(self, expression):
        """Wait until a JavaScript expression is true, and return its value."""
        until = time.monotonic() + PATIENCE
        while not (found := self.evaluate(expression)):
            assert time.monotonic() < until, f"never true: {expression}; the page says {self.text()[:2000]!r}"
            self.evaluate("new Promise(done => setTimeout(done, 100))")
        return found

    def text(self):
        """What a person can read on the page."""
        return self.evaluate("document.body.innerText")

    def screenshot(self, path, *, whole=True):
        """Photograph the page, all of its height if `whole`."""
        found = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        Path(path).write_bytes(base64.b64decode(found["data"]))

    def pdf(self, path):
        """Print the page."""
        found = self.send("Page.printToPDF", printBackground=False, preferCSSPageSize=True)
        Path(path).write_bytes(base64.b64decode(found["data"]))


def overflow(browser):
    """Elements that stick out of the page to the right, so that it must be scrolled sideways; scrollable boxes are no sin."""
    return browser.evaluate(
        """(() => {
          const page = document.documentElement;
          if (page.scrollWidth <= page.clientWidth) return [];
          return [...document.querySelectorAll('body *')]
            .filter(e => e.getBoundingClientRect().right > page.clientWidth + 0.5)
            .slice(0, 5).map(e => e.outerHTML.slice(0, 120));
        })()"""
    )
