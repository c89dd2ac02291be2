"""A fast server for services that know their whole answer when a client connects."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final, Unpack, cast

from tamed.errors import reason
from tamed.log.logger import own_logger
from tamed.net._connection import Connection, close_when_sent, discard_input, peer_text
from tamed.net.accept import OnAccept
from tamed.net.listen import Endpoints, Listener
from tamed.net.server import Server, ServerOptions

__all__ = ["BorrowedSocket", "Reply", "ReplyServer"]

log = own_logger("tamed.net")

# Do not wait, and hold back the last packet (MSG_MORE, send(2)) for the end of the stream, which follows.
_AT_ONCE: Final = socket.MSG_DONTWAIT | socket.MSG_MORE

Reply = Callable[[str], bytes]
"""Returns the answer for a peer, whose address is in the form of the command line."""


class ReplyServer(Server):
    """Sends each client ``reply(peer)`` and closes the connection; `Server` has the options.

    Most connections are accepted, answered and closed without the event loop: no transport, no protocol,
    no task. Only if the kernel does not accept the whole answer at once, the loop sends the rest. Data from
    a client is discarded, so that the connection is not reset while the client reads. Clients that disconnect
    early are usual, and logged at DEBUG only.

    ``reply`` must not block. If it raises, that is logged with the peer, and the client gets nothing.

    ``send_timeout`` is the time in seconds after which a connection is aborted if the client accepts no data
    (None: no limit).
    """

    def __init__(
        self,
        endpoint: Endpoints,
        reply: Reply,
        *,
        send_timeout: float | None = None,
        **options: Unpack[ServerOptions],
    ) -> None:
        super().__init__(endpoint, **options)
        self._reply = reply
        self._send_timeout = send_timeout

    def _on_accept_of(self, listener: Listener, sock: socket.socket) -> OnAccept:
        if listener.tls is not None:
            return self._open_transports(listener, sock, self._make_protocol)
        family, kind, proto = sock.family, sock.type, sock.proto
        internet = family == socket.AF_INET
        counted = self._limit_at(sock) is not None
        reply = self._reply
        number = sock.fileno()
        client = BorrowedSocket(family, kind, proto, number)

        def on_accept(fd: int, address: Any) -> None:
            nonlocal client, number
            self.accepted += 1
            if fd != number:  # usually it is the number that the previous client had
                client, number = BorrowedSocket(family, kind, proto, fd), fd
            if internet:
                host, port = address
                peer = f"{host}:{port}"
            else:
                peer = peer_text(address, client)
            try:
                answer = reply(peer)
            except Exception as error:
                answer = self._no_answer(peer, error)
            try:
                sent = client.send(answer, _AT_ONCE)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                log.debug("%s lost %s: %s", self.full_name, peer, reason(error))
                socket.close(fd)
                return
            except TypeError as error:  # the reply is not bytes
                self._no_answer(peer, error)
                socket.close(fd)
                return
            if sent == len(answer):
                _end(client, fd)
            else:
                slow = _SlowConnection(family, kind, proto, fd, self._end)
                self._begin(slow, address if counted else None)
                slow.send_rest(memoryview(answer)[sent:], self._send_timeout)

        return on_accept

    def _make_protocol(self, connection: Connection, _: Any) -> asyncio.BaseProtocol:
        return _ReplyProtocol(connection, self._reply, self._no_answer)

    def _no_answer(self, peer: str, error: Exception) -> bytes:
        """Log an exception of the reply; return the data to send instead."""
        log.error("%s has no reply for %s", self.full_name, peer, exc_info=error)
        return b""


class BorrowedSocket(socket.SocketType):
    """A socket object that does not own its descriptor, and is reused for each connection with that number.

    To create one for each connection would cost a system call, getsockname(2), each. This is the C base type
    of `socket.socket`: it runs no Python code.
    """

    __slots__ = ()

    def __init__(self, family: int, kind: int, proto: int, fileno: int) -> None:
        super().__init__(family, kind, proto, fileno)
        self.setblocking(False)  # otherwise a program's ``socket.setdefaulttimeout`` would make it wait

    def __del__(self) -> None:
        self.detach()


def _end(client: socket.SocketType, fd: int) -> None:
    """Close a connection whose whole answer is in the kernel's buffer."""
    # First the end of the stream, which is sent with the last packet of the answer. Input between here and
    # the close causes a reset, but only after that end, so a client that reads loses no data.
    try:
        client.shutdown(socket.SHUT_WR)
    except OSError:  # the peer has reset the connection
        pass
    else:
        discard_input(fd)
    socket.close(fd)


class _SlowConnection(Connection):
    """A connection to a slow peer: the rest of the answer is sent when the kernel's buffer has room."""

    __slots__ = ("_loop", "_rest", "_seconds", "_timer")

    def send_rest(self, rest: memoryview, seconds: float | None) -> None:
        """Send the rest and close; abort if the peer accepts no data for ``seconds``."""
        self.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._rest = rest
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self._loop.add_writer(self, self._send_more)
        self._wait()

    def abort(self) -> None:
        self.reset_at_close()
        self._finish()

    def _send_more(self) -> None:
        try:
            sent = self.send(self._rest)
        except BlockingIOError:
            return
        except OSError as error:
            log.debug("lost %s before the last %d bytes: %s", self.peer, len(self._rest), reason(error))
            self.abort()
            return
        self._rest = self._rest[sent:]
        if self._rest:
            self._wait()
        else:
            discard_input(self.fileno())
            self._finish()

    def _finish(self) -> None:
        self._loop.remove_writer(self)
        if self._timer is not None:
            self._timer.cancel()
        self.close()

    def _wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._seconds is not None:
            self._timer = self._loop.call_later(self._seconds, self._give_up)

    def _give_up(self) -> None:
        log.info("aborted %s, which accepted no data for %g s", self.peer, self._seconds)
        self.abort()


class _ReplyProtocol(asyncio.Protocol):
    """Sends the answer over TLS, which needs a transport."""

    def __init__(
        self, connection: Connection, reply: Reply, no_answer: Callable[[str, Exception], bytes]
    ) -> None:
        self._connection = connection
        self._reply = reply
        self._no_answer = no_answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream, peer = cast(asyncio.Transport, transport), self._connection.peer
        try:
            stream.write(self._reply(peer))
        except Exception as error:
            self._no_answer(peer, error)
        close_when_sent(stream, self._connection)
