"""Sending to the syslog daemon of this machine, without ever waiting for it.

Only to a daemon on this machine: UDP loses lines, and TCP without TLS can be read on the network. rsyslog,
syslog-ng and journald forward with TLS and a queue on disk, and a machine that sends to a log host
has one of them. In a container the log goes to standard error, which the platform collects.
"""

import errno
import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tamed.log.outbox import Outbox
from tamed.log.plan import Sink
from tamed.log.record import Record

__all__ = [
    "MAX_MESSAGE",
    "SyslogMessage",
    "SyslogSender",
    "classical",
    "leads_to_journal",
    "rfc5424",
]

_OF_JOURNAL = Path("/run/systemd/journal")


def leads_to_journal(path: Path, journal: Path = _OF_JOURNAL) -> bool:
    """Return whether a socket file is a link to the journal, which does not support RFC 5424."""
    return path.resolve().is_relative_to(journal)


MAX_MESSAGE = 8192  # bytes: the default limit of rsyslog and syslog-ng; RFC 5424 requires 2048
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
    """Format a message by RFC 5424, section 6.

    The text is UTF-8 without a byte order mark: the RFC requires one, but most receivers would show it.
    """
    whole, fraction = divmod(round(message.time * 1_000_000), 1_000_000)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
    names = f"{_name(host, 255)} {_name(message.app, 48)} {_name(message.pid, 128)}"
    return _fit(f"<{_priority(message)}>1 {moment}.{fraction:06}Z {names} - - ", message.text)


def classical(message: SyslogMessage) -> bytes:
    """Format a message as the C library does, for a daemon on this machine."""
    moment = time.localtime(message.time)
    clock = time.strftime("%H:%M:%S", moment)
    day = f"{_MONTHS[moment.tm_mon - 1]} {moment.tm_mday:2}"  # in English, regardless of the locale
    return _fit(
        f"<{_priority(message)}>{day} {clock} {_name(message.app, 48)}[{_name(message.pid, 128)}]: ",
        message.text,
    )


def _priority(message: SyslogMessage) -> int:
    return message.facility * 8 + message.severity


def _name(text: str, most: int) -> str:
    """Format a field of the header: printable ASCII without spaces; ``-`` means none (RFC 5424, 6.2)."""
    kept = "".join(one if "!" <= one <= "~" else "_" for one in text)
    return kept[:most] or "-"


def _fit(header: str, text: str) -> bytes:
    data = header.encode() + text.encode(errors="backslashreplace")
    return data if len(data) <= MAX_MESSAGE else _shortened(data, MAX_MESSAGE)


def _shortened(data: bytes, most: int) -> bytes:
    """Cut a message, but not within a character of UTF-8, and mark its end."""
    return data[: most - len(_CUT)].decode(errors="ignore").encode() + _CUT


class SyslogSender(Sink):
    """Sends messages to the daemon at a socket. After construction no method raises or waits.

    While `waiting` is true, call `housekeep` about once a second: it connects again and sends the queue. The
    queue is limited to 1 MiB; more messages are dropped and counted, and the loss is reported to the daemon
    when it accepts messages again. After a chroot the socket cannot be connected again; an existing
    connection stays usable.

    ``app`` and ``host`` are the names in messages of the program and the host; the clocks are for tests.
    """

    def __init__(
        self,
        path: Path,
        app: str = "tamed",
        *,
        host: str | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._host = socket.gethostname() if host is None else host
        self._clock = clock
        self._path = path
        self._channel = _Channel(path, monotonic)
        self._is_classical = leads_to_journal(path)
        self._outbox = Outbox(self._channel.send, self._loss_message, clock=clock)

    @property
    def waiting(self) -> bool:
        """Whether messages are yet to be sent."""
        return not self._outbox.is_empty or self._channel.is_busy

    @property
    def lost(self) -> int:
        """The total number of dropped messages."""
        return self._outbox.lost

    @property
    def trouble(self) -> str:
        """A sentence about the messages that cannot be sent now; empty if there are none."""
        return self._outbox.trouble(f"the syslog daemon at {self._path}")

    def write(self, records: Sequence[Record]) -> None:
        """Send records of the log."""
        for record in records:
            origin, text = record.origin, record.text.decode(errors="replace")
            self.send(SyslogMessage(origin.severity, origin.time, self._app, str(origin.pid), text))

    def send(self, message: SyslogMessage) -> None:
        """Send a message now, or queue it."""
        self._outbox.put(self._format(message))

    def housekeep(self) -> None:
        """Send waiting messages, as far as possible without waiting."""
        self._channel.push()
        self._outbox.flush()

    def disown(self) -> None:
        """In a forked child: leave the queue to the parent, and a stream: two writers would interleave."""
        self._channel.disown()
        self._outbox = Outbox(self._channel.send, self._loss_message, clock=self._clock)

    def close(self) -> None:
        """Send the messages that can be sent at once, and close. Idempotent."""
        if self.waiting:
            self.housekeep()
        self._channel.close()

    def _format(self, message: SyslogMessage) -> bytes:
        return classical(message) if self._is_classical else rfc5424(message, self._host)

    def _loss_message(self, sentence: str) -> bytes:
        return self._format(SyslogMessage(4, self._clock(), "tamed", str(os.getpid()), sentence))


_PAUSE = 1.0  # seconds between two attempts to connect
_LEAST = 256  # bytes; a datagram that is refused as too long is cut, but not below this


class _Channel:
    """A connection to the daemon: one datagram for each message, or a stream if the daemon listens on one.

    On a stream each message ends in a zero byte, as in the C library, and is sent again when the connection
    breaks.
    """

    def __init__(self, path: Path, monotonic: Callable[[], float]) -> None:
        self._path = path
        self._monotonic = monotonic
        self._socket: socket.socket | None = None
        self._begun = float("-inf")
        self._is_stream = False
        self._frame = b""  # the message being sent on a stream
        self._sent = 0  # bytes of it

    @property
    def is_busy(self) -> bool:
        """Whether part of an accepted message is yet to be sent."""
        return bool(self._frame)

    def send(self, message: bytes) -> bool:
        """Accept a message to send; return False if that is not possible now."""
        if not self.push() or (connected := self._connected()) is None:
            return False
        if not self._is_stream:
            return self._send_datagram(connected, message)
        self._frame = message.replace(b"\0", b"") + b"\0"
        self.push()
        return True

    def push(self) -> bool:
        """Continue with the accepted message; return whether it is sent."""
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
        """In a forked child: connect again if it is a stream. Datagrams of two senders do not mix."""
        if self._is_stream:
            self.close()

    def close(self) -> None:
        """Close the socket; unsent messages are lost. Idempotent."""
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
        """Return a connected socket, or None. Tries to connect at most once a second."""
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
        except OSError as error:  # no descriptor is free
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
    """Return whether the other end of a stream has closed: data sent after that is lost without an error."""
    try:
        return not connected.recv(4096)
    except BlockingIOError:
        return False
    except OSError:
        return True
