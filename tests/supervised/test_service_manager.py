"""What systemd hears of a daemon, and what it does to one: a stand-in has its socket."""

import errno
import os
import signal
import time

import pytest

from tests.supervised.daemon import POEM, Tamed, read_poem
from tests.supervised.service_manager import service_manager, stream_of_the_journal
from tests.supervised.test_degraded import FRAGILE

SLOW = """
import asyncio
from pathlib import Path
from tamed import Application, Service

class Slow(Service):
    async def start(self):
        while not Path("go").exists():
            await asyncio.sleep(0.01)

    async def stop(self):
        while Path("go").exists():
            await asyncio.sleep(0.01)

application = Application("app", Slow("slow"))
"""

BLOCKED = """
import time
from tamed import Application, Service

class Blocked(Service):
    async def run(self):
        print("blocked now")
        time.sleep(3600)

application = Application("app", Blocked("blocked"))
"""


def test_a_reload_and_an_upgrade_are_reported_with_their_begin_and_end(tamed: Tamed) -> None:
    """The begin has the time, without which systemd ignores it; the pid stays."""
    with service_manager(tamed.folder) as manager:
        daemon = tamed.start_poetry(env=manager.env)
        assert manager.expect("READY")["MAINPID"] == str(daemon.pid)
        for command, reloads in (("reload", 1), ("upgrade", 2)):
            before = time.monotonic_ns() // 1000
            assert tamed(command).status == 0
            for _ in range(reloads):
                begun = manager.expect("RELOADING")
                assert before <= int(begun["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
            assert manager.expect("READY")["STATUS"].startswith("fastpoetry was reloaded")
        daemon.stop()
        assert manager.expect("STOPPING")["STATUS"].startswith("draining: ")
        assert manager.expect("EXIT_STATUS")["EXIT_STATUS"] == "0"


def test_it_hears_that_the_daemon_is_degraded(tamed: Tamed) -> None:
    """The manager is notified in one line, and again when the daemon has recovered."""
    with service_manager(tamed.folder) as manager:
        tamed.write("app.py", FRAGILE)
        daemon = tamed.start("--workers", "2", "app.py", env=manager.env)
        manager.expect("READY")
        tamed.write("broken", "0")
        os.kill(daemon.workers()[0], signal.SIGKILL)
        manager.expect("STATUS", "degraded: 1 of 2 workers ready; last error: worker ")
        (tamed.folder / "broken").unlink()
        manager.expect("STATUS", "running: 2 workers ready")
        daemon.stop()


@pytest.mark.parametrize("options", [[], ["--workers", "1"]], ids=["alone", "with workers"])
def test_it_hears_why_a_start_has_failed(tamed: Tamed, options: list[str]) -> None:
    """The reason is the last status, the exit status follows, and the number of the error is sent once."""
    with service_manager(tamed.folder) as manager:
        done = tamed("run", *options, "fastpoetry", "--poem", "/none.txt", "--port", "0", env=manager.env)
        assert done.status == 66
        manager.rest()
        assert [heard["STATUS"] for heard in manager.heard if "STATUS" in heard][-1].endswith(
            "cannot read the poem /none.txt: No such file or directory; use a readable file"
        )
        assert manager.heard[-1]["EXIT_STATUS"] == "66"
        assert [heard["ERRNO"] for heard in manager.heard if "ERRNO" in heard] == [str(errno.ENOENT)]
        assert not any("READY" in heard for heard in manager.heard)


@pytest.mark.parametrize("options", [[], ["--workers", "1"]], ids=["alone", "with workers"])
def test_a_start_and_a_stop_that_take_long_are_given_the_time(tamed: Tamed, options: list[str]) -> None:
    """The manager is asked for more time while one goes on."""
    tamed.write("app.py", SLOW)
    with (
        service_manager(tamed.folder) as manager,
        tamed.foreground("run", *options, "app.py", env=manager.env) as process,
    ):
        for _ in range(1 + len(options)):
            assert int(manager.expect("EXTEND_TIMEOUT_USEC")["EXTEND_TIMEOUT_USEC"]) >= 15_000_000
        tamed.write("go", "")
        manager.expect("READY")
        process.signal(signal.SIGTERM)
        manager.expect("STOPPING")
        manager.expect("EXTEND_TIMEOUT_USEC")
        (tamed.folder / "go").unlink()
        assert process.wait() == 0


@pytest.mark.parametrize("options", [[], ["--workers", "1"]], ids=["alone", "with workers"])
def test_a_delayed_stop_serves_clients_until_it_begins(tamed: Tamed, options: list[str]) -> None:
    """The manager hears of the stop at once, clients are served, and another signal ends the delay."""
    target = ("fastpoetry", "--port", "0", "--poem", tamed.poem)
    with (
        service_manager(tamed.folder) as manager,
        tamed.foreground("run", *options, "--stop-delay", "1h", *target, env=manager.env) as process,
    ):
        port = int(process.expect(r"listening on 127.0.0.1:(\d+)")[1])
        manager.expect("READY")
        process.signal(signal.SIGTERM)
        told = manager.expect("STOPPING")["STATUS"]
        assert told == "stopping: clients are served for 3600 s, and then drained"
        manager.expect("EXTEND_TIMEOUT_USEC")
        assert read_poem(port) == POEM
        process.signal(signal.SIGINT)
        assert process.wait() == 0
    assert "INFO tamed: SIGTERM: stopping in 3600 s" in process.output


def test_a_process_without_workers_refuses_to_reload_and_goes_on(tamed: Tamed) -> None:
    """A reload by the manager (``Type=notify-reload``) is a SIGHUP, and must have a begin and an end."""
    with (
        service_manager(tamed.folder) as manager,
        tamed.foreground("run", "fastpoetry", "--port", "0", env=manager.env) as process,
    ):
        assert manager.expect("READY")["STATUS"] == f"fastpoetry is ready: pid {process.pid}"
        process.signal(signal.SIGHUP)
        assert "MONOTONIC_USEC" in manager.expect("RELOADING")
        assert manager.expect("READY")["STATUS"].endswith("not reloaded: it has no workers")
        process.expect("WARNING tamed: SIGHUP: cannot reload a process without workers")
        process.signal(signal.SIGTERM)
        assert manager.expect("STOPPING")["STATUS"] == "draining"
        assert process.wait() == 0


def test_the_stacks_are_in_the_log_when_the_managers_watchdog_aborts(tamed: Tamed) -> None:
    """It sends SIGABRT to a process whose loop is blocked."""
    tamed.write("app.py", BLOCKED)
    with tamed.foreground("run", "app.py") as process:
        process.expect("blocked now")
        process.signal(signal.SIGABRT)
        process.expect(r'File "app.py", line \d in run')
        assert process.wait() == -signal.SIGABRT


def test_the_journal_has_the_reason_of_a_failed_start_once(tamed: Tamed) -> None:
    """Standard error, which goes to the journal too, does not repeat it."""
    with stream_of_the_journal(tamed.folder) as (stderr, env):
        target = ["run", "--workers", "1", "fastpoetry", "--poem", "/none.txt", "--port", "0"]
        with tamed.popen(*target, stderr=stderr, env=env) as process:
            process.communicate()
        assert process.returncode == 66
    assert "/none.txt" not in (tamed.folder / "stream").read_text()
