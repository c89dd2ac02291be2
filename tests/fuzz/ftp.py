"""Targets: FTP, through the session that serves a client: its commands, and its data connections."""

import asyncio
import atexit
import re
import shutil
import socket
import tempfile
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from tamed.builtin._ftp.commands import Accounts, Commands, Limits
from tamed.builtin._ftp.data import PortRange
from tamed.builtin._ftp.session import Session
from tamed.builtin._rooted import RootedDirectory
from tests.fuzz.engine import Target
from tests.fuzz.sessions import Wire, loop, require_no_failure

__all__ = ["TARGETS"]

_PATIENCE: Final = 20.0
_PORT: Final = re.compile(rb"227 [^(]*\(127,0,0,1,(\d+),(\d+)\)|229 [^(]*\(\|\|\|(\d+)\|\)")
_MOST_LINES: Final = 16
_LARGEST: Final = 1 << 20
"""Bytes of a file that is looked into; one that was begun behind its end is larger."""

_WAIT: Final = 0.2
"""Seconds for an answer to a line, which has none if a part of it is a telnet command."""


class _Folder:
    """A small folder with the commands that serve it, and what must not be told: made when first used."""

    def __init__(self, *, write: bool, data: float) -> None:
        self._write = write
        self._data = data

    @cached_property
    def place(self) -> Path:
        made = tempfile.TemporaryDirectory(prefix="tamed-fuzz-")
        atexit.register(made.cleanup)
        Path(made.name, "secret").write_text("secret\n")
        return Path(made.name)

    @cached_property
    def commands(self) -> Commands:
        self.fill()
        root = RootedDirectory(self.place / "root", dot_files=False)
        accounts = Accounts(None, anonymous=True, write=self._write)
        limits = Limits(idle=_PATIENCE, stall=_PATIENCE, data=self._data)
        return Commands(root, accounts, PortRange(), None, limits)

    def fill(self) -> None:
        """Have in it what there is at the beginning, and nothing else."""
        root = self.place / "root"
        root.mkdir(exist_ok=True)
        for each in root.iterdir():
            shutil.rmtree(each) if each.is_dir() and not each.is_symlink() else each.unlink()
        (root / "sub").mkdir()
        (root / "open.txt").write_text("open\n")
        (root / "link").symlink_to(self.place / "secret")


class _Talk:
    """A session with a client that says its lines when it likes."""

    def __init__(self, commands: Commands, wire: Wire) -> None:
        running = asyncio.get_running_loop()
        self.reader = asyncio.StreamReader(4096, loop=running)
        self._protocol = asyncio.StreamReaderProtocol(self.reader, loop=running)
        wire.set_protocol(self._protocol)
        self._protocol.connection_made(wire)
        self._writer = asyncio.StreamWriter(wire, self._protocol, self.reader, running)
        self._session = Session(commands, self.reader, self._writer, asyncio.Event())

    async def run(self) -> None:
        """Serve it to its end."""
        async with asyncio.timeout(_PATIENCE):
            await self._session.run()
        self._writer.close()
        self._protocol.connection_lost(None)
        await asyncio.sleep(0)
        require_no_failure()


def _check(written: bytes | bytearray, data: bytes) -> object:
    """Hold that what was written are answers, which tell nothing of what is outside of the folder."""
    answers = bytes(written).decode("utf-8")
    assert answers.endswith("\r\n")
    assert "secret" not in answers or b"secret" in data.lower()
    lines = answers.split("\r\n")[:-1]
    assert all(line.isprintable() for line in lines)
    assert not any(line.startswith("451") for line in lines), answers
    return tuple(line[:3] for line in lines[1:4])


class _Commands:
    """Every line is answered in the form of an answer, and nothing outside of the folder is told of."""

    def __init__(self) -> None:
        self._folder = _Folder(write=False, data=0.001)

    def __call__(self, data: bytes) -> object:
        return loop().run_until_complete(self._talk(data))

    async def _talk(self, data: bytes) -> object:
        wire = Wire()
        talk = _Talk(self._folder.commands, wire)
        talk.reader.feed_data(data)
        talk.reader.feed_eof()
        await talk.run()
        return _check(wire.written, data)


class _DataWire(Wire):
    """The client's side: it connects wherever it is told to, as its plan says, and waits for answers."""

    def __init__(self, plan: bytes) -> None:
        super().__init__()
        self.answered = asyncio.Event()
        self.received = b""
        self._how, self._data = (plan[0], plan[1:]) if plan else (1, b"")
        self._connections: list[socket.socket] = []

    def write(self, data: Any) -> None:
        super().write(data)
        line = bytes(data).rstrip(b"\r\n").rpartition(b"\r\n")[2]
        if found := _PORT.match(line):
            high, low, port = found.groups()
            self._connect(int(port) if port else int(high) * 256 + int(low))
        if not line.startswith(b"1"):
            self.answered.set()

    def _connect(self, port: int) -> None:
        for number in range(self._how & 7):
            sock = socket.socket()
            self._connections.append(sock)
            if self._how & 0x40 and number == 0:
                sock.bind(("127.0.0.2", 0))  # somebody else
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
            with suppress(OSError):
                sock.send(self._data)
                if self._how & 8:
                    sock.shutdown(socket.SHUT_WR)
            if self._how & 0x10:
                sock.close()

    def take(self) -> None:
        """Read what has come on all data connections."""
        for sock in self._connections:
            with suppress(OSError):
                while data := sock.recv(1 << 16):
                    self.received += data

    def end(self) -> None:
        """Close all data connections."""
        for sock in self._connections:
            sock.close()
        self._connections.clear()


class _DataConnections:
    """A session that reads and writes files: its lines one after the other, then how data is sent, and data.

    No file has anything but what was sent, nothing is written outside of the folder, and nothing of what is
    outside comes on a data connection.
    """

    def __init__(self) -> None:
        self._folder = _Folder(write=True, data=0.05)

    def __call__(self, data: bytes) -> object:
        lines, _, plan = data.partition(b"\0")
        try:
            told = loop().run_until_complete(self._talk(lines, plan))
        finally:
            root = self._folder.place / "root"
            files = [each for each in root.rglob("*") if each.is_file() and not each.is_symlink()]
            contents = [each.read_bytes() for each in files if each.stat().st_size < _LARGEST]
            self._folder.fill()
        assert {each.name for each in self._folder.place.iterdir()} == {"root", "secret"}
        assert (self._folder.place / "secret").read_text() == "secret\n"
        assert not any(b"secret" in each for each in contents) or b"secret" in plan
        return told, len(files)

    async def _talk(self, lines: bytes, plan: bytes) -> object:
        wire = _DataWire(plan)
        talk = _Talk(self._folder.commands, wire)
        serving = asyncio.ensure_future(talk.run())
        try:
            for line in lines.split(b"\n")[:_MOST_LINES]:
                await self._answer(wire, serving)
                if serving.done():
                    break
                talk.reader.feed_data(line[:1000] + b"\n")
            await self._answer(wire, serving)
            wire.end()
            talk.reader.feed_eof()
            await serving
        finally:
            wire.end()
        assert b"secret" not in wire.received
        return _check(wire.written, lines)

    async def _answer(self, wire: _DataWire, serving: "asyncio.Future[None]") -> None:
        """Wait until the line before was answered."""
        waiting = asyncio.ensure_future(wire.answered.wait())
        await asyncio.wait((waiting, serving), timeout=_WAIT, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        wire.answered.clear()
        wire.take()


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

_BEGIN: Final = b"USER ftp\r\nPASS x\r\nTYPE I\r\n"
_DATA_COMMANDS: Final = tuple(
    word + b"\r\n"
    for word in (
        b"EPSV",
        b"EPSV ALL",
        b"EPSV 2",
        b"PASV",
        b"PORT 127,0,0,1,0,22",
        b"PORT 999,0,0,1,0,22",
        b"EPRT |1|127.0.0.1|22|",
        b"EPRT |2|::1|22|",
        b"LPRT 6,16",
        b"STOR x",
        b"STOR ../secret",
        b"STOR link",
        b"STOU",
        b"APPE open.txt",
        b"RETR open.txt",
        b"RETR link",
        b"REST 3",
        b"REST 9223372036854775807",
        b"LIST",
        b"LIST -la sub",
        b"NLST",
        b"MLSD",
        b"ABOR",
        b"\xff\xf4\xff\xf2ABOR",
        b"MKD new",
        b"RNFR open.txt",
        b"RNTO sub/moved",
        b"DELE open.txt",
        b"QUIT",
    )
)

TARGETS: Final = (
    Target(
        "FTP",
        _Commands(),
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
    Target(
        "FTP data",
        _DataConnections(),
        (
            _BEGIN + b"EPSV\r\nSTOR x\r\nSIZE x\r\n\0\x09what is sent",
            _BEGIN + b"PASV\r\nRETR open.txt\r\nQUIT\r\n\0\x01",
            _BEGIN + b"EPSV\r\nREST 3\r\nSTOR open.txt\r\nPASV\r\nLIST\r\n\0\x4aa" + b"data" * 100,
            _BEGIN + b"EPSV\r\nABOR\r\nEPSV\r\nMLSD\r\nRETR link\r\n\0\x03",
            _BEGIN + b"".join(_DATA_COMMANDS[4:9]) + b"EPSV\r\nSTOR sub/x\r\n\0\x1fgone",
        ),
        (
            *_DATA_COMMANDS,
            b"EPSV\r\nSTOR x\r\n",
            b"PASV\r\nRETR open.txt\r\n",
            b"..",
            b"/",
            b"\0\x09",
            b"\0\x1b",
        ),
        weight=2.0,
        grows=False,
    ),
)
