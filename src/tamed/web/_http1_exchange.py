"""Writing an answer over HTTP/1.1 and 1.0 (RFC 9112): its head, its framing, and its end."""

import asyncio
import os
from collections.abc import Iterable
from contextlib import suppress
from typing import Final, Protocol

from tamed.errors import reason
from tamed.log.logger import own_logger
from tamed.web._context import ServerContext
from tamed.web._exchange import Exchange, ExchangeConnection
from tamed.web._heads import STATUS_LINES, header_lines, joined_lines, plain_response, read_response
from tamed.web._transport import MovingDeadline
from tamed.web.asgi import Scope

__all__ = ["Http1Exchange", "Http1ExchangeConnection"]

log = own_logger("web")

_JOINED: Final = 16 * 1024
"""The longest body that is joined with its head in one write."""

_AT_ONCE: Final = 2 * 1024 * 1024
"""Bytes per sendfile(2), so that other connections get their turn; the same as nginx's sendfile_max_chunk."""

_AS_IT_IS, _CHUNKED, _TO_THE_END = range(3)


class Http1ExchangeConnection(ExchangeConnection, Protocol):
    """A connection that has one exchange at a time."""

    transport: asyncio.Transport


class Http1Exchange(Exchange):
    """A request of HTTP/1.1 or 1.0."""

    def __init__(  # noqa: PLR0917 - called once a request, where keywords cost
        self,
        connection: Http1ExchangeConnection,
        context: ServerContext,
        scope: Scope,
        awaits_continue: bool,
        now: float,
        keep_alive: bool,
    ) -> None:
        # `super` takes 1 % of a request.
        Exchange.__init__(self, connection, context, scope, awaits_continue, now)
        self.keep_alive = keep_alive
        """Whether another request may follow on the connection."""
        self._transport = connection.transport
        self._framing = _AS_IT_IS
        self._head = b""  # written with the body

    def _ask_for_body(self) -> None:
        self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _write_head(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> int | None:
        line = STATUS_LINES[status]
        lines, length, closes, has_date = read_response(headers)
        framing = b""
        if closes or self.awaits_continue:  # after an unanswered Expect, the body may come or not
            self.keep_alive = False
        if length is None and self._has_body:
            if self.scope["http_version"] == "1.1":
                self._framing = _CHUNKED
                framing = b"transfer-encoding: chunked\r\n"
            else:
                self._framing = _TO_THE_END
                self.keep_alive = False
        date = b"" if has_date else self._context.date()
        end = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        self._head = b"".join((line, date, joined_lines(lines), framing, end))
        if length is None:
            self._write(b"")  # a body of known length usually follows at once; others may take long
        return length

    def _write_body(self, body: bytes, more: bool) -> None:
        if self._framing == _CHUNKED:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""  # an empty chunk ends the body
            if not more:
                body += b"0\r\n" if self._has_trailers else b"0\r\n\r\n"
        self._write(body)

    async def _write_file(self, descriptor: int, size: int) -> int:
        transport = self._transport
        if transport.get_extra_info("sslcontext") is not None:
            return 0
        try:
            sent = 0 if transport.is_closing() else self._write_file_at_once(descriptor, size)
            return sent if sent == size else await self._write_rest(descriptor, sent, size)
        except OSError as error:
            log.info("aborted an answer: %s", reason(error))
            transport.abort()
            self.notify_left()
            return 0

    def _write_file_at_once(self, descriptor: int, size: int) -> int:
        """Send what the client takes now of the head and of a file; return how much of the file that was.

        It is nothing if the transport has something in its buffer. If the transport wrote the head, and this
        waited for its end, a file of 1 MB would take five more system calls.
        """
        transport = self._transport
        head, self._head = self._head, b""
        self.is_begun = True
        count = sent = 0
        if not transport.get_write_buffer_size():
            sock = transport.get_extra_info("socket").fileno()
            with suppress(BlockingIOError):
                count = os.write(sock, head) if head else 0
            if count == len(head):
                sending = _Sending(transport, sock, descriptor, size)
                sending.has_ended()
                sent = sending.sent
        if count < len(head):
            transport.write(head[count:])
        return sent

    async def _write_rest(self, descriptor: int, sent: int, size: int) -> int:
        """Send a file from byte ``sent`` on, when the client takes it; return how much was sent in all."""
        transport = self._transport
        self._write(b"")
        transport.set_write_buffer_limits(0)  # so that we wait until it has nothing left to write
        try:
            await self._connection.writable()
            # A duplicate: the number of the transport's descriptor may be reused as soon as it is closed, and
            # event loops refuse to watch it.
            sock = os.dup(transport.get_extra_info("socket").fileno())
            try:
                sending = _Sending(transport, sock, descriptor, size, sent)
                if not sending.has_ended():
                    await sending.until_ended(self._context.limits.stall)
                return sending.sent
            finally:
                os.close(sock)
        finally:
            if not transport.is_closing():  # uvloop would raise
                transport.set_write_buffer_limits()

    def _write(self, data: bytes) -> None:
        transport = self._transport
        if transport.is_closing():  # `connection_lost` comes in the next iteration of the loop
            self.notify_left()
            return
        head = self._head
        if head:
            self._head = b""
            self.is_begun = True
            if len(data) > _JOINED:
                transport.write(head)
            else:
                data = head + data
        if data:
            transport.write(data)

    def _write_trailers(self, headers: Iterable[tuple[bytes, bytes]], more: bool) -> None:
        lines = header_lines(headers)
        if self._framing == _CHUNKED:
            self._write(lines if more else lines + b"\r\n")

    def _write_links(self, links: Iterable[bytes]) -> None:
        if self.scope["http_version"] == "1.1":
            lines = header_lines((b"link", bytes(link)) for link in links)
            self._transport.write(b"HTTP/1.1 103 Early Hints\r\n" + lines + b"\r\n")

    def _write_failure(self) -> None:
        self.keep_alive = False
        self._head = b""
        self._write(plain_response(500, self._context.date(), has_body=not self.is_head))

    def _break_off(self) -> None:
        if self._framing == _TO_THE_END:
            self._transport.abort()
        else:
            self._transport.close()


class _Sending:
    """Sends a file with sendfile(2), without a copy in this process: as much as the socket accepts.

    uvloop has no ``loop.sendfile``, and that of asyncio has no timeout for a client that does not read.
    """

    def __init__(
        self, transport: asyncio.Transport, sock: int, descriptor: int, size: int, sent: int = 0
    ) -> None:
        self.sent = sent
        self._transport = transport
        self._sock = sock
        self._descriptor = descriptor
        self._size = size

    def has_ended(self) -> bool:
        """Send a part, if anything is left; return whether everything is sent."""
        if self.sent >= self._size or self._transport.is_closing():
            return True
        try:
            count = os.sendfile(
                self._sock, self._descriptor, self.sent, min(self._size - self.sent, _AT_ONCE)
            )
        except BlockingIOError:
            return False
        self.sent += count
        return count == 0 or self.sent == self._size

    async def until_ended(self, stall: float) -> None:
        """Send the rest, whenever the socket is writable.

        It ends early if the file is shorter, or the transport is closed. Raises TimeoutError if the client
        reads nothing for ``stall`` seconds, and OSError if it disconnects. A task that is woken each time,
        instead of a callback, would take a third longer for a file of 1 MB.
        """
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def send() -> None:
            before = self.sent
            try:
                is_last = self.has_ended()
            except OSError as error:
                fail(error)
                return
            if is_last and not ended.done():
                ended.set_result(None)
            elif self.sent > before:
                deadline.set(stall)

        def fail(error: OSError) -> None:
            if not ended.done():
                ended.set_exception(error)

        deadline = MovingDeadline(
            loop, lambda: fail(TimeoutError(f"the client read nothing for {stall:g} s"))
        )
        deadline.set(stall)
        loop.add_writer(self._sock, send)
        try:
            await ended
        finally:
            loop.remove_writer(self._sock)
            deadline.close()
