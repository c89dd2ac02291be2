"""Clients that send for ever and read nothing or slowly, or leave at any moment: every service in the box."""

import contextlib
import random
import select
import signal
import socket
import socketserver
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tamed.testing.process import TamedProcess
from tests.passwords import cheap_hash
from tests.patience import PATIENCE
from tests.process.clients import dial
from tests.process.conftest import serving
from tests.supervised.forked import service
from tests.threaded import in_thread

MUCH = 10 << 20
"""Bytes that a client tries to send."""

LITTLE = 8 << 20
"""Bytes that the service may grow by: what it loads at its first client, and what its buffers hold."""

STUCK = 0.3
"""Seconds after which a client that can send nothing believes that the service takes no more of it."""

APPLICATIONS = '''
async def taking(scope, receive, send):
    """Answer when the body has come, and again with as much."""
    if scope["type"] != "http":
        raise ValueError("no lifespan here")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while (message := await receive())["type"] == "http.request":
        await send({"type": "http.response.body", "body": message["body"], "more_body": True})
        if not message["more_body"]:
            break
    await send({"type": "http.response.body", "body": b""})

async def deaf(scope, receive, send):
    """Never look at the body, and never answer."""
    import asyncio
    if scope["type"] != "http":
        raise ValueError("no lifespan here")
    await asyncio.Event().wait()

def classic(environ, start_response):
    """Send the body back (WSGI)."""
    start_response("200 OK", [])
    while chunk := environ["wsgi.input"].read(1000):
        yield chunk
'''

# Applications of one server each, as users write them; what they do not heed is theirs to keep.
STREAM = """
from tamed import Application, StreamServer

async def echo(reader, writer):
    while data := await reader.read(1000):
        writer.write(data)
        await writer.drain()

application = Application("app", StreamServer("127.0.0.1:0", echo))
"""
PROTOCOL = """
import asyncio
from tamed import Application, ProtocolServer

class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)

    def pause_writing(self):
        self.transport.pause_reading()

    def resume_writing(self):
        self.transport.resume_reading()

application = Application("app", ProtocolServer("127.0.0.1:0", Echo))
"""
REPLY = """
from tamed import Application, ReplyServer

application = Application("app", ReplyServer("127.0.0.1:0", lambda _: b"x" * (4 << 20)))
"""
DATAGRAM = """
import asyncio
from tamed import Application, DatagramServer

class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        self.transport.sendto(data, address)

application = Application("app", DatagramServer("127.0.0.1:0", Echo))
"""
TWISTED = """
from twisted.application import service
from twisted.internet import protocol, reactor
from twisted.protocols import basic, portforward

class Lines(basic.LineReceiver):
    def lineReceived(self, line):
        self.sendLine(b"once")
        self.transport.loseConnection()

if {lines}:
    factory = protocol.Factory.forProtocol(Lines)
else:
    factory = portforward.ProxyFactory("127.0.0.1", int(open("port").read()))
port = reactor.listenTCP(0, factory, interface="127.0.0.1")
print("listening on 127.0.0.1:%d" % port.getHost().port, flush=True)
application = service.Application("app")
"""

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNK = b"3e8\r\n" + b"x" * 1000 + b"\r\n"
NOISE = random.Random(5).randbytes(1 << 16)  # the same in each run


class Case(NamedTuple):
    """A service, what its client says first, and what it goes on saying."""

    arguments: Sequence[str]
    says: bytes
    goes_on: bytes


WEB = ["web", "--port", "0", "--app-dir", ".", "--no-access-log"]
FTP = ["ftp", "--root", ".", "--port", "0"]
SOCKS = ["socks", "--port", "0", "--allow", "127.0.0.0/8"]
TELNET = ["telnet", "--port", "0", "--password-file", "passwords"]
CONSOLE = ["console", "--port", "0", "--host-key", "key", "--password-file", "passwords"]

CASES = {
    "web, requests for files": Case(["web", "--port", "0", "--root", ".", "--no-access-log"], b"", GET),
    "web, requests that are not answered": Case([*WEB, "--app", "apps:deaf"], b"", GET),
    "web, requests with bodies": Case([*WEB, "--app", "apps:taking"], b"", POST + CHUNK + b"0\r\n\r\n"),
    "web, a body that comes back": Case([*WEB, "--app", "apps:taking"], POST, CHUNK),
    "web, a body that nobody wants": Case([*WEB, "--app", "apps:deaf"], POST, CHUNK),
    "web, a body for WSGI": Case([*WEB, "--app", "apps:classic"], POST, CHUNK),
    "web, requests for WSGI": Case([*WEB, "--app", "apps:classic"], b"", GET),
    "web, a head": Case([*WEB, "--app", "apps:taking"], b"GET / HTTP/1.1\r\n", b"A: b\r\n"),
    "web, trailers": Case([*WEB, "--app", "apps:taking"], POST + b"0\r\n", b"A: b\r\n"),
    "web, chunk extensions": Case([*WEB, "--app", "apps:taking"], POST, b"1;" + b"x" * 1000 + b"\r\na\r\n"),
    "web, noise": Case([*WEB, "--app", "apps:taking"], b"", NOISE),
    "ftp, commands": Case(FTP, b"", b"NOOP\r\n"),
    "ftp, commands of a user": Case(FTP, b"USER anonymous\r\n", b"EPSV\r\nLIST\r\nPASV\r\nFEAT\r\n"),
    "ftp, a line": Case(FTP, b"", b"x" * 1000),
    "ftp, noise": Case(FTP, b"", NOISE),
    "socks, noise": Case(SOCKS, b"", NOISE),
    "socks, a connection": Case(SOCKS, b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01%PORT%", b"x" * 1000),
    "portforward": Case(["portforward", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:%PORT%"], b"", NOISE),
    "inetd": Case(["inetd", "--listen", "127.0.0.1:0", "--command", "cat"], b"", NOISE),
    "inetd, nobody reads": Case(["inetd", "--listen", "127.0.0.1:0", "--command", "sleep 1h"], b"", NOISE),
    "telnet, lines": Case(TELNET, b"", b"ann\r\n"),
    "telnet, a line": Case(TELNET, b"", b"x" * 1000),
    "telnet, lines of a user": Case(TELNET, b"ann\r\napple\r\n", b"1 + 1\r\n"),
    "telnet, options": Case(TELNET, b"", b"\xff\xfd\x2a\xff\xfb\x2a\xff\xfa\x18\x00xxxx\xff\xf0"),
    "telnet, an option": Case(TELNET, b"\xff\xfa\x18\x00", b"x" * 1000),
    "console, noise": Case(CONSOLE, b"SSH-2.0-noise\r\n", NOISE),
    "console, no version": Case(CONSOLE, b"", b"words\r\n"),
    "console, a version": Case(CONSOLE, b"SSH-2.0-", b"x" * 1000),
    "fastpoetry": Case(["fastpoetry", "--port", "0", "--poem", "poem.txt"], b"", NOISE),
    "a StreamServer": Case(["stream.py"], b"", NOISE),
    "a ProtocolServer": Case(["protocol.py"], b"", NOISE),
    "a ReplyServer": Case(["reply.py"], b"", NOISE),
    "Twisted, a connection": Case(["forward.tac"], b"", NOISE),
    "Twisted, a line": Case(["lines.tac"], b"", b"x" * 1000),
    "poetryproxy": Case(["poetryproxy", "--port", "0", "--upstream", "127.0.0.1:%PORT%"], b"", NOISE),
}


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            while data := self.request.recv(1 << 16):
                self.request.sendall(data)


@pytest.fixture(scope="module")
def echo() -> Iterator[int]:
    """Run a server that sends everything back; give its port."""
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Echo)
    server.daemon_threads, server.block_on_close = True, False
    with in_thread(server) as port:
        yield port


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make the files that the services need."""
    (tmp_path / "apps.py").write_text(APPLICATIONS)
    for name, text in (
        ("stream.py", STREAM),
        ("protocol.py", PROTOCOL),
        ("reply.py", REPLY),
        ("datagram.py", DATAGRAM),
        ("forward.tac", TWISTED.format(lines=False)),
        ("lines.tac", TWISTED.format(lines=True)),
    ):
        (tmp_path / name).write_text(text)
    (tmp_path / "index.html").write_text("x" * 1000)
    (tmp_path / "poem.txt").write_bytes(b"x" * (4 << 20))
    (tmp_path / "passwords").write_text(f"ann:{cheap_hash('apple')}\n")
    (tmp_path / "passwords").chmod(0o600)
    return tmp_path


def reads_nothing(client: socket.socket) -> None:
    """Leave what has come where it is."""


def reads_slowly(client: socket.socket) -> None:
    """Take some of what has come."""
    with contextlib.suppress(BlockingIOError):
        client.recv(100)


def send_for_ever(
    client: socket.socket, says: bytes, goes_on: bytes, read: Callable[[socket.socket], None]
) -> None:
    """Send as long as anything is taken, or for long enough."""
    goes_on *= max(1, (1 << 16) // len(goes_on))
    client.sendall(says)
    client.setblocking(False)
    sent, place = 0, 0
    writable = select.poll()
    writable.register(client, select.POLLOUT)
    with contextlib.suppress(ConnectionError):
        while sent < MUCH and writable.poll(STUCK * 1000):
            read(client)
            count = client.send(goes_on[place:])
            sent += count
            place = (place + count) % len(goes_on)


def peak(process: TamedProcess) -> int:
    """Return the most memory that a process has had since `forget_peak`, in bytes."""
    lines = Path(f"/proc/{process._process.pid}/status").read_text().splitlines()
    (found,) = [line for line in lines if line.startswith("VmHWM:")]
    return int(found.split()[1]) * 1024


def forget_peak(process: TamedProcess) -> None:
    """Begin to measure anew (proc(5))."""
    Path(f"/proc/{process._process.pid}/clear_refs").write_text("5")


def names(line: str) -> bool:
    """Tell whether a line of the log is of a fault."""
    return "Traceback" in line or " ERROR " in line


def what_is_said(case: Case, echo: int) -> bytes:
    """Return what a client says first."""
    return case.says.replace(b"%PORT%", echo.to_bytes(2))


@contextlib.contextmanager
def served(case: Case, loop: str, folder: Path, echo: int) -> Iterator[tuple[TamedProcess, str]]:
    """Run a service; give its process and its address."""
    (folder / "port").write_text(str(echo))
    arguments = [part.replace("%PORT%", str(echo)) for part in case.arguments]
    options = ["--loop", loop, "--drain-timeout", "1s"]  # some clients are never answered
    with service(*options, *arguments, cwd=folder) as process:
        yield process, serving(process)
        process.signal(signal.SIGTERM)
        assert process.wait() == 0, process.output
    assert [line for line in process.lines if names(line)] == [], process.output


def services() -> dict[str, list[Case]]:
    """Return the cases by the service that they need, which is started once for all of them."""
    found: dict[tuple[str, ...], list[str]] = {}
    for name, case in CASES.items():
        found.setdefault(tuple(case.arguments), []).append(name)
    return {names[0]: [CASES[name] for name in names] for names in found.values()}


@pytest.mark.parametrize("cases", [pytest.param(cases, id=name) for name, cases in services().items()])
def test_what_clients_send_for_ever_is_not_kept(cases: list[Case], folder: Path, echo: int) -> None:
    """Its memory stays as it was, whether they read nothing or slowly, and nothing of it is a fault."""
    with served(cases[0], "auto", folder, echo) as (process, address):
        for case in cases:
            says = what_is_said(case, echo)
            with dial(address) as first:  # the first client has things loaded
                first.sendall(says + case.goes_on)
                first.settimeout(STUCK)
                with contextlib.suppress(OSError):
                    first.recv(1000)
            forget_peak(process)
            before = peak(process)
            for read in (reads_nothing, reads_slowly):
                with dial(address) as client:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                    send_for_ever(client, says, case.goes_on, read)
            assert peak(process) < before + LITTLE, case


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_datagrams_that_come_for_ever_are_not_kept(loop: str, folder: Path, echo: int) -> None:
    """Nor the answers that nobody takes."""
    with served(Case(["datagram.py"], b"", b""), loop, folder, echo) as (process, address):
        host, _, port = address.rpartition(":")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect((host, int(port)))
            client.settimeout(PATIENCE)
            client.send(b"the first")
            assert client.recv(100) == b"the first"
            forget_peak(process)
            before = peak(process)
            for _ in range(MUCH // 1000):
                with contextlib.suppress(ConnectionError):
                    client.send(b"x" * 1000)
            assert peak(process) < before + LITTLE


@pytest.mark.parametrize(
    ("name", "loop"),
    [
        ("web, a body that comes back", "uvloop"),
        ("inetd", "uvloop"),
        ("telnet, lines of a user", "asyncio"),
        # The others serve their connections by the same means.
        pytest.param("web, requests for files", "uvloop", marks=pytest.mark.long),
        pytest.param("web, a body for WSGI", "asyncio", marks=pytest.mark.long),
        pytest.param("ftp, commands of a user", "uvloop", marks=pytest.mark.long),
        pytest.param("socks, a connection", "asyncio", marks=pytest.mark.long),
        pytest.param("portforward", "uvloop", marks=pytest.mark.long),
        pytest.param("console, noise", "uvloop", marks=pytest.mark.long),
        pytest.param("fastpoetry", "asyncio", marks=pytest.mark.long),
        pytest.param("poetryproxy", "asyncio", marks=pytest.mark.long),
    ],
)
def test_clients_that_leave_are_no_fault_of_a_service(name: str, loop: str, folder: Path, echo: int) -> None:
    """Before they have said anything, at each byte of what they say first, and in the middle of the rest."""
    case = CASES[name]
    says = what_is_said(case, echo)
    with served(case, loop, folder, echo) as (_, address):
        said = says + case.goes_on[:2000]
        ends = sorted({*range(min(len(says) + 8, 60)), len(says), len(said) // 2, len(said)})
        for number, end in enumerate(ends):
            with dial(address) as client, contextlib.suppress(ConnectionError):
                client.sendall(said[:end])
                if number % 2:  # those who have heard something are elsewhere in the program
                    client.settimeout(0.02)
                    with contextlib.suppress(TimeoutError):
                        client.recv(100)
                if number % 3 == 0:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                elif number % 3 == 1:
                    client.shutdown(socket.SHUT_WR)
