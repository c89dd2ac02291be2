"""A client of HTTP/2 for tests: it shows what comes, and sends what no well-made client would."""

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    Event,
    InformationalResponseReceived,
    PingAckReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

__all__ = ["Answer", "Http2Client"]

_GOAWAY = 7


@dataclass
class Answer:
    """What has come on a stream so far."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    early: list[dict[str, str]] = field(default_factory=list)
    body: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict)
    is_complete: bool = False
    reset: int | None = None


class Http2Client:
    """One connection. With ``reads`` off it takes no data: it does not enlarge the server's windows."""

    def __init__(self, sock: socket.socket, *, reads: bool = True) -> None:
        self.sock = sock
        self.reads = reads
        self.h2 = H2Connection(
            H2Configuration(
                header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False
            )
        )
        self.answers: dict[int, Answer] = {}
        self.goaways: list[tuple[int, int]] = []  # the last stream and the reason, of each
        self.pings = 0  # that the server has answered
        self._unread = b""
        self.has_ended = False
        self.h2.initiate_connection()
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def flush(self) -> None:
        """Send what the library has."""
        try:
            self.sock.sendall(self.h2.data_to_send())
        except (BrokenPipeError, ConnectionResetError):
            self.has_ended = True

    def request(
        self,
        path: str = "/",
        method: str = "GET",
        *fields: tuple[str, str],
        ends: bool = True,
        host: str = "x",
    ) -> int:
        """Send a request, and return the number of its stream."""
        number = self.h2.get_next_available_stream_id()
        pseudo = [(":method", method), (":scheme", "http"), (":authority", host), (":path", path)]
        self.h2.send_headers(number, [*pseudo, *fields], end_stream=ends)
        self.answers[number] = Answer()
        self.flush()
        return number

    def get(self, path: str = "/", *fields: tuple[str, str]) -> Answer:
        """Send a request, and return its answer."""
        number = self.request(path, "GET", *fields)
        return self.answer(number)

    def answer(self, number: int) -> Answer:
        """Return the answer, when it is complete or there is none."""
        found = self.answers[number]
        self.until(lambda: found.is_complete or found.reset is not None or self.has_ended)
        return found

    def send_body(self, number: int, body: bytes, *, ends: bool = True) -> None:
        """Send a body, as the server has room for it."""
        while body:
            self.until(lambda: self.h2.local_flow_control_window(number) > 0)
            size = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size)
            self.h2.send_data(number, body[:size], end_stream=ends and size >= len(body))
            body = body[size:]
            self.flush()

    def until(self, true: Callable[[], Any]) -> None:
        """Take what comes until something is so, or the server has closed the connection."""
        while not true() and not self.has_ended:
            self._receive()

    def exchange_ping(self) -> None:
        """Take all that the server has sent before it answers a ping."""
        before = self.pings
        self.h2.ping(b"anything")
        self.flush()
        self.until(lambda: self.pings > before)

    def to_the_end(self) -> None:
        """Take what comes until the server closes the connection."""
        self.until(lambda: False)

    def _receive(self) -> None:
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            self.has_ended = True
            return
        self._unread += data
        while (frame := self._next_frame()) is not None:
            if frame[3] == _GOAWAY:  # the library takes it for the end, though what was requested still comes
                self.goaways.append((int.from_bytes(frame[9:13], "big"), int.from_bytes(frame[13:17], "big")))
                continue
            for event in self.h2.receive_data(frame):
                self._on_event(event)
        self.flush()

    def _next_frame(self) -> bytes | None:
        size = 9 + int.from_bytes(self._unread[:3], "big")
        if len(self._unread) < max(9, size):
            return None
        frame, self._unread = self._unread[:size], self._unread[size:]
        return frame

    def _on_event(self, event: Event) -> None:
        self.pings += isinstance(event, PingAckReceived)
        number = getattr(event, "stream_id", None)
        answer = self.answers.get(number or 0)
        if answer is None:
            return
        if isinstance(event, InformationalResponseReceived):
            answer.early.append(_texts(event.headers))
        elif isinstance(event, ResponseReceived):
            answer.headers = _texts(event.headers)
            answer.status = int(answer.headers.pop(":status"))
        elif isinstance(event, DataReceived):
            answer.body += event.data
            if self.reads:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, TrailersReceived):
            answer.trailers = _texts(event.headers)
        elif isinstance(event, StreamEnded):
            answer.is_complete = True
        elif isinstance(event, StreamReset):
            answer.reset = int(event.error_code)


def _texts(headers: Any) -> dict[str, str]:
    return {str(name): str(value) for name, value in headers}
