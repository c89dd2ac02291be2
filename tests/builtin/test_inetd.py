import asyncio
import logging
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trustme

from tamed.builtin.inetd import Options, inetd
from tamed.builtin.programs.options import Command
from tamed.errors import ServiceFailed
from tamed.net.endpoint import Endpoint
from tamed.net.listen import ServerEnvironment, use_environment
from tamed.plugins.values import Duration
from tamed.service.service import MultiService
from tests.builtin.programs import (
    Marked,
    as_text,
    children_of,
    fork_server_pid,
    living_children,
    nothing_left,
    open_descriptors,
    python,
    shell,
    until,
    wait_for,
)
from tests.patience import PATIENCE
from tests.supervised.forked import service

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def no_child_is_left() -> Iterator[None]:
    """Hold that this process has no more children at the end of a test."""
    before = living_children()
    yield
    wait_for("the end of the children", lambda: living_children() <= before)


CAT = Command(("cat",))


@pytest.fixture(autouse=True)
def everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Let tests read what is logged."""
    caplog.set_level(logging.INFO)


def serve(command: Command, listen: str = "127.0.0.1:0", **options: Any) -> MultiService:
    """Return the service of `inetd` for a command."""
    settings: dict[str, Any] = {"stop_timeout": Duration(PATIENCE), **options}
    service = inetd(Options(command=command, listen=[Endpoint.parse(listen)], **settings))
    assert isinstance(service, MultiService)
    return service


def port_of(service: MultiService) -> int:
    """Return the port that it listens on."""
    return int(service["server"].summary.rpartition(":")[2])


async def connect(service: MultiService) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to it."""
    return await asyncio.open_connection("127.0.0.1", port_of(service))


async def ask(service: MultiService, question: bytes = b"") -> bytes:
    """Connect, send all, end that side, and read to the end."""
    reader, writer = await connect(service)
    writer.write(question)
    writer.write_eof()
    async with asyncio.timeout(PATIENCE):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.both_loops
async def test_a_program_serves_each_connection() -> None:
    """Its input and output are the client's, to the last of many bytes."""
    poem = bytes(range(256)) * 20_000
    async with serve(CAT) as service:
        assert await asyncio.gather(*(ask(service, poem + b"%d" % each) for each in range(5))) == [
            poem + b"%d" % each for each in range(5)
        ]


@pytest.mark.both_loops
async def test_an_answer_arrives_although_the_question_was_not_read() -> None:
    """A client may send what the program does not care for."""
    async with serve(shell("echo busy old fool")) as service:
        for _ in range(5):
            assert await ask(service, b"x" * 10_000) == b"busy old fool\n"


async def test_a_program_knows_its_client() -> None:
    """By variables in its environment."""
    async with serve(shell("echo $PROTO $REMOTE_HOST $REMOTE_ADDR:$REMOTE_PORT $TCPLOCALPORT")) as service:
        reader, writer = await connect(service)
        port = writer.get_extra_info("sockname")[1]
        assert await reader.read() == b"TCP 127.0.0.1 127.0.0.1:%d %d\n" % (port, port_of(service))
        writer.close()
        await writer.wait_closed()


async def test_standard_error_is_logged_with_the_client(caplog: pytest.LogCaptureFixture) -> None:
    """Line by line, and how the program ended."""
    async with serve(shell("echo complaint >&2; exit 3")) as service:
        assert await ask(service) == b""
        await until("the log", lambda: "it ended with status 3" in caplog.text)
    told = [record.getMessage() for record in caplog.records if record.name == "inetd"]
    assert told[0].startswith("127.0.0.1:")
    assert told[0].endswith(": complaint")


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        ("no-such-program", {}, "cannot execute no-such-program: No such file or directory; use an exec"),
        ("/etc/passwd", {}, "cannot execute /etc/passwd: Permission denied; use an executable file"),
        ("/etc", {}, "cannot execute /etc: No such file"),
        ("cat", {"directory": Path("/no/such")}, "cannot change to the directory /no/such: No such file"),
    ],
    ids=["missing", "not-executable", "folder", "directory"],
)
async def test_a_program_that_cannot_be_run_is_refused(name: str, options: dict[str, Any], why: str) -> None:
    """At the start, and not when the first client comes."""
    service = serve(Command((name,)), **options)
    with pytest.raises(ServiceFailed, match=f"programs failed in start: cannot run {name}: {why}"):
        await service.lifecycle.enter()


async def test_a_program_that_is_removed_closes_the_connection(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """With a line in the log, and the service goes on."""
    descriptors = open_descriptors()
    program = tmp_path / "poem"
    program.touch(0o755)
    async with serve(Command((str(program),))) as service:
        program.unlink()
        for _ in range(3):
            assert await _until_closed(service) == b""
        assert caplog.text.count(f"cannot execute {program}") == 3
    assert open_descriptors() < descriptors + 10


async def test_a_connection_has_its_time(marked: Marked, caplog: pytest.LogCaptureFixture) -> None:
    """Then its program is stopped, with all that it has started; who is silent holds nothing for ever."""
    command = shell("trap '' TERM; setsid sleep 600 & sleep 600; sleep 600")
    service = serve(
        command, max_time=Duration("300ms"), stop_timeout=Duration("200ms"), environment=marked.environment
    )
    with nothing_left(marked):
        async with service:
            assert await _until_closed(service) == b""
            assert "aborted after 0.3 s" in caplog.text
            await until("the end of the programs", lambda: not marked.processes())


async def _until_closed(service: MultiService) -> bytes:
    reader, writer = await connect(service)
    try:
        async with asyncio.timeout(PATIENCE):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_a_client_that_does_not_read_has_its_time_too(marked: Marked) -> None:
    """A program that cannot get rid of its output is no reason to wait."""
    service = serve(Command(("yes",)), max_time=Duration("300ms"), environment=marked.environment)
    with nothing_left(marked):
        async with service:
            _, writer = await connect(service)
            await until("the program", marked.processes)
            await until("its end", lambda: not marked.processes())
            writer.close()


async def test_no_more_programs_run_than_are_allowed() -> None:
    """Clients beyond that wait until one is done."""
    async with serve(CAT, max_connections=2, max_connections_per_address=0) as service:
        clients = [await connect(service) for _ in range(3)]
        for _, writer in clients:
            writer.write(b"hello")
        for reader, _ in clients[:2]:
            assert await reader.readexactly(5) == b"hello"
        assert len(children_of(fork_server_pid(service))) == 2
        clients[0][1].write_eof()
        assert await clients[2][0].readexactly(5) == b"hello"
        for _, writer in clients:
            writer.close()


async def test_one_address_cannot_have_all() -> None:
    """More than its share is closed at once."""
    async with serve(CAT, max_connections_per_address=2) as service:
        clients = [await connect(service) for _ in range(2)]
        for reader, writer in clients:
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
        assert await _until_closed(service) == b""
        for _, writer in clients:
            writer.close()


async def test_a_stop_lets_programs_finish(marked: Marked) -> None:
    """Until the drain timeout."""
    with nothing_left(marked):
        async with serve(CAT, environment=marked.environment) as service:
            reader, writer = await connect(service)
            writer.write(b"before ")
            assert await reader.readexactly(7) == b"before "

            async def go_on() -> bytes:
                server: Any = service["server"]
                await server.draining.wait()
                writer.write(b"and after")
                writer.write_eof()
                return await reader.read()

            rest = asyncio.ensure_future(go_on())
        assert await rest == b"and after"
        writer.close()


async def test_what_is_not_done_at_the_drain_timeout_is_stopped(marked: Marked) -> None:
    """The program with its children, although it ignores the signal, and longer than a server waits."""
    command = shell("trap '' TERM; echo ready; setsid sleep 600 & sleep 600; sleep 600")
    with use_environment(ServerEnvironment(drain_timeout=0.2)), nothing_left(marked):
        async with serve(command, stop_timeout=Duration("300ms"), environment=marked.environment) as service:
            reader, writer = await connect(service)
            assert await reader.readline() == b"ready\n"
        writer.close()


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.both_loops
async def test_clients_that_leave_at_any_moment_leave_nothing(marked: Marked, reset: bool) -> None:
    """Before the program runs, while it answers, and after."""
    question = b"where, like a pillow"
    with nothing_left(marked):
        async with serve(CAT, environment=marked.environment, max_connections_per_address=0) as service:
            for length in range(len(question)):
                with closing(socket.create_connection(("127.0.0.1", port_of(service)))) as client:
                    if reset:
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    client.sendall(question[:length])
                    await asyncio.sleep(0)
            await until("the end of all", lambda: not children_of(fork_server_pid(service)))
            assert await ask(service, question) == question


async def test_many_connections_of_the_silent(marked: Marked) -> None:
    """They get no more programs than there may be, and all of them are gone after the stop."""
    with use_environment(ServerEnvironment(drain_timeout=0.2)), nothing_left(marked):
        async with serve(
            CAT, environment=marked.environment, max_connections=20, max_connections_per_address=0
        ) as service:
            clients = [socket.create_connection(("127.0.0.1", port_of(service))) for _ in range(300)]
            await until("the programs", lambda: len(marked.processes()) == 20)
        for client in clients:
            client.close()


@pytest.mark.both_loops
async def test_tls_is_ours_and_not_the_programs(tmp_path: Path) -> None:
    """The program reads and writes what the client does."""
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    async with serve(
        shell("read line; echo $line"), f"tls://127.0.0.1:0?cert={tmp_path}/server.pem"
    ) as service:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port_of(service), ssl=context, server_hostname="localhost"
        )
        writer.write(b"busy old fool\n")
        assert await reader.read() == b"busy old fool\n"
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    ("options", "words"),
    [({"max_connections": 0}, "at least 1"), ({"max_connections_per_address": -1}, "negative")],
)
def test_options_are_checked(options: dict[str, int], words: str) -> None:
    """When they are given."""
    with pytest.raises(ValueError, match=words):
        Options(command=CAT, listen=[], **options)  # type: ignore[arg-type]


def test_netcat_is_served(tmp_path: Path) -> None:
    """By a real process, over TCP and a unix socket, on the event loop that is the default."""
    netcat = shutil.which("nc")
    if netcat is None:
        pytest.skip("nc is not installed")
    listen = ["--listen", "127.0.0.1:0", "--listen", f"unix:{tmp_path}/s"]
    command = as_text(python("import sys; print(sys.stdin.read()[::-1], end='')"))
    with service("inetd", *listen, "--command", command) as process:
        port = process.expect(r"listening on 127.0.0.1:(\d+)")[1]
        process.expect("is ready$")
        for address in (["127.0.0.1", port], ["-U", f"{tmp_path}/s"]):
            done = subprocess.run(
                [netcat, "-N", *address], input=b"live", capture_output=True, timeout=PATIENCE, check=True
            )
            assert done.stdout == b"evil"
