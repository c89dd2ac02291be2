"""HTTP for one connection. The parsing is h11's; what is left are the limits."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import h11

Answer = Callable[[str, str, bytes], tuple[int, str, bytes]]
"""Takes method, path and body of a request; returns status, content type and body."""

LONGEST_BODY = 64 * 1024  # bytes
PATIENCE = 10  # seconds for each request


class TooLong(Exception):
    """A request has a longer body than is read."""


async def serve_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer) -> None:
    """Answer the requests of one connection, until the client has no more or is too slow."""
    connection = h11.Connection(h11.SERVER)
    with suppress(TimeoutError):
        while connection.our_state is h11.IDLE:
            async with asyncio.timeout(PATIENCE):
                await serve_request(connection, reader, writer, answer)


async def serve_request(
    connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer
) -> None:
    method = ""
    try:
        request, body = await read_request(connection, reader)
    except EOFError:
        connection.send_failed()  # the client is done
        return
    except h11.RemoteProtocolError as error:
        reply = error.error_status_hint, "text/plain", b"this is not HTTP as it should be\n"
    except TooLong:
        reply = 413, "text/plain", b"this is too much\n"
    else:
        method, path = request.method.decode("ascii"), request.target.decode("ascii").partition("?")[0]
        reply = answer(method, path, bytes(body))
    write_response(connection, writer, *reply, with_body=method != "HEAD")
    await writer.drain()
    if connection.our_state is h11.DONE and connection.their_state is h11.DONE:
        connection.start_next_cycle()


async def read_request(
    connection: h11.Connection, reader: asyncio.StreamReader
) -> tuple[h11.Request, bytearray]:
    """Read one request with its body. Raises EOFError if there is none, TooLong, and h11's errors."""
    request, body = None, bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > LONGEST_BODY:
                raise TooLong
        elif isinstance(event, h11.EndOfMessage) and request is not None:
            return request, body
        else:
            raise EOFError


def write_response(
    connection: h11.Connection,
    writer: asyncio.StreamWriter,
    status: int,
    content_type: str,
    body: bytes,
    *,
    with_body: bool,
) -> None:
    headers = [("Content-Type", content_type), ("Content-Length", str(len(body)))]
    if connection.their_state is not h11.DONE:  # what is left of the request is not read
        headers.append(("Connection", "close"))
    writer.write(connection.send(h11.Response(status_code=status, headers=headers)))
    if with_body:
        writer.write(connection.send(h11.Data(data=body)))
    writer.write(connection.send(h11.EndOfMessage()))
