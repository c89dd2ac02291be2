"""The operations page of a real daemon, in a real browser."""

import http.client
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import Browser
from tests.patience import PATIENCE
from tests.supervised.daemon import Daemon, Tamed

APPLICATION = """
from pathlib import Path
from tamed import Application, Service, StreamServer


class Store(Service):
    check_interval = 0.1

    async def check(self):
        return "the disk is full" if Path("full").exists() else None


async def serve(reader, writer):
    await reader.read()
    writer.close()


reading = StreamServer("unix:verse.sock", serve, name="reading" * 50)
application = Application("verse", Store("store"), reading)
"""

IS_LIVE = """new Promise(done => {
  const look = () => document.getElementById("live").textContent === "live" && done();
  new MutationObserver(look).observe(document, {subtree: true, childList: true, characterData: true});
  look();
})"""
NEWS = """new Promise(done => new MutationObserver(() => done()).observe(
  document.getElementById("health"), {subtree: true, childList: true, characterData: true}))"""


@pytest.fixture
def daemon(tamed: Tamed) -> Daemon:
    """A daemon with two workers and a page."""
    tamed.write("verse.py", APPLICATION)
    return tamed.start("--workers", "2", "--ops", "127.0.0.1:0", "verse.py")


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A browser."""
    if shutil.which("chromium") is None:
        pytest.skip("there is no chromium")
    with Browser() as made:
        yield made


def address(daemon: Daemon) -> str:
    """Return the address of the page; lines of workers have their number before the level."""
    return daemon.expect_log(r"\d INFO tamed.net: listening on (127.0.0.1:\d+)")[1]


def test_page_shows_what_happens_and_is_used_by_keyboard(
    tamed: Tamed, daemon: Daemon, browser: Browser
) -> None:
    """An open page shows a reload, a death, a failing check, a failed reload and the end.

    On a small screen the first key reaches the way to the log, the next one the button that stops what moves.
    """
    use_by_keyboard(daemon, browser)
    browser.show_as()
    browser.open(f"http://{address(daemon)}/")
    browser.wait_for("verse is running")
    browser.wait_for("live")
    assert tamed("reload", daemon.name).status == 0
    browser.wait_for("verse was reloaded: generation 2, 2 workers")
    browser.wait_for("requested by")
    killed = daemon.wait_workers(2)[0]
    os.kill(killed, signal.SIGKILL)
    browser.wait_for(f"worker {killed} was ended by SIGKILL")
    daemon.wait_workers(2, without=[killed])
    browser.wait_for("replaces a lost worker")
    full = tamed.write("full", "")
    browser.wait_for("the check of store fails: the disk is full")
    browser.wait_for("verse is degraded")
    full.unlink()
    browser.wait_for("the check of store passes again")
    tamed.write("verse.py", "this is no Python\n")
    assert tamed("reload", daemon.name).status != 0
    browser.wait_for("the reload failed")
    browser.wait_for("reload failed, generation 2 continues")  # in the log
    assert browser.problems == []
    notice_silence(daemon, browser)
    daemon.stop()
    browser.wait_for("No connection since")


def notice_silence(daemon: Daemon, browser: Browser) -> None:
    """Stop the process that serves the page for some time: its connections stay open."""
    pids = daemon.tamed.processes()
    (server,) = [pid for pid in pids if b"tamed.ops" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    browser.run("patience = 3000")
    browser.run(NEWS)  # from which on it waits no longer than that
    os.kill(server, signal.SIGSTOP)
    try:
        browser.wait_for("No connection since")
    finally:
        os.kill(server, signal.SIGCONT)
    browser.run("patience = 40000")
    browser.run(IS_LIVE)


def use_by_keyboard(daemon: Daemon, browser: Browser) -> None:
    """Press keys on a small screen."""
    browser.show_as(width=390, dark=True)
    browser.open(f"http://{address(daemon)}/")
    browser.wait_for("live")
    browser.press("Tab")
    assert browser.run("document.activeElement.textContent") == "Skip to the log"
    browser.press("Tab")
    browser.press("Enter")
    browser.wait_for("paused")
    browser.press("Enter")
    browser.wait_for("live")
    shown = "[...document.getElementById('log').rows].filter(each => !each.hidden).length"
    everything = browser.run(shown)
    assert everything > 0
    choose = "(() => { const box = document.querySelector('[name=level]'); box.value = '2'; "
    browser.run(f"{choose} box.dispatchEvent(new Event('change', {{bubbles: true}})); }})()")
    assert browser.run(shown) == 0
    assert browser.run("document.documentElement.scrollWidth") <= 390
    assert browser.problems == []


def test_streams_end_with_the_daemon(daemon: Daemon) -> None:
    """The answer is whole: what a proxy or a client has read does not look cut."""
    connection = http.client.HTTPConnection(address(daemon), timeout=PATIENCE)
    connection.request("GET", "/stream")
    answer = connection.getresponse()
    assert answer.getheader("content-type") == "text/event-stream"
    assert answer.readline() == b"retry: 1000\n"
    daemon.stop()
    rest = answer.read()  # raises IncompleteRead if the end is missing
    assert b"event: health" in rest
    connection.close()
