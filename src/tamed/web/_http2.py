"""One HTTP/2 connection (RFC 9113): its streams, their shares of it, and its end.

The library `h2` keeps the state of the connection, and parses and writes its frames.
"""

import asyncio
import re
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    PingAckReceived,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from hyperframe.frame import GoAwayFrame

from tamed.errors import reason
from tamed.log.logger import own_logger
from tamed.net.listen import current_environment
from tamed.net.proxy_header import IpEnds
from tamed.web._context import Peer, ServerContext, make_scope, peer_of
from tamed.web._heads import Refused, read_fields, read_headers
from tamed.web._http2_frames import FrameGuard, TooMuch, begun_connection
from tamed.web._http2_stream import Http2Stream, plain_fields
from tamed.web._transport import MovingDeadline, Progress, end_writing, set_reading
from tamed.web.limits import Http2Limits

__all__ = ["Http2Connection"]

log = own_logger("web")

_LINGER: Final = 1.0
"""Seconds for a client to answer a ping while the daemon stops, and to close an ended connection."""

_AT_ONCE: Final = 64 * 1024
"""Bytes that are written before the end of the current iteration of the event loop."""

_HEADER_TABLE: Final = 4096
"""Bytes of memory for header compression; a client may request any number (RFC 7541, 4.2)."""

_HEAD: Final = (b":method", b"HEAD")

_LITERAL: Final = re.compile("""[: ]*b['"]""")
"""The beginning of a header's value in the library's errors: it may be a secret."""

_ANY_STREAM: Final = 2**31 - 1


class Http2Connection(asyncio.Protocol):
    """Serves one connection of HTTP/2.

    A connection that breaks the protocol, or a limit of the whole connection, ends with GOAWAY. When the
    server drains, it sends GOAWAY twice (RFC 9113, 6.8): at once, without a last stream, and with the last
    stream after the client has answered a ping, so that no request on its way is lost. While other processes
    serve, it waits for that answer as long as for a request, for half of the drain time at most. The
    connection is closed when all requests are answered. A client that gives no room for its answers, or does
    not send what it must, is disconnected.
    """

    transport: asyncio.Transport
    _peer: Peer
    _progress: Progress

    def __init__(self, context: ServerContext, limits: Http2Limits, *, ends: IpEnds | None = None) -> None:
        self._context = context
        self._ends = ends  # the ends in the PROXY header
        self._limits = limits
        self._loop = loop = asyncio.get_running_loop()
        self._guard = FrameGuard(context.limits.head + context.limits.request_line, loop.time())
        self.protocol = begun_connection(limits, context.limits)
        self.write_paused = False
        self._streams: dict[int, Http2Stream] = {}
        self._waiting: dict[int, Http2Stream] = {}  # streams that wait for a window, in round-robin order
        self._last_stream = 0
        self._abandoned: set[asyncio.Task[None]] = set()  # tasks of streams that the client has reset
        self._flush_handle: asyncio.Handle | None = None
        self._flush_size = 0
        self._goes_away = False  # GOAWAY with the last stream was sent
        self._is_ending = False  # nothing more is read
        self._owes = True  # the client must complete a frame or send its first request
        self._deadline = MovingDeadline(loop, self._expired)
        self._round_trip = MovingDeadline(loop, self._name_last_stream)
        self._halfway: asyncio.TimerHandle | None = None  # timer for the middle of a drain

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the limits to the client."""
        self.transport = cast(asyncio.Transport, transport)
        self._progress = Progress(self.transport)
        self._peer = peer_of(transport, self._context, self._ends)
        self.flush(_AT_ONCE)
        self._deadline.set(self._context.limits.head_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_ending = True
        self._deadline.close()
        self._round_trip.close()
        for handle in (self._halfway, self._flush_handle):
            if handle is not None:
                handle.cancel()
        self._abandon_all()

    def data_received(self, data: bytes) -> None:
        if self._is_ending:
            return
        try:
            for event in self.protocol.receive_data(self._guard.take(data, self._loop.time())):
                handle = _HANDLERS.get(type(event))
                if handle is not None:
                    handle(self, event)
        except TooMuch as error:
            self._end(str(error), error.code)
            return
        except ProtocolError as error:
            self._end(_LITERAL.split(reason(error))[0])
            return
        self._goes_away = self._goes_away or self._guard.goes_away
        if self._guard.stream in self._streams:
            self._streams[self._guard.stream].watch()
        self.flush()
        self._watch()

    def pause_writing(self) -> None:
        """Stop writing until the client has read more, and stop reading."""
        self.write_paused = True
        self._progress.is_made()  # from now on
        set_reading(self.transport, paused=not self._is_ending)
        self._watch()

    def resume_writing(self) -> None:
        self.write_paused = False
        set_reading(self.transport, paused=False)
        self._send_on()
        self._watch()

    # Called by the server.

    def connection_draining(self) -> None:
        """Notify the client, and close when all requests are answered."""
        if self._is_ending:
            return
        context = self._context
        if self._halfway is None:
            self._halfway = self._loop.call_later(context.drain_timeout / 2, self._notify_draining)
            self._write_goaway(_ANY_STREAM)
            self.protocol.ping(b"draining")
            self.flush(_AT_ONCE)
        self._round_trip.set(_LINGER if current_environment().gate.is_open else context.limits.keep_alive)

    # Called by a stream.

    def flush(self, sent: int = 0) -> None:
        """Write the library's output at the end of this iteration of the loop, or now if it is large.

        ``sent`` is the number of bytes of data in it.
        """
        if sent:
            self._guard.earn(1)
        self._flush_size += sent
        if self._flush_size >= _AT_ONCE:
            self._write()
        elif self._flush_handle is None:
            self._flush_handle = self._loop.call_soon(self._write)

    def wait_for_window(self, stream: Http2Stream) -> None:
        """Continue the stream when the client's window allows it."""
        self._waiting[stream.number] = stream

    def on_closed(self, stream: Http2Stream) -> None:
        """Remove a stream; close the connection after the last one of a drain."""
        self._streams.pop(stream.number, None)
        self._waiting.pop(stream.number, None)
        self._watch()

    def _write(self) -> None:
        if self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = None
        self._flush_size = 0
        data = self.protocol.data_to_send()
        if data and not self._is_ending and not self.transport.is_closing():
            self.transport.write(data)

    def _write_goaway(self, last_stream: int) -> None:
        """Write a GOAWAY frame directly, because the library would end the connection."""
        self._write()
        frame = GoAwayFrame(0, last_stream_id=last_stream, error_code=ErrorCodes.NO_ERROR)
        if not self.transport.is_closing():
            self.transport.write(frame.serialize())

    def _send_on(self) -> None:
        """Send a frame of each stream in turn, while any window allows it."""
        while self._waiting:
            has_sent = False
            for number, stream in tuple(self._waiting.items()):
                if self.write_paused:
                    return
                room = self.protocol.local_flow_control_window(number)
                if stream.send_frame():
                    has_sent = has_sent or room > 0
                    if number in self._waiting:
                        self._waiting[number] = self._waiting.pop(number)  # to the end
                elif not stream.write_paused:
                    self._waiting.pop(number, None)
            if not has_sent:
                return

    # Events from the client.

    def _on_request(self, event: RequestReceived) -> None:
        number = event.stream_id
        if self._goes_away:
            self.protocol.reset_stream(number, ErrorCodes.REFUSED_STREAM)
            return
        self._last_stream = number
        most = self._limits.streams
        if len(self._streams) >= most or len(self._abandoned) >= most:
            self._guard.charge_reset()
            self.protocol.reset_stream(number, ErrorCodes.REFUSED_STREAM)
            return
        try:
            self._begin(number, event.headers, has_body=event.stream_ended is None)
        except Refused as refused:
            self._refuse(event, refused.status)

    def _begin(self, number: int, fields: Iterable[Any], *, has_body: bool) -> None:
        context = self._context
        method, target, headers = read_fields(fields)
        if len(target) > context.limits.request_line:
            raise Refused(414)
        if sum(len(name) + len(value) + 4 for name, value in headers) > context.limits.head:
            raise Refused(431)
        head = read_headers(headers, "2")
        if head.length > 0 and not has_body:
            raise Refused(400)
        scope = make_scope(context, self._peer, method, target, "2", headers)
        stream = Http2Stream(
            self, number, context, self._peer, scope, awaits_continue=has_body and head.awaits_continue
        )
        scope["extensions"]["tamed.client"] = {"left": stream.has_left}
        self._streams[number] = stream
        exchange = stream.exchange
        if has_body:
            stream.watch()
        else:
            exchange.more_body = False  # here, not in a moment: most streams need no timer then
        task = exchange.task = self._loop.create_task(exchange.run())
        context.tasks.add(task)

    def _refuse(self, event: RequestReceived, status: int) -> None:
        number = event.stream_id
        is_head = any(field == _HEAD for field in event.headers)
        fields, body = plain_fields(status, self._context)
        self.protocol.send_headers(number, fields, end_stream=is_head)
        if not is_head:
            room = self.protocol.local_flow_control_window(number)
            self.protocol.send_data(number, body[:room], end_stream=True)
        if event.stream_ended is None:
            self.protocol.reset_stream(number)
        log.info("refused a request of %s: status %d", self._peer, status)

    def _on_data(self, event: DataReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            self.protocol.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        else:
            stream.add_body(event.data, event.flow_controlled_length)

    def _on_end(self, event: StreamEnded) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream.end_body()

    def _on_reset(self, event: StreamReset) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            self._abandon(stream)
            self.on_closed(stream)

    def _on_window(self, _: WindowUpdated) -> None:
        self._send_on()

    def _on_settings(self, _: RemoteSettingsChanged) -> None:
        encoder = self.protocol.encoder
        encoder.header_table_size = min(encoder.header_table_size, _HEADER_TABLE)
        self._send_on()  # windows may have grown

    def _on_ping_answer(self, _: PingAckReceived) -> None:
        if self._round_trip.is_set:
            self._name_last_stream()

    # The end of the connection.

    def _abandon(self, stream: Http2Stream) -> None:
        task = stream.exchange.task
        stream.on_reset()
        if task is not None and not task.done():
            self._abandoned.add(task)
            task.add_done_callback(self._abandoned.discard)

    def _abandon_all(self) -> None:
        streams = tuple(self._streams.values())
        self._streams.clear()
        self._waiting.clear()
        for stream in streams:
            stream.on_reset()

    def _name_last_stream(self) -> None:
        """Send the number of the last stream that is answered."""
        self._round_trip.clear()
        if not (self._goes_away or self._is_ending):
            self._goes_away = True
            self._write_goaway(self._last_stream)
        self._watch()

    def _notify_draining(self) -> None:
        self._name_last_stream()
        for stream in tuple(self._streams.values()):
            stream.exchange.notify_draining()

    def _end(self, why: str, code: ErrorCodes | None = None) -> None:
        """End the connection for a fault of the client; without ``code``, the library has sent GOAWAY."""
        log.info("closed HTTP/2 of %s: %s", self._peer, why)
        if code is not None:
            self.protocol.close_connection(code, last_stream_id=self._last_stream)
        self._abandon_all()
        self._linger()

    def _linger(self) -> None:
        """Drop what still comes, and give the client some time to read the last frames."""
        self._write()
        self._is_ending = True
        set_reading(self.transport, paused=False)
        end_writing(self.transport)
        self._watch()

    def _watch(self) -> None:
        """Set a deadline if the client must act next; close a finished connection."""
        http, owed = self._context.limits, self._owes
        self._owes = self._guard.owes
        if self._goes_away and not self._streams and not self._is_ending:
            self._linger()
        elif self._is_sending():
            self._deadline.set(http.stall)
        elif self._is_ending:
            self._deadline.set(_LINGER)
        elif self._owes:
            if not owed:
                self._deadline.set(http.head_timeout)
        elif self._streams:
            self._deadline.clear()
        elif not self._deadline.is_set:
            self._deadline.set(http.keep_alive)

    def _expired(self) -> None:
        if self._is_sending() and self._progress.is_made():
            self._deadline.set(self._context.limits.stall)
        elif self._is_sending() or (self._owes and not self._is_ending):
            log.info("disconnected %s: timeout", self._peer)
            self.transport.abort()
        elif self._is_ending:
            self.transport.close()
            self._watch()
        else:
            self._name_last_stream()

    def _is_sending(self) -> bool:
        return self.write_paused or self.transport.is_closing()


_HANDLERS: Final[dict[type[Event], Callable[[Http2Connection, Any], None]]] = {
    RequestReceived: Http2Connection._on_request,
    DataReceived: Http2Connection._on_data,
    StreamEnded: Http2Connection._on_end,
    StreamReset: Http2Connection._on_reset,
    WindowUpdated: Http2Connection._on_window,
    RemoteSettingsChanged: Http2Connection._on_settings,
    PingAckReceived: Http2Connection._on_ping_answer,
}
