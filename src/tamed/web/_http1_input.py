"""What has come of a connection of HTTP/1.1 and is not parsed yet, in pieces of no more than one request."""

from typing import Final

__all__ = ["Input"]

_END: Final = b"\r\n\r\n"

_LONGEST: Final = 64 * 1024
"""Bytes of a piece."""


class Input:
    """Bytes in the order in which they came.

    The parser is given no more than one request, so a piece ends with the next head or body. As a head or a
    body in chunks may end in the middle of what comes at a time, the last bytes of the same request that were
    parsed must be told with `passed`.
    """

    __slots__ = ("_data", "_position", "_tail", "left")

    def __init__(self) -> None:
        self.left = 0
        """Bytes that are not parsed."""
        self._data = b""
        self._position = 0  # of what is not parsed
        self._tail = b""  # the last bytes that were parsed, in which an end may have begun

    def add(self, data: bytes) -> None:
        """Append what the client has sent."""
        self._data = self._data[self._position :] + data if self._data else data
        self._position = 0
        self.left = len(self._data)

    def next_piece(self, body_left: int) -> bytes | memoryview:
        """Return what to parse next.

        ``body_left`` is the number of bytes that the body still has, 0 in a head and -1 for one in chunks.
        """
        data, start = self._data, self._position
        most = min(len(data), start + _LONGEST)
        if body_left > 0:
            end = min(start + body_left, most)
        elif self._tail and (found := (self._tail + data[start : start + 3]).find(_END)) >= 0:
            end = start + found + len(_END) - len(self._tail)  # it has come in two parts
        else:
            found = data.find(_END, start, most)
            end = most if found < 0 else found + len(_END)
        self._position = end
        self.left = len(data) - end
        return data if start == 0 and end == len(data) else memoryview(data)[start:end]

    def passed(self, piece: bytes | memoryview) -> None:
        """Take note that a piece was parsed, and that more of its request is to come."""
        self._tail = (self._tail + bytes(piece[-3:]))[-3:]

    def begin(self) -> None:
        """Take note that what comes next is another request."""
        self._tail = b""

    def forget(self) -> None:
        """Drop what is not parsed."""
        self._data = b""
        self._position = self.left = 0

    def take(self) -> bytes:
        """Return what is not parsed, and drop it."""
        rest = self._data[self._position :]
        self.forget()
        return rest
