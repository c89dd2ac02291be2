"""Telling the service manager how it stands: the notify protocol of systemd (sd_notify(3)).

The manager names a datagram socket in ``NOTIFY_SOCKET``; a message is lines of ``NAME=value``. A manager
that is gone, or was never there, is no reason for a service to fail, so nothing here raises.
"""

import array
import os
import socket
import time
from collections.abc import Callable, Collection, Mapping
from typing import Self

__all__ = ["Notifier", "watchdog_interval"]

_DIGITS = 20  # of the longest number of 64 bits, which WATCHDOG_USEC is
_PATIENCE = 1.0  # seconds to wait for a manager that is behind: READY=1 must not get lost


class Notifier:
    """A connection to the service manager, or to nobody: then every call does nothing and returns False.

    Each method returns whether the message was handed over. It connects at once, since the socket may be
    out of reach after a chroot, and again when the manager was restarted.
    """

    def __init__(self, path: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.path = path  # "" is nobody; a leading @ stands for the zero byte of an abstract address
        self._monotonic = monotonic
        self._socket: socket.socket | None = None
        self._connect()

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Take the manager that the environment names. The variable stays: a worker must not inherit it."""
        return cls(environ.get("NOTIFY_SOCKET", ""))

    @property
    def is_connected(self) -> bool:
        """Whether there is a manager that takes messages."""
        return self._socket is not None

    def ready(self, status: str = "") -> bool:
        """Say that starting, or reloading, is done and the service serves."""
        return self.send({"READY": "1", **({"STATUS": status} if status else {})})

    def reloading(self, status: str = "") -> bool:
        """Say that a reload begins; :meth:`ready` says that it has ended. For ``Type=notify-reload`` too."""
        now = str(int(self._monotonic() * 1_000_000))
        return self.send({"RELOADING": "1", "MONOTONIC_USEC": now, **({"STATUS": status} if status else {})})

    def stopping(self, status: str = "") -> bool:
        """Say that the service is about to end."""
        return self.send({"STOPPING": "1", **({"STATUS": status} if status else {})})

    def status(self, text: str) -> bool:
        """Say in a line what the service is doing."""
        return self.send({"STATUS": text})

    def main_pid(self, pid: int) -> bool:
        """Say which process is the service."""
        return self.send({"MAINPID": str(pid)})

    def watchdog(self) -> bool:
        """Say that the service is alive: due more often than each :func:`watchdog_interval`."""
        return self.send({"WATCHDOG": "1"})

    def extend_timeout(self, seconds: float) -> bool:
        """Ask for this many seconds more, from now, to start, reload or stop in."""
        return self.send({"EXTEND_TIMEOUT_USEC": str(int(seconds * 1_000_000))})

    def send(self, variables: Mapping[str, str], descriptors: Collection[int] = ()) -> bool:
        """Send variables in one message, and descriptors with it. A newline in a value becomes a space."""
        lines = (f"{name}={' '.join(value.split(chr(10)))}" for name, value in variables.items())
        message = "\n".join(lines).encode(errors="backslashreplace")
        return self._send(message, descriptors) or (self._connect() and self._send(message, descriptors))

    def close(self) -> None:
        """Let the connection go. May be called again; what is sent after that connects anew."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: bytes, descriptors: Collection[int]) -> bool:
        if self._socket is None:
            return False
        passed = (
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        )
        try:
            self._socket.sendmsg([message], passed)
        except OSError:
            return False
        return True

    def _connect(self) -> bool:
        self.close()
        if not self.path.startswith(("/", "@")):
            return False
        try:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.settimeout(_PATIENCE)
            self._socket.connect("\0" + self.path[1:] if self.path.startswith("@") else self.path)
        except OSError:
            self.close()
            return False
        return True


def watchdog_interval(environ: Mapping[str, str], pid: int | None = None) -> float | None:
    """Return within how many seconds the manager wants to hear that this process is alive, if it does.

    Of sd_watchdog_enabled(3): the request is for the process that ``WATCHDOG_PID`` names, by default
    whoever reads it. Send at half the interval.
    """
    wanted = environ.get("WATCHDOG_USEC", "")
    addressee = environ.get("WATCHDOG_PID", "")
    if addressee and addressee != str(os.getpid() if pid is None else pid):
        return None
    if not (wanted.isascii() and wanted.isdigit() and len(wanted) < _DIGITS) or int(wanted) == 0:
        return None
    return int(wanted) / 1_000_000
