"""Inputs out of real messages: changed, cut, mixed, nested, grown, or made of words; the same for a seed.

Random choices are made with ``random()`` alone: `random.Random` has nothing else that is written in C, and an
input must not take longer to make than to parse.
"""

import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

__all__ = ["Mutator", "pumped"]

_LONGEST: Final = 4096
"""Bytes of an ordinary input; what grows with the length of its input is looked for by `pumped`."""

_MOST_KEPT: Final = 512
_MOST_STEPS: Final = 5
_NUMBER: Final = re.compile(rb"[0-9]+")
_NUMBERS: Final = (
    b"0",
    b"1",
    b"-1",
    b"00",
    b"255",
    b"256",
    b"65535",
    b"65536",
    b"4294967296",
    b"9" * 19,
    b"9" * 5000,
)
_EDGES: Final = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)
_BRACKETS: Final = (
    (b"[", b"]"),
    (b"{", b"}"),
    (b'{"a":', b"}"),
    (b'"', b'"'),
    (b"(", b")"),
    (b"\xff", b"\xfd"),
)
_COMMON: Final = (
    b"",
    b"\0",
    b"\n",
    b"\r\n",
    b"\r",
    b" ",
    b"\t",
    b"\x1b",
    b"\x7f",
    b"\xc2\x9b",
    b"\xe2\x80\xae",
    b"\xed\xa0\x80",
    b"\xff",
    b"%",
    b"%00",
    b"%zz",
    b":",
    b"/",
    b"..",
    b"@",
    b"?",
    b"&",
    b"=",
    b"#",
    b"'",
    b'"',
    b"\\",
    b"-",
    b".",
    "é".encode(),
    "²".encode(),
    "٣".encode(),
    "İ".encode(),
)


class Mutator:
    """Gives one input after the other. `keep` is told of those that have led to something new."""

    def __init__(self, seed: str, corpus: Sequence[bytes], words: Sequence[bytes]) -> None:
        self._random = Random(seed).random
        self._pool = list(corpus)
        self._words = (*words, *words, *_COMMON)
        self._own = len(self._pool)
        self._steps: tuple[Callable[[bytes], bytes], ...] = (
            self._flip,
            self._set,
            self._remove,
            self._repeat,
            self._insert,
            self._insert,
            self._splice,
            self._number,
            self._length,
            self._nest,
            self._swap,
        )

    def next(self) -> bytes:
        """Return another input."""
        random, steps = self._random, self._steps
        if random() < 0.05:
            return self._made_of_words()
        data = self._pool[int(random() * len(self._pool))]
        for _ in range(1 + int(random() * random() * _MOST_STEPS)):
            data = steps[int(random() * len(steps))](data)
        return data if len(data) <= _LONGEST else data[:_LONGEST]

    def keep(self, data: bytes) -> None:
        """Make others of this input too."""
        if len(self._pool) < _MOST_KEPT:
            self._pool.append(data)
        else:
            self._pool[self._own + int(self._random() * (_MOST_KEPT - self._own))] = data

    def _place(self, data: bytes) -> int:
        return int(self._random() * (len(data) + 1))

    def _word(self) -> bytes:
        return self._words[int(self._random() * len(self._words))]

    def _flip(self, data: bytes) -> bytes:
        if not data:
            return self._word()
        at = int(self._random() * len(data))
        return data[:at] + bytes((data[at] ^ (1 << int(self._random() * 8)),)) + data[at + 1 :]

    def _set(self, data: bytes) -> bytes:
        at = self._place(data)
        edge = self._random() < 0.5
        value = _EDGES[int(self._random() * len(_EDGES))] if edge else int(self._random() * 256)
        return data[:at] + bytes((value,)) + data[at + 1 :]

    def _remove(self, data: bytes) -> bytes:
        at = self._place(data)
        return data[:at] + data[at + 1 + int(self._random() * self._random() * len(data)) :]

    def _repeat(self, data: bytes) -> bytes:
        at = self._place(data)
        end = at + 1 + int(self._random() * 8)
        return data[:end] + data[at:end] * int(1 + self._random() * self._random() * 40) + data[end:]

    def _insert(self, data: bytes) -> bytes:
        at = self._place(data)
        return data[:at] + self._word() + data[at:]

    def _splice(self, data: bytes) -> bytes:
        other = self._pool[int(self._random() * len(self._pool))]
        return data[: self._place(data)] + other[self._place(other) :]

    def _swap(self, data: bytes) -> bytes:
        first, second = sorted((self._place(data), self._place(data)))
        return data[second:] + data[first:second] + data[:first]

    def _number(self, data: bytes) -> bytes:
        """Put another number in the place of one in digits."""
        found = _NUMBER.search(data, self._place(data)) or _NUMBER.search(data)
        if found is None:
            return self._set(data)
        number = _NUMBERS[int(self._random() * len(_NUMBERS))]
        return data[: found.start()] + number + data[found.end() :]

    def _length(self, data: bytes) -> bytes:
        """Put the length of what follows, or one that is wrong, in one or two bytes."""
        at, size = self._place(data), 1 + int(self._random() * 2)
        rest = len(data) - at - size
        length = (rest, rest - 1, rest + 1, 0, (1 << 8 * size) - 1)[int(self._random() * 5)]
        return data[:at] + (max(length, 0) % (1 << 8 * size)).to_bytes(size) + data[at + size :]

    def _nest(self, data: bytes) -> bytes:
        before, after = _BRACKETS[int(self._random() * len(_BRACKETS))]
        depth = 1 + int(self._random() * self._random() * 300)
        first, second = sorted((self._place(data), self._place(data)))
        return data[:first] + before * depth + data[first:second] + after * depth + data[second:]

    def _made_of_words(self) -> bytes:
        return b"".join([self._word() for _ in range(1 + int(self._random() * 12))])


def pumped(data: bytes, at: int, size: int, length: int) -> bytes:
    """Return an input in which a piece is repeated until it has about so many bytes."""
    piece = data[at : at + size] or b"a"
    return data[:at] + piece * max(1, (length - len(data)) // len(piece)) + data[at + size :]
