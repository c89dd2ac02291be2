"""The pictures of the operations page in the docs; ``python -m tests.supervised.pictures`` takes them anew.

It takes two minutes, in which clients come and go, so that there is something to see.
"""

import math
import os
import signal
import socket
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path

from tamed.errors import TamedError
from tests.browser import Browser
from tests.patience import PATIENCE
from tests.structure.source import ROOT
from tests.supervised.daemon import Daemon, Tamed, wait_for

_FOLDER = ROOT / "docs" / "_pictures"
_STEPS = 120  # seconds
_APPLICATION = """
from pathlib import Path
from tamed import Application, Service, StreamServer


class Store(Service):
    check_interval = 0.2

    async def check(self):
        return "no answer from 10.0.0.7:5432" if Path("lost").exists() else None


async def serve(reader, writer):
    await reader.read()
    writer.close()


application = Application("verse", Store("store"), StreamServer("127.0.0.1:0", serve, name="poems"))
"""

_SLOW = """
import asyncio
from pathlib import Path
from tamed import Application, Service, StreamServer


class Store(Service):
    async def start(self):
        while Path("wait").exists():
            await asyncio.sleep(0.1)


async def serve(reader, writer):
    await reader.read()
    writer.close()


application = Application("slow", Store("store"), StreamServer("127.0.0.1:0", serve, name="poems"))
"""


def main() -> None:
    """Take a picture of each state."""
    _FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, closing(Tamed(Path(folder))) as tamed, Browser() as browser:
        tamed.write("verse.py", _APPLICATION)
        daemon = tamed.start("--user", "root", "--workers", "3", "--ops", "127.0.0.1:0", "verse.py")
        browser.show_as(width=1000, height=640)
        page = daemon.expect_log(r"\d INFO tamed.net: listening on (127.0.0.1:\d+)")[1]
        browser.open(f"http://{page}/")
        clients = _come_and_go(daemon)
        _take(browser, "healthy", "verse is running")
        lost = tamed.write("lost", "")
        _take(browser, "degraded", "verse is degraded")
        lost.unlink()
        browser.wait_for("the check of store passes again")
        tamed.write("verse.py", 'raise RuntimeError("there is no poem")\n')
        tamed("reload", daemon.name)
        browser.show_as(width=1000, height=640, dark=True)
        _take(browser, "reload-failed", "the reload failed")
        _end_workers(daemon)
        _take(browser, "failing", "verse is failing")
        browser.show_as(width=390, height=700)
        _take(browser, "telephone", "verse is failing")
        for client in clients:
            client.close()
        _take_ends(tamed, browser)


def _take_ends(tamed: Tamed, browser: Browser) -> None:
    """Take a daemon that starts, one that drains, and one whose supervisor was killed."""
    tamed.write("slow.py", _SLOW)
    wait = tamed.write("wait", "")
    endpoint = ("--ops", "127.0.0.1:0")
    words = ("start", "--user", "root", "--workers", "2", "--stop-delay", "1h", *endpoint, "slow.py")
    browser.show_as(width=1000, height=640)
    with tamed.popen(*words) as starting:
        daemon = wait_for("the daemon", lambda: _found(tamed, "slow"))
        page = daemon.expect_log(r"\d INFO tamed.net: listening on (127.0.0.1:\d+)")[1]
        browser.open(f"http://{page}/")
        _take(browser, "starting", "slow is starting")
        wait.unlink()
        starting.wait(PATIENCE)
    daemon.signal(signal.SIGTERM)
    _take(browser, "draining", "slow is stopping")
    os.kill(daemon.pid, signal.SIGKILL)
    _take(browser, "lost", "No connection since")


def _found(tamed: Tamed, name: str) -> Daemon | None:
    """Return a daemon that has begun to start."""
    daemon = Daemon(tamed, name, 0, [])
    with suppress(TamedError, OSError):
        daemon.pid = daemon.status()["pid"]
        return daemon
    return None


def _come_and_go(daemon: Daemon) -> list[socket.socket]:
    """Be more and fewer clients; return those that stay."""
    clients: list[socket.socket] = []
    for step in range(_STEPS):
        wanted = round(15 + 12 * math.sin(step / 9) + step % 7)
        while len(clients) < wanted:
            clients.append(socket.create_connection(("127.0.0.1", daemon.port)))
        while len(clients) > wanted:
            clients.pop(0).close()
        time.sleep(1.0)
    return clients


def _end_workers(daemon: Daemon) -> None:
    for pid in daemon.workers():
        os.kill(pid, signal.SIGKILL)


def _take(browser: Browser, name: str, shown: str) -> None:
    browser.wait_for(shown)
    browser.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    browser.picture(_FOLDER / f"page-{name}.png")


if __name__ == "__main__":
    main()
