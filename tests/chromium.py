"""A headless Chromium, driven through its DevTools protocol."""

from __future__ import annotations

import functools
import http.server
import itertools
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

client = pytest.importorskip("websockets.sync.client", reason="needs websockets")

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE = 180


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address at which a folder is served meanwhile."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


class Page:
    """A page of a browser."""

    def __init__(self, socket: Any):
        self.socket = socket
        self.numbers = itertools.count(1)
        self.session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.enable")
        self.call("Runtime.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """The answer to a command."""
        number = next(self.numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self.session is not None and not method.startswith(("Target.", "Browser.")):
            message["sessionId"] = self.session
        self.socket.send(json.dumps(message))
        while True:
            answer = json.loads(self.socket.recv(timeout=PATIENCE))
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def evaluate(self, program: str) -> Any:
        """What a JavaScript expression, or a promise, comes to, as JSON."""
        answer = self.call(
            "Runtime.evaluate", expression=program, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, program: str) -> Any:
        """What an expression comes to, once that is something."""
        end = time.monotonic() + PATIENCE
        while not (found := self.evaluate(program)):
            assert time.monotonic() < end, f"{program} within {PATIENCE} s; the page says: {self.text('status')!r}"
            time.sleep(0.1)
        return found

    def text(self, name: str) -> str:
        """What an element says."""
        return str(self.evaluate(f"document.getElementById({name!r})?.innerText"))

    def give(self, name: str, path: Path) -> None:
        """Choose a file for an input."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=f"#{name}")["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])


@contextmanager
def opened(profile: Path, *flags: str) -> Iterator[Page]:
    """A page of a browser that lives meanwhile, with its profile in an empty folder."""
    assert PROGRAM is not None
    common = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    address = ["--remote-debugging-port=0", f"--user-data-dir={profile}"]
    with subprocess.Popen(
        [PROGRAM, *common, *address, *flags, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            active = profile / "DevToolsActivePort"
            end = time.monotonic() + PATIENCE
            while not (active.exists() and len(lines := active.read_text().split()) == 2):
                assert process.poll() is None, "the browser does not start"
                assert time.monotonic() < end, f"the browser did not start within {PATIENCE} s"
                time.sleep(0.05)
            with client.connect(f"ws://127.0.0.1:{lines[0]}{lines[1]}", max_size=None, compression=None) as socket:
                page = Page(socket)
                yield page
                page.call("Browser.close")
        finally:
            process.terminate()
            process.wait(PATIENCE)
