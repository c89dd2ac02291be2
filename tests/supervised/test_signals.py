"""Signals to a daemon and to a supervisor in the foreground, and stopping a daemon."""

import os
import pty
import re
import signal
import socket
from pathlib import Path

import pytest

from tests.patience import PATIENCE
from tests.supervised.daemon import Daemon, Tamed, is_there, wait_for
from tests.supervised.talk import APPLICATION, Load, connected, finish


@pytest.fixture
def app(tamed: Tamed) -> Path:
    """An application that obeys its clients."""
    return tamed.write("app.py", APPLICATION)


@pytest.fixture
def daemon(tamed: Tamed, app: Path) -> Daemon:
    """Two workers that obey their clients."""
    return tamed.start("--workers", "2", app)


def test_term_to_all_processes_at_once_loses_no_connection(daemon: Daemon) -> None:
    """As from systemd, and twice: every accepted client is served to the end."""
    everyone = [daemon.pid, *daemon.workers()]
    with Load(daemon.port) as load, connected(daemon.port) as (_, sock):
        load.wait(50)
        for pid in everyone * 2:
            os.kill(pid, signal.SIGTERM)
        wait_for("the end of the idle worker", lambda: sum(map(is_there, everyone)) == 2)
        assert finish(sock) == b"poem"
        daemon.wait_gone()
    assert [heard for heard in load.failed if heard.worker] == []
    wait_for("the end of all", lambda: daemon.tamed.left() == {})


def test_clients_who_wait_in_the_queue_are_served_before_the_end(daemon: Daemon) -> None:
    """These are clients that no worker has accepted yet; later ones are refused."""
    workers = daemon.workers()
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    clients = [socket.create_connection(("127.0.0.1", daemon.port), timeout=PATIENCE) for _ in range(10)]
    daemon.signal(signal.SIGTERM)
    daemon.expect_log("SIGTERM: stopping")
    for pid in workers:
        os.kill(pid, signal.SIGCONT)
    for client in clients:
        with client:
            assert re.fullmatch(rb"\d+\npoem", finish(client))
    daemon.wait_gone()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", daemon.port), timeout=PATIENCE)


def test_ctrl_c_stops_and_a_second_one_ends_at_once(tamed: Tamed, app: Path) -> None:
    """The daemon ends by the signal itself, so that a shell sees it; nothing is left."""
    with tamed.foreground("run", "--name", "app", "--workers", "2", app) as process:
        port = int(process.expect(r"ready: pid \d+, listening on 127.0.0.1:(\d+)")[1])
        with connected(port) as (_, sock):
            process.signal(signal.SIGINT)
            process.expect("INFO tamed: SIGINT: stopping")
            process.signal(signal.SIGINT)
            assert process.wait() == -signal.SIGINT
            assert sock.recv(100) == b""
    assert "WARNING tamed: SIGINT: ending at once" in process.output
    wait_for("the end of the workers", lambda: tamed.left() == {})


def test_ctrl_c_stops_gracefully(tamed: Tamed, app: Path) -> None:
    """It ends with status 0, and not by the signal."""
    with tamed.foreground("run", "--workers", "2", app) as process:
        process.expect("is ready")
        process.signal(signal.SIGINT)
        assert process.wait() == 0
    assert tamed.left() == {}


def test_quit_ends_at_once(daemon: Daemon) -> None:
    """This applies also while clients are served; pid file, socket and processes are gone."""
    with connected(daemon.port) as (_, sock):
        daemon.signal(signal.SIGQUIT)
        daemon.wait_gone()
        assert sock.recv(100) == b""
    wait_for("the end of the workers", lambda: daemon.tamed.left() == {})


def test_stop_shows_how_many_connections_are_open(daemon: Daemon) -> None:
    """The number is shown on a terminal, while the command waits.

    Clients of the control socket who say nothing hold up nobody: neither other requests nor the end.
    """
    silent = []
    for number in range(20):
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(daemon.folder / "app.sock"))
        if number % 2:
            client.sendall(b'{"command": "sta')
        silent.append(client)
    assert daemon.status()["pid"] == daemon.pid
    ours, theirs = pty.openpty()
    with (
        connected(daemon.port) as (_, sock),
        connected(daemon.port) as (_, other),
        daemon.tamed.popen("stop", stderr=theirs) as command,
    ):
        os.close(theirs)
        shown = b""
        while b"app is stopping: 2 connections open" not in shown:
            shown += os.read(ours, 1000)
        for one in (sock, other):
            assert finish(one) == b"poem"
        out, _ = command.communicate(timeout=PATIENCE)
    os.close(ours)
    assert (command.returncode, out) == (0, "app has stopped\n")
    assert daemon.tamed.left() == {}
    for client in silent:
        assert client.recv(100) == b""
        client.close()


def test_stop_waits_no_longer_than_its_timeout(daemon: Daemon) -> None:
    """After the timeout it reports that; with force it ends the daemon at once."""
    with connected(daemon.port) as (worker, sock):
        done = daemon.tamed("stop", "--timeout", "500ms")
        assert done.status == 71
        remedy = "wait for it, or end it at once with --force"
        assert done.err == f"tamed: app is still there: 0.5 s have passed; {remedy}\n"
        assert daemon.status()["state"] == "stopping"
        assert is_there(worker)
        done = daemon.tamed("stop", "--timeout", "500ms", "--force")
        assert done == (0, "app has stopped\n", "")
        assert sock.recv(100) == b""
    assert daemon.tamed.left() == {}


def test_what_a_stop_did_not_wait_for_is_started_again(daemon: Daemon) -> None:
    """The daemon ends after the command has given up: its plan is kept as after any other stop."""
    with connected(daemon.port):
        assert daemon.tamed("stop", "--timeout", "100ms").status == 71
    daemon.wait_gone()
    assert daemon.tamed("status", "app").out.startswith(
        "app has stopped; tamed restart app starts it again\n"
    )
    assert daemon.tamed("restart", "app").status == 0
    assert daemon.tamed("stop", "app").status == 0


def test_force_ends_even_a_supervisor_that_does_not_react(daemon: Daemon) -> None:
    """The workers of the killed supervisor end by themselves."""
    daemon.signal(signal.SIGSTOP)
    done = daemon.tamed("stop", "--timeout", "100ms", "--force")
    assert done.status == 0
    wait_for("the end of the workers", lambda: daemon.tamed.processes() == [])


def test_connections_that_do_not_end_are_cut_in_the_end(tamed: Tamed, app: Path) -> None:
    """They get a reset, so that no client takes a part for the whole; the daemon's status is 0."""
    daemon = tamed.start("--drain-timeout", "500ms", app)
    with connected(daemon.port) as (worker, sock):
        assert tamed("stop").status == 0
        with pytest.raises(ConnectionResetError):
            sock.recv(100)
    assert "app.py" not in daemon.log
    assert re.search(r"WARNING .* aborts connections that did not end within 0.5 s: 1 connection", daemon.log)
    assert not is_there(worker)
    assert tamed.left() == {}


def test_a_worker_that_does_not_stop_is_ended_by_force(tamed: Tamed, app: Path) -> None:
    """It is ended after the stop timeout, with its stacks in the log."""
    daemon = tamed.start("--stop-timeout", "1s", app)
    with connected(daemon.port) as (worker, sock):
        sock.sendall(b"block\n")
        assert tamed("stop").status == 0
    assert f"worker {worker} does not stop: its stacks follow, then it is killed\n" in daemon.log
    assert re.search(rf'output\[{worker}\]:   File ".*app.py", line 9 in recite\n', daemon.log)
    assert tamed.left() == {}
