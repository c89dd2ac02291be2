"""Targets: telnet, through the real protocol; and a wire for the conversations of other protocols."""

import asyncio
import atexit
import socket
from typing import Any, Final, cast

from tamed.builtin._prompt.terminal import Lines
from tamed.builtin._telnet_protocol import TelnetProtocol
from tests.fuzz.engine import Target

__all__ = ["TARGETS", "Wire", "loop", "require_no_failure"]

_LONGEST_LINE: Final = 1024
_MOST_ANSWERS: Final = 1 << 20


class Wire(asyncio.Transport):
    """A transport that keeps what is written, to a peer that takes all."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closed = False
        self.paused = False
        self._socket, self._other = _SOCKETS
        self._protocol: asyncio.BaseProtocol | None = None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {
            "peername": ("127.0.0.1", 40000),
            "sockname": ("127.0.0.1", 21),
            "socket": self._socket,
        }.get(name, default)

    def write(self, data: "bytes | bytearray | memoryview[Any]") -> None:
        self.written += data
        assert len(self.written) < _MOST_ANSWERS

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        return

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        return

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def is_reading(self) -> bool:
        return not self.paused

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


_SOCKETS: Final = socket.socketpair()
for _socket in _SOCKETS:
    atexit.register(_socket.close)
_loops: list[asyncio.AbstractEventLoop] = []


def loop() -> asyncio.AbstractEventLoop:
    """Return the event loop of all targets; what fails in it fails the target."""
    if not _loops:
        made = asyncio.new_event_loop()
        made.set_exception_handler(_fail)
        _loops.append(made)
        atexit.register(made.close)
    return _loops[0]


def _fail(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    _failed.append(cast(BaseException, context.get("exception")) or AssertionError(context["message"]))


_failed: list[BaseException] = []


def require_no_failure() -> None:
    """Raise what the event loop was told of."""
    if _failed:
        first = _failed[0]
        _failed.clear()
        raise first


def _lines(data: bytes) -> object:
    """However they come in pieces the lines are the same, and none is longer than it may be."""
    found: list[list[str | None]] = []
    for pieces in ((data,), (data[: len(data) // 2], data[len(data) // 2 :])):
        lines: list[str | None] = []
        reader = Lines(lines.append, lambda lines=lines: lines.append(None), 64)  # type: ignore[misc]
        for piece in pieces:
            reader.feed(piece)
        reader.finish()
        assert all(line is None or len(line) <= 64 for line in lines)
        found.append(lines)
    assert found[0] == found[1]
    return len(found[0])


def _telnet(data: bytes) -> object:
    """What is typed comes out as lines, and an answer is no longer than a few bytes for each that came."""
    return loop().run_until_complete(_telnet_session(data))


async def _telnet_session(data: bytes) -> object:
    wire = Wire()
    session: list[asyncio.Future[None]] = []

    def begin(_: TelnetProtocol) -> Any:
        session.append(asyncio.get_running_loop().create_future())
        return session[0]

    protocol = TelnetProtocol(begin, _LONGEST_LINE)
    protocol.connection_made(wire)
    try:
        half = len(data) // 2
        for piece in (data[:half], data[half:]):
            if not wire.closed:
                protocol.data_received(piece)
        typed = protocol.keyboard._typed
        assert all(not isinstance(each, str) or len(each) <= _LONGEST_LINE for each in typed)
        assert len(wire.written) <= 64 + 8 * len(data)
        return len(typed), bytes(wire.written[:6])
    finally:
        protocol.connection_lost(None)
        await asyncio.sleep(0)
        require_no_failure()


_IAC: Final = (
    b"\xff\xfb\x01",
    b"\xff\xfd\x01",
    b"\xff\xfe",
    b"\xff\xfa",
    b"\xff\xf0",
    b"\xff\xf4",
    b"\xff\xff",
    b"\xff",
)
TARGETS: Final = (
    Target(
        "lines typed",
        _lines,
        (b"one\r\ntwo\nthree\rfour\r\0five", b"x" * 100 + b"\n"),
        (b"\r", b"\n", b"\0", b"\r\0", b"\r\n"),
    ),
    Target(
        "telnet",
        _telnet,
        (
            b"ann\r\napple\r\nprint(1)\r\n",
            b"\xff\xfb\x01\xff\xfd\x03\xff\xfa\x18\0xterm\xff\xf0ann\r\n",
            b"\xff\xf4\xff\xf2\r\nGET / HTTP/1.1\r\n",
            b"\xff\xfa\x22\x03\x01\x03\0\xff\xff\xff\xf0",
        ),
        (
            *_IAC,
            *(
                bytes((0xFF, command, option))
                for command in (0xFB, 0xFC, 0xFD, 0xFE)
                for option in (0, 1, 3, 24, 34, 86, 255)
            ),
        ),
        grows=False,  # the next one is for that; a keyboard keeps what was typed ahead until reading pauses
        weight=2.0,
    ),
)
