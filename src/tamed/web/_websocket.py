"""One WebSocket (RFC 6455): its application, its limits, and its end.

The library `websockets` parses and writes frames and handshakes.
"""

import asyncio
import logging
from collections import deque
from typing import Any, Final

from websockets.datastructures import Headers
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from tamed.errors import reason
from tamed.log.logger import own_logger
from tamed.web._access import client_text
from tamed.web._context import ServerContext
from tamed.web._heads import header_lines, plain_response
from tamed.web._http1_exchange import Http1Exchange
from tamed.web._transport import MovingDeadline, Progress, set_reading
from tamed.web.asgi import ClientLeft, Message, Scope
from tamed.web.limits import WebSocketLimits

__all__ = ["WebSocketConnection"]

log = own_logger("web")
_frame_log = logging.getLogger("web.websocket")
if _frame_log.level == logging.NOTSET:
    _frame_log.setLevel(logging.WARNING)  # the library logs each connection, as the access log does

_PIECE: Final = 16 * 1024
"""Bytes to parse between two checks of the queue: a frame may have six bytes, and becomes an object."""

_CONTROLS: Final = frozenset({Opcode.PING, Opcode.PONG})
_COMPRESSION: Final = ServerPerMessageDeflateFactory(
    server_max_window_bits=12, client_max_window_bits=12, compress_settings={"memLevel": 5}
)
"""About 64 KiB of a connection's memory, where zlib's defaults take 300."""

_SERVICE_RESTART, _FAILURE, _ABNORMAL, _NORMAL, _NOT_TEXT = 1012, 1011, 1006, 1000, 1007


class WebSocketConnection(asyncio.Protocol):
    """Serves one WebSocket, on a connection with an upgrade request.

    The application decides first: it accepts, or denies with an HTTP response (``websocket.http.response``).
    It receives all messages that came before the client's end, and then, at once, ``websocket.disconnect``;
    sending after that raises ClientLeft. When the server drains, it closes with code 1012, so that the client
    reconnects.
    """

    def __init__(
        self,
        limits: WebSocketLimits,
        context: ServerContext,
        transport: asyncio.Transport,
        scope: Scope,
        write_paused: bool,
    ) -> None:
        self.transport = transport
        self.write_paused = write_paused
        self._progress = Progress(transport)
        self._context = context
        self._limits = limits
        self._scope = scope
        self._loop = asyncio.get_running_loop()
        self._started_at = self._loop.time()
        self._protocol = ServerProtocol(
            state=State.OPEN,  # Tamed's parser has read the request
            extensions=[_COMPRESSION] if limits.compression else None,
            max_size=(limits.message, limits.frame),
            logger=_frame_log,
        )
        self._timer: asyncio.TimerHandle | None = None  # for a ping, its pong, or the end
        self._stall = MovingDeadline(self._loop, self._require_progress)
        self._is_lost = False  # the connection is lost: start no timer, which would keep it alive
        self._is_draining = False
        self._is_accepted = False
        self._denial: Http1Exchange | None = None
        # Reading.
        self._unread = b""
        self._heard = False  # data has arrived since the last ping
        self._parts = bytearray()  # of a message in several frames
        self._is_text = False
        self._queue: deque[tuple[dict[str, Any], int]] = deque([({"type": "websocket.connect"}, 0)])
        self._queued = 0  # bytes of the messages in it
        self._is_over = False  # the application's last event is in the queue
        self._changed = asyncio.Event()
        self._writable = asyncio.Event()

    def begin(self, rest: bytes) -> None:
        """Answer an invalid handshake, or call the application; ``rest`` is the data after the request."""
        headers = Headers()
        for name, value in self._scope["headers"]:
            headers[name.decode("ascii")] = value.decode("latin-1")
        self._response = self._protocol.accept(Request(self._scope["path"], headers))
        if self._response.status_code != 101:
            self._log_access(self._response.status_code)
            self._response.headers["Sec-WebSocket-Version"] = "13"  # RFC 6455, 4.4
            self.transport.write(self._response.serialize())
            self._end()
            return
        self._unread = rest
        task = self._loop.create_task(self._run())
        self._context.tasks.add(task)
        task.add_done_callback(self._context.tasks.discard)

    # Called by the event loop and the server.

    def data_received(self, data: bytes) -> None:
        self._heard = True
        self._unread += data
        self._parse()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        self._stall.close()
        if self._timer is not None:
            self._timer.cancel()
        self._unread = b""
        self._writable.set()
        if self._denial is not None:
            self._denial.notify_left()
        self._disconnect()

    def pause_writing(self) -> None:
        """Stop writing until the client has read more; disconnect it after a timeout."""
        self.write_paused = True
        self._writable.clear()
        self._set_reading()
        self._progress.is_made()  # from now on
        self._stall.set(self._context.limits.stall)

    def resume_writing(self) -> None:
        self.write_paused = False
        self._stall.clear()
        self._writable.set()
        self._set_reading()
        self._parse()

    def connection_draining(self) -> None:
        """Close with code 1012 (service restart); the server calls this when it begins to stop."""
        self._is_draining = True
        if self._is_accepted:
            self._close(_SERVICE_RESTART)

    # The connection of a denial's exchange.

    async def writable(self) -> None:
        while self.write_paused and not self.transport.is_closing():
            self._writable.clear()
            await self._writable.wait()

    def wants_body(self) -> None:
        """Do nothing: the request has no body."""

    def on_complete(self) -> None:
        """Close the connection after a denial."""
        self._end()

    # Input.

    def _parse(self) -> None:
        while self._unread and self._is_accepted and not self._is_full():
            piece, self._unread = self._unread[:_PIECE], self._unread[_PIECE:]
            self._protocol.receive_data(piece)
            for event in self._protocol.events_received():
                if isinstance(event, Frame) and not self._is_over:
                    self._on_frame(event)
            self._flush()
            if self._protocol.state is not State.OPEN:
                self._disconnect()
        self._set_reading()

    def _on_frame(self, frame: Frame) -> None:
        if frame.opcode in _CONTROLS or frame.opcode is Opcode.CLOSE:
            return
        if frame.opcode is not Opcode.CONT:
            self._is_text = frame.opcode is Opcode.TEXT
        if not frame.fin or self._parts:
            self._parts += frame.data
        if not frame.fin:
            return
        data = bytes(self._parts or frame.data)
        self._parts.clear()
        if not self._is_text:
            self._put({"type": "websocket.receive", "bytes": data}, len(data))
            return
        try:
            text = data.decode()
        except UnicodeDecodeError:
            self._protocol.fail(_NOT_TEXT, "the text is not UTF-8")
        else:
            self._put({"type": "websocket.receive", "text": text}, len(data))

    def _put(self, event: dict[str, Any], size: int) -> None:
        self._queue.append((event, size))
        self._queued += size
        self._changed.set()

    def _is_full(self) -> bool:
        """Return whether the queue is full; the end of a closed connection is always accepted."""
        is_full = len(self._queue) >= self._limits.queue or self._queued >= self._limits.message
        return (is_full or self.write_paused) and not self._is_over

    def _set_reading(self) -> None:
        set_reading(self.transport, paused=self._is_full() or bool(self._unread))

    def _disconnect(self) -> None:
        """Queue ``websocket.disconnect`` for the application, after the pending messages."""
        if self._is_over:
            return
        self._is_over = True
        received, sent = self._protocol.close_rcvd, self._protocol.close_sent
        found = sent if sent is not None and not self._protocol.close_rcvd_then_sent else received
        code, text = (_ABNORMAL, "") if found is None else (int(found.code), found.reason)
        self._put({"type": "websocket.disconnect", "code": code, "reason": text}, 0)

    # Output.

    def _flush(self) -> None:
        """Write the library's output; an empty piece means the end."""
        pieces = self._protocol.data_to_send()
        if self.transport.is_closing():
            return
        data = b"".join(pieces)
        if data:
            self.transport.write(data)
        if b"" not in pieces:
            return
        if self._protocol.close_rcvd is None and self.transport.can_write_eof():
            # Closing at once would reset a client that is still sending, and lose the close frame.
            self.transport.write_eof()
            self._set_end()
        else:
            self._end()

    def _end(self) -> None:
        self.transport.close()
        self._set_end()

    def _close(self, code: int, text: str = "") -> None:
        if self._protocol.state is not State.OPEN:
            return
        self._protocol.send_close(code, text)
        self._flush()
        self._disconnect()
        self._parts.clear()
        self._set_end()
        self._set_reading()

    def _require_progress(self) -> None:
        if self._progress.is_made():
            self._stall.set(self._context.limits.stall)
        else:
            log.info("disconnected a WebSocket of %s: timeout", self._peer)
            self.transport.abort()

    def _set_end(self) -> None:
        """Abort the connection after the timeout, unless the client still reads what was sent to it."""
        progress = Progress(self.transport)
        progress.is_made()  # from now on

        def abort() -> None:
            if progress.is_made():
                self._set_timer(self._limits.close_timeout, abort)
            else:
                self.transport.abort()

        self._set_timer(self._limits.close_timeout, abort)

    # Pings.

    def _set_timer(self, seconds: float, call: Any) -> None:
        if self._is_lost:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, call)

    def _ping(self) -> None:
        self._heard = False
        self._protocol.send_ping(b"")
        self._flush()
        self._set_timer(self._limits.pong_timeout, self._require_pong)

    def _require_pong(self) -> None:
        """Any data counts as an answer; while reading is paused, the answer is unknown."""
        if self._heard or not self.transport.is_reading():
            self._set_timer(self._limits.ping_interval, self._ping)
        else:
            log.info("closed a WebSocket of %s: no answer to a ping", self._peer)
            self._protocol.fail(_FAILURE, "no pong received")
            self._flush()
            self._disconnect()

    # The application.

    async def _run(self) -> None:
        try:
            await self._context.application(self._scope, self._receive, self._send)
        except asyncio.CancelledError:
            self._fail()
        except (GeneratorExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            if self._is_over:
                log.info("an application ended after its client had disconnected: %s", reason(error))
            else:
                log.exception("the web application raised")
                self._fail()
        else:
            if self._is_accepted:
                self._close(_NORMAL)
            elif not self._is_over and (self._denial is None or not self._denial.is_complete):
                has = "sent an incomplete denial of" if self._denial else "neither accepted nor denied"
                log.error("the web application %s a WebSocket at %s", has, self._path)
                self._fail()

    def _fail(self) -> None:
        if self._is_accepted:
            self._close(_FAILURE)
        elif self._denial is None or not self._denial.is_begun:
            self._deny(500)
        else:
            self._end()

    async def _receive(self) -> Message:
        while not self._queue:
            self._changed.clear()
            await self._changed.wait()
        event, size = self._queue[0]
        if event["type"] != "websocket.disconnect":  # which is returned by every further call
            self._queue.popleft()
            self._queued -= size
            if self._unread or not self.transport.is_reading():
                self._parse()
        return event

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if self._is_accepted:
            await self._send_frame(kind, message)
        elif kind.startswith("websocket.http.response."):
            if self._denial is None:
                scope = {**self._scope, "method": "GET"}
                self._denial = Http1Exchange(
                    self, self._context, scope, awaits_continue=False, now=self._started_at, keep_alive=False
                )
            await self._denial.send({**message, "type": kind.removeprefix("websocket.")})
        elif self._is_over:
            raise ClientLeft("the client has disconnected")
        elif kind == "websocket.accept" and self._denial is None:
            self._accept(message)
        elif kind == "websocket.close" and self._denial is None:
            log.info("the web application denied a WebSocket to %s at %s", self._peer, self._path)
            self._deny(403)
        else:
            raise RuntimeError(f"the application sent {kind} to a WebSocket that is not open")

    async def _send_frame(self, kind: str, message: Message) -> None:
        if kind == "websocket.close":
            self._close(message.get("code", _NORMAL), message.get("reason") or "")
            return
        if kind != "websocket.send":
            raise RuntimeError(f"the application sent {kind}, but the WebSocket is open")
        if self.write_paused:
            await self.writable()
        if self._is_over or self._protocol.state is not State.OPEN or self.transport.is_closing():
            raise ClientLeft("the client has disconnected")
        data, text = message.get("bytes"), message.get("text")
        if data is not None:
            self._protocol.send_binary(data)
        elif text is not None:
            self._protocol.send_text(text.encode())
        else:
            raise RuntimeError("the application sent a message with neither bytes nor text")
        self._flush()

    def _accept(self, message: Message) -> None:
        headers = self._response.headers
        if (subprotocol := message.get("subprotocol")) is not None:
            if subprotocol not in self._scope["subprotocols"]:
                raise RuntimeError(f"the client did not offer the subprotocol {subprotocol!r}")
            headers["Sec-WebSocket-Protocol"] = subprotocol
        lines = header_lines(message.get("headers", ()))
        self._log_access(101)
        head = self._response.serialize()
        self.transport.write(head[:-2] + lines + b"\r\n")
        self._is_accepted = True
        self._set_timer(self._limits.ping_interval, self._ping)
        if self._is_draining:
            self._close(_SERVICE_RESTART)
        self._parse()

    def _deny(self, status: int) -> None:
        self._log_access(status)
        self.transport.write(plain_response(status, self._context.date()))
        self._end()

    def _log_access(self, status: int) -> None:
        if self._context.log_access is not None:
            self._context.log_access(self._scope, status, 0, self._loop.time() - self._started_at)

    @property
    def _path(self) -> str:
        path: str = self._scope["raw_path"].decode("ascii", "backslashreplace")
        return path

    @property
    def _peer(self) -> str:
        return client_text(self._scope["client"])
