"""Workers that die, block or send invalid data, and a supervisor that is killed."""

import json
import os
import re
import signal
import socket
import time
from contextlib import suppress

import pytest

from tests.patience import PATIENCE
from tests.supervised.daemon import POEM, Daemon, Tamed, is_there, read_poem, wait_for
from tests.supervised.talk import APPLICATION, Load, connected, finish, say


@pytest.fixture
def daemon(tamed: Tamed) -> Daemon:
    """Two workers that obey their clients, with a short watchdog."""
    tamed.write("app.py", APPLICATION)
    return tamed.start("--workers", "2", "--watchdog", "2s", "app.py")


def test_a_worker_that_is_killed_under_load_is_replaced(daemon: Daemon) -> None:
    """Only its accepted connections fail; the log and the status report its end."""
    workers = daemon.workers()
    victim = workers[0]
    with Load(daemon.port) as load:
        load.wait(50)
        os.kill(victim, signal.SIGKILL)
        daemon.wait_workers(2, without=[victim])
        load.wait(200)
    assert {heard.worker for heard in load.failed} <= {victim, 0}
    assert len(load.failed) <= 8
    assert len({heard.worker for heard in load.heard} - {0}) == 3
    told = rf"worker {victim} was ended by SIGKILL"
    daemon.expect_log(rf"ERROR tamed: {told}; starting another one now\n")
    daemon.expect_log(r"INFO tamed: worker \d+ is ready\n")
    status = daemon.status()
    assert (status["last_error"], status["restarts"]) == (told, 1)
    shown = f"last error, at {status['last_error_at']}: {told}\nrestarts: 1\n"
    assert shown in daemon.tamed("status", daemon.name).out
    daemon.stop()


def test_a_worker_that_blocks_is_dumped_and_replaced(daemon: Daemon) -> None:
    """Its Python stacks are in the log, with its pid; the other worker goes on serving.

    A suspended worker cannot write its stacks: one that does not even abort is killed.
    """
    with connected(daemon.port) as (victim, sock):
        sock.sendall(b"block\n")
        with Load(daemon.port, clients=2) as load:
            daemon.expect_log(
                rf"worker {victim} has not answered for 2 s: its stacks follow, then it is killed\n"
            )
            daemon.wait_workers(2, without=[victim])
        assert {heard.worker for heard in load.failed} <= {victim, 0}
        assert any(heard.rest == b"poem" for heard in load.heard)
    found = daemon.expect_log(rf'output\[{victim}\]:   File ".*app.py", line 9 in recite\n')
    before = daemon.log[: found.start()]
    assert re.search(rf"output\[{victim}\]: Fatal Python error: Aborted\n", before)
    daemon.expect_log(f"worker {victim} was ended by SIGABRT")
    victim = daemon.workers()[0]
    os.kill(victim, signal.SIGSTOP)
    daemon.expect_log(f"worker {victim} has not answered")
    daemon.wait_workers(2, without=[victim])
    daemon.expect_log(f"worker {victim} was ended by SIGKILL")
    daemon.stop()


def test_what_is_printed_is_in_the_log_until_the_application_ends_the_daemon(daemon: Daemon) -> None:
    """This is the output of the application and of its children; standard input is empty.

    It is also what a crash prints: the output of Python and earlier prints, with the pid of the worker.
    If the application wants to end, all workers stop; how it ended is left, and the plan to restart it.
    """
    heard = say(daemon.port, b"print")
    assert heard.rest == b"poem"
    daemon.expect_log(rf"WARNING output\[{heard.worker}\]: printed\n")
    daemon.expect_log(rf"WARNING output\[{heard.worker}\]: by a child\n")
    victim = say(daemon.port, b"crash").worker
    daemon.expect_log(rf"WARNING output\[{victim}\]: about to crash\n")
    daemon.expect_log(rf"output\[{victim}\]: Fatal Python error: Segmentation fault\n")
    daemon.expect_log(rf"worker {victim} was ended by SIGSEGV; starting another one")
    daemon.wait_workers(2, without=[victim])
    say(daemon.port, b"exit")
    daemon.wait_gone()
    assert "the application ends, with status 5: stopping\n" in daemon.log
    kept = {str(daemon.folder / name): "file" for name in ("app.failed", "app.plan")}
    wait_for("the end", lambda: daemon.tamed.left() == kept)


def test_the_status_of_an_application_is_that_of_its_supervisor(tamed: Tamed) -> None:
    """It is the exit status in the foreground."""
    tamed.write("app.py", APPLICATION)
    with tamed.foreground("run", "--workers", "2", "app.py") as process:
        port = int(process.expect(r"ready: pid \d+, listening on 127.0.0.1:(\d+)")[1])
        say(port, b"exit")
        assert process.wait() == 5
    assert tamed.left() == {}


def test_workers_outlive_a_killed_supervisor_only_to_drain(daemon: Daemon) -> None:
    """They finish their accepted connections; the next start works at once, also on the same port.

    So does a start right after a kill: workers of the killed supervisor release the port before it is needed.
    """
    workers = daemon.workers()
    with connected(daemon.port) as (worker, sock):
        daemon.signal(signal.SIGKILL)
        daemon.wait_gone()
        other = next(pid for pid in workers if pid != worker)
        wait_for("the end of the idle worker", lambda: not is_there(other))
        assert finish(sock, b"print") == b"poem"
    wait_for("the end of the workers", lambda: not any(map(is_there, workers)))
    assert (daemon.folder / "app.pid").exists()
    again = ("--name", "app", "fastpoetry", "--port", str(daemon.port))
    after = daemon.tamed.start(*again)
    assert read_poem(after.port).startswith(b"The Ecstasy")
    after.signal(signal.SIGKILL)
    after.wait_gone()
    last = daemon.tamed.start(*again, "--poem", daemon.tamed.poem)
    assert read_poem(last.port) == POEM
    last.stop()


def test_a_stop_while_replacements_fail_has_status_0(tamed: Tamed) -> None:
    """A failed replacement during the stop is no failure."""
    tamed.write(
        "app.py",
        "from pathlib import Path\nfrom tamed import Application\n"
        "if Path('broken').exists():\n    raise KeyError('rhyme')\napplication = Application('app')\n",
    )
    with tamed.foreground("run", "--workers", "2", "app.py") as process:
        process.expect("is ready")
        tamed.write("broken", "")
        workers = [pid for pid in tamed.processes() if pid != process.pid]
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        process.expect(
            r"ERROR tamed: worker \d+ failed: app.py raised while it was loaded: KeyError: 'rhyme'; starting"
        )
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
    assert tamed.left() == {}


def test_whatever_an_application_writes_to_its_channel_ends_its_worker_alone(tamed: Tamed) -> None:
    """The worker is replaced, with the reason in one line, and the supervisor goes on.

    One that has closed its channel is replaced, too: it can neither answer nor send heartbeats.
    """
    line = tamed.folder / "line"
    tamed.write("app.py", APPLICATION)
    daemon = tamed.start("--watchdog", "2s", "app.py")
    (worker,) = daemon.workers()
    for nonsense in (b"this is no message", b"[" * 3000, b'{"state": "stuck"}', b"x" * (5 << 20)):
        line.write_bytes(nonsense + b"\n")
        say(daemon.port, b"utter")
        (other,) = daemon.wait_workers(1, without=[worker])
        daemon.expect_log(rf"ERROR tamed: worker {worker} sent an invalid message \(.*\): killing it\n")
        worker = other
    say(daemon.port, b"hush")
    daemon.wait_workers(1, without=[worker])
    daemon.expect_log(f"worker {worker} (was ended by|has not answered)")
    assert "Traceback" not in daemon.log
    assert daemon.log.count("\n") < 100
    daemon.stop()


ASKED = [
    (b"[" * 3000, "nested deeper than"),
    (b'{"command": "scale", "workers": %s}' % (b"9" * 401), "64 bits"),
    (b'{"command": "scale", "workers": true}', "workers: expected a whole number"),
    (b'{"command": "scale", "workers": 2.0}', "workers: expected a whole number"),
    (b'{"command": "scale", "workers": Infinity}', "not JSON"),
    (b'{"command": ["status"]}', "command: expected a text"),
    (b"\xff", "invalid JSON"),
    (b'{"command": "%s"}' % (b"x" * 100_000), "longer than"),
]


def test_a_supervisor_goes_on_whatever_it_is_asked_and_after_it_was_suspended(daemon: Daemon) -> None:
    """Invalid requests at the control socket get one line.

    A supervisor that was suspended does not blame its workers: it reads the messages that arrived meanwhile
    before it checks them.
    """
    for line, why in ASKED:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(daemon.folder / f"{daemon.name}.sock"))
            with suppress(BrokenPipeError, ConnectionResetError):  # it has read enough
                client.sendall(line + b"\n")
            told = client.makefile("rb").read()
        assert json.loads(told).keys() == {"error"}, line
        assert why in told.decode(), line
        assert told.count(b"\n") == 1
    workers = daemon.workers()
    daemon.signal(signal.SIGSTOP)
    time.sleep(2.5)  # longer than the watchdog's patience; that is what the test is about
    daemon.signal(signal.SIGCONT)
    assert daemon.workers() == workers
    assert "has not answered" not in daemon.log
    daemon.stop()
