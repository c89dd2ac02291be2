"""Clients of every kind, that come one after the other and tell the referee what became of them."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random

from tests.chaos.referee import Call, Referee
from tests.chaos.subject import Subject

__all__ = ["CLIENTS", "run_clients"]

_HANG = 60.0  # seconds; a worker that is stopped for long has its connections for less than that
_PAUSE = 0.01  # seconds between two connections of a client
_AFTER_FAILURE = 0.05
_AT_ONCE = 2  # clients of each kind
_REQUESTS = 12  # at most, on one connection

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Client = Callable[[Subject, Call, Random], Awaitable[None]]


async def run_clients(subject: Subject, referee: Referee, random: Random, over: asyncio.Event) -> None:
    """Have clients of each kind come until it is over, and the last ones are served."""
    async with asyncio.TaskGroup() as group:
        for kind in CLIENTS:
            for _ in range(_AT_ONCE):
                group.create_task(_come(kind, subject, referee, Random(random.random()), over))


async def _come(kind: str, subject: Subject, referee: Referee, random: Random, over: asyncio.Event) -> None:
    while not over.is_set():
        call = Call(kind, time.monotonic(), judge=referee.judge)
        try:
            async with asyncio.timeout(_HANG):
                await CLIENTS[kind](subject, call, random)
        except TimeoutError:
            call.end("hung")
        except (ConnectionRefusedError, FileNotFoundError) as error:
            call.end("refused" if not call.is_connected else "broken", repr(error))
        except (OSError, EOFError) as error:
            call.end("broken", repr(error))
        await asyncio.sleep(_PAUSE if call.outcome == "served" else _AFTER_FAILURE)


async def _talk(streams: Streams, call: Call, random: Random) -> None:
    """Hear who serves, say a word, and hear it back to the end."""
    reader, writer = streams
    call.greeted(await _line(reader))
    word = b"%d\n" % random.randrange(10**6)
    writer.write(word)
    answer = await reader.read()
    call.end(
        "served" if answer.strip() == word.strip() else "broken" if not answer else "wrong", repr(answer)
    )


async def _tcp(subject: Subject, call: Call, random: Random) -> None:
    async with _opened(call, asyncio.open_connection("127.0.0.1", subject.ports["tcp"])) as streams:
        await _talk(streams, call, random)


async def _twisted(subject: Subject, call: Call, random: Random) -> None:
    async with _opened(call, asyncio.open_connection("127.0.0.1", subject.ports["twisted"])) as streams:
        await _talk(streams, call, random)


async def _unix(subject: Subject, call: Call, random: Random) -> None:
    async with _opened(call, asyncio.open_unix_connection(subject.unix)) as streams:
        await _talk(streams, call, random)


async def _tls(subject: Subject, call: Call, random: Random) -> None:
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    subject.authority.configure_trust(trusting)
    connecting = asyncio.open_connection(
        "127.0.0.1",
        subject.ports["tls"],
        ssl=trusting,
        server_hostname="localhost",
        ssl_handshake_timeout=_HANG,
    )
    async with _opened(call, connecting) as streams:
        await _talk(streams, call, random)


async def _http(subject: Subject, call: Call, random: Random) -> None:
    """Make several requests on one connection, each of which is judged.

    A server may close a connection between two requests just when the next is on its way. A client is to send
    that again (RFC 9112, 9.3.1), so it is counted and no fault; on a connection that is new it would be one.
    """
    async with _opened(call, asyncio.open_connection("127.0.0.1", subject.ports["web"])) as (reader, writer):
        for number in range(random.randint(1, _REQUESTS)):
            if number:
                call = call.next()
                await asyncio.sleep(random.random() * 0.02)
            path = f"/{random.randrange(10**6)}"
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: chaos\r\n\r\n".encode())
                head = await reader.readuntil(b"\r\n\r\n")
            except (OSError, asyncio.IncompleteReadError) as error:
                partial = error.partial if isinstance(error, asyncio.IncompleteReadError) else b""
                call.end("sent again" if number and not partial else "broken", repr(error))
                return
            call.greeted(await _line(reader))
            answer = (await _line(reader)).decode()
            is_right = head.startswith(b"HTTP/1.1 200") and answer.strip() == path
            call.end("served" if is_right else "wrong", f"{head!r} {answer!r}")
            if b"connection: close" in head.lower():
                return


@asynccontextmanager
async def _opened(call: Call, connecting: Awaitable[Streams]) -> AsyncIterator[Streams]:
    reader, writer = await connecting
    call.is_connected = True
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()


async def _line(reader: asyncio.StreamReader) -> bytes:
    line = await reader.readline()
    if not line.endswith(b"\n"):
        raise EOFError("it was closed")
    return line


CLIENTS: dict[str, Client] = {"tcp": _tcp, "tls": _tls, "unix": _unix, "http": _http, "twisted": _twisted}
