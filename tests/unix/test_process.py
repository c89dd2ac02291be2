"""Handles of processes."""

import os
import signal

import pytest

from tamed.errors import SystemRefused
from tamed.unix.process import ProcessHandle
from tests.unix import process_child
from tests.unix.process import Child, call, needs_root


def opened(pid: int) -> ProcessHandle:
    """Take hold of a process that exists."""
    handle = ProcessHandle.open(pid)
    assert handle is not None
    return handle


def ended_pid() -> int:
    """Return the pid of a process that has ended and was reaped."""
    with Child(process_child.obey) as child:
        return child.pid


def test_signal_and_wait() -> None:
    """A process that is signalled gets it, and the handle tells when it has ended."""
    with Child(process_child.obey) as child, opened(child.pid) as handle:
        child.hear()
        assert handle.pid == child.pid
        assert not handle.wait_gone(0)
        assert handle.signal(signal.SIGTERM)
        assert handle.wait_gone(None)
        assert handle.wait_gone(0)
        assert child.process.wait() == -signal.SIGTERM


def test_waiting_has_an_end() -> None:
    """Waiting for a process that goes on ends with the time."""
    with opened(os.getpid()) as handle:
        assert not handle.wait_gone(0.01)
        assert not handle.wait_gone(-1)


def test_zombie_is_gone() -> None:
    """A process that ended is gone although its parent has not reaped it, and a signal to it does no harm."""
    with Child(process_child.obey) as child, opened(child.pid) as handle:
        child.signal(signal.SIGKILL)
        assert handle.wait_gone(None)
        assert handle.signal(signal.SIGTERM)


def test_reaped_process_gets_no_signal() -> None:
    """After a process was reaped a signal reaches nobody, whoever has the number by then."""
    with Child(process_child.obey) as child:
        handle = opened(child.pid)
    with handle:
        assert not handle.signal(signal.SIGKILL)
        assert handle.wait_gone(0)


def test_nobody_to_hold() -> None:
    """There is no handle of a process that does not exist."""
    assert ProcessHandle.open(ended_pid()) is None


def test_closing_twice() -> None:
    """A handle may be closed again, and its number is a descriptor until then."""
    handle = opened(os.getpid())
    os.fstat(handle.fileno())
    handle.close()
    handle.close()
    assert handle.fileno() == -1


def test_found_process_is_asked_for_twice() -> None:
    """A process is held only when it is still the one that is meant once it is held."""
    answers = iter([os.getppid(), os.getpid(), os.getpid(), os.getpid()])
    handle = ProcessHandle.found_by(lambda: next(answers))
    assert handle is not None
    with handle:
        assert handle.pid == os.getpid()
    assert list(answers) == []


def test_found_process_that_ends_is_looked_for_again() -> None:
    """When the one that is meant has gone, and nobody is meant then, nobody is held."""
    gone = ended_pid()
    answers = iter([gone, None])
    assert ProcessHandle.found_by(lambda: next(answers)) is None


def test_found_process_that_cannot_be_held() -> None:
    """It is an error when a process is meant for which there is none, however often one asks."""
    gone = ended_pid()
    with pytest.raises(SystemRefused, match="cannot find the process"):
        ProcessHandle.found_by(lambda: gone)


@needs_root
def test_signal_that_is_not_allowed() -> None:
    """Who may not signal a process is told who may."""
    with Child(process_child.obey) as child:
        said = call(process_child.signal_as, "nobody", child.pid)
        assert said.startswith(f"PermissionRefused: cannot send SIGTERM to process {child.pid}")
        assert child.process.poll() is None


def test_no_descriptor_left() -> None:
    """A pid that cannot be held for another reason is an error that says so."""
    with pytest.raises(SystemRefused, match="cannot hold process 0: Invalid argument"):
        ProcessHandle.open(0)
