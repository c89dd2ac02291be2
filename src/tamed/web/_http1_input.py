"""Unparsed input of an HTTP/1.1 connection, split into pieces of at most one request."""

from typing import Final

__all__ = ["Input"]

_END: Final = b"\r\n\r\n"

_LONGEST: Final = 64 * 1024
"""Bytes of a piece."""


class Input:
    """Bytes in the order of arrival.

    The parser gets only one request at a time, so a piece ends with a head or a body. A head or a chunked
    body may end in the middle of the received data, so the last parsed bytes of the same request must be
    passed to `passed`.
    """

    __slots__ = ("_data", "_position", "_tail", "left")

    def __init__(self) -> None:
        self.left = 0
        """Unparsed bytes."""
        self._data = b""
        self._position = 0  # of the unparsed data
        self._tail = b""  # the last parsed bytes, which may contain the beginning of an end marker

    def add(self, data: bytes) -> None:
        self._data = self._data[self._position :] + data if self._data else data
        self._position = 0
        self.left = len(self._data)

    def next_piece(self, body_left: int) -> bytes | memoryview:
        """Return what to parse next.

        ``body_left`` is the number of remaining bytes of the body, 0 in a head and -1 for chunks.
        """
        data, start = self._data, self._position
        most = min(len(data), start + _LONGEST)
        if body_left > 0:
            end = min(start + body_left, most)
        elif self._tail and (found := (self._tail + data[start : start + 3]).find(_END)) >= 0:
            end = start + found + len(_END) - len(self._tail)  # the marker arrived in two parts
        else:
            found = data.find(_END, start, most)
            end = most if found < 0 else found + len(_END)
        self._position = end
        self.left = len(data) - end
        return data if start == 0 and end == len(data) else memoryview(data)[start:end]

    def passed(self, piece: bytes | memoryview) -> None:
        """Record that a piece was parsed, and that its request is incomplete."""
        self._tail = (self._tail + bytes(piece[-3:]))[-3:]

    def begin(self) -> None:
        """Record that the next data is another request."""
        self._tail = b""

    def forget(self) -> None:
        self._data = b""
        self._position = self.left = 0

    def take(self) -> bytes:
        rest = self._data[self._position :]
        self.forget()
        return rest
