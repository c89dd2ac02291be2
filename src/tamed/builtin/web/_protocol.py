"""uvicorn's protocol for HTTP/1.1, with an end to everything: to heads, to waiting, and to connections."""

import asyncio
import http
import re
import select
import time
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache, partial
from typing import Any, Final, NoReturn

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from tamed.errors import reason
from tamed.log.logger import own_logger
from tamed.net.listen import current

__all__ = ["HttpLimits", "HttpProtocol"]

log = own_logger("web")
access_log = own_logger("web.access")

_LINGER: Final = 2.0
"""Seconds that a client has to read why it was refused, or to say what it connected for in a drain."""


_RECENT: Final = 1.0
"""Seconds after an answer in which the next request may be on its way, so a drain does not close at once."""


_NOTHING: Final = memoryview(b"")
_END_OF_HEAD: Final = re.compile(rb"\n\r?\n")

_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-fv:.%]+\])(?::[0-9]*)?")
"""RFC 9110, 7.2, and RFC 3986, 3.2.2."""


@dataclass(frozen=True)
class HttpLimits:
    """How much a client may say before it is answered, in bytes, and how long it may take, in seconds."""

    request_line: int = 8 * 1024
    """For the target of a request; it is answered with 414 beyond."""
    head: int = 32 * 1024
    """For all headers of a request together, and for what it says without coming to a point; 431 beyond."""
    head_timeout: float = 10.0
    """From the connection, or the first byte of another request, to the end of the headers."""
    stall: float = 60.0
    """For the client to go on sending the body, or taking the answer."""


class _Refused(Exception):
    """A request is over a limit. The parser turns it into an error of its own."""


class Exchange:
    """A request and its answer, as the application has them.

    An application that was told that its client is gone may end in any way: an error of it is none then. In
    the middle of a drain it is told so too, once, though the client is there, if it has taken all of the
    request and listens; what it sends is sent. That message has ``draining``.
    """

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._has_all = False  # of the request
        self._is_asked_to_end = False
        self._has_heard = False

    async def run(self, app: Any, scope: Any, *_: Any) -> Any:
        """Have the application answer."""
        scope["extensions"] = {"tamed.client": {"left": lambda: self._cycle.disconnected}}
        try:
            return await app(scope, self._receive, self._cycle.send)
        except Exception as error:
            if not self._has_heard:
                raise
            log.info("an application ended when its client had left: %s", reason(error))
            return None
        except asyncio.CancelledError:
            if not self._cycle.disconnected:
                raise
            log.info("cut what an application still did for a client that had left")
            return None
        finally:
            if self._has_heard and not self._cycle.response_complete:
                self._cycle.disconnected = True  # what was sent is not all, so its end must not look like one
                self._cycle.transport.close()

    def ask_to_end(self) -> None:
        """Tell the application, if it listens, that it should come to an end."""
        self._is_asked_to_end = True
        self._cycle.message_event.set()

    async def _receive(self) -> Any:
        while not (self._has_all and self._is_asked_to_end):
            message: Any = await self._cycle.receive()
            if message["type"] == "http.disconnect":
                self._has_heard = not self._cycle.response_complete
                return message
            if not self._has_all:
                self._has_all = not message["more_body"]
                return message
        self._is_asked_to_end = False
        self._has_heard = True
        return {"type": "http.disconnect", "draining": True}


class HttpProtocol(HttpToolsProtocol):
    """Serves one connection.

    What takes too long is cut without an answer; what is too large, or no HTTP, is answered and not read on.
    A draining connection is closed after the answer that it owes, which says so (``Connection: close``). One
    that owes none is closed at once, unless a request may be on its way: bytes of one are there, none was
    answered yet, or the last one was just answered. It has a moment then, and is closed after that answer.
    """

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], limits: HttpLimits
    ) -> None:
        super().__init__(config, server_state, app_state)
        self.logger = log
        self.access_logger = access_log
        self.access_log = config.access_log
        self._limits = limits
        self._timer: asyncio.TimerHandle | None = None
        self._unparsed = 0  # bytes since the parser last came to a point
        self._head = 0  # bytes of headers and trailers of the request that is being read
        self._in_head = True
        self._refusal = 400  # the status, should it be refused
        self._refused = False
        self._draining = False
        self._answered_at = 0.0
        self._unread = _NOTHING  # what has come and is not parsed yet, because an answer is owed
        self._exchange: Exchange | None = None  # the one that is served now
        self._middle: asyncio.TimerHandle | None = None  # of a drain

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self.flow = FlowControl(self)  # type: ignore[arg-type]  # so that it asks us to go on reading
        self._wait(self._limits.head_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_waiting()
        self._unread = _NOTHING
        self.pipeline.clear()
        if self._middle is not None:
            self._middle.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what the client has sent."""
        self._unread = memoryview(bytes(self._unread) + data if self._unread else data)
        self._parse()

    def pause_reading(self) -> None:
        """Take no more of a body than the application does."""
        self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on with the body."""
        self._parse()

    def _parse(self) -> None:
        """Parse what has come, up to the end of a request whose answer is owed.

        What comes behind that is left to the kernel, but for what one call has brought: else a client could
        fill our memory with requests faster than they are answered.
        """
        while self._unread and self._is_to_parse:
            # No more than to the end of the next head, so that there is no second one behind it.
            end = _END_OF_HEAD.search(self._unread)
            size = len(self._unread) if end is None else end.end()
            data, self._unread = self._unread[:size], self._unread[size:]
            self._feed(data)
        if self._refused or self.transport.is_closing():
            self._unread = _NOTHING
        elif self._unread or self.flow.read_paused:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    @property
    def _is_to_parse(self) -> bool:
        is_owing = self._in_head and self._owes_answer
        return not (is_owing or self.flow.read_paused or self._refused or self.transport.is_closing())

    def _feed(self, data: memoryview) -> None:
        if self._in_head and self._unparsed == 0 and self._latest is not None:
            self._wait(self._limits.head_timeout)  # for a request that is not the first
        elif not self._in_head:
            self._watch_progress()
        self._unparsed += len(data)
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # a client that asks for another protocol is content with HTTP/1.1
        except httptools.HttpParserError:
            self._end_with_refusal()
            return
        if self._unparsed > self._limits.head and not self.transport.is_closing():
            self._refusal = 431
            self._end_with_refusal()

    def on_message_begin(self) -> None:
        """Begin to read a request."""
        super().on_message_begin()
        self.server_state.default_headers = _date(int(time.time()))
        self._in_head = True
        self._head = 0

    def on_url(self, url: bytes) -> None:
        """Take a part of the target."""
        super().on_url(url)
        if len(self.url) > self._limits.request_line:
            self._refuse(414)
        if not url.isascii():
            self._refuse(400)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; a trailer counts, and is dropped."""
        self._head += len(name) + len(value) + len(": \r\n")
        if self._head > self._limits.head:
            self._refuse(431)
        if self._in_head:  # a trailer is no header: it could say what a proxy has taken out (RFC 9110, 6.5.1)
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to serve the request."""
        self._in_head = False
        self._unparsed = 0
        self._stop_waiting()
        hosts = [value for name, value in self.headers if name == b"host"]
        if len(hosts) != 1 and (hosts or self.parser.get_http_version() == "1.1"):
            self._refuse(400)  # RFC 9112, 3.2
        if hosts and not _HOST.fullmatch(hosts[0]):
            self._refuse(400)
        super().on_headers_complete()
        if self._draining:
            self.cycle.keep_alive = False
        self._watch_progress()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Take the end of the request."""
        self._in_head = True
        self._unparsed = 0
        super().on_message_complete()
        self._watch_progress()

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the end."""
        super().on_response_complete()
        self._answered_at = self.loop.time()
        self._watch_progress()
        self._parse()

    def pause_writing(self) -> None:
        """Begin to wait for the client to take what was sent."""
        super().pause_writing()
        self._watch_progress()

    def resume_writing(self) -> None:
        """Go on: the client has taken most of it."""
        super().resume_writing()
        self._watch_progress()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection on which no other request came."""
        super().timeout_keep_alive_handler()
        self._watch_progress()

    def connection_draining(self) -> None:
        """Close as soon as nothing is owed; the server calls this when it begins to stop."""
        self._draining = True
        self._middle = self.loop.call_later(current().drain_timeout / 2, self._ask_to_end)
        if self._owes_answer:
            self.shutdown()
        elif self._latest is None or self._unparsed or self._has_input():
            self._wait(min(_LINGER, self._limits.head_timeout))
        else:
            self._wait(max(0.0, self._answered_at + _RECENT - self.loop.time()))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._exchange = Exchange(cycle)
        super()._start_asgi_task(cycle, partial(self._exchange.run, app))

    def _ask_to_end(self) -> None:
        if self._owes_answer and self._exchange is not None:
            self._exchange.ask_to_end()

    def _refuse(self, status: int) -> NoReturn:
        self._refusal = status
        raise _Refused

    def _end_with_refusal(self) -> None:
        if self._owes_answer:
            self.transport.abort()  # it would stand in the middle of another answer
            return
        self._refused = True
        status = http.HTTPStatus(self._refusal)
        log.info("refused a request of %s: %s", self._peer, status.phrase)
        text = f"{status.phrase}\n"
        self.transport.write(
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: text/plain\r\n"
            f"content-length: {len(text)}\r\nconnection: close\r\n\r\n{text}".encode()
        )
        # Closed at once, it would be reset if the client is still sending, and the answer be lost.
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._wait(_LINGER)

    @property
    def _latest(self) -> RequestResponseCycle | None:
        """The request that came last, if any came."""
        return self.cycle

    @property
    def _owes_answer(self) -> bool:
        return self._latest is not None and not self._latest.response_complete

    def _has_input(self) -> bool:
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def _watch_progress(self) -> None:
        """Begin to wait for whatever it is the client's turn to do, if it is its turn."""
        if self._refused:
            return
        if self.transport.is_closing() or self.flow.write_paused or self._owes_body:
            self._wait(self._limits.stall)
        else:
            self._stop_waiting()

    @property
    def _owes_body(self) -> bool:
        return not self._in_head and not self.cycle.waiting_for_100_continue

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        if self.flow.read_paused and not self.flow.write_paused and not self.transport.is_closing():
            self._wait(self._limits.stall)  # it is the application that does not take the body
            return
        is_cut = self._unparsed or self._owes_answer or self.transport.get_write_buffer_size()
        if is_cut and not self._refused:
            log.info("cut %s: it took too long", self._peer)
        self.transport.abort()

    @property
    def _peer(self) -> str:
        return "{}:{}".format(*self.client) if self.client else "unix"


@lru_cache(maxsize=1)
def _date(second: int) -> list[tuple[bytes, bytes]]:
    """Return the headers that every answer has."""
    return [(b"date", formatdate(second, usegmt=True).encode())]
