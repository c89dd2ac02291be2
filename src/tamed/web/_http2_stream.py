"""One HTTP/2 stream: flow control of a request's body and its answer, and their timeouts."""

import asyncio
from collections.abc import Iterable
from typing import Final, Protocol, Self

from h2.connection import H2Connection
from h2.errors import ErrorCodes

from tamed.log.logger import own_logger
from tamed.web._context import Peer, ServerContext
from tamed.web._exchange import Exchange
from tamed.web._heads import (
    fields_of,
    header_lines,
    joined_lines,
    plain_text,
    read_response,
    require_status,
)
from tamed.web._transport import MovingDeadline
from tamed.web.asgi import Scope

__all__ = ["Http2Stream", "StreamConnection", "plain_fields"]

log = own_logger("web")

_LONGEST_FRAME: Final = 64 * 1024
"""Maximum bytes of a sent frame, even if the client accepts longer ones."""

_LINGER: Final = 1.0
"""Seconds for a client to end a request that was answered before its body had arrived."""

Fields = list[tuple[bytes, bytes]]


class StreamConnection(Protocol):
    """The interface of a connection for its streams."""

    protocol: H2Connection
    write_paused: bool

    def flush(self, sent: int = 0) -> None: ...
    def wait_for_window(self, stream: "Http2Stream") -> None: ...
    def on_closed(self, stream: "Http2Stream") -> None: ...


class Http2Stream:
    """Carries one exchange.

    Data that an application sends is buffered here while the client's window is full, and the application
    waits. The client may send 256 KiB of a body ahead: the window is extended when the application reads.
    """

    def __init__(
        self,
        connection: StreamConnection,
        number: int,
        context: ServerContext,
        peer: Peer,
        scope: Scope,
        *,
        awaits_continue: bool,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.number = number
        self.write_paused = False
        self._connection = connection
        self._context = context
        self._peer = peer
        self._pending = memoryview(b"")  # data for which the client's window has no space
        self._ending: Fields | None = None  # what follows the data: trailers, or only the end
        self._held = 0  # bytes of the body for which the window is not extended yet
        self._changed: asyncio.Event | None = None
        self._is_closed = False
        self._lingers = False  # the answer is complete, but the request is not
        self._deadline = MovingDeadline(loop, self._expired)
        self._exchange: Http2Exchange | None = Http2Exchange(
            self, context, scope, awaits_continue, loop.time()
        )

    @property
    def exchange(self) -> "Http2Exchange":
        """The exchange, until it is closed: this breaks a reference cycle."""
        assert self._exchange is not None
        return self._exchange

    # The exchange's connection.

    def has_left(self) -> bool:
        return self._exchange is None or self._exchange.has_left()

    def __deepcopy__(self, _: object) -> Self:
        """Return itself: a scope refers to `has_left`, and an application may copy its scope."""
        return self

    async def writable(self) -> None:
        if self._changed is None:
            self._changed = asyncio.Event()
        while self.write_paused:
            self._changed.clear()
            await self._changed.wait()

    def wants_body(self) -> None:
        """Extend the client's window."""
        self._make_room()
        self.watch()

    def on_complete(self) -> None:
        """Close the stream after the whole answer is sent."""
        if self._ending is None and not self._pending:
            self.close()

    # Called by the connection.

    def add_body(self, data: bytes, size: int) -> None:
        """Handle a part of the body, which used ``size`` bytes of the window."""
        self._held += size
        if self._lingers:
            return
        if not self.exchange.add_body(data):
            self._make_room()
        self.watch()

    def end_body(self) -> None:
        self.exchange.end_body()
        if self._lingers:
            self.close()
        self.watch()

    def on_reset(self) -> None:
        """Handle a reset by the client, or the loss of the connection."""
        exchange = self.exchange
        self._release()
        exchange.notify_left()

    def close(self, code: ErrorCodes = ErrorCodes.NO_ERROR) -> None:
        """End the stream; an incomplete one is reset (RFC 9113, 8.1)."""
        if self._is_closed:
            return
        exchange = self.exchange
        if exchange.more_body and exchange.is_complete and not (self._lingers or self._has_more()):
            self._lingers = True  # after an immediate reset, some clients do not read the answer
            self._deadline.set(_LINGER)
            return
        if exchange.more_body or not exchange.is_complete or self._has_more():
            self._connection.protocol.reset_stream(self.number, code)
        self._make_room()
        self._release()
        self._connection.flush()
        self._connection.on_closed(self)

    # Sending.

    def send_fields(self, fields: Fields, *, ends: bool = False) -> None:
        """Send a head, or trailers."""
        if not self._is_closed:
            self._connection.protocol.send_headers(self.number, fields, end_stream=ends)
            self._connection.flush()

    def send_data(self, data: bytes, *, ends: bool) -> None:
        """Send a part of the body, as the client's window allows."""
        self._pending = memoryview(data)
        self.end([] if ends else None)

    def end(self, trailers: Fields | None) -> None:
        """Send the rest, then trailers, or only the end if they are empty. None: the end comes later."""
        self._ending = trailers
        while self.send_frame():
            pass
        if self._has_more():
            self.write_paused = True
            self._connection.wait_for_window(self)
        self.watch()

    def send_frame(self) -> bool:
        """Send one frame; return whether there is more data, and window for it."""
        if self._is_closed or self._connection.write_paused:
            return False
        protocol, pending, number = self._connection.protocol, self._pending, self.number
        if pending:
            room = protocol.local_flow_control_window(number)
            size = min(len(pending), room, protocol.max_outbound_frame_size, _LONGEST_FRAME)
            if size <= 0:
                return False
            is_last = size == len(pending) and self._ending == []
            protocol.send_data(number, pending[:size], end_stream=is_last)
            self._pending = pending[size:]
            if is_last:
                self._ending = None
            self._connection.flush(size)
        elif self._ending is not None:
            trailers, self._ending = self._ending, None
            if trailers:
                self.send_fields(trailers, ends=True)
            else:
                protocol.end_stream(number)
                self._connection.flush()
        return self._sent()

    def _sent(self) -> bool:
        """Update the state after a frame; return whether data is left."""
        if self._has_more():
            self.watch()
            return True
        if self.write_paused:
            self._resume()
            self.watch()
            if self.exchange.is_complete:
                self.close()
        return False

    def _has_more(self) -> bool:
        return not self._is_closed and (len(self._pending) > 0 or self._ending is not None)

    def _resume(self) -> None:
        self.write_paused = False
        if self._changed is not None:
            self._changed.set()

    def _release(self) -> None:
        self._is_closed = True
        self._exchange = None
        self._deadline.close()
        self._pending = memoryview(b"")
        self._ending = None
        self._resume()

    def _make_room(self) -> None:
        if self._held:
            held, self._held = self._held, 0
            self._connection.protocol.acknowledge_received_data(held, self.number)
            self._connection.flush()

    # Timeouts.

    def watch(self) -> None:
        """Set a deadline if the client must act next."""
        exchange = self._exchange
        if exchange is None or self._lingers:
            return
        owes_body = exchange.more_body and not self._held and not exchange.awaits_continue
        if self.write_paused or (owes_body and not exchange.is_complete):
            self._deadline.set(self._context.limits.stall)
        else:
            self._deadline.clear()

    def _expired(self) -> None:
        if self._lingers:
            self.close()
            return
        if self._connection.write_paused:
            self.watch()  # nothing is sent or read: the connection notices whether its client reads
            return
        log.info("aborted a request of %s: timeout", self._peer)
        self.exchange.notify_left()
        self.close(ErrorCodes.CANCEL)


class Http2Exchange(Exchange):
    """A request of HTTP/2."""

    def __init__(
        self,
        stream: Http2Stream,
        context: ServerContext,
        scope: Scope,
        awaits_continue: bool,
        now: float,
    ) -> None:
        super().__init__(stream, context, scope, awaits_continue, now)
        self._stream = stream
        self._head: Fields | None = None  # sent with the body
        self._trailers: Fields = []

    def _ask_for_body(self) -> None:
        self._stream.send_fields([(b":status", b"100")])

    def _write_head(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> int | None:
        require_status(status)
        lines, length, _, has_date = read_response(headers)
        joined_lines(lines)
        if not has_date:
            lines.insert(0, self._context.date())
        self._head = [(b":status", b"%d" % status), *fields_of(lines)]
        if length is None and self._has_body:
            self._send_head(ends=False)
        return length

    def _write_body(self, body: bytes, more: bool) -> None:
        ends = not (more or self._has_trailers)
        if self._head is not None:
            self._send_head(ends=ends and not body)
            ends = ends and bool(body)
        if body or ends:
            self._stream.send_data(body, ends=ends)

    def _send_head(self, *, ends: bool) -> None:
        assert self._head is not None
        self._stream.send_fields(self._head, ends=ends)
        self._head = None
        self.is_begun = True

    def _write_trailers(self, headers: Iterable[tuple[bytes, bytes]], more: bool) -> None:
        self._trailers += fields_of(header_lines(headers).splitlines(keepends=True))
        if not more:
            self._stream.end(self._trailers)

    def _write_links(self, links: Iterable[bytes]) -> None:
        lines = header_lines((b"link", bytes(link)) for link in links)
        self._stream.send_fields([(b":status", b"103"), *fields_of(lines.splitlines(keepends=True))])

    def _write_failure(self) -> None:
        fields, body = plain_fields(500, self._context)
        self._stream.send_fields(fields, ends=self.is_head)
        if not self.is_head:
            self._stream.send_data(body, ends=True)

    def _break_off(self) -> None:
        self._stream.close(ErrorCodes.INTERNAL_ERROR)


def plain_fields(status: int, context: ServerContext) -> tuple[Fields, bytes]:
    """Return the fields and the body of a response by the server itself."""
    body = plain_text(status)
    fields = [
        (b":status", b"%d" % status),
        *fields_of([context.date()]),
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
    ]
    return fields, body
