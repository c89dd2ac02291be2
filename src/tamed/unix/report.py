"""The report of a daemon to the command that starts it, over a pair of sockets.

The command must know whether the daemon runs. So the daemon has one end, and reports through it that it is
ready, or why it failed (`Reporter`). If that ends without a report, the daemon died (`Launch`). A daemon that
has no plan yet has the command ask for secrets, too.

What the command says and what runs must agree. So an interrupt comes before the report, and stops the daemon,
or after it, and changes nothing: the command holds interrupts from before the fork, takes them only while it
waits, and holds them again when it has the report.
"""

import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from tamed._os.interrupts import INTERRUPTS, hold_interrupts, release_interrupts
from tamed._os.syscalls import be_subreaper
from tamed._os.text import signal_name
from tamed.errors import ExitStatus
from tamed.unix.process import ProcessHandle

__all__ = ["Launch", "Report", "Reporter"]

_DYING = 10.0  # seconds between the end of its reports and the end of the process


class Report(NamedTuple):
    """The result of starting a daemon.

    ``text`` is for the operator: the daemon's line, or the whole reason, which may have several lines.
    ``status`` is the exit status for the command: 0 if the daemon is ready.
    """

    ready: bool
    text: str
    status: int
    pid: int | None


class Reporter:
    """The daemon's end of the pair of sockets.

    Its methods never raise, and do nothing after it is closed or the reader has ended.

    To keep it across an exec, make :meth:`fileno` inheritable and create a Reporter from the number again,
    which raises ``OSError`` if the descriptor is not open.
    """

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._descriptor = descriptor

    def fileno(self) -> int:
        """Return the descriptor of its end, -1 once it is closed. No other process may inherit it."""
        return self._descriptor

    def started(self, pid: int) -> None:
        """Report the pid of the daemon."""
        self._send({"pid": pid})

    def ready(self, line: str) -> bool:
        """Report that the daemon is ready, and close; return whether the parent still waits."""
        self._send({"ready": True, "line": line})
        is_awaited = self._descriptor >= 0
        self.close()
        return is_awaited

    def failed(self, why: str, status: int) -> None:
        """Report that the daemon will end, the reason and the exit status, and close."""
        self._send({"error": why, "status": status})
        self.close()

    def close(self) -> None:
        """Close its end. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def placed(self, control: str) -> None:
        """Report the path of the control socket, whose folder is created after this."""
        self._send({"control": control})

    def planned(self, timeout: float) -> None:
        """Report the plan's time for the start, in seconds."""
        self._send({"timeout": timeout})

    def ask(self, name: str) -> str | None:
        """Have the waiting process ask for a secret; return it, or None if it has ended."""
        self._send({"ask": name})
        data = b""
        while self._descriptor >= 0 and not data.endswith(b"\n"):
            part = os.read(self._descriptor, 65536)
            if not part:
                self.close()
            data += part
        return json.loads(data)["answer"] if data.endswith(b"\n") else None

    def _send(self, message: dict[str, object]) -> None:
        left = json.dumps(message).encode() + b"\n"
        try:
            while left and self._descriptor >= 0:
                left = left[os.write(self._descriptor, left) :]
        except OSError:
            self.close()  # the parent no longer waits


class Launch:
    """The parent's side: it waits for the daemon's report.

    Interrupts (SIGINT, SIGTERM, SIGHUP, SIGQUIT) are held until :meth:`wait` is called, and again from its
    end on, for the caller to say what it has returned; call it once, and at once.
    """

    def __init__(self, group: int, descriptor: int) -> None:
        self._group = group  # the daemon's process group, and the pid of the intermediate process
        self._descriptor = descriptor
        self._interrupts = -1
        self._may_raise = False
        self._pid: int | None = None
        self._rest = b""
        self._grace = 0.0
        self._timeout = 0.0
        self._deadline: float | None = None
        self._ask: Callable[[str], str] | None = None
        self.control = ""
        self.is_planned = False

    def wait(
        self,
        timeout: float | None = None,
        *,
        grace: float = 10.0,
        ask: Callable[[str], str] | None = None,
    ) -> Report:
        """Wait until the daemon is ready, has failed or has died, and return the result.

        After ``timeout`` seconds, or on an exception, the daemon is terminated: it gets SIGTERM and has
        ``grace`` seconds to clean up; then it and its process group are killed. An interrupt that is not
        ignored raises KeyboardInterrupt with its number; a second one ends the time to clean up.

        A daemon without a plan (`fork_daemon`) reports ``control``, the path of its control socket, before it
        creates the folder of that, and the timeout when it has a plan (``is_planned``). Until then there is
        no time limit, SIGTERM goes to the whole process group, and ``ask`` is called for the secrets that it
        asks for.
        """
        self._grace = grace
        self._ask = ask
        try:
            with self._interruptible():
                try:
                    self._limit(timeout)
                    return self._read()
                except BaseException:
                    self._terminate()
                    raise
        finally:
            if self._ask is not None:  # there may be other processes than the daemon in its group
                _send(os.killpg, self._group, signal.SIGKILL)
            os.close(self._descriptor)
            with suppress(ChildProcessError):  # SIGCHLD is ignored: the kernel reaps it
                os.waitpid(self._group, 0)
            be_subreaper(False)

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Have interrupts written into a pipe, so that none is lost between a look and the waiting."""
        self._interrupts, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        others = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        before = {each: signal.getsignal(each) for each in INTERRUPTS}
        heeded = [each for each, handler in before.items() if handler not in (signal.SIG_IGN, None)]
        for number in heeded:
            signal.signal(number, self._interrupt)
        try:
            release_interrupts()
            yield
        finally:
            hold_interrupts()
            for number in heeded:
                signal.signal(number, before[number])
            signal.set_wakeup_fd(others)
            os.close(writing)
            os.close(self._interrupts)

    def _interrupt(self, number: int, frame: object) -> None:
        if self._may_raise:
            with suppress(BlockingIOError):  # it is handled, and not the first of two
                os.read(self._interrupts, 512)
            raise KeyboardInterrupt(number)

    def _limit(self, timeout: float | None) -> None:
        self._timeout = timeout or 0.0
        self._deadline = None if timeout is None else time.monotonic() + timeout

    def _read(self) -> Report:
        while self._is_readable(self._descriptor, self._deadline):
            messages = self._messages()
            if messages is None:
                return self._died()
            for message in messages:
                report = self._parse_message(message)
                if report is not None:
                    return report
        self._terminate()
        return self._failure(f"it was not ready after {self._timeout:g} seconds", ExitStatus.SOFTWARE)

    def _messages(self) -> list[dict[str, object]] | None:
        """Read what the daemon has reported; None if it will report nothing more."""
        data = os.read(self._descriptor, 65536)
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines] if data else None

    def _is_readable(self, descriptor: int, deadline: float | None) -> bool:
        """Wait until a descriptor is readable; return False at the deadline.

        Raises KeyboardInterrupt for an interrupt that comes before.
        """
        left = None if deadline is None else max(deadline - time.monotonic(), 0.0) * 1000
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.register(self._interrupts, select.POLLIN)
        while (ready := dict(poll.poll(left))) and descriptor not in ready:
            self._heed_interrupts()
        return bool(ready)

    def _heed_interrupts(self) -> None:
        with suppress(BlockingIOError):
            while number := os.read(self._interrupts, 1):
                if number[0] in INTERRUPTS:
                    raise KeyboardInterrupt(number[0])

    def _parse_message(self, message: dict[str, object]) -> Report | None:
        match message:
            case {"ready": True, "line": str(line)}:
                return Report(True, line, ExitStatus.OK, self._pid)
            case {"error": str(why), "status": int(status)}:
                if self._wait_status(self._grace) is None:  # wait, so that no process is left
                    _send(os.killpg, self._group, signal.SIGKILL)
                return self._failure(why, status)
            case {"ask": str(name)} if self._ask is not None:
                answer = json.dumps({"answer": self._secret(self._ask, name)}).encode() + b"\n"
                while answer:
                    answer = answer[os.write(self._descriptor, answer) :]
            case _:
                self._learn(message)
        return None

    def _learn(self, message: dict[str, object]) -> None:
        """Take what a message says about the daemon; one of a newer version says nothing."""
        match message:
            case {"pid": int(pid)}:
                self._pid = pid
            case {"control": str(control)}:
                self.control = control
            case {"timeout": float(timeout)}:
                self._ask = None
                self.is_planned = True
                self._limit(timeout)

    def _secret(self, ask: Callable[[str], str], name: str) -> str:
        """Ask for a secret; an interrupt ends that."""
        self._may_raise = True
        try:
            self._heed_interrupts()  # it may have come before
            return ask(name)
        finally:
            self._may_raise = False

    def _failure(self, why: str, status: int) -> Report:
        return Report(False, why, status, self._pid)

    def _died(self) -> Report:
        """Report on a daemon that ended without a report, from its wait status."""
        died = "it died before it was ready"
        status = self._wait_status(_DYING)
        if status is None:
            self._terminate()
            return self._failure(died, ExitStatus.SOFTWARE)
        if os.WIFSIGNALED(status):
            return self._failure(f"{died}: killed by {signal_name(os.WTERMSIG(status))}", ExitStatus.SOFTWARE)
        code = os.WEXITSTATUS(status)
        return self._failure(f"{died}: exit status {code}", code or ExitStatus.SOFTWARE)

    def _wait_status(self, timeout: float) -> int | None:
        """Reap the daemon, which is about to end; None if it does not end or is not our child.

        It becomes our child when the intermediate process has ended, which may be after the daemon has.
        """
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, self._group, os.WEXITED | os.WNOWAIT)
        process = None if self._pid is None else ProcessHandle.open(self._pid)
        if process is None:
            return None
        with process:
            try:
                is_gone = self._is_readable(process.fileno(), time.monotonic() + timeout)
                pid, status = os.waitpid(process.pid, 0 if is_gone else os.WNOHANG)
            except ChildProcessError:
                return None
        return status if pid else None

    def _terminate(self) -> None:
        """End the daemon and its process group, and wait for their end.

        It may have become ready meanwhile, and then it drains after its last report.
        """
        deadline = time.monotonic() + self._grace
        try:
            self._send_sigterm()
            while self._is_readable(self._descriptor, deadline):
                if (messages := self._messages()) is None:
                    break
                for message in messages:
                    self._learn(message)
            process = None if self._pid is None else ProcessHandle.open(self._pid)
            if process is not None:
                with process:
                    self._is_readable(process.fileno(), deadline)
        finally:
            _send(os.killpg, self._group, signal.SIGKILL)
            _send(os.kill, self._group, signal.SIGKILL)  # in case it does not lead that group yet
            self._wait_status(_DYING)

    def _send_sigterm(self) -> None:
        """Send SIGTERM to the daemon, or, before it has reported its pid or plan, to its process group."""
        if self._pid is not None and self._ask is None:
            _send(os.kill, self._pid, signal.SIGTERM)
        elif not _send(os.killpg, self._group, signal.SIGTERM):
            _send(os.kill, self._group, signal.SIGTERM)


def _send(call: Callable[[int, int], None], number: int, what: signal.Signals) -> bool:
    """Signal a process or group that may have ended; return whether it existed."""
    try:
        call(number, what)
    except (ProcessLookupError, PermissionError):
        return False
    return True
