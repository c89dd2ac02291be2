"""The prompt over telnet, with inetutils' client in a terminal and with raw sockets."""

import asyncio
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import trustme

from tamed.builtin._telnet_protocol import TelnetProtocol
from tamed.builtin.telnet import Options, telnet
from tamed.net.endpoint import Endpoint
from tamed.net.reply import ReplyServer
from tamed.plugins.values import Duration, Size
from tamed.service.application import Application
from tamed.service.service import MultiService
from tamed.testing.process import TamedProcess
from tests.builtin.streams import until
from tests.builtin.terminal import Terminal
from tests.passwords import cheap_hash
from tests.patience import PATIENCE
from tests.supervised.daemon import Tamed
from tests.supervised.forked import service

pytestmark = pytest.mark.anyio

needs_client = pytest.mark.skipif(
    shutil.which("telnet") is None or shutil.which("setsid") is None, reason="needs inetutils-telnet, setsid"
)

APPLICATION = """
from pathlib import Path

from tamed import Application, ReplyServer
from tamed.builtin.telnet import Options, telnet

poem = ReplyServer("127.0.0.1:0", lambda peer: b"Busy old fool", name="poem")
application = Application("verse", poem, telnet(Options(port=0, password_file=Path("users"))))
"""


def users_file(folder: Path) -> Path:
    """Make a password file with one user."""
    users = folder / "users"
    users.write_text(f"john:{cheap_hash('busy old fool')}\n")
    users.chmod(0o600)
    return users


@pytest.fixture
def verse(tmp_path: Path) -> Iterator[tuple[TamedProcess, str, str]]:
    """Run a service with a telnet prompt; yield the process, the port of the poem and that of the prompt."""
    file = tmp_path / "verse.py"
    file.write_text(APPLICATION)
    users_file(tmp_path)
    with service(file, cwd=tmp_path) as process:
        ports = [process.expect(r"listening on 127.0.0.1:(\d+)")[1] for _ in range(2)]
        process.expect("ready")
        yield process, ports[0], ports[1]


def log_in(terminal: Terminal) -> None:
    """Log in as the user of the password file."""
    terminal.expect("login: ")
    terminal.type("john\n")
    terminal.expect("Password: ")
    terminal.type_unseen("busy old fool\n")


def poem_from(port: str) -> bytes:
    """Fetch the poem."""
    with socket.create_connection(("127.0.0.1", int(port)), timeout=PATIENCE) as sock:
        return sock.makefile("rb").read()


@needs_client
def test_story(verse: tuple[TamedProcess, str, str]) -> None:
    """The client shows values, the application and its services by name, and runs what awaits on the loop."""
    _, _, port = verse
    with Terminal("telnet", "127.0.0.1", port) as terminal:
        log_in(terminal)
        terminal.expect(r"verse, process \d+.*\n>>> ")
        terminal.type("6 * 7\n")
        terminal.expect(r"\n42\n>>> ")
        terminal.type("services['poem'].accepted\n")
        terminal.expect(r"\n0\n>>> ")
        terminal.type("application.name\n")
        terminal.expect(r"\n'verse'\n>>> ")
        terminal.type("import asyncio\n")
        terminal.expect(">>> ")
        terminal.type("await asyncio.sleep(0.01, 'slept')\n")
        terminal.expect(r"\n'slept'\n>>> ")
        terminal.type("for i in range(2):\n  print('line', i)\n\n")
        terminal.expect(r"line 0\nline 1\n>>> ")
        terminal.type("1/0\n")
        terminal.expect(r"ZeroDivisionError: division by zero\n>>> ")
        terminal.type("exit()\n")
        terminal.expect("closed")
        terminal.expect_end()


@needs_client
@pytest.mark.parametrize(
    "line",
    [
        pytest.param("while True: pass", id="thread"),
        pytest.param("while True: await asyncio.sleep(0)", id="loop"),
    ],
)
def test_ctrl_c_ends_a_runaway_line(verse: tuple[TamedProcess, str, str], line: str) -> None:
    """Ctrl-C ends a line that runs away, and the service answers meanwhile."""
    _, poem, port = verse
    with Terminal("telnet", "127.0.0.1", port) as terminal:
        log_in(terminal)
        terminal.expect(">>> ")
        terminal.type("import asyncio\n")
        terminal.expect(">>> ")
        terminal.type(line + "\n" + ("\n" if line.startswith("while") else ""))
        for _ in range(20):
            assert poem_from(poem) == b"Busy old fool"
        terminal.type("\x03")
        terminal.expect(r"KeyboardInterrupt|CancelledError")
        terminal.expect(">>> ")
        terminal.type("'still here'\n")
        # Shown once or twice before: as it is typed, and at the prompt.
        terminal.expect(r"'still here'\n>>> ")


def test_a_line_that_holds_the_event_loop_is_the_watchdogs(tmp_path: Path) -> None:
    """It ends with its worker, in whose place the daemon has another."""
    tamed, prompt = Tamed(tmp_path), tmp_path / "prompt.sock"
    try:
        daemon = tamed.start(
            "--workers", "1", "--watchdog", "2s", "telnet", "--listen", f"unix:{prompt}?mode=600"
        )
        victims = daemon.workers()
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(prompt))
            client.sendall(b"import time\nasync def hold():\n  time.sleep(%d)\n\nawait hold()\n" % PATIENCE)
            daemon.wait_workers(1, without=victims)
        daemon.stop()
    finally:
        tamed.close()


@needs_client
def test_ctrl_c_at_the_prompt(verse: tuple[TamedProcess, str, str]) -> None:
    """Ctrl-C gives up a statement of which not all is typed."""
    _, _, port = verse
    with Terminal("telnet", "127.0.0.1", port) as terminal:
        log_in(terminal)
        terminal.expect(">>> ")
        terminal.type("if True:\n")
        terminal.expect(r"\n\.\.\. ")
        terminal.type("\x03")
        terminal.expect("KeyboardInterrupt\n>>> ")
        terminal.type("'new'\n")
        terminal.expect(r"\n'new'\n>>> ")


@needs_client
def test_login(tmp_path: Path) -> None:
    """A user logs in with a password, which is not shown, after a wrong one, which takes a while."""
    users = users_file(tmp_path)
    with service("telnet", "--listen", ":0", "--password-file", users) as process:
        port = process.expect(r"listening on \S*:(\d+)")[1]
        process.expect("ready")
        with Terminal("telnet", "127.0.0.1", port) as terminal:
            terminal.expect("login: ")
            terminal.type("john\n")
            terminal.expect("Password: ")
            terminal.type_unseen("unruly sun\n")
            terminal.expect("login incorrect\nlogin: ")
            terminal.type("john\n")
            terminal.expect("Password: ")
            terminal.type_unseen("busy old fool\n")
            shown = terminal.expect(r"^((?:.|\n)*)>>> ")
            assert "busy old fool" not in shown[1]
            terminal.type("'in'\n")
            terminal.expect(r"'in'\n'in'\n>>> ")
        process.expect(r"login failed from 127\.0\.0\.1 for 'john'$")
        process.expect(r"logged in from 127\.0\.0\.1 as 'john'$")


def test_refuses_to_listen_elsewhere_without_passwords() -> None:
    """Listening where others can connect, without a password file, is refused and says what to do."""
    done = subprocess.run(
        [sys.executable, "-m", "tamed", "check", "telnet", "--iface", "0.0.0.0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {64, 78}
    assert "0.0.0.0:6023 can be reached from elsewhere" in done.stderr
    assert "--password-file" in done.stderr


@asynccontextmanager
async def prompt(**options: Any) -> AsyncIterator[tuple[MultiService, str]]:
    """Run an application with a prompt in this process; give its server's service and its socket's path."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/prompt"
        part = telnet(Options(listen=[Endpoint.parse(f"unix:{path}?mode=600")], **options))
        assert isinstance(part, MultiService)
        async with Application("verse", ReplyServer("127.0.0.1:0", lambda _: b"poem", name="poem"), part):
            yield part, path


async def said(path: str, typed: bytes, *, until: bytes = b"") -> bytes:
    """Send what is typed and the end of it, or wait for an answer; return all that was answered."""
    reader, writer = await asyncio.open_unix_connection(path)
    with closing(writer):
        writer.write(typed)
        if until:
            return await asyncio.wait_for(reader.readuntil(until), PATIENCE)
        writer.write_eof()
        return await asyncio.wait_for(reader.read(), PATIENCE)


async def test_without_telnet_commands() -> None:
    """A client that knows nothing of telnet, like nc, does as well."""
    async with prompt() as (_, path):
        assert (await said(path, b"1+1\nexit()\n")).endswith(b">>> 2\r\n>>> ")


@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r\0"])
async def test_the_last_line_is_run_when_the_client_sends_no_more(end: bytes) -> None:
    """What was sent before the end of input is run, whatever the ends of its lines."""
    async with prompt() as (_, path):
        assert b">>> 2\r\n>>> 4\r\n>>> " in await said(path, b"1+1" + end + b"2+2")


async def test_a_line_that_is_too_long() -> None:
    """A line of more bytes than are allowed is not run, and the next one is."""
    async with prompt(max_line=Size(100)) as (_, path):
        answer = await said(path, b"0\n" + b"'" + b"x" * 100000 + b"'\n1+1\nexit()\n")
    assert b"the line is longer than 100 bytes\r\n>>> 2\r\n" in answer


@pytest.mark.parametrize("command", [b"\xff\xfa\x18\x00" + b"x" * 100_000, b"\xff\xfd\x2a" * 30_000])
async def test_who_sends_nothing_but_commands_is_hung_up_on(
    command: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """One without an end, or many; those between lines are nobody's fault."""
    async with prompt() as (_, path):
        assert b">>> 2\r\n" in await said(path, b"\xff\xf1" * 20_000 + b"1+1\nexit()\n")
        reader, writer = await asyncio.open_unix_connection(path)
        with closing(writer):
            writer.write(command)
            with suppress(ConnectionError):
                await reader.read()
    assert any("sends only telnet commands: disconnected" in message for message in caplog.messages)


async def test_answers_to_many_commands_are_one_write() -> None:
    """A write takes longer the more of them wait for a client that reads nothing (asyncio, Python 3.12)."""
    session = asyncio.create_task(asyncio.sleep(0))
    protocol = TelnetProtocol(lambda _: session, 100)
    transport = Mock(spec=asyncio.Transport)
    transport.is_closing.return_value = False
    transport.get_extra_info.side_effect = {"socket": Mock()}.get
    protocol.connection_made(transport)
    protocol.data_received(b"\xff\xfd\x2a" * 1000)
    protocol.show_input(False)
    assert [call.args[0] for call in transport.write.mock_calls] == [
        b"\xff\xfc\x2a" * 1000,
        b"\xff\xfb\x01",
    ]
    protocol.connection_lost(None)
    await asyncio.wait([session])


async def test_a_statement_that_is_too_long() -> None:
    """A statement of many lines has a limit too."""
    async with prompt(max_line=Size(100)) as (_, path):
        answer = await said(path, b"if 1:\n" + b"  'xxxxxxxxxx'\n" * 200 + b"\n", until=b"characters\r\n")
    assert b"the statement is longer than 1,600 characters\r\n" in answer


async def test_output_is_cut() -> None:
    """Output of a line beyond the limit is replaced by a message; the next line has its own limit."""
    async with prompt(max_output=Size(1000)) as (_, path):
        answer = await said(path, b"for i in range(10**4): print('x' * 99)\n\n1+1\nexit()\n")
    assert answer.count(b"x") < 1000
    assert b"... output truncated: the limit for a line is 1,000 characters\r\n>>> 2\r\n" in answer


@pytest.mark.parametrize(
    "request_",
    [
        b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\nleave_a_mark()\r\n",
        b"POST /" + b"x" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\nleave_a_mark()\r\n",
    ],
    ids=["short", "long"],
)
async def test_browsers_are_hung_up_on(request_: bytes, tmp_path: Path) -> None:
    """A request that a web page has a browser send is not taken for Python, nor is anything in it."""
    mark = tmp_path / "mark"
    async with prompt() as (_, path):
        await said(path, request_.replace(b"leave_a_mark()", f"open({str(mark)!r}, 'w')".encode()))
    assert not mark.exists()


async def test_too_many_sessions() -> None:
    """A session beyond the limit gets a message and is closed; a session that ends makes room."""
    async with prompt(max_sessions=1) as (_, path):
        reader, writer = await asyncio.open_unix_connection(path)
        await reader.readuntil(b">>> ")
        assert await said(path, b"") == b"too many sessions: try again later\r\n"
        writer.write(b"exit()\n")
        await reader.read()
        writer.close()
        assert b"verse" in await said(path, b"")


async def test_idle_sessions_end() -> None:
    """A session in which nothing is typed is ended."""
    async with prompt(idle_timeout=Duration("50ms")) as (_, path):
        reader, writer = await asyncio.open_unix_connection(path)
        with closing(writer):
            assert b"no input for 50ms: goodbye\r\n" in await asyncio.wait_for(reader.read(), PATIENCE)


async def test_silence_at_the_login(tmp_path: Path) -> None:
    """A client that is silent at the login is disconnected."""
    users = tmp_path / "users"
    users.write_text("")
    users.chmod(0o600)
    async with prompt(login_timeout=Duration("50ms"), password_file=users) as (_, path):
        reader, writer = await asyncio.open_unix_connection(path)
        with closing(writer):
            answer = await asyncio.wait_for(reader.read(), PATIENCE)
    assert answer == b"login: \r\nthe login took too long: goodbye\r\n"


async def test_a_line_that_takes_too_long() -> None:
    """A line that runs for longer than it may is interrupted."""
    async with prompt(line_timeout=Duration("50ms")) as (_, path):
        answer = await said(path, b"while True: pass\n\n'next'\nexit()\n")
    assert b"KeyboardInterrupt\r\n>>> 'next'\r\n" in answer


async def test_a_client_that_leaves_ends_its_line() -> None:
    """A connection that is reset interrupts what its line does."""
    loop = asyncio.get_running_loop()
    async with prompt() as (part, path):
        with socket.socket(socket.AF_UNIX) as client:  # it reads nothing, so that its end is a reset
            client.setblocking(False)
            await loop.sock_connect(client, str(path))
            await loop.sock_sendall(client, b"while True: application.seen = True\n\n")
            await until(lambda: hasattr(part.root_service, "seen"))
        await until(lambda: part["sessions"].summary == "0 of 10 sessions")


async def test_stopping_ends_sessions() -> None:
    """A stop sends a message to each client, and does not wait for running lines."""
    async with prompt() as (_, path):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"print('begun')\nwhile True: pass\n\n")
        await reader.readuntil(b"begun\r\n")
    with closing(writer):
        assert b"the service is stopping: goodbye\r\n" in await reader.read()


async def test_only_echo_is_agreed_to() -> None:
    """Every option that a client asks for is refused, and a timing mark is answered."""
    commands = b"".join(bytes([255, verb, option]) for verb in (251, 253) for option in range(255))
    async with prompt() as (_, path):
        answer = await said(path, commands + b"'done'\n", until=b"'done'\r\n>>> ")
    answered = {(verb, option) for verb, option in re.findall(rb"\xff([\xfb-\xfe])(.)", answer, re.DOTALL)}
    agreed = {option[0] for verb, option in answered if verb in {b"\xfb", b"\xfd"}}
    assert agreed == {6}


async def test_rubbish() -> None:
    """Bytes without sense, half commands and endless subnegotiations neither crash nor fill anything."""
    rubbish = bytes(range(256)) * 200 + b"\xff\xfa" + b"\x27" * 1_000_000
    async with prompt() as (_, path):
        await said(path, rubbish)
        assert b">>> 2\r\n" in await said(path, b"1+1\n")


@pytest.mark.parametrize("length", range(0, 24, 3))
@pytest.mark.both_loops
async def test_disconnects_at_every_byte(length: int) -> None:
    """A client that goes away in the middle of anything leaves nothing behind."""
    typed = b"\xff\xfb\x01\xff\xf4print(\xff\xff)\r\n1+1\r\n"
    async with prompt() as (part, path):
        _, writer = await asyncio.open_unix_connection(path)
        writer.write(typed[:length])
        await writer.drain()
        writer.transport.abort()
        assert b">>> 2\r\n" in await said(path, b"1+1\n")
        await until(lambda: part["sessions"].summary == "0 of 10 sessions")


async def test_many_connections_from_one_address() -> None:
    """A flood of connections is refused by the sessions' limit, and does not keep a server from stopping."""
    async with prompt(max_sessions=3) as (_, path):
        answers = await asyncio.gather(*(said(path, b"") for _ in range(300)))
    assert all(b"verse" in answer or b"too many sessions" in answer for answer in answers)


@pytest.mark.both_loops
async def test_over_tls(tmp_path: Path) -> None:
    """The prompt may be encrypted; the end of input ends such a connection at once."""
    ca = trustme.CA()
    ca.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca.configure_trust(trusting)
    part = telnet(
        Options(
            listen=[Endpoint.parse(f"tls://127.0.0.1:0?cert={tmp_path / 'server.pem'}")],
            password_file=users_file(tmp_path),
        )
    )
    assert isinstance(part, MultiService)
    async with part:
        port = int(part["server"].summary.rpartition(":")[2])
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=trusting, server_hostname="localhost"
        )
        with closing(writer):
            writer.write(b"john\nbusy old fool\n1+1\nexit()\n")
            assert b">>> 2\r\n" in await reader.read()


async def test_over_a_unix_socket(tmp_path: Path) -> None:
    """A unix socket that not everybody may use needs no passwords."""
    path = tmp_path / "prompt"
    part = telnet(Options(listen=[Endpoint.parse(f"unix:{path}?mode=600")]))
    async with part:
        reader, writer = await asyncio.open_unix_connection(path)
        with closing(writer):
            writer.write(b"1+1\nexit()\n")
            assert b">>> 2\r\n" in await reader.read()
