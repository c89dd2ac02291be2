"""Notifying the service manager: the notify protocol of systemd (sd_notify(3)).

The manager passes the path of a datagram socket in ``NOTIFY_SOCKET``; a message is lines of ``NAME=value``. A
service must not fail because the manager is missing, so no function here raises.
"""

import array
import os
import select
import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Self

__all__ = ["Notifier", "watchdog_interval"]

_DIGITS = 20  # of the longest number of 64 bits: the type of WATCHDOG_USEC
_PATIENCE = 1.0  # seconds to wait for a busy manager: READY=1 must not be lost


class Notifier:
    """A connection to the service manager. Without a manager every call does nothing and returns False.

    Each method returns whether the message was sent. It connects at once, because the socket may be
    unreachable after a chroot, and again when the manager was restarted. The operator sees the last state,
    and beside it the current troubles. ``alive_interval`` is the time between two calls of `watchdog`, in
    seconds; None if the manager has no watchdog for this process.
    """

    def __init__(self, path: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.path = path  # "" is no manager; a leading @ means the zero byte of an abstract address
        self.alive_interval: float | None = None
        self._state = ""
        self._troubles: Sequence[str] = ()
        self._monotonic = monotonic
        self._socket: socket.socket | None = None
        self._connect()

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Connect to the manager of the environment. The variable stays: a worker must not inherit it."""
        notifier = cls(environ.get("NOTIFY_SOCKET", ""))
        interval = watchdog_interval(environ)
        notifier.alive_interval = None if interval is None else interval / 2
        return notifier

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection to a manager."""
        return self._socket is not None

    def ready(self, state: str = "", main_pid: int | None = None) -> bool:
        """Notify that the start, or a reload, is done; ``main_pid`` is that of a daemon that has forked."""
        self._state = state
        main = {} if main_pid is None else {"MAINPID": str(main_pid)}
        return self.send({"READY": "1", **main, **({"STATUS": self.shown} if self.shown else {})})

    def reloading(self, status: str = "") -> bool:
        """Notify that a reload begins; :meth:`ready` notifies its end. For ``Type=notify-reload`` too."""
        now = str(int(self._monotonic() * 1_000_000))
        return self.send({"RELOADING": "1", "MONOTONIC_USEC": now, **({"STATUS": status} if status else {})})

    def stopping(self, state: str = "") -> bool:
        """Notify that the service is stopping, and what it waits for or why it failed."""
        self._state = state
        return self.send({"STOPPING": "1", **({"STATUS": state} if state else {})})

    def status(self, state: str) -> bool:
        """Notify of the service's state, in one line."""
        self._state = state
        return self.send({"STATUS": self.shown})

    def troubled(self, troubles: Sequence[str]) -> bool:
        """Notify of the current troubles, instead of the former ones."""
        self._troubles = troubles
        return self.send({"STATUS": self.shown})

    @property
    def shown(self) -> str:
        """The line that the operator sees."""
        return "; ".join(filter(None, (self._state, *self._troubles)))

    def watchdog(self) -> bool:
        """Send a keep-alive: due more often than once in :func:`watchdog_interval`."""
        return self.send({"WATCHDOG": "1"})

    def stuck(self, why: str) -> bool:
        """Trigger the watchdog, so that the manager kills the service."""
        return self.send({"WATCHDOG": "trigger", "STATUS": why})

    def extend_timeout(self, seconds: float) -> bool:
        """Request this many more seconds, from now, for the start, reload or stop."""
        return self.send({"EXTEND_TIMEOUT_USEC": str(int(seconds * 1_000_000))})

    def store(self, name: str, descriptor: int) -> bool:
        """Leave a copy of a descriptor with the manager, which passes it to the next start by this name.

        The name has at most 255 ASCII characters, no control characters and no colon.
        """
        return self.send({"FDSTORE": "1", "FDNAME": name, "FDPOLL": "0"}, [descriptor])

    def remove_stored(self, name: str) -> bool:
        """Have the manager close its copies of the descriptors of this name."""
        return self.send({"FDSTOREREMOVE": "1", "FDNAME": name})

    def barrier(self) -> bool:
        """Wait until the manager has processed all earlier messages, for a second at most."""
        reading, writing = os.pipe()
        try:
            sent = self.send({"BARRIER": "1"}, [writing])
            os.close(writing)  # the manager closes its copy when it comes to this message
            poll = select.poll()
            poll.register(reading, 0)
            return sent and bool(poll.poll(_PATIENCE * 1000))
        finally:
            os.close(reading)

    def send(self, variables: Mapping[str, str], descriptors: Collection[int] = ()) -> bool:
        """Send variables and descriptors in one message. A newline in a value becomes a space."""
        lines = (f"{name}={' '.join(value.split(chr(10)))}" for name, value in variables.items())
        message = "\n".join(lines).encode(errors="backslashreplace")
        return self._send(message, descriptors) or (self._connect() and self._send(message, descriptors))

    def close(self) -> None:
        """Close the connection. May be called again; a later `send` connects again."""
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
    """Return the manager's watchdog interval for this process in seconds, or None if it has none.

    As in sd_watchdog_enabled(3): the interval is for the process in ``WATCHDOG_PID``, by default for any that
    reads it. Send keep-alives at half the interval.
    """
    wanted = environ.get("WATCHDOG_USEC", "")
    addressee = environ.get("WATCHDOG_PID", "")
    if addressee and addressee != str(os.getpid() if pid is None else pid):
        return None
    if not (wanted.isascii() and wanted.isdigit() and len(wanted) < _DIGITS) or int(wanted) == 0:
        return None
    return int(wanted) / 1_000_000
