"""A real browser for tests: Chromium without a window, steered over a pipe by its DevTools protocol.

See https://chromedevtools.github.io/devtools-protocol/. What a page shows is waited for in the page itself,
by a `MutationObserver`, so nothing is polled.
"""

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.patience import PATIENCE

_OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync --disable-extensions "
    "--remote-debugging-pipe"
)
_SHOWN = """new Promise(done => {
  const text = %s;
  const look = () => (document.body.innerText.includes(text) ? done(true) : false);
  if (look()) return;
  new MutationObserver(look).observe(document, {subtree: true, childList: true, characterData: true});
})"""


class Browser:
    """A browser with one page. Must be used in a ``with``, which ends it."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._session = ""
        self._rest = b""
        self.problems: list[str] = []
        """What the page has complained about: its errors, and what its policy has refused."""

    def __enter__(self) -> Self:
        self._profile = tempfile.mkdtemp(prefix="tamed-browser-")
        reading, self._out = os.pipe()
        self._in, writing = os.pipe()
        # Above those that a shell redirects: it reads of 3 and writes to 4.
        theirs = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 10) for each in (reading, writing)]
        command = f'exec chromium {_OPTIONS} "$@" 3<&{theirs[0]} 4>&{theirs[1]}'
        self._process = subprocess.Popen(
            ["bash", "-c", command, "chromium", f"--user-data-dir={self._profile}", "about:blank"],
            pass_fds=theirs,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for each in (reading, writing, *theirs):
            os.close(each)
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, 9)
        self._process.wait(PATIENCE)
        os.close(self._in)
        os.close(self._out)
        shutil.rmtree(self._profile, ignore_errors=True)

    def open(self, url: str) -> None:
        """Load a page."""
        self._call("Page.navigate", url=url)
        self.run("new Promise(done => document.readyState === 'complete' ? done() : onload = done)")

    def run(self, script: str) -> Any:
        """Return the value of an expression in the page, or of its promise."""
        answer = self._call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def wait_for(self, text: str) -> None:
        """Wait until the page shows a text."""
        assert self.run(_SHOWN % json.dumps(text)) is True

    def press(self, key: str) -> None:
        """Press a key, such as Tab or Enter."""
        text = {"text": "\r"} if key == "Enter" else {}
        number = {"Tab": 9, "Enter": 13}[key]
        for kind in ("keyDown", "keyUp"):
            self._call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=number, **text
            )

    def show_as(self, *, width: int = 1100, height: int = 800, dark: bool = False) -> None:
        """Set the size of the window, in pixels of CSS, and which colours the user prefers."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path) -> None:
        """Write a picture of what is visible, as PNG."""
        data = self._call("Page.captureScreenshot", format="png", optimizeForSpeed=False)["data"]
        path.write_bytes(base64.b64decode(data))

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != number:
            self._note(answer)
        if "error" in answer:
            raise AssertionError(f"{method}: {answer['error']}")
        return dict(answer["result"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            if not select.select([self._in], [], [], PATIENCE)[0]:
                raise AssertionError(f"the browser does not answer; problems: {self.problems}")
            data = os.read(self._in, 1 << 16)
            if not data:
                raise AssertionError("the browser has ended")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(line))

    def _note(self, message: dict[str, Any]) -> None:
        if message.get("method") == "Runtime.exceptionThrown":
            self.problems.append(str(message["params"]["exceptionDetails"]))
        elif message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
            self.problems.append(message["params"]["entry"]["text"])
