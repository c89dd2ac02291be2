"""The ways to a syslog daemon: datagrams, and streams. None of them waits, and none raises.

A channel takes a message or does not; what it does not take is kept by an ``Outbox``.
"""

import errno
import select
import socket
from collections.abc import Callable
from typing import NamedTuple, Protocol

from tamed.daemon._syslog import shortened
from tamed.daemon._syslogaddress import SyslogAddress
from tamed.errors import Unavailable

__all__ = ["Channel", "open_channel"]

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
