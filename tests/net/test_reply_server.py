import asyncio
import logging
import os
import socket
import ssl
from contextlib import closing
from pathlib import Path

import pytest
import trustme

from tamed.net.reply import ReplyServer, _SlowConnection
from tests.net.poetry import (
    LONG_POEM,
    POEM,
    SMALL,
    address_of,
    connect,
    read,
    read_all,
    reply_server,
    slowly,
    until,
)

pytestmark = pytest.mark.anyio


async def test_the_reply_is_made_for_the_peer(tmp_path: Path) -> None:
    """The reply is called with the client's address as one would type it."""
    path = tmp_path / "poem.sock"
    async with ReplyServer(["127.0.0.1:0", "[::1]:0", f"unix:{path}"], str.encode) as server:
        for index, form in ((0, "{}:{}"), (1, "[{}]:{}")):
            client = socket.create_connection(address_of(server, index))
            client.setblocking(False)
            with closing(client):
                assert await read_all(client) == form.format(*client.getsockname()[:2]).encode()
        with closing(socket.socket(socket.AF_UNIX)) as client:
            client.connect(str(path))
            client.setblocking(False)
            assert await read_all(client) == f"unix (pid {os.getpid()}, uid {os.getuid()})".encode()


async def test_a_unix_client_with_a_name_is_called_by_it(tmp_path: Path) -> None:
    """A client that bound its own socket has an address like any other."""
    path = tmp_path / "poem.sock"
    async with ReplyServer(f"unix:{path}", str.encode) as server:
        with closing(socket.socket(socket.AF_UNIX)) as client:
            client.bind(str(tmp_path / "client.sock"))
            client.connect(str(path))
            client.setblocking(False)
            assert await read_all(client) == f"unix:{tmp_path / 'client.sock'}".encode()
    assert server.accepted == 1


async def test_quick_clients_leave_no_trace_in_the_loop() -> None:
    """Whoever takes the answer at once is done with before the loop goes on."""
    async with reply_server() as server:
        clients = [connect(server) for _ in range(10)]
        seen: list[tuple[int, int]] = []
        while server.accepted < 10:
            seen.append((server.accepted, server.connections))
            await asyncio.sleep(0)
        assert {connections for _, connections in seen} == {0}
        for client in clients:
            with closing(client):
                assert await read_all(client) == POEM


async def test_each_answer_goes_to_its_own_client() -> None:
    """Whatever numbers the descriptors have, and whoever had them before."""
    others: list[int] = []
    async with ReplyServer("127.0.0.1:0", str.encode) as server:
        for move in "same", "up", "up", "down", "same", "down":
            if move == "up":
                others.append(os.dup(0))
            elif move == "down":
                os.close(others.pop(0))
            with closing(connect(server)) as client:
                assert await read_all(client) == "{}:{}".format(*client.getsockname()).encode()


async def test_input_that_comes_after_the_end_takes_nothing_of_the_answer() -> None:
    """It causes a reset, but behind the answer and its end, which the client reads as if nothing were."""
    async with reply_server() as server:
        with closing(connect(server)) as client:
            await until(lambda: server.accepted == 1)
            client.send(b"hello")
            assert await read_all(client) == POEM


async def test_an_empty_reply_is_an_end() -> None:
    """Nothing to say is no error."""
    async with reply_server(b"") as server:
        with closing(connect(server)) as client:
            assert await read_all(client) == b""


async def test_a_reply_that_raises_is_logged_with_the_peer(caplog: pytest.LogCaptureFixture) -> None:
    """Its client gets nothing, and the next one is served."""
    failures = [OSError("the poem is lost"), ValueError("it does not rhyme")]

    def reply(peer: str) -> bytes:
        if failures:
            raise failures.pop()
        return POEM

    async with ReplyServer("127.0.0.1:0", reply) as server:
        for text in ("ValueError: it does not rhyme", "OSError: the poem is lost"):
            with closing(connect(server)) as unlucky:
                peer = "{}:{}".format(*unlucky.getsockname())
                assert await read_all(unlucky) == b""
            assert f"reply-server has no reply for {peer}" in caplog.text
            assert text in caplog.text
        with closing(connect(server)) as lucky:
            assert await read_all(lucky) == POEM


async def test_leavers_are_reported_for_debugging(caplog: pytest.LogCaptureFixture) -> None:
    """A client that is gone when its rest is to be sent is one line, at the level of debugging."""
    caplog.set_level(logging.DEBUG, "tamed")
    async with slowly(reply_server(LONG_POEM)) as server:
        with closing(connect(server, receive_buffer=SMALL)) as client:
            await read(client, 100)
            assert server.connections == 1
        await until(lambda: server.connections == 0)
    lost = [record for record in caplog.records if " before the last " in record.getMessage()]
    assert [record.levelno for record in lost] == [logging.DEBUG]


async def test_a_client_that_takes_nothing_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    """With ``send_timeout``, and with a line in the log."""
    caplog.set_level(logging.INFO)
    async with slowly(reply_server(LONG_POEM, send_timeout=0.05)) as server:
        with closing(connect(server, receive_buffer=SMALL)) as silent:
            peer = "{}:{}".format(*silent.getsockname())
            await until(lambda: server.accepted == 1 and server.connections == 0)
    assert f"aborted {peer}, which accepted no data for 0.05 s" in caplog.text


async def test_a_client_that_takes_a_little_gets_more_time() -> None:
    """The timeout begins anew whenever something was taken."""
    async with slowly(reply_server(LONG_POEM, send_timeout=3600)) as server:
        with closing(connect(server, receive_buffer=SMALL)) as client:
            await until(lambda: server.connections == 1)
            (slow,) = server._open
            assert isinstance(slow, _SlowConnection)
            first = slow._timer
            await read(client, 4 * SMALL)
            await until(lambda: slow._timer is not first)
            assert first is not None
            assert first.cancelled()
            assert await read_all(client) == LONG_POEM[4 * SMALL :]


async def test_a_reply_that_raises_is_logged_through_tls_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its client gets a proper end."""

    def reply(peer: str) -> bytes:
        raise ValueError("it does not rhyme")

    authority = trustme.CA()
    file = tmp_path / "server.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(file)
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(trusting)
    async with ReplyServer(f"tls://127.0.0.1:0?cert={file}", reply) as server:
        reader, writer = await asyncio.open_connection(
            *address_of(server), ssl=trusting, server_hostname="localhost"
        )
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
    assert "reply-server has no reply for 127.0.0.1:" in caplog.text


async def test_a_default_timeout_of_sockets_does_not_matter() -> None:
    """A program that calls ``socket.setdefaulttimeout`` is served like any other."""
    socket.setdefaulttimeout(60)
    try:
        async with slowly(reply_server(LONG_POEM)) as server:
            with closing(connect(server, receive_buffer=SMALL)) as client:
                client.sendall(b"hello")
                assert await read_all(client) == LONG_POEM
    finally:
        socket.setdefaulttimeout(None)
