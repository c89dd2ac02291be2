"""The prompt over ssh, with OpenSSH's client in a terminal and without, and with asyncssh's."""

import asyncio
import os
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tamed.builtin.console import Options, console, host_key
from tamed.errors import ServiceFailed
from tamed.net.endpoint import Endpoint
from tamed.net.reply import ReplyServer
from tamed.net.stream import ProtocolServer
from tamed.plugins.values import Duration, Size
from tamed.service.application import Application
from tamed.service.service import MultiService
from tamed.testing.process import TamedProcess
from tests.builtin.terminal import Terminal
from tests.passwords import cheap_hash
from tests.patience import PATIENCE
from tests.supervised.forked import service

pytestmark = pytest.mark.anyio

needs_client = pytest.mark.skipif(
    shutil.which("ssh") is None or shutil.which("setsid") is None, reason="needs openssh-client and setsid"
)

APPLICATION = """
from pathlib import Path
from tamed import Application, ReplyServer
from tamed.builtin.console import Options, console

poem = ReplyServer("127.0.0.1:0", lambda peer: b"Busy old fool", name="poem")
options = Options(port=0, host_key=Path("host_key"), authorized_keys=Path("authorized_keys"))
application = Application("verse", poem, console(options))
"""


@dataclass
class Verse:
    """A service with a console, and how to talk to it."""

    process: TamedProcess
    poem: int
    port: int
    ssh: list[str]

    def run(self, command: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        """Run the client without a terminal."""
        return subprocess.run(
            [*self.ssh, *([command] if command else [])],
            input=typed,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Make a folder with a user's key, who may log in."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    (tmp_path / "user_key").write_bytes(key.export_private_key())
    (tmp_path / "user_key").chmod(0o600)
    (tmp_path / "authorized_keys").write_bytes(key.export_public_key())
    (tmp_path / "authorized_keys").chmod(0o600)
    return tmp_path


@pytest.fixture
def verse(keys: Path) -> Iterator[Verse]:
    """Run a service with a console."""
    file = keys / "verse.py"
    file.write_text(APPLICATION)
    with service(file, cwd=keys) as process:
        poem, port = (int(process.expect(r"listening on 127.0.0.1:(\d+)")[1]) for _ in range(2))
        process.expect("ready")
        settings = {
            "IdentitiesOnly": "yes",
            "IdentityFile": keys / "user_key",
            "UserKnownHostsFile": keys / "known_hosts",
            "StrictHostKeyChecking": "accept-new",
            "LogLevel": "ERROR",
        }
        flags = [flag for name, value in settings.items() for flag in ("-o", f"{name}={value}")]
        ssh = ["ssh", "-F", "none", *flags, "-p", str(port), "john@127.0.0.1"]
        yield Verse(process, poem, port, ssh)


@needs_client
def test_a_command(verse: Verse) -> None:
    """A command is run as Python; its values are shown, and its status tells whether it failed."""
    assert verse.run("6 * 7; print('x')").stdout == "42\nx\n"
    done = verse.run("1/0")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "ZeroDivisionError: division by zero")
    assert verse.run("import asyncio; await asyncio.sleep(0.01, 'slept')").stdout == "'slept'\n"
    assert verse.run("1 +").returncode == 1
    assert verse.run("exit()").returncode == 0


@needs_client
def test_a_script(verse: Verse) -> None:
    """Without a terminal lines come without prompts."""
    done = verse.run("", "1 + 1\nfor i in range(2):\n  i\n\nservices['poem'].accepted")
    assert (done.returncode, done.stdout) == (0, "2\n0\n1\n0\n")


@needs_client
def test_editing_and_history(verse: Verse) -> None:
    """With a terminal there is a line editor: backspace, arrows, and the lines before."""
    with Terminal(*verse.ssh) as terminal:
        terminal.expect(r"verse, process \d+.*\n>>> ")
        terminal.type("'ac'\x1b[D\x1b[Db\x1b[D\r")  # left, left, a letter
        terminal.expect(r"\n'abc'\n>>> ")
        terminal.type("6 * 8\x7f7\r")
        terminal.expect(r"\n42\n>>> ")
        terminal.type("\x1b[A\x1b[A\r")  # up, up
        terminal.expect(r"\n'abc'\n>>> ")
        terminal.type("\x04")
        assert terminal.expect_end() == 0


@needs_client
@pytest.mark.parametrize("body", ["pass", "await asyncio.sleep(0)"], ids=["thread", "loop"])
def test_ctrl_c_ends_a_runaway_line(verse: Verse, body: str) -> None:
    """Ctrl-C ends a line that runs away, and the service answers meanwhile."""
    with Terminal(*verse.ssh) as terminal:
        terminal.expect(">>> ")
        terminal.type("import asyncio\r")
        terminal.expect(">>> ")
        terminal.type(f"while print('begun') is None:\r  while True: {body}\r\r")
        terminal.expect(r"begun\n")
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", verse.poem), timeout=PATIENCE) as sock:
                assert sock.makefile("rb").read() == b"Busy old fool"
        terminal.type("\x03")
        terminal.expect(r"KeyboardInterrupt|CancelledError")
        terminal.expect(">>> ")
        terminal.type("half a line\x03")
        terminal.expect(r"KeyboardInterrupt\n>>> ")
        terminal.type("'still here'\r")
        terminal.expect(r"\n'still here'\n>>> ")


@needs_client
def test_a_key_that_is_not_authorized(verse: Verse, tmp_path: Path) -> None:
    """A key that is not in the file is refused, also after its removal from it."""
    assert verse.run("1").returncode == 0
    (tmp_path / "authorized_keys").write_text("")
    done = verse.run("1")
    assert done.returncode == 255
    assert "Permission denied (publickey)" in done.stderr


@needs_client
def test_passwords(tmp_path: Path) -> None:
    """A user may log in with a password, if there is a file of them."""
    users = tmp_path / "users"
    users.write_text(f"john:{cheap_hash('busy old fool')}\n")
    users.chmod(0o600)
    options: list[str | Path] = ["--port", "0", "--host-key", tmp_path / "host_key", "--password-file", users]
    with service("console", *options) as process:
        port = process.expect(r"listening on 127.0.0.1:(\d+)")[1]
        process.expect("ready")
        ssh = ["ssh", "-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        with Terminal(*ssh, "-o", "LogLevel=ERROR", "-p", port, "john@127.0.0.1", "'in'") as terminal:
            terminal.expect("password: ")
            terminal.type("unruly sun\r")
            terminal.expect("Permission denied(.|\n)*password: ")
            terminal.type("busy old fool\r")
            terminal.expect("'in'\n")
            assert terminal.expect_end() == 0
        process.expect(r"login failed from 127\.0\.0\.1 for 'john'$")
        process.expect(r"logged in from 127\.0\.0\.1 as 'john'$")


@asynccontextmanager
async def prompt(keys: Path, **options: Any) -> AsyncIterator[dict[str, Any]]:
    """Run an application with a console in this process; give what a client connects with."""
    part = console(
        Options(port=0, host_key=keys / "host_key", authorized_keys=keys / "authorized_keys", **options)
    )
    assert isinstance(part, MultiService)
    async with Application("verse", ReplyServer("127.0.0.1:0", lambda _: b"poem", name="poem"), part):
        server = part["server"]
        assert isinstance(server, ProtocolServer)
        port = server.addresses[0].rpartition(":")[2]
        client_keys = [str(keys / "user_key")]
        yield {
            "host": "127.0.0.1",
            "port": int(port) if port.isdigit() else 0,
            "known_hosts": None,
            "client_keys": client_keys,
            "config": None,
            "username": "john",
        }


async def test_nothing_but_prompts(keys: Path) -> None:
    """There are no files, no forwarding and no subsystems."""
    async with prompt(keys) as there, asyncssh.connect(**there) as connection:
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_connection("127.0.0.1", there["port"])
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.start_sftp_client()
        with pytest.raises(asyncssh.ChannelListenError):
            await connection.forward_remote_port("127.0.0.1", 0, "127.0.0.1", 1)


async def test_too_many_sessions(keys: Path) -> None:
    """A session beyond the limit is refused with a message."""
    async with prompt(keys, max_sessions=1) as there, asyncssh.connect(**there) as connection:
        first = await connection.create_process(term_type="xterm")
        await first.stdout.readuntil(">>> ")
        second = await connection.run("1")
        assert (second.exit_status, second.stdout) == (1, "too many sessions: try again later\n")
        first.stdin.write("exit()\n")
        await first.wait()
        assert (await connection.run("1")).stdout == "1\n"


async def test_a_line_that_is_too_long(keys: Path) -> None:
    """Without a terminal too, a line has a limit."""
    async with prompt(keys, max_line=Size(100)) as there, asyncssh.connect(**there) as connection:
        done = await connection.run(None, input="'" + "x" * 100000 + "'\n1+1\n")
    assert done.stdout == "the line is longer than 100 bytes\n2\n"


async def test_a_connection_without_a_session_is_closed(keys: Path) -> None:
    """Who logs in and asks for nothing is sent away, like who does not log in."""
    async with prompt(keys, login_timeout=Duration("300ms")) as there:
        connection = None
        while connection is None:  # whose login may take longer than it may, on a machine that is busy
            with suppress(asyncssh.Error, OSError):
                connection = await asyncssh.connect(**there)
        await asyncio.wait_for(connection.wait_closed(), PATIENCE)
        reader, writer = await asyncio.open_connection(there["host"], there["port"])
        await asyncio.wait_for(reader.read(), PATIENCE)
        writer.close()


async def test_a_client_without_a_terminal_interrupts_by_a_signal(keys: Path) -> None:
    """An INT, which a client may send for its Ctrl-C, ends what is run, and that has then failed."""
    async with prompt(keys) as there, asyncssh.connect(**there) as connection:
        process = await connection.create_process("print('begun')\nwhile True: pass")
        assert await process.stdout.readline() == "begun\n"
        process.send_signal("INT")
        done = await process.wait()
        assert done.exit_status == 1
        assert str(done.stdout).endswith("KeyboardInterrupt\n")


@pytest.mark.both_loops
async def test_a_client_that_leaves_ends_its_line(keys: Path) -> None:
    """A connection that is lost interrupts what its session runs."""
    async with prompt(keys) as there:
        async with asyncssh.connect(**there) as connection:
            process = await connection.create_process("print('begun')\nwhile True: pass")
            assert await process.stdout.readline() == "begun\n"
            connection.abort()
        async with asyncssh.connect(**there) as connection:
            threads = (
                "import threading; [thread.name for thread in threading.enumerate()].count('prompt-line')"
            )
            while (await connection.run(threads)).stdout != "1\n":
                pass


async def test_many_silent_connections(keys: Path) -> None:
    """Silent connections beyond the limit delay a client only for a while."""
    async with prompt(keys, login_timeout=Duration("500ms")) as there:
        flood = [await asyncio.open_connection(there["host"], there["port"]) for _ in range(60)]
        async with asyncssh.connect(**there) as connection:
            assert (await connection.run("1")).stdout == "1\n"
        for _, writer in flood:
            writer.close()


async def test_over_a_unix_socket(keys: Path) -> None:
    """A client may come through a unix socket, which has no addresses."""
    path = keys / "console.sock"
    async with prompt(keys, listen=[Endpoint.parse(f"unix:{path}")]) as there:
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, str(path))
        async with asyncssh.connect(**{**there, "sock": sock}) as connection:
            assert (await connection.run("1")).stdout == "1\n"


async def test_stopping_ends_sessions(keys: Path) -> None:
    """A server that stops does not wait for sessions, nor for what they run."""
    async with prompt(keys) as there:
        connection = await asyncssh.connect(**there)
        process = await connection.create_process()
        process.stdin.write("print('begun')\nwhile True: pass\n\n")
        assert await process.stdout.readline() == "begun\n"
    await asyncio.wait_for(connection.wait_closed(), PATIENCE)


@pytest.mark.parametrize("length", range(0, 60, 7))
async def test_disconnects_and_rubbish(keys: Path, length: int) -> None:
    """A client that goes away in the middle of its greeting, or sends nonsense, leaves nothing behind."""
    async with prompt(keys) as there:
        _, writer = await asyncio.open_connection(there["host"], there["port"])
        writer.write(b"SSH-2.0-nonsense\r\n\0\0\1\0\4" + os.urandom(40)[:length])
        await writer.drain()
        writer.transport.abort()
        async with asyncssh.connect(**there) as connection:
            assert (await connection.run("1")).stdout == "1\n"


def test_the_host_key_is_made_once(keys: Path) -> None:
    """The first start makes a host key that only its owner can read, and the next one keeps it."""

    async def serve() -> bytes:
        async with prompt(keys):
            return (keys / "host_key").read_bytes()

    first = asyncio.run(serve())
    assert (keys / "host_key").stat().st_mode & 0o777 == 0o600
    assert asyncio.run(serve()) == first
    assert not list(keys.glob(".host_key*"))


def test_several_processes_make_one_host_key(tmp_path: Path) -> None:
    """Workers that start together on a new host all get the same key."""
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(host_key, [tmp_path / "host_key"] * 8))
    assert len({key.export_public_key() for key in made}) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["host_key"]


@pytest.mark.parametrize(
    ("file", "mode", "text", "why"),
    [
        ("host_key", 0o640, "x", "its mode is 640; chmod go-rwx"),
        ("host_key", 0o600, "x", "Invalid private key"),
        ("authorized_keys", 0o666, "x", "its mode is 666; chmod go-w"),
        ("authorized_keys", 0o600, "x", "authorized keys"),
    ],
)
async def test_files_that_are_not_right(keys: Path, file: str, mode: int, text: str, why: str) -> None:
    """A file that others may read or write, or that has no keys, fails the start, with the reason."""
    (keys / file).write_text(text)
    (keys / file).chmod(mode)
    with pytest.raises(ServiceFailed, match=re.escape(why)):
        async with prompt(keys):
            pass


def test_somebody_must_be_able_to_log_in(tmp_path: Path) -> None:
    """Options without keys and passwords are refused."""
    with pytest.raises(ValueError, match="--authorized-keys or --password-file"):
        Options(host_key=tmp_path / "key")
