"""The keeper of one program: runs it, and stays until nothing of it is left.

It does not obey signals, as a terminal or a service manager sends them to all processes at once, and it is
Tamed that says in which order programs stop: by ending the channel, or its own life.
"""

import json
import os
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress

from tamed.builtin.keeper._children import ChildWatch, children, reap, send
from tamed.builtin.keeper._launch import LaunchFailed, launch
from tamed.builtin.keeper._prctl import become_subreaper
from tamed.builtin.keeper._program import Program

__all__ = ["keep"]

_LOOK = 0.05  # seconds between looks for what was adopted: that gives no sign


def keep(channel: socket.socket, descriptors: Sequence[int]) -> None:
    """Run the program that the channel names, and return when nothing of it is left.

    ``descriptors`` are the program's, and closed here. The channel is told, a line of JSON each: ``pid``,
    or ``failed`` (the step) and ``errno``; then ``status``, the wait status, when the program has ended.
    """
    become_subreaper()
    watch = ChildWatch()
    line = channel.makefile("rb").readline()
    if not line.endswith(b"\n"):  # Tamed is gone, or has changed its mind
        return
    program = Program.decode(line)
    try:
        pid = launch(program, descriptors)
    except LaunchFailed as failure:
        _tell(channel, {"failed": failure.step, "errno": failure.number})
        return
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    _tell(channel, {"pid": pid})
    _Vigil(channel, watch, program, pid).keep()


class _Vigil:
    """The time from a program's start until nothing of it is left."""

    def __init__(self, channel: socket.socket, watch: ChildWatch, program: Program, pid: int) -> None:
        self._channel = channel
        self._watch = watch
        self._program = program
        self._pid = pid
        self._is_running = True
        self._has_children = True
        self._is_to_stop = False

    def keep(self) -> None:
        """Wait for the program's end, or ask it to end; then end what it has left behind."""
        while self._is_running and not self._is_to_stop:
            self._wait(None)
        deadline = time.monotonic() + self._program.stop_timeout
        if self._is_running:
            send(self._pid, self._program.stop_signal)
        while self._is_running and (left := deadline - time.monotonic()) > 0:
            self._wait(left)
        self._end_others(deadline)
        self._kill()

    def _end_others(self, deadline: float) -> None:
        """Ask what the program has left behind to end: its orphans, which are our children now."""
        asked: set[int] = set()
        while self._has_children and (left := deadline - time.monotonic()) > 0:
            for pid in children() - asked:
                send(pid, self._program.stop_signal)
                asked.add(pid)
            self._wait(min(left, _LOOK))

    def _kill(self) -> None:
        """Kill all that is left: its group at once, then generation by generation, as each becomes ours."""
        if self._is_running:  # else the number may be another's by now
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, signal.SIGKILL)
        while self._has_children:
            for pid in children():
                send(pid, signal.SIGKILL)
            self._wait(_LOOK)

    def _wait(self, seconds: float | None) -> None:
        channel = None if self._is_to_stop else self._channel
        if self._watch.wait(channel, seconds):
            self._is_to_stop = True
        try:
            for pid, status in reap():
                if pid == self._pid:
                    self._is_running = False
                    _tell(self._channel, {"status": status})
        except ChildProcessError:
            self._has_children = False


def _tell(channel: socket.socket, message: dict[str, object]) -> None:
    with suppress(OSError):  # nobody is there to hear it
        channel.sendall(json.dumps(message).encode() + b"\n")
