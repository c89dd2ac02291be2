import asyncio

import pytest

from tamed.net.framing import Incomplete, Malformed, read_message, take

pytestmark = pytest.mark.anyio


def line(data: bytes) -> bytes:
    """Parse a line that ends with a semicolon."""
    if b"!" in data:
        raise Malformed("no shouting")
    if not data.endswith(b";"):
        raise Incomplete(1)
    return data


async def test_no_byte_more_than_the_message_is_read() -> None:
    """What follows is left in the stream."""
    reader = asyncio.StreamReader()
    reader.feed_data(b"one;two;rest")
    assert await read_message(reader, line) == b"one;"
    assert await read_message(reader, line) == b"two;"
    assert await reader.read(10) == b"rest"


async def test_a_message_that_is_none_or_ends_early() -> None:
    """The parser's error goes through, and the end of the stream is asyncio's."""
    reader = asyncio.StreamReader()
    reader.feed_data(b"!ne;")
    with pytest.raises(Malformed):
        await read_message(reader, line)
    assert await read_message(reader, line) == b"ne;"
    reader.feed_data(b"almost")
    reader.feed_eof()
    with pytest.raises(asyncio.IncompleteReadError):
        await read_message(reader, line)


async def test_take_says_how_much_is_missing() -> None:
    """The bytes up to the end of what was asked for."""
    assert take(b"abcdef", 2, 3) == b"cde"
    with pytest.raises(Incomplete) as caught:
        take(b"abcdef", 5, 3)
    assert caught.value.missing == 2
