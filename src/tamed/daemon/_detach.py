"""Becoming a daemon, while the process that was started waits for the daemon's word.

Who starts a daemon wants to know whether it runs. So nothing is left to chance after the fork: the daemon
holds the writing end of a pipe and says through it that it is ready, or why it is not (``_report``); if the
pipe ends without a word, it died (``_launch``).

Detaching belongs before any event loop or thread: see ``_threads``.
"""

import fcntl
import os
import signal
import sys
import termios
from collections.abc import Collection
from pathlib import Path
from typing import NoReturn

from tamed.daemon._descriptors import (
    close_inherited,
    fill_standard_descriptors,
    read_nothing,
    silence_standard_descriptors,
)
from tamed.daemon._launch import Launch, be_subreaper
from tamed.daemon._report import Reporter
from tamed.daemon._threads import require_single_thread
from tamed.errors import ExitStatus, from_os_error, reason, status_of

__all__ = ["System", "detach", "leave_terminal"]

_HELD_BACK = {signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM}


def leave_terminal() -> None:
    """Give up the controlling terminal (ioctl_tty(2), ``TIOCNOTTY``), if it is shared with other processes.

    Then nothing can be typed into it from here (``TIOCSTI``), and ``/dev/tty`` cannot be opened. It can still
    be written by descriptors 1 and 2, not be read (see ``read_nothing``), and a Ctrl-C still comes: that goes
    to the process group. The leader of a session keeps it, because with it the whole session would lose it;
    what is above that session has another terminal.
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


class System:
    """The operating system's part in detaching; a test hands in another one, and needs not fork."""

    def require_single_thread(self, what: str) -> None:
        """Raise SystemRefused if there is more than one thread."""
        require_single_thread(what)

    def fork(self) -> int:
        """Make a child."""
        return os.fork()

    def setsid(self) -> None:
        """Lead a new session, without a terminal."""
        os.setsid()

    def exit(self, status: int) -> NoReturn:
        """End this process at once, without the handlers and buffers of the one it was forked from."""
        os._exit(status)

    def umask(self, mask: int) -> None:
        """Set which permissions new files do not get."""
        os.umask(mask)

    def chdir(self, directory: Path) -> None:
        """Change the working directory."""
        os.chdir(directory)

    def silence(self) -> None:
        """Put ``/dev/null`` on descriptors 0 to 2."""
        silence_standard_descriptors()

    def close_inherited(self, keep: Collection[int]) -> None:
        """Close what came from whoever started us."""
        close_inherited(keep)


def detach(
    *,
    keep: Collection[int] = (),
    umask: int = 0o027,
    directory: Path = Path("/"),
    system: System | None = None,
) -> Launch | Reporter:
    """Fork a daemon: return a :class:`Launch` in this process and a :class:`Reporter` in the daemon.

    The daemon has no terminal and can never get one, ``/dev/null`` on 0 to 2, no descriptor that came from
    whoever started us except those in ``keep``, the umask and the working directory. If it cannot become
    so, the Launch says why. Raises SystemRefused if this process has threads or may not fork.
    """
    system = system or System()
    system.require_single_thread("cannot detach")
    fill_standard_descriptors()
    _flush()
    reading, writing = os.pipe()
    be_subreaper(True)
    # A signal between the fork and the waiting would leave the daemon without anyone who waits for it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
    try:
        child = system.fork()
    except OSError as error:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(reading)
        os.close(writing)
        raise from_os_error("cannot detach", error) from error
    if child:
        os.close(writing)
        return Launch(child, reading, mask)
    os.close(reading)
    reporter = Reporter(writing)
    _become_daemon(reporter, system, keep, umask, directory)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return reporter


def _become_daemon(
    reporter: Reporter, system: System, keep: Collection[int], umask: int, directory: Path
) -> None:
    """Return in the daemon only; Ctrl-C, on which the waiting process acts, stays held back until then."""
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # with which the waiting process ends us
        system.setsid()
        if system.fork() == 0:
            reporter.started(os.getpid())
            system.umask(umask)
            system.chdir(directory)
            system.close_inherited(keep)
            system.silence()
            return
    except BaseException as error:
        reporter.failed(f"cannot detach: {reason(error)}", status_of(error))
        system.exit(status_of(error))
    system.exit(ExitStatus.OK)


def _flush() -> None:
    """Write out what is buffered, lest the daemon writes it again."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            continue  # there is none, nobody reads it, or it is closed
