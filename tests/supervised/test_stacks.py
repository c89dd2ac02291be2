"""The stacks of real workers, and what happened last to a daemon."""

import json
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.supervised.daemon import Tamed, read_poem, wait_for

HANGING = """
import asyncio
from tamed import Application, Service

class Slow(Service):
    async def start(self):
        await asyncio.sleep(3600)

application = Application("app", Slow("slow"))
"""

BUSY = """
import asyncio, threading, time
from tamed import Application, Service

def nap():
    time.sleep(3600)

async def inner():
    await asyncio.sleep(3600)

async def outer():
    await inner()

class Verse(Service):
    async def run(self):
        threading.Thread(target=nap, name="napper", daemon=True).start()
        tasks = [asyncio.create_task(outer(), name=f"outer-{n}") for n in range(5)]
        await asyncio.sleep(0)
        if __import__("os").path.exists("block"):
            print("blocked", flush=True)
            time.sleep(3600)
        await asyncio.gather(*tasks)

application = Application("app", Verse("verse"))
"""


def test_the_stacks_of_threads_and_tasks(tamed: Tamed) -> None:
    """Equal stacks are counted together, and the whole chain of awaits is shown; the daemon goes on.

    Of several who ask at once, each gets an answer.
    """
    tamed.write("app.py", BUSY)
    daemon = tamed.start("--workers", "2", "app.py")

    def napping() -> list[dict[str, Any]]:
        done = tamed("stacks", "--json")
        assert (done.status, done.err) == (0, "")
        found: list[dict[str, Any]] = json.loads(done.out)
        return found if all(len(each["threads"]) >= 2 for each in found) else []

    first, second = wait_for("both workers at work", napping)
    assert {first["worker"], second["worker"]} == {1, 2}
    (task,) = (each for each in first["tasks"] if each["name"].startswith("outer-"))
    assert task["count"] == 5
    assert [line.rpartition(" in ")[2] for line in task["lines"][:2]] == ["outer", "inner"]
    assert task["lines"][-1].startswith("waits for ")
    (thread,) = (each for each in first["threads"] if each["name"] == "napper")
    assert thread["lines"][-1].endswith("in nap")
    text = tamed("stacks").out
    assert re.search(r"^  task outer-\d and 4 like it$", text, re.MULTILINE)
    with ThreadPoolExecutor() as pool:
        answers = [pool.submit(tamed, "stacks") for _ in range(3)]
    assert [each.result().status for each in answers] == [0, 0, 0]
    assert daemon.status()["ready"] == 2
    daemon.stop()


def test_a_blocked_worker_prints_its_stacks(tamed: Tamed) -> None:
    """By a signal; it goes on too."""
    tamed.write("app.py", BUSY)
    tamed.write("block", "")
    daemon = tamed.start("--watchdog", "1h", "app.py")
    daemon.expect_log("blocked")
    done = tamed("stacks")
    assert "it does not answer: its event loop is blocked" in done.out
    assert re.search(r'File ".*app\.py", line \d+ in run', done.out)
    assert len(daemon.workers()) == 1
    daemon.signal(signal.SIGQUIT)
    daemon.wait_gone()


def test_why_tells_the_start_and_the_last_death(tamed: Tamed) -> None:
    """With the signal, the last lines, and that it was not for want of memory."""
    daemon = tamed.start_poetry("--workers", "2")
    assert "no worker has died, as far as is known" in tamed("why").out
    read_poem(daemon.port)
    victim = daemon.workers()[0]
    os.kill(victim, signal.SIGKILL)
    daemon.wait_workers(2, without=[victim])
    done = tamed("why")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(f"fastpoetry is running: pid {daemon.pid}, up 00:")
    assert re.search(r"the last start, at \S+: done after [\d.]+ m?s\n", done.out)
    assert re.search(r"    fastpoetry/server: prepare \S+ m?s, start \S+ m?s\n", done.out)
    assert re.search(rf"the last death, at \S+: worker {victim} was ended by SIGKILL\n", done.out)
    assert "signal SIGKILL, lived " in done.out
    assert "another process sent the signal" in done.out or "OOM killer killed a process" in done.out
    assert "loaded a poem" in done.out
    daemon.stop()


def test_why_tells_what_a_start_waits_for(tamed: Tamed) -> None:
    """The hook, its service, and where in the code it is."""
    tamed.write("app.py", HANGING)
    with tamed.begin("start", "app.py") as command:

        def waiting() -> str:
            out = tamed("why", "app").out
            return out if "in start for" in out else ""

        out = wait_for("the hook", waiting)
        assert out.startswith("app is starting: ")
        assert re.search(r'\n    File ".*app\.py", line \d+, in \S*start\n', out)
        command.send_signal(signal.SIGINT)
        command.communicate()
    wait_for("the end", lambda: not tamed.processes())
