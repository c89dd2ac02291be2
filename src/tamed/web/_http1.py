"""One HTTP/1.1 connection: reading requests, timeouts, and the end of the connection."""

import asyncio
import http
import select
from types import SimpleNamespace
from typing import Final, Self, cast

import httptools

from tamed.log.logger import own_logger
from tamed.net.listen import current_environment
from tamed.net.proxy_header import IpEnds
from tamed.web._context import Peer, ServerContext, make_scope, peer_of, websocket_scope
from tamed.web._heads import Refused, plain_response, read_headers
from tamed.web._http1_exchange import Http1Exchange
from tamed.web._http1_input import Input
from tamed.web._transport import MovingDeadline, Progress, end_writing, set_reading
from tamed.web.asgi import Scope

__all__ = ["HttpConnection"]

log = own_logger("web")

_LINGER: Final = 2.0
"""Seconds for a client to read a refusal, or to send its first request while the daemon stops."""

_RECENT: Final = 1.0
"""Seconds after an answer in which a stop waits for a request that may already be on its way."""

_AHEAD: Final = 64 * 1024
"""Bytes that are read while an answer is pending, so that a disconnect is noticed."""

_END: Final = b"\r\n\r\n"
_HTTP11: Final = b" HTTP/1.1\r\n"
_STOPPED: Final = (httptools.HttpParserError, httptools.HttpParserUpgrade)
_VERSIONS: Final = ("1.1", "1.0")
_METHODS: Final = {
    each.encode(): each for each in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")
}


class HttpConnection(asyncio.Protocol):
    """Serves one connection.

    A client that exceeds a timeout is disconnected without an answer; a request that is too large or is not
    HTTP is answered, and nothing more is read. A draining connection is closed after the next answer, which
    has ``Connection: close``. While other processes serve, it waits for that request as long as for any, for
    half of the drain time at most. When the daemon stops, it is closed at once, unless a request may be on
    its way: some of its bytes have arrived, no request was answered yet, or the last one was just answered.
    Then it stays open for a moment.

    The parser gets only one request at a time: data after it is parsed when it was answered.
    """

    # A class with 30 attributes has a dict for each object: a connection would need 28 % more memory between
    # two requests. Those with fewer, such as the exchange, would gain 2 %.
    __slots__ = (
        "_answered_at",
        "_body_left",
        "_body_paused",
        "_client_closes",
        "_context",
        "_deadline",
        "_ends",
        "_exchange",
        "_halfway",
        "_head",
        "_head_begun",
        "_headers",
        "_in_head",
        "_input",
        "_is_draining",
        "_is_idle",
        "_is_parsing",
        "_keep_alive",
        "_lingers",
        "_loop",
        "_parser",
        "_peer",
        "_progress",
        "_reads_no_more",
        "_skips_body",
        "_unparsed",
        "_upgrade",
        "_url",
        "_writable",
        "transport",
        "write_paused",
    )

    transport: asyncio.Transport
    write_paused: bool
    _parser: httptools.HttpRequestParser
    _peer: Peer
    _progress: Progress

    def __init__(self, context: ServerContext, *, ends: IpEnds | None = None) -> None:
        self._context = context
        self._ends = ends  # the ends in the PROXY header
        self._loop = asyncio.get_running_loop()
        self._exchange: Http1Exchange | None = None  # the last exchange, while the connection is open
        self._upgrade: Scope | None = None  # the scope of the requested WebSocket
        # Reading.
        self._input = Input()  # unparsed data
        self._unparsed = 0  # bytes since the parser last made progress
        self._is_idle = True  # no unparsed data and no pending answer
        self._head = b""  # a head that arrived in one piece
        self._in_head = True
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body_left = 0  # remaining bytes of the body; -1 for chunks
        self._skips_body = False  # the parser regards the body as data of another protocol
        self._is_parsing = False
        self._body_paused = False  # because the application does not read it
        self._reads_no_more = False  # the connection ends, or was handed over to another protocol
        # Writing.
        self.write_paused = False
        self._writable: asyncio.Event | None = None
        self._client_closes = False  # the client sends nothing after its last request
        self._lingers: float | None = None  # seconds to the close; nothing more is read or written
        # Timeouts.
        self._deadline = MovingDeadline(self._loop, self._expired)
        self._head_begun = True  # and its deadline is set, for the first request from the connection on
        self._keep_alive = context.limits.keep_alive
        self._answered_at = 0.0
        self._is_draining = False
        self._halfway: asyncio.TimerHandle | None = None  # timer for the middle of a drain

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._progress = Progress(self.transport)
        self._peer = peer_of(transport, self._context, self._ends)
        self._peer.extensions["tamed.client"] = {"left": self.has_left}
        self._parser = httptools.HttpRequestParser(self)
        self._deadline.set(self._context.limits.head_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_timers()
        self._input.forget()
        del self._parser  # it refers back to this object
        self._peer.extensions.clear()
        if self._writable is not None:
            self._writable.set()
        if self._exchange is not None:
            self._exchange.notify_left()
            self._exchange = None

    def data_received(self, data: bytes) -> None:
        if self._is_idle and 0 < data.find(_END) == len(data) - len(_END) < self._context.limits.head:
            # Exactly one head, the usual case: this path saves a tenth of a request.
            self._is_idle = False
            self._head = data
            self._unparsed = len(data)
            try:
                self._parser.feed_data(data)
            except _STOPPED as error:
                if not self._goes_on(error):
                    return
            if self._unparsed or not self._in_head:
                self._input.passed(data)
                self._watch()
            return
        self._is_idle = False
        self._input.add(data)
        self._parse()

    def pause_writing(self) -> None:
        self.write_paused = True
        self._progress.is_made()  # from now on
        self._watch()

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._writable is not None:
            self._writable.set()
        self._watch()

    # Called by the server and the exchange.

    def connection_draining(self) -> None:
        """Close after the next answer; the server calls this when it stops, or nobody serves any more."""
        self._is_draining = True
        exchange = self._exchange
        if self._halfway is None:
            self._halfway = self._loop.call_later(self._context.drain_timeout / 2, self._notify_draining)
        if current_environment().gate.is_open:
            self._close_soon()
        elif exchange is not None and not exchange.status:  # the head of its answer will announce the close
            exchange.keep_alive = False

    def _close_soon(self) -> None:
        """Close after the pending answer, or at once."""
        self._keep_alive = _RECENT
        exchange = self._exchange
        if exchange is not None and not exchange.is_complete:
            exchange.keep_alive = False
        elif self.write_paused or self._lingers is not None or self.transport.is_closing():
            return  # the client still reads its last answer
        elif exchange is None or self._unparsed or self._has_input():
            self._deadline.set(min(_LINGER, self._context.limits.head_timeout))
        else:
            self._deadline.set(max(0.0, self._answered_at + _RECENT - self._loop.time()))

    def has_left(self) -> bool:
        return self._exchange is None or self._exchange.has_left()

    def __deepcopy__(self, _: object) -> Self:
        """Return itself: a scope refers to `has_left`, and an application may copy its scope."""
        return self

    async def writable(self) -> None:
        if self._writable is None:
            self._writable = asyncio.Event()
        while self.write_paused and not self.transport.is_closing():
            self._writable.clear()
            await self._writable.wait()

    def wants_body(self) -> None:
        """Continue reading the body, for which the application waits."""
        if self._body_paused:
            self._body_paused = False
            self._parse()
        elif not self._in_head:
            self._watch()  # 100 (Continue) may just have been sent

    def on_complete(self) -> None:
        """Wait for the next request, or for the end of the connection."""
        exchange = self._exchange
        assert exchange is not None
        self._body_paused = False
        if exchange.keep_alive:
            self._answered_at = now = self._loop.time()
            if self._in_head and not (self._input.left or self.write_paused):
                self._is_idle = True
                self._deadline.move_to(now + self._keep_alive)
                return
        elif exchange.more_body or (not self._client_closes and self.transport.can_write_eof()):
            self._linger(_LINGER)
        elif self.transport.get_write_buffer_size():
            self._linger(0.0)
        else:
            self.transport.close()
        if self._input.left:
            self._parse()
        self._watch()

    # Reading.

    def _parse(self) -> None:
        """Parse the input, up to the end of a request whose answer is pending.

        The rest stays unparsed, and beyond 64 KiB in the kernel: otherwise a client could fill the memory
        with requests faster than they are answered.
        """
        if self._is_parsing:  # an eager task has answered inside the parser
            return
        self._is_parsing = True
        was_fed = False
        while self._input.left and not self._must_wait():
            was_fed = True
            self._feed(self._input.next_piece(self._body_left))
        self._is_parsing = False
        if not self._input.left or self._reads_no_more or self.transport.is_closing():
            self._input.forget()
        left = self._input.left
        set_reading(self.transport, paused=left > _AHEAD or (left > 0 and self._body_paused))
        if was_fed:
            self._watch()

    def _must_wait(self) -> bool:
        exchange = self._exchange
        if exchange is None:
            return self._reads_no_more
        owes = self._in_head and not exchange.is_complete
        return owes or self._body_paused or self._reads_no_more or self.transport.is_closing()

    def _feed(self, data: bytes | memoryview) -> None:
        limits = self._context.limits
        self._unparsed = unparsed = self._unparsed + len(data)
        excess = unparsed - limits.head - limits.request_line if self._in_head else 0
        try:
            self._parser.feed_data(data[:-excess] if excess > 0 else data)
        except _STOPPED as error:
            if not self._goes_on(error):
                return
        if excess <= 0 and self._in_head and not self._unparsed:
            self._input.begin()
            return
        if excess > 0 or (self._unparsed > limits.head and not self._in_head):
            self._refuse(431)
        self._input.passed(data)

    def _goes_on(self, error: Exception) -> bool:
        """Handle an error of the parser; return whether the connection continues with HTTP/1.1."""
        if isinstance(error, httptools.HttpParserUpgrade):
            if self._upgrade is not None:
                self._begin_websocket(self._upgrade)
                return False
            if self._skips_body:
                self._parse_body_apart()
            return True  # an upgrade is optional: continue with HTTP/1.1
        cause = error.__context__
        self._refuse(cause.status if isinstance(cause, Refused) else 400)
        return False

    def _parse_body_apart(self) -> None:
        """Parse the body of a request with an ignored upgrade: its parser skips it.

        Otherwise the body would be parsed as further requests.
        """
        self._skips_body = False
        length = self._body_left
        framing = b"Transfer-Encoding: chunked" if length < 0 else b"Content-Length: %d" % length
        self._parser = httptools.HttpRequestParser(
            SimpleNamespace(on_body=self.on_body, on_message_complete=self._end_body_apart)
        )
        self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing)

    def _end_body_apart(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self.on_message_complete()

    def _begin_websocket(self, scope: Scope) -> None:
        """Hand the connection over to a WebSocket, or answer with 404 if there is none."""
        context = self._context
        if context.websocket is None:
            path = scope["raw_path"].decode("ascii", "backslashreplace")
            log.info("no WebSocket at %s for %s: %s", path, self._peer, context.no_websocket)
            self.transport.write(plain_response(404, context.date()))
            self._linger(_LINGER)
            return
        rest = self._input.take()
        set_reading(self.transport, paused=False)
        self._reads_no_more = True
        self._forget_timers()
        session = context.websocket(context, self.transport, scope, self.write_paused)
        self.transport.set_protocol(cast(asyncio.Protocol, session))
        if self._is_draining:
            session.connection_draining()
        session.begin(rest)

    def _refuse(self, status: int) -> None:
        exchange = self._exchange
        if not self._in_head and exchange is not None:
            if exchange.is_begun or exchange.is_complete:
                self.transport.abort()  # an error would be inside an answer, or answer nothing
                return
            exchange.notify_left()
        log.info("refused a request of %s: %s", self._peer, http.HTTPStatus(status).phrase)
        self.transport.write(plain_response(status, self._context.date()))
        self._linger(_LINGER)

    def _linger(self, seconds: float) -> None:
        """Drop what still comes, and close some seconds after everything is sent.

        Closing at once would reset a client that is still sending, and lose the answer.
        """
        self._reads_no_more = True
        self._lingers = seconds
        self._body_paused = False
        end_writing(self.transport)
        self._watch()

    # Called by the parser (https://github.com/MagicStack/httptools).

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > self._context.limits.request_line:
            raise Refused(414)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Handle a header, but no trailer, which could restore a removed field (RFC 9110, 6.5.1)."""
        if self._in_head:
            self._headers.append((name.lower(), value.rstrip(b" \t")))  # RFC 9112, 5

    def on_headers_complete(self) -> None:
        """Begin to serve the request."""
        context, parser = self._context, self._parser
        headers, self._headers = self._headers, []
        target, self._url = self._url, b""
        most = context.limits.head
        if self._unparsed > most and sum(len(name) + len(value) + 4 for name, value in headers) > most:
            raise Refused(431)
        method = parser.get_method()
        version, line_end = "1.1", len(method) + 1 + len(target)
        if self._head[line_end : line_end + len(_HTTP11)] != _HTTP11:
            # Called once: it creates a str, which takes five times as long.
            version = parser.get_http_version()
            if version not in _VERSIONS:
                raise Refused(505)
        self._head = b""
        head = read_headers(headers, version)
        name = _METHODS.get(method) or method.decode("ascii")
        scope = make_scope(context, self._peer, name, target, version, headers)
        length = head.length
        if (length or head.upgrade) and parser.should_upgrade():
            if head.upgrade == b"websocket" and name == "GET" and version == "1.1":
                if length:
                    raise Refused(400)
                self._upgrade = websocket_scope(scope)
                return
            self._skips_body = bool(length)
        self._client_closes = closes = version != "1.1" or not parser.should_keep_alive()
        exchange = self._exchange = Http1Exchange(
            self, context, scope, head.awaits_continue, self._loop.time(), not (closes or self._is_draining)
        )
        if not length:
            exchange.more_body = False
        self._body_left = length
        self._in_head = self._head_begun = False
        self._unparsed = 0
        task = exchange.task = self._loop.create_task(exchange.run())
        context.tasks.add(task)

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        if self._body_left > 0:
            self._body_left -= len(body)
        assert self._exchange is not None
        if self._exchange.add_body(body):
            self._body_paused = True

    def on_message_complete(self) -> None:
        if self._upgrade is not None or self._skips_body:
            return
        self._in_head = True
        self._unparsed = self._body_left = 0
        assert self._exchange is not None
        if self._exchange.more_body:
            self._exchange.end_body()

    # Timeouts.

    def _watch(self) -> None:
        """Set a deadline if the client must act next."""
        if self._reads_no_more and self._lingers is None:
            return
        limits, exchange = self._context.limits, self._exchange
        if self._is_sending():
            self._deadline.set(limits.stall)
        elif self._lingers is not None:
            self._deadline.set(self._lingers)
        elif self._owes_body():
            self._deadline.set(limits.stall)
        elif exchange is not None and not exchange.is_complete:
            self._deadline.clear()
        elif self._unparsed:
            if not self._head_begun:
                self._head_begun = True
                self._deadline.set(limits.head_timeout)
        elif exchange is not None:
            self._deadline.set(self._keep_alive)

    def _is_sending(self) -> bool:
        return self.write_paused or self.transport.is_closing()

    def _owes_body(self) -> bool:
        return not (self._in_head or self._exchange is None or self._exchange.awaits_continue)

    def _forget_timers(self) -> None:
        self._deadline.close()
        if self._halfway is not None:
            self._halfway.cancel()
            self._halfway = None

    def _expired(self) -> None:
        """End a connection that exceeded a timeout."""
        exchange = self._exchange
        is_pending = exchange is not None and not exchange.is_complete
        if self._is_sending() or self._body_paused:
            # The client may have read something; or the application does not read the body.
            if self._progress.is_made() or not self._is_sending():
                self._deadline.set(self._context.limits.stall)
            else:
                self._cut()
        elif self._lingers is None and (self._owes_body() or (self._unparsed and not is_pending)):
            self._cut()
        elif self._is_idle and self._has_input():
            self._deadline.set(_RECENT)
        elif self._lingers is not None or not is_pending:
            self._is_idle = False
            self.transport.close()
            self._watch()

    def _cut(self) -> None:
        log.info("disconnected %s: timeout", self._peer)
        self.transport.abort()

    def _notify_draining(self) -> None:
        if not current_environment().gate.is_open:
            self._close_soon()
        if self._exchange is not None:
            self._exchange.notify_draining()

    def _has_input(self) -> bool:
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))
