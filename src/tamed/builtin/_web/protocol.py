"""The policy of an HTTP/1.1 connection: an end to everything, to heads, to waiting, and to connections."""

import asyncio
import http
import re
import select
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

import httptools

from tamed.builtin._web.compat import ServerState, UvicornProtocol
from tamed.log.logger import own_logger
from tamed.net.listen import current_environment
from tamed.service.service import Service

if TYPE_CHECKING:
    from uvicorn import Config

__all__ = ["HttpLimits", "HttpProtocol", "PendingRequests"]

log = own_logger("web")

_LINGER: Final = 2.0
"""Seconds that a client has to read why it was refused, or to send its request in a drain."""

_RECENT: Final = 1.0
"""Seconds after an answer in which the next request may be on its way, so a drain does not close at once."""

_GRACE: Final = 5.0
"""Seconds that an application has for its work after the answer, or after its client has left."""

_NOTHING: Final = memoryview(b"")
_END_OF_HEAD: Final = re.compile(rb"\n\r?\n")

_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-fv:.%]+\])(?::[0-9]*)?")
"""RFC 9110, 7.2, and RFC 3986, 3.2.2."""


@dataclass(frozen=True)
class HttpLimits:
    """How much a client may send before it is answered, in bytes, and how long it may take, in seconds."""

    request_line: int = 8 * 1024
    """For the target of a request; it is answered with 414 beyond."""
    head: int = 32 * 1024
    """For all headers of a request together, and for what the parser takes without progress; 431 beyond."""
    head_timeout: float = 10.0
    """From the connection, or the first byte of another request, to the end of the headers."""
    stall: float = 60.0
    """For the client to go on sending the body, or taking the answer."""


class _Refused(Exception):
    """A request is over a limit. The parser turns it into an error of its own."""


class HttpProtocol(UvicornProtocol):
    """Serves one connection.

    A client that takes too long is cut without an answer; a request that is too large, or no HTTP, is
    answered, and nothing more is read. A draining connection is closed after the answer that it owes, which
    says so (``Connection: close``). One that owes none is closed at once, unless a request may be on its way:
    bytes of one are there, none was answered yet, or the last one was just answered. It has a moment then,
    and is closed after that answer.
    """

    def __init__(
        self, config: "Config", server_state: ServerState, app_state: dict[str, Any], limits: HttpLimits
    ) -> None:
        super().__init__(config, server_state, app_state)
        self._limits = limits
        self._timer: asyncio.TimerHandle | None = None
        self._unparsed = 0  # bytes since the parser last made progress
        self._head = 0  # bytes of headers and trailers of the request that is being read
        self._in_head = True
        self._refusal = 400  # the status, should it be refused
        self._refused = False
        self._draining = False
        self._answered_at = 0.0
        self._unread = _NOTHING  # what has come and is not parsed yet, because an answer is owed
        self._halfway: asyncio.TimerHandle | None = None  # through a drain

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait(self._limits.head_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_waiting()
        self._unread = _NOTHING
        if self._halfway is not None:
            self._halfway.cancel()
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

        What follows is left in the kernel, but for the bytes of one call: otherwise a client could fill our
        memory with requests faster than they are answered.
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
        owes = self._in_head and self.owes_answer
        return not (owes or self.flow.read_paused or self._refused or self.transport.is_closing())

    def _feed(self, data: memoryview) -> None:
        if self._in_head and self._unparsed == 0 and self.latest_cycle is not None:
            self._wait(self._limits.head_timeout)  # for a request that is not the first
        elif not self._in_head:
            self._watch_progress()
        self._unparsed += len(data)
        self.stop_keep_alive_timer()
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
        """Wait for the next request, or for the connection's end."""
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
        self._halfway = self.loop.call_later(current_environment().drain_timeout / 2, self._notify_draining)
        if self.owes_answer:
            self.shutdown()
        elif self.latest_cycle is None or self._unparsed or self._has_input():
            self._wait(min(_LINGER, self._limits.head_timeout))
        else:
            self._wait(max(0.0, self._answered_at + _RECENT - self.loop.time()))

    def _notify_draining(self) -> None:
        if self.current_exchange is not None:
            self.current_exchange.notify_draining()

    def _refuse(self, status: int) -> NoReturn:
        self._refusal = status
        raise _Refused

    def _end_with_refusal(self) -> None:
        if self.owes_answer:
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

    def _has_input(self) -> bool:
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def _watch_progress(self) -> None:
        """Limit the wait for the client, if it is the client's turn."""
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
            self._wait(self._limits.stall)  # for the application, which does not take the body
            return
        is_cut = self._unparsed or self.owes_answer or self.transport.get_write_buffer_size()
        if is_cut and not self._refused:
            log.info("cut %s: it took too long", self._peer)
        self.transport.abort()

    @property
    def _peer(self) -> str:
        return "{}:{}".format(*self.client) if self.client else "unix"


class PendingRequests(Service):
    """Ensures that no request is being answered any more when the application is stopped.

    ``server_state`` is what the connections have in common; its ``tasks`` are those of requests.
    """

    def __init__(self) -> None:
        super().__init__("requests")
        self.server_state = ServerState()

    async def stop(self) -> None:
        """Wait for the requests, and cancel those that take too long."""
        if self.server_state.tasks:
            await asyncio.wait(tuple(self.server_state.tasks), timeout=_GRACE)
        for task in tuple(self.server_state.tasks):
            task.cancel()
