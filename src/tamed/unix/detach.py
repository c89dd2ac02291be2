"""Becoming a daemon, while the process that was started waits for the daemon's word.

Who starts a daemon wants to know whether it runs. So nothing is left to chance after the fork: the daemon
holds the writing end of a pipe and says through it that it is ready, or why it is not (`Reporter`); if the
pipe ends without a word, it died (`Launch`).

Detaching belongs before any event loop or thread: see `require_single_thread`.
"""

import fcntl
import json
import os
import select
import signal
import sys
import termios
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple, NoReturn

from tamed._os.descriptors import (
    close_inherited,
    fill_standard_descriptors,
    read_nothing,
    silence_standard_descriptors,
)
from tamed._os.fork import require_single_thread
from tamed._os.syscalls import be_subreaper
from tamed.errors import ExitStatus, from_os_error, reason, status_of
from tamed.unix.process import ProcessHandle

__all__ = ["Launch", "Report", "Reporter", "System", "detach", "leave_terminal"]

_DYING = 10.0  # seconds between the end of the pipe and that of the process
_HELD_BACK = {signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM}


class Report(NamedTuple):
    """What became of a daemon.

    ``text`` is for the person who started it: the daemon's line, or the whole reason, which may have
    several lines. ``status`` is the exit status for the command: 0 if it is ready.
    """

    ready: bool
    text: str
    status: int
    pid: int | None


class Reporter:
    """The daemon's end of the pipe.

    Its methods never raise, and do nothing once it is closed or nobody listens any more.

    To keep it across an exec, make :meth:`fileno` inheritable and build it anew from the number, which raises
    ``OSError`` if that is not open.
    """

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._descriptor = descriptor

    def fileno(self) -> int:
        """Return the descriptor of the pipe, -1 once it is closed. Nobody else may inherit it."""
        return self._descriptor

    def started(self, pid: int) -> None:
        """Say which process the daemon is."""
        self._tell({"pid": pid})

    def ready(self, line: str) -> None:
        """Say that the daemon serves, and close."""
        self._tell({"ready": True, "line": line})
        self.close()

    def failed(self, why: str, status: int) -> None:
        """Say that the daemon will end, why, and with which exit status, and close."""
        self._tell({"error": why, "status": status})
        self.close()

    def close(self) -> None:
        """Let the pipe go. May be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _tell(self, message: dict[str, object]) -> None:
        left = json.dumps(message).encode() + b"\n"
        try:
            while left and self._descriptor >= 0:
                left = left[os.write(self._descriptor, left) :]
        except OSError:
            self.close()  # nobody waits any more


class Launch:
    """The side of the process that was started.

    Signals are held back until :meth:`wait` is called, once and at once.
    """

    def __init__(self, group: int, descriptor: int, mask: set[int | signal.Signals]) -> None:
        self._group = group  # of the daemon; the pid of the process between
        self._descriptor = descriptor
        self._mask = mask
        self._pid: int | None = None
        self._rest = b""
        self._grace = 0.0

    def wait(self, timeout: float | None = None, *, grace: float = 10.0) -> Report:
        """Wait until the daemon is ready, has failed or has died, and return what became of it.

        When ``timeout`` seconds pass, or when anything is raised here, KeyboardInterrupt above all, the
        daemon is taken down: it gets SIGTERM and ``grace`` seconds for undoing what it did; then it and
        its process group are killed.
        """
        self._grace = grace
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            return self._read(timeout)
        except BaseException:
            self._take_down()
            raise
        finally:
            os.close(self._descriptor)
            _reap(self._group)
            be_subreaper(False)

    def _read(self, timeout: float | None) -> Report:
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._is_readable(deadline):
            data = os.read(self._descriptor, 65536)
            if not data:
                return self._died()
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                report = self._understand(json.loads(line))
                if report is not None:
                    return report
        self._take_down()
        return self._bad(f"it was not ready after {timeout:g} seconds", ExitStatus.SOFTWARE)

    def _is_readable(self, deadline: float | None) -> bool:
        left = None if deadline is None else max(deadline - time.monotonic(), 0.0) * 1000
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(left))

    def _understand(self, message: dict[str, object]) -> Report | None:
        match message:
            case {"ready": True, "line": str(line)}:
                return Report(True, line, ExitStatus.OK, self._pid)
            case {"error": str(why), "status": int(status)}:
                self._let_end()
                return self._bad(why, status)
            case {"pid": int(pid)}:
                self._pid = pid
            case _:
                pass  # of a newer version
        return None

    def _bad(self, why: str, status: int) -> Report:
        return Report(False, why, status, self._pid)

    def _died(self) -> Report:
        """Report on a daemon that said nothing, as far as the kernel tells."""
        told = "it died before it was ready"
        status = self._wait_status(_DYING)
        if status is None:
            self._take_down()
            return self._bad(told, ExitStatus.SOFTWARE)
        if os.WIFSIGNALED(status):
            return self._bad(f"{told}: killed by {_name_of(os.WTERMSIG(status))}", ExitStatus.SOFTWARE)
        code = os.WEXITSTATUS(status)
        return self._bad(f"{told}: exit status {code}", code or ExitStatus.SOFTWARE)

    def _wait_status(self, timeout: float) -> int | None:
        """Reap the daemon, which is about to end; None if it does not, or is not our child.

        It becomes our child when the process between has ended, which may be after the daemon has.
        """
        _await_end(self._group)
        process = None if self._pid is None else ProcessHandle.open(self._pid)
        if process is None:
            return None
        with process:
            try:
                pid, status = os.waitpid(process.pid, 0 if process.wait_gone(timeout) else os.WNOHANG)
            except ChildProcessError:
                return None
        return status if pid else None

    def _let_end(self) -> None:
        """Wait until a daemon that said why it ends has done so: then nothing of it is left behind."""
        if self._wait_status(self._grace) is None:
            _send(os.killpg, self._group, signal.SIGKILL)

    def _take_down(self) -> None:
        """End the daemon and what it started; come back when that is done."""
        deadline = time.monotonic() + self._grace
        try:
            self._ask_to_end()
            while self._is_readable(deadline) and os.read(self._descriptor, 65536):
                pass
        finally:
            _send(os.killpg, self._group, signal.SIGKILL)
            _send(os.kill, self._group, signal.SIGKILL)  # if it does not lead that group yet
            self._wait_status(_DYING)

    def _ask_to_end(self) -> None:
        """Send SIGTERM to the daemon, or, before it has said which it is, to all there is of it."""
        if self._pid is not None:
            _send(os.kill, self._pid, signal.SIGTERM)
        elif not _send(os.killpg, self._group, signal.SIGTERM):
            _send(os.kill, self._group, signal.SIGTERM)


def _send(call: Callable[[int, int], None], number: int, what: signal.Signals) -> bool:
    """Signal a process or group that may be gone; tell whether it was there."""
    try:
        call(number, what)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _await_end(pid: int) -> None:
    """Wait until a child has ended, without reaping it."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:
        return


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        return  # the caller leaves that to the kernel


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # real-time ones have no name of their own


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
