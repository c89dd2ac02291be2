"""Becoming a daemon, while the parent process waits for the daemon's report (`tamed.unix.report`).

Detach before any event loop or thread exists: see `require_single_thread`.
"""

import fcntl
import os
import signal
import socket
import sys
import termios
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from tamed._os.descriptors import (
    close_inherited,
    fill_standard_descriptors,
    read_nothing,
    silence_standard_descriptors,
)
from tamed._os.fork import require_single_thread
from tamed._os.interrupts import hold_interrupts, release_interrupts
from tamed._os.syscalls import be_subreaper
from tamed.errors import ExitStatus, from_os_error, reason, status_of
from tamed.unix.report import Launch, Reporter

__all__ = ["System", "detach", "fork_daemon", "leave_terminal", "settle"]


class System:
    """The system calls of `detach`; a test passes another object, and need not fork."""

    require_single_thread: Callable[[str], object] = staticmethod(require_single_thread)
    fork: Callable[[], int] = staticmethod(os.fork)
    setsid: Callable[[], object] = staticmethod(os.setsid)
    exit: Callable[[int], NoReturn] = staticmethod(os._exit)
    umask: Callable[[int], object] = staticmethod(os.umask)
    chdir: Callable[[Path], object] = staticmethod(os.chdir)
    silence: Callable[[], object] = staticmethod(silence_standard_descriptors)
    close_inherited: Callable[[Collection[int]], object] = staticmethod(close_inherited)


_SYSTEM = System()


def detach(
    *,
    keep: Collection[int] = (),
    umask: int = 0o027,
    directory: Path = Path("/"),
    system: System = _SYSTEM,
) -> Launch | Reporter:
    """Fork a daemon: return a :class:`Launch` in this process and a :class:`Reporter` in the daemon.

    The daemon has no terminal and can never get one, ``/dev/null`` on 0 to 2, no inherited descriptors except
    those in ``keep``, the umask and the working directory. If one of these steps fails, the Launch reports
    the reason. Raises SystemRefused if this process has threads or may not fork.
    """
    side = fork_daemon(system)
    if isinstance(side, Reporter):
        settle(side, keep=keep, umask=umask, directory=directory, system=system)
    return side


def fork_daemon(system: System = _SYSTEM) -> Launch | Reporter:
    """Do the first half of `detach`: the daemon has no terminal, and all else is still that of its parent."""
    system.require_single_thread("cannot detach")
    fill_standard_descriptors()
    _flush()
    waiting, reporting = socket.socketpair()
    be_subreaper(True)
    # A signal between the fork and `wait` would end this process, and the daemon would run unsupervised.
    hold_interrupts()
    try:
        child = system.fork()
    except OSError as error:
        release_interrupts()
        waiting.close()
        reporting.close()
        raise from_os_error("cannot detach", error) from error
    if child:
        reporting.close()
        return Launch(child, waiting.detach())
    waiting.close()
    reporter = Reporter(reporting.detach())
    _leave_session(reporter, system)
    release_interrupts()
    return reporter


def _leave_session(reporter: Reporter, system: System) -> None:
    """Return in the daemon only; Ctrl-C, which the waiting process handles, stays blocked until then."""
    with _detaching(reporter, system):
        # The waiting process ends this one with it.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        system.setsid()
        if system.fork() == 0:
            reporter.started(os.getpid())
            return
    system.exit(ExitStatus.OK)


def settle(
    reporter: Reporter, *, keep: Collection[int], umask: int, directory: Path, system: System = _SYSTEM
) -> None:
    """Do the second half of `detach`, in the daemon."""
    with _detaching(reporter, system):
        system.umask(umask)
        system.chdir(directory)
        system.close_inherited(keep)
        system.silence()


@contextmanager
def _detaching(reporter: Reporter, system: System) -> Iterator[None]:
    """Report a failure, and end."""
    try:
        yield
    except BaseException as error:
        reporter.failed(f"tamed: cannot detach: {reason(error)}", status_of(error))
        system.exit(status_of(error))


def _flush() -> None:
    """Write buffered output now; otherwise the daemon would write it again."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            continue  # no stream, a reader that has ended, or a closed stream


def leave_terminal() -> None:
    """Give up the controlling terminal (ioctl_tty(2), ``TIOCNOTTY``), if it is shared with other processes.

    Then this process cannot inject input into it (``TIOCSTI``) or open ``/dev/tty``. Descriptors 1 and 2 can
    still be written but not read (see ``read_nothing``), and Ctrl-C still works: it goes to the process
    group. The leader of a session keeps the terminal, because otherwise the whole session would lose it;
    processes outside that session have another terminal.
    """
    read_nothing()
    if os.getsid(0) == os.getpid():
        return
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.ioctl(terminal, termios.TIOCNOTTY)
    finally:
        os.close(terminal)
