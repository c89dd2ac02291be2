"""Sending to syslog: the socket of this machine, UDP or TCP, without ever waiting for anyone.

Over TCP every message has its length before it (RFC 6587, 3.4.1), so that it may have many lines. UDP loses
what the network loses.
"""

import errno
import os
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol, Self

from tamed.errors import Unavailable
from tamed.log.outbox import Outbox

__all__ = [
    "MAX_MESSAGE",
    "Channel",
    "DatagramChannel",
    "StreamChannel",
    "SyslogAddress",
    "SyslogMessage",
    "SyslogSender",
    "classical",
    "leads_to_journal",
    "open_channel",
    "rfc5424",
    "shortened",
]


_LOCAL = "/dev/log"
_PORT = "514"
_EXPECTED = "expected unix:/path, udp://HOST:PORT or tcp://HOST:PORT"


class SyslogAddress(NamedTuple):
    """A socket file of this machine, or a host and port for UDP or TCP."""

    kind: str  # unix, udp or tcp
    host: str  # for unix the path
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``unix:/dev/log``, ``udp://HOST[:PORT]`` or ``tcp://HOST[:PORT]``; no text is the local one.

        The port is 514 unless it is given. Raises ValueError, which says what was expected.
        """
        if not text:
            return cls("unix", _LOCAL)
        kind, _, rest = text.partition(":")
        if kind == "unix" and rest.startswith("/"):
            return cls(kind, rest)
        if kind in ("udp", "tcp") and rest.startswith("//"):
            host, port = _split(rest[2:])
            if host and port.isascii() and port.isdigit() and 0 < int(port) < 65536:
                return cls(kind, host, int(port))
        raise ValueError(f"{text!r}: {_EXPECTED}")

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix:{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.kind}://{host}:{self.port}"


def _split(text: str) -> tuple[str, str]:
    """Split a host from its port; an IPv6 address stands in brackets. No host means it is neither."""
    if text.startswith("["):
        host, closed, port = text[1:].partition("]")
        if not closed or (port and not port.startswith(":")):
            return "", ""
        return host, port[1:] or _PORT
    host, _, port = text.partition(":")
    return host, port or _PORT


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
    return data if len(data) <= MAX_MESSAGE else shortened(data, MAX_MESSAGE)


def shortened(data: bytes, most: int) -> bytes:
    """Cut a message, not within a character of UTF-8, and say so at its end."""
    return data[: most - len(_CUT)].decode(errors="ignore").encode() + _CUT


_PAUSE = 1.0  # seconds between two attempts to connect
_CONNECTING = 10.0  # seconds one of them may take
_LEAST = 256  # bytes; a datagram that is refused as too long is cut, down to this


class Channel(Protocol):
    """A way to a syslog daemon."""

    @property
    def is_busy(self) -> bool:
        """Whether a message that was taken is not yet on its way."""
        ...

    def send(self, message: bytes) -> bool:
        """Take a message, or tell that this is not possible now."""
        ...

    def push(self) -> bool:
        """Go on with the message that was taken; tell whether it is on its way."""
        ...

    def disown(self) -> None:
        """Go another way than the parent, in a forked child, if both cannot go the same."""
        ...

    def close(self) -> None:
        """Let the way go. May be called again."""
        ...


def open_channel(address: SyslogAddress, monotonic: Callable[[], float]) -> Channel:
    """Return the way to an address, where nothing need listen yet; Unavailable if a name does not resolve."""
    if address.kind == "unix":
        local = _Target(socket.AF_UNIX, socket.SOCK_DGRAM, address.host)
        if _wants_stream(local):
            return StreamChannel(_Connector([local._replace(kind=socket.SOCK_STREAM)], monotonic), _ended)
        return DatagramChannel(_Connector([local], monotonic))
    if address.kind == "udp":
        return DatagramChannel(_Connector(_resolve(address, socket.SOCK_DGRAM), monotonic))
    return StreamChannel(_Connector(_resolve(address, socket.SOCK_STREAM), monotonic), _counted)


class DatagramChannel:
    """One datagram a message."""

    def __init__(self, connector: "_Connector") -> None:
        self._connector = connector

    @property
    def is_busy(self) -> bool:
        """Never: a datagram goes at once, or is not taken."""
        return False

    def send(self, message: bytes) -> bool:
        """Send a datagram, cut if it is too long for this socket."""
        connected = self._connector.get()
        if connected is None:
            return False
        try:
            connected.send(message)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno == errno.EMSGSIZE and len(message) > _LEAST:
                return self.send(shortened(message, len(message) * 3 // 4))
            self._connector.drop()
            return False
        return True

    def push(self) -> bool:
        """Do nothing."""
        return True

    def disown(self) -> None:
        """Do nothing: a datagram is whole, whoever sends it."""

    def close(self) -> None:
        """Close the socket."""
        self._connector.drop()


class StreamChannel:
    """One frame a message, one message at a time. When the connection breaks, that message is sent again."""

    def __init__(self, connector: "_Connector", frame: Callable[[bytes], bytes]) -> None:
        self._connector = connector
        self._frame = frame
        self._current = b""
        self._sent = 0

    @property
    def is_busy(self) -> bool:
        """Whether part of a message is yet to be sent."""
        return bool(self._current)

    def send(self, message: bytes) -> bool:
        """Take a message if the one before is on its way."""
        if not self.push():
            return False
        self._current = self._frame(message)
        self.push()
        return True

    def push(self) -> bool:
        """Send what is left of the message, as far as that goes."""
        if not self._current:
            return True
        connected = self._connector.get()
        if connected is None or not _is_open(connected):
            if connected is not None:
                self._break()
            return False
        try:
            while self._sent < len(self._current):
                self._sent += connected.send(self._current[self._sent :])
        except BlockingIOError:
            return False
        except OSError:
            self._break()
            return False
        self._current, self._sent = b"", 0
        return True

    def disown(self) -> None:
        """Connect anew for the next message."""
        self.close()

    def close(self) -> None:
        """Close the socket; what was not sent is gone."""
        self._connector.drop()
        self._current, self._sent = b"", 0

    def _break(self) -> None:
        self._connector.drop()
        self._sent = 0


class _Target(NamedTuple):
    family: int
    kind: int
    address: str | tuple[object, ...]


class _Connector:
    """Has a connected socket, or makes one: at most once a second, to one target after the other."""

    def __init__(self, targets: list[_Target], monotonic: Callable[[], float]) -> None:
        self._targets = targets
        self._monotonic = monotonic
        self._socket: socket.socket | None = None
        self._is_connecting = False
        self._begun = float("-inf")

    def get(self) -> socket.socket | None:
        """Return a socket that is connected, or None if there is none yet."""
        if self._socket is None and self._monotonic() >= self._begun + _PAUSE:
            self._connect()
        if self._is_connecting:
            self._see_to_connecting()
        return None if self._is_connecting else self._socket

    def drop(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._is_connecting = False

    def _connect(self) -> None:
        self._begun = self._monotonic()
        target = self._targets[0]
        self._targets = [*self._targets[1:], target]
        try:
            self._socket = socket.socket(target.family, target.kind)
        except OSError:
            return
        self._socket.setblocking(False)
        code = self._socket.connect_ex(target.address)
        self._is_connecting = code == errno.EINPROGRESS
        if code not in (0, errno.EINPROGRESS):
            self.drop()

    def _see_to_connecting(self) -> None:
        assert self._socket is not None
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        if poll.poll(0):
            self._is_connecting = False
            if self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.drop()
        elif self._monotonic() >= self._begun + _CONNECTING:
            self.drop()


def _counted(message: bytes) -> bytes:
    return b"%d %b" % (len(message), message)


def _ended(message: bytes) -> bytes:
    """End a message as the C library does on a local stream."""
    return message.replace(b"\0", b"") + b"\0"


def _is_open(connected: socket.socket) -> bool:
    """Tell whether the other end has not closed: what is sent after that is lost without a word."""
    try:
        return bool(connected.recv(4096))
    except BlockingIOError:
        return True
    except OSError:
        return False


def _wants_stream(target: _Target) -> bool:
    with socket.socket(target.family, target.kind) as probe:
        probe.setblocking(False)
        return probe.connect_ex(target.address) == errno.EPROTOTYPE


def _resolve(address: SyslogAddress, kind: socket.SocketKind) -> list[_Target]:
    try:
        found = socket.getaddrinfo(address.host, address.port, type=kind)
    except OSError as error:
        raise Unavailable(
            f"syslog at {address}", error.strerror or str(error), "name another host"
        ) from error
    return [_Target(family, kind, target) for family, _, _, _, target in found]


_OF_JOURNAL = Path("/run/systemd/journal")


class SyslogSender:
    """Sends messages to one syslog daemon. Once it is made nothing raises, and nothing waits.

    While `waiting` is true, call `housekeep` about once a second: it connects anew and sends what
    has piled up. What piles up beyond 1 MiB is dropped and counted, and the daemon's log tells of it when
    it takes messages again. After a chroot a local socket cannot be connected to any more; one that is
    connected stays so.

    ``host`` is the name that this machine goes by; the clocks are for tests. Raises Unavailable if the name
    of the address does not resolve; that is asked once, here.
    """

    def __init__(
        self,
        address: SyslogAddress,
        *,
        host: str | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.address = address
        self._host = socket.gethostname() if host is None else host
        self._clock = clock
        self._channel = open_channel(address, monotonic)
        self._is_classical = address.kind == "unix" and leads_to_journal(Path(address.host))
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


def leads_to_journal(path: Path, journal: Path = _OF_JOURNAL) -> bool:
    """Tell whether a socket file is a link to the journal, which does not know RFC 5424."""
    return path.resolve().is_relative_to(journal)
