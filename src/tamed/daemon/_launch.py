"""Waiting for a daemon's word, and taking it down if there is none.

The waiting process is made the *subreaper* of what it starts (prctl(2), ``PR_SET_CHILD_SUBREAPER``), so
that the daemon, whose parent exits at once, becomes its child: then the kernel tells how a daemon ended
that could not say so itself, and its pid is nobody else's as long as we wait. The daemon's process group has
the number of the process between the two. That one is not reaped before the waiting is over, so the number
cannot become a stranger's either.
"""

import json
import os
import select
import signal
import time
from collections.abc import Callable

from tamed.daemon._prctl import prctl
from tamed.daemon._process import ProcessHandle
from tamed.daemon._report import Report
from tamed.errors import ExitStatus

__all__ = ["Launch", "be_subreaper"]

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_DYING = 10.0  # seconds between the end of the pipe and that of the process


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


def be_subreaper(yes: bool) -> None:
    """Adopt the orphans among our descendants, or no longer."""
    prctl(_PR_SET_CHILD_SUBREAPER, yes)


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
