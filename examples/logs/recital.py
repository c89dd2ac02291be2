"""A server whose log is for machines: each record has fields, and all records of a client have its number."""

import asyncio
import itertools
import logging
from contextvars import ContextVar

from tamed import Application, StreamServer

log = logging.getLogger("recital")
client: ContextVar[int] = ContextVar("client")  # each connection is a task, with a context of its own
numbers = itertools.count(1)


def add_client(record: logging.LogRecord) -> bool:
    """Add the number of the client that is served to a record of this logger."""
    if (number := client.get(None)) is not None:
        record.client = number
    return True


log.addFilter(add_client)


async def recite(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    client.set(next(numbers))
    wanted = (await reader.readline()).decode().strip()
    log.info("asked", extra={"poem": wanted})
    if wanted == "science":
        poem = b"Science! true daughter of Old Time thou art!\n"
        writer.write(poem)
        log.info("sent", extra={"poem": wanted, "bytes": len(poem)})
    else:
        log.warning("no such poem", extra={"poem": wanted})


application = Application("recital", StreamServer("localhost:10000", recite, name="server"))
