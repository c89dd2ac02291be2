"""Targets: the conversations of telnet and FTP, through the real protocols."""

import asyncio
import atexit
import socket
import tempfile
from pathlib import Path
from typing import Any, Final, cast

from tamed.builtin._beneath import Beneath
from tamed.builtin._prompt import Lines
from tamed.builtin._telnet_protocol import TelnetProtocol
from tamed.builtin.ftp._accounts import Accounts
from tamed.builtin.ftp._commands import Commands, Limits
from tamed.builtin.ftp._ports import PortRange
from tamed.builtin.ftp._session import Session
from tests.fuzz.engine import Target

__all__ = ["TARGETS", "Wire", "loop", "require_no_failure"]

_LONGEST_LINE: Final = 1024
_MOST_ANSWERS: Final = 1 << 20
_PATIENCE: Final = 20.0


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

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

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


class _Ftp:
    """The commands of an FTP service with a small folder, made when they are first used."""

    def __init__(self) -> None:
        self._commands: Commands | None = None

    def __call__(self, data: bytes) -> object:
        """Every line is answered in the form of an answer, and nothing outside of the folder is told of."""
        return loop().run_until_complete(self._session(data))

    def _made(self) -> Commands:
        if self._commands is None:
            made = tempfile.TemporaryDirectory(prefix="tamed-fuzz-")
            atexit.register(made.cleanup)
            secret = Path(made.name, "secret")
            secret.write_text("secret\n")
            root = Path(made.name, "root")
            (root / "sub").mkdir(parents=True)
            (root / "open.txt").write_text("open\n")
            (root / "link").symlink_to(secret)
            beneath = Beneath(root, dot_files=False)
            accounts = Accounts(None, anonymous=True, write=False)
            limits = Limits(idle=_PATIENCE, stall=_PATIENCE, data=0.001)
            self._commands = Commands(beneath, accounts, PortRange(), None, limits)
        return self._commands

    async def _session(self, data: bytes) -> object:
        running = asyncio.get_running_loop()
        reader = asyncio.StreamReader(4096, running)
        protocol = asyncio.StreamReaderProtocol(reader, loop=running)
        wire = Wire()
        wire.set_protocol(protocol)
        protocol.connection_made(wire)
        writer = asyncio.StreamWriter(wire, protocol, reader, running)
        reader.feed_data(data)
        reader.feed_eof()
        async with asyncio.timeout(_PATIENCE):
            await Session(self._made(), reader, writer, asyncio.Event()).run()
        writer.close()
        protocol.connection_lost(None)
        await asyncio.sleep(0)
        require_no_failure()
        answers = bytes(wire.written).decode("utf-8")
        assert answers.endswith("\r\n")
        assert "secret" not in answers or b"secret" in data.lower()
        lines = answers.split("\r\n")[:-1]
        assert all(line.isprintable() for line in lines)
        assert not any(line.startswith("451") for line in lines), answers
        return tuple(line[:3] for line in lines[1:4])


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
_COMMANDS: Final = tuple(
    word + b"\r\n"
    for word in (
        b"USER ftp",
        b"PASS x",
        b"PWD",
        b"CWD sub",
        b"CDUP",
        b"SIZE open.txt",
        b"MDTM open.txt",
        b"MLST open.txt",
        b"REST 5",
        b"TYPE I",
        b"MODE S",
        b"STRU F",
        b"OPTS UTF8 ON",
        b"FEAT",
        b"NOOP",
        b"SYST",
        b"PBSZ 0",
        b"PROT P",
        b"DELE open.txt",
        b"MKD x",
        b"RMD sub",
        b"RNFR open.txt",
        b"RNTO y",
        b"ABOR",
        b"PORT 127,0,0,1,0,80",
        b"QUIT",
        b"LIST",
        b"RETR ../secret",
        b"STOR x",
        b"ALLO 1",
        b"SITE HELP",
        b"HELP",
        b"ACCT a",
        b"REIN",
        b"STAT",
    )
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
    Target(
        "FTP",
        _Ftp(),
        (
            b"".join(_COMMANDS[:10]),
            b"".join((_COMMANDS[0], *_COMMANDS[8:20])),
            b"".join((_COMMANDS[0], *_COMMANDS[20:])),
            b"PASS x\r\nDELE a\r\nUSER ftp\r\n",
        ),
        (*_COMMANDS, b"\xff\xf4", b"..", b"/", b"-la ", b"~"),
        weight=2.0,
        grows=False,  # each line takes a trip into a thread
    ),
)
