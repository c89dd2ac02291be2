"""Reading messages that do not begin with their length, by parsers that are independent of streams.

A parser takes all bytes so far. It returns the message, or raises `Incomplete` with a number of bytes that
are certainly missing, or `Malformed`. So no byte after the message is read: what follows it is still in the
stream.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

__all__ = ["Incomplete", "Malformed", "read_message", "take"]

T = TypeVar("T")


class Incomplete(Exception):
    """The beginning of a message; at least ``missing`` more bytes belong to it."""

    def __init__(self, missing: int) -> None:
        super().__init__(missing)
        self.missing = missing


class Malformed(ValueError):
    """Bytes that cannot be the beginning of a message. The text is the reason."""


def take(data: bytes, start: int, count: int) -> bytes:
    """Return ``count`` bytes from ``start`` on. Raises Incomplete if some are missing."""
    if len(data) < start + count:
        raise Incomplete(start + count - len(data))
    return data[start : start + count]


async def read_message(reader: asyncio.StreamReader, parse: Callable[[bytes], T]) -> T:
    """Read one message.

    Raises what the parser raises, other than Incomplete, and `asyncio.IncompleteReadError` if the stream ends
    before the message does.
    """
    data = b""
    while True:
        try:
            return parse(data)
        except Incomplete as incomplete:
            missing = incomplete.missing
        data += await reader.readexactly(missing)
