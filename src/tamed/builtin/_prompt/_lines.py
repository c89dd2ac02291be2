"""Lines out of a stream of bytes."""

from collections.abc import Callable

__all__ = ["Lines"]


class Lines:
    r"""Puts lines together from pieces of any size.

    A line ends with ``\r\n``, ``\r\0``, ``\n`` or a ``\r`` that something else follows, which are all the
    ways of terminals and of telnet (RFC 854, page 11). ``line`` is called with each, decoded from UTF-8, with
    replacement characters for what is none. ``too_long`` is called, once and at its end, for one of more than
    ``longest`` bytes; of that no more is kept.
    """

    def __init__(self, line: Callable[[str], None], too_long: Callable[[], None], longest: int) -> None:
        self._line = line
        self._too_long = too_long
        self._longest = longest
        self._begun = bytearray()
        self._after_return = False

    def feed(self, data: bytes) -> None:
        """Take what has come."""
        if self._after_return and data[:1] in {b"\n", b"\0"}:
            data = data[1:]
            self._after_return = False
        if not data:
            return
        self._after_return = data.endswith(b"\r")
        *ended, begun = (
            data.replace(b"\r\n", b"\n").replace(b"\r\0", b"\n").replace(b"\r", b"\n").split(b"\n")
        )
        for part in ended:
            self._keep(part)
            self._end()
        self._keep(begun)

    def finish(self) -> None:
        """Take note that nothing more will come: what has been begun is the last line."""
        if self._begun:
            self._end()

    def _keep(self, part: bytes) -> None:
        self._begun += part[: self._longest + 1 - len(self._begun)]

    def _end(self) -> None:
        line = bytes(self._begun)
        self._begun.clear()
        if len(line) > self._longest:
            self._too_long()
        else:
            self._line(line.decode(errors="replace"))
