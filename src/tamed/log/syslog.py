"""Sending to the syslog daemon of this machine, without ever waiting for it.

Only to this machine's: over UDP lines are lost, and over TCP without TLS anybody on the way can read them.
rsyslog, syslog-ng and journald forward with TLS and a queue on disk, and a machine that sends to a log host
has one of them. In a container the log goes to standard error, which the platform collects.
"""

import errno
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tamed.log.outbox import Outbox

__all__ = [
    "MAX_MESSAGE",
    "SyslogMessage",
    "SyslogSender",
    "classical",
    "leads_to_journal",
    "parse_address",
    "rfc5424",
]

_LOCAL = "/dev/log"
_OF_JOURNAL = Path("/run/systemd/journal")


def parse_address(text: str) -> Path:
    """Read ``unix:/PATH``; no text is ``/dev/log``. Raises ValueError, which says what was expected."""
    path = text.removeprefix("unix:") if text else _LOCAL
    if not path.startswith("/") or path == text:
        raise ValueError(f"{text!r}: expected unix:/path, a socket of this machine")
    return Path(path)


def leads_to_journal(path: Path, journal: Path = _OF_JOURNAL) -> bool:
    """Tell whether a socket file is a link to the journal, which does not know RFC 5424."""
    return path.resolve().is_relative_to(journal)


MAX_MESSAGE = 8192  # bytes: what rsyslog and syslog-ng take unless told otherwise; RFC 5424 demands 2048
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_CUT = b" [...]"


class SyslogMessage(NamedTuple):
    """One message. ``severity`` is 0 to 7, ``facility`` 0 to 23, ``time`` in seconds since the epoch.

    ``text`` may have several lines, which stay one message.
    """

    severity: int
    time: float
    app: str
    pid: str
    text: str
    facility: int = 3  # system daemons


def rfc5424(message: SyslogMessage, host: str) -> bytes:
    """Write a message as RFC 5424, section 6, has it.

    The text is UTF-8 without a byte order mark: the RFC wants one, and most receivers would show it.
    """
    whole, fraction = divmod(round(message.time * 1_000_000), 1_000_000)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
    names = f"{_name(host, 255)} {_name(message.app, 48)} {_name(message.pid, 128)}"
    return _fit(f"<{_priority(message)}>1 {moment}.{fraction:06}Z {names} - - ", message.text)


def classical(message: SyslogMessage) -> bytes:
    """Write a message as the C library does, for a daemon on this machine."""
    moment = time.localtime(message.time)
    clock = time.strftime("%H:%M:%S", moment)
    day = f"{_MONTHS[moment.tm_mon - 1]} {moment.tm_mday:2}"  # in English, whatever the locale
    return _fit(
        f"<{_priority(message)}>{day} {clock} {_name(message.app, 48)}[{_name(message.pid, 128)}]: ",
        message.text,
    )


def _priority(message: SyslogMessage) -> int:
    return message.facility * 8 + message.severity


def _name(text: str, most: int) -> str:
    """Make a field of the header: printable ASCII without spaces; ``-`` stands for none (RFC 5424, 6.2)."""
    kept = "".join(one if "!" <= one <= "~" else "_" for one in text)
    return kept[:most] or "-"


def _fit(header: str, text: str) -> bytes:
    data = header.encode() + text.encode(errors="backslashreplace")
    return data if len(data) <= MAX_MESSAGE else _shortened(data, MAX_MESSAGE)


def _shortened(data: bytes, most: int) -> bytes:
    """Cut a message, not within a character of UTF-8, and say so at its end."""
    return data[: most - len(_CUT)].decode(errors="ignore").encode() + _CUT


class SyslogSender:
    """Sends messages to the daemon at a socket. Once it is made nothing raises, and nothing waits.

    While `waiting` is true, call `housekeep` about once a second: it connects anew and sends what has piled
    up. What piles up beyond 1 MiB is dropped and counted, and the daemon's log tells of it when it takes
    messages again. After a chroot the socket cannot be connected to any more; one that is connected stays so.

    ``host`` is the name that this machine goes by; the clocks are for tests.
    """

    def __init__(
        self,
        path: Path,
        *,
        host: str | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host = socket.gethostname() if host is None else host
        self._clock = clock
        self._channel = _Channel(path, monotonic)
        self._is_classical = leads_to_journal(path)
        self._outbox = Outbox(self._channel.send, self._note, clock=clock)

    @property
    def waiting(self) -> bool:
        """Whether something is yet to be sent."""
        return not self._outbox.is_empty or self._channel.is_busy

    @property
    def lost(self) -> int:
        """How many messages were dropped in all."""
        return self._outbox.lost

    def send(self, message: SyslogMessage) -> None:
        """Send a message now, or keep it until that is possible."""
        self._outbox.put(self._format(message))

    def housekeep(self) -> None:
        """Send what waits, as far as that is possible now."""
        self._channel.push()
        self._outbox.flush()

    def disown(self) -> None:
        """Leave what waits to the parent, in a forked child, and a stream too: two would mix on one."""
        self._channel.disown()
        self._outbox = Outbox(self._channel.send, self._note, clock=self._clock)

    def close(self) -> None:
        """Send what can be sent at once, and close. May be called again."""
        if self.waiting:
            self.housekeep()
        self._channel.close()

    def _format(self, message: SyslogMessage) -> bytes:
        return classical(message) if self._is_classical else rfc5424(message, self._host)

    def _note(self, sentence: str) -> bytes:
        return self._format(SyslogMessage(4, self._clock(), "tamed", str(os.getpid()), sentence))


_PAUSE = 1.0  # seconds between two attempts to connect
_LEAST = 256  # bytes; a datagram that is refused as too long is cut, down to this


class _Channel:
    """A way to the daemon: a datagram a message, or a stream to one that listens for that.

    On a stream each message ends in a zero byte, as the C library has it, and is sent again when the
    connection breaks.
    """

    def __init__(self, path: Path, monotonic: Callable[[], float]) -> None:
        self._path = path
        self._monotonic = monotonic
        self._socket: socket.socket | None = None
        self._begun = float("-inf")
        self._is_stream = False
        self._frame = b""  # that is on its way on a stream
        self._sent = 0  # bytes of it

    @property
    def is_busy(self) -> bool:
        """Whether part of a message that was taken is yet to be sent."""
        return bool(self._frame)

    def send(self, message: bytes) -> bool:
        """Take a message, or tell that this is not possible now."""
        if not self.push() or (connected := self._connected()) is None:
            return False
        if not self._is_stream:
            return self._send_datagram(connected, message)
        self._frame = message.replace(b"\0", b"") + b"\0"
        self.push()
        return True

    def push(self) -> bool:
        """Go on with the message that was taken; tell whether it is on its way."""
        if not self._frame:
            return True
        connected = self._connected()
        if connected is None:
            return False
        try:
            while self._sent < len(self._frame):
                self._sent += connected.send(self._frame[self._sent :])
        except BlockingIOError:
            return False
        except OSError:
            self._disconnect()
            return False
        self._frame, self._sent = b"", 0
        return True

    def disown(self) -> None:
        """Connect anew, in a forked child, for a stream: a datagram is whole, whoever sends it."""
        if self._is_stream:
            self.close()

    def close(self) -> None:
        """Close the socket; what was not sent is gone. May be called again."""
        self._disconnect()
        self._frame = b""

    def _send_datagram(self, connected: socket.socket, message: bytes) -> bool:
        """Send a datagram, cut if it is too long for this socket."""
        try:
            connected.send(message)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno == errno.EMSGSIZE and len(message) > _LEAST:
                return self._send_datagram(connected, _shortened(message, len(message) * 3 // 4))
            self._disconnect()
            return False
        return True

    def _connected(self) -> socket.socket | None:
        """Return a socket that is connected, or None; to connect is tried once a second at most."""
        if self._socket is not None and self._is_stream and _has_ended(self._socket):
            self._disconnect()
        if self._socket is None and self._monotonic() >= self._begun + _PAUSE:
            self._begun = self._monotonic()
            code = self._connect(socket.SOCK_DGRAM)
            if code == errno.EPROTOTYPE:
                self._connect(socket.SOCK_STREAM)
        return self._socket

    def _connect(self, kind: socket.SocketKind) -> int:
        try:
            unconnected = socket.socket(socket.AF_UNIX, kind)
        except OSError as error:  # there is no descriptor left
            return error.errno or 0
        unconnected.setblocking(False)
        code = unconnected.connect_ex(str(self._path))
        if code:
            unconnected.close()
        else:
            self._socket, self._is_stream = unconnected, kind == socket.SOCK_STREAM
        return code

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._sent = 0


def _has_ended(connected: socket.socket) -> bool:
    """Tell whether the other end of a stream has closed: what is sent after that is lost without a word."""
    try:
        return not connected.recv(4096)
    except BlockingIOError:
        return False
    except OSError:
        return True
