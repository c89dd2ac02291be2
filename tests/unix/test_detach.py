"""Becoming a daemon, and waiting for one."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import NoReturn

import pytest

from tamed._os.interrupts import release_interrupts
from tamed.errors import ExitStatus, SystemRefused
from tamed.unix.detach import System, detach
from tamed.unix.process import ProcessHandle
from tamed.unix.report import Launch, Reporter
from tests.unix import detach_child
from tests.unix.process import Child, call, command, environment


class Ended(BaseException):
    """A process ended that was not really forked."""


class Recorded(System):
    """An operating system that only takes notes."""

    def __init__(self, *forks: int | OSError, failing: str = "") -> None:
        self.calls: list[str] = []
        self._forks = list(forks)
        self._failing = failing

    def _note(self, name: str) -> None:
        self.calls.append(name)
        if name == self._failing:
            raise PermissionError(13, "Permission denied")

    def require_single_thread(self, what: str) -> None:
        self._note("one thread")

    def fork(self) -> int:
        self._note("fork")
        result = self._forks.pop(0)
        if isinstance(result, OSError):
            raise result
        return result

    def setsid(self) -> None:
        self._note("session")

    def exit(self, status: int) -> NoReturn:
        self._note(f"exit {status}")
        raise Ended

    def umask(self, mask: int) -> None:
        self._note(f"umask {mask:o}")

    def chdir(self, directory: Path) -> None:
        self._note(f"go to {directory}")

    def silence(self) -> None:
        self._note("silence")

    def close_inherited(self, keep: Collection[int]) -> None:
        self._note(f"close all but {sorted(keep)}")


def end(pid: int) -> None:
    """End a daemon that a test started, and wait until it is gone."""
    handle = ProcessHandle.open(pid)
    if handle is not None:
        with handle:
            handle.signal(signal.SIGKILL)
            handle.wait_gone(None)


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended, within a second."""
    handle = ProcessHandle.open(pid)
    if handle is None:
        return True
    with handle:
        return handle.wait_gone(1)


def test_order_in_the_daemon() -> None:
    """The daemon leads no session, which the process between does; then it becomes what was asked for."""
    system = Recorded(0, 0)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    reporter = detach(keep=[7], umask=0o27, directory=Path("/srv"), system=system)
    assert isinstance(reporter, Reporter)
    reporter.close()
    assert system.calls == [
        "one thread",
        "fork",
        "session",
        "fork",
        "umask 27",
        "go to /srv",
        "close all but [7]",
        "silence",
    ]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask


def test_process_between_ends_at_once() -> None:
    """The leader of the session ends as soon as the daemon is forked."""
    system = Recorded(0, 4242)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    try:
        with pytest.raises(Ended):
            detach(system=system)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    assert system.calls[-2:] == ["fork", "exit 0"]


@pytest.mark.parametrize(("failing", "status"), [("session", 77), ("go to /", 77), ("silence", 77)])
def test_daemon_that_cannot_become_one_ends(failing: str, status: int) -> None:
    """A failure on the way ends the process with the status for it, and nothing after it is done."""
    system = Recorded(0, 0, failing=failing)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    try:
        with pytest.raises(Ended):
            detach(system=system)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    assert system.calls[-2:] == [failing, f"exit {status}"]


def test_fork_that_fails_changes_nothing() -> None:
    """If fork fails, the error says so, and the signal handlers are unchanged."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with pytest.raises(SystemRefused, match="cannot detach: Resource temporarily unavailable"):
        detach(system=Recorded(BlockingIOError(11, "Resource temporarily unavailable")))
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask


def test_detaching_needs_a_single_thread() -> None:
    """A process with several threads is not forked; the error has their number."""
    kind, message = call(detach_child.with_threads)
    assert kind == "SystemRefused"
    assert message == "cannot detach: this process has 2 threads; do it before any thread is started"


def test_ready_daemon() -> None:
    """The one that waits gets the daemon's line and pid; the daemon is one in all respects."""
    ready, line, status, pid = call(detach_child.start, "serve", {})
    facts = json.loads(line)
    try:
        assert (ready, status) == (True, 0)
        assert facts["pid"] == pid
        assert facts["session"] == facts["group"] != pid
        assert facts["terminal"] is False
        assert facts["null"] == [True, True, True]
        assert facts["open"] == []
        assert facts["directory"] == "/"
        assert facts["umask"] == 0o027
        assert facts["blocked"] == []
    finally:
        end(pid)


def test_only_what_was_given_is_kept(tmp_path: Path) -> None:
    """Of inherited descriptors, the daemon keeps those passed; it has the directory and umask passed."""
    path = tmp_path / "file"
    path.touch()
    kept, _, line, _, pid = call(detach_child.keep_socket, path)
    try:
        facts = json.loads(line)
        assert facts["open"] == [kept]
        assert facts["directory"] == str(tmp_path)
        assert facts["umask"] == 0o077
    finally:
        end(pid)


def test_output_is_written_once() -> None:
    """Output buffered at the fork is not written by the daemon again."""
    done = subprocess.run(
        command(detach_child.buffered), env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(' [true, "{')
    end(json.loads(done.stdout)[3])


def test_failed_daemon_tells_all(tmp_path: Path) -> None:
    """The whole reason arrives, of any length and script, with its status, and by then the daemon is gone."""
    report = call(detach_child.start, "refuse", {"directory": str(tmp_path)})
    assert report[:3] == [False, "the poem is missing\n  at line 1: ä", 66]
    assert list(tmp_path.iterdir()) == []
    assert ProcessHandle.open(report[3]) is None


def test_daemon_that_cannot_go_to_its_directory(tmp_path: Path) -> None:
    """A failure during the detachment is reported like any other failure."""
    report = call(detach_child.start, "serve", {"directory": str(tmp_path / "none")})
    assert report[:3] == [False, f"tamed: cannot detach: {tmp_path / 'none'}: No such file or directory", 66]


@pytest.mark.parametrize(
    ("what", "told", "status"),
    [
        ("give_up", "exit status 3", 3),
        ("vanish", "exit status 0", ExitStatus.SOFTWARE),
        ("die", "killed by SIGKILL", ExitStatus.SOFTWARE),
        ("die_unheard", f"killed by signal {signal.SIGRTMIN + 3}", ExitStatus.SOFTWARE),
    ],
)
def test_daemon_that_dies_without_a_word(what: str, told: str, status: int) -> None:
    """The kernel tells how a daemon ended that could not; it never counts as a success."""
    report = call(detach_child.start, what, {})
    assert report[:3] == [False, f"it died before it was ready: {told}", status]


def test_daemon_that_falls_silent_is_taken_down(tmp_path: Path) -> None:
    """A daemon that lets the pipe go without a word will never be ready, so it is ended."""
    report = call(detach_child.start, "close", {"directory": str(tmp_path), "grace": 0.2})
    assert report[:3] == [False, "it died before it was ready", ExitStatus.SOFTWARE]
    assert is_gone(int((tmp_path / "pid").read_text()))


def test_start_that_takes_too_long(tmp_path: Path) -> None:
    """After the timeout the daemon is ended, having undone what it did; the report says how long it had."""
    options = {"directory": str(tmp_path), "timeout": 0.5, "noted": str(tmp_path / "pid")}
    report = call(detach_child.start, "hang", options)
    assert report[:3] == [False, "it was not ready after 0.5 seconds", ExitStatus.SOFTWARE]
    assert is_gone(report[3])
    assert not (tmp_path / "made").exists()


def test_daemon_that_does_not_want_to_end(tmp_path: Path) -> None:
    """When the grace is over the daemon is killed, with the children in its group."""
    options = {"directory": str(tmp_path), "timeout": 0.5, "grace": 0.2, "noted": str(tmp_path / "pid")}
    report = call(detach_child.start, "hang_hard", options)
    assert report[1] == "it was not ready after 0.5 seconds"
    assert all(is_gone(int(pid)) for pid in (tmp_path / "pid").read_text().split())


def wait_for(path: Path) -> str:
    """Wait until a daemon has written its file."""
    while not (path.exists() and (text := path.read_text())):
        select.select([], [], [], 0.005)
    return text


def test_interrupt_takes_the_daemon_down(tmp_path: Path) -> None:
    """Ctrl-C while waiting ends the half-started daemon in order, and is raised on."""
    with Child(detach_child.interrupted, "hang", 10.0, cwd=tmp_path) as child:
        pid = int(wait_for(tmp_path / "pid"))
        child.signal(signal.SIGINT)
        assert child.result() == "interrupted"
        assert is_gone(pid)
        assert not (tmp_path / "made").exists()


def test_second_interrupt_kills(tmp_path: Path) -> None:
    """A second Ctrl-C ends the waiting for a daemon that does not end."""
    with Child(detach_child.interrupted, "hang_hard", 50.0, cwd=tmp_path) as child:
        pids = [int(pid) for pid in wait_for(tmp_path / "pid").split()]
        child.signal(signal.SIGINT)
        wait_for(tmp_path / "asked")
        child.signal(signal.SIGINT)
        assert child.result() == "interrupted"
        assert all(is_gone(pid) for pid in pids)


def test_interrupt_before_the_waiting(tmp_path: Path) -> None:
    """A Ctrl-C between the fork and the waiting is held back, and then takes the daemon down."""
    assert call(detach_child.between_fork_and_wait, tmp_path) == ["interrupted", False]


@pytest.mark.parametrize("closed", [[0], [1], [2], [0, 1, 2]], ids=str)
def test_standard_descriptors_may_be_closed(closed: list[int], tmp_path: Path) -> None:
    """Without stdin, stdout or stderr a daemon starts and reports as ever, and has all three."""
    path = tmp_path / "report"
    subprocess.run(command(detach_child.from_closed, closed, path), env=environment(), check=True)
    ready, line, _, pid = json.loads(path.read_text())
    try:
        assert ready
        assert json.loads(line)["null"] == [True, True, True]
    finally:
        end(pid)


def test_daemon_survives_its_terminal(tmp_path: Path) -> None:
    """When the terminal that it was started from is closed, the daemon goes on."""
    path = tmp_path / "report"
    controller, terminal = pty.openpty()
    starter = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *command(detach_child.from_terminal, path)],
        env=environment(),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    assert starter.wait() == 0
    ready, line, _, pid = json.loads(path.read_text())
    os.close(controller)
    try:
        assert ready
        assert json.loads(line)["terminal"] is False
        assert not handle_of(pid).wait_gone(0.1)
    finally:
        end(pid)


def handle_of(pid: int) -> ProcessHandle:
    """Take hold of a process that exists."""
    handle = ProcessHandle.open(pid)
    assert handle is not None
    return handle


def test_reporter_without_anybody_listening() -> None:
    """Reports are dropped silently when the parent no longer waits."""
    reading, writing = os.pipe()
    os.close(reading)
    reporter = Reporter(writing)
    reporter.started(1)
    assert reporter.fileno() == -1
    reporter.ready("line")
    reporter.failed("why", 70)
    reporter.close()


def test_reporter_is_not_inherited_unasked() -> None:
    """The pipe is closed on exec unless it is made inheritable, and a number that is not open is refused."""
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    reporter = Reporter(writing)
    assert not os.get_inheritable(reporter.fileno())
    reporter.close()
    os.close(reading)
    with pytest.raises(OSError, match="Bad file descriptor"):
        Reporter(987654)


def test_long_and_broken_messages() -> None:
    """A report of any length is read whole, and what a newer version says besides is passed over."""
    reading, writing = os.pipe()
    child = os.posix_spawn(sys.executable, [sys.executable, "-c", ""], {})
    launch = Launch(child, reading)
    reporter = Reporter(writing)
    os.write(writing, b'{"progress": 1}\n')
    reporter.ready("x" * 30_000)
    report = launch.wait()
    release_interrupts()
    assert report == (True, "x" * 30_000, 0, None)
