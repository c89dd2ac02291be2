"""Messages between processes: JSON objects, and the one function that parses them.

The sender of a message may be the application, which can write to the descriptors of its worker, or another
program of the same user. So the size, the depth and the numbers of a message are checked before it is used,
and each field is read by a function for its type. These functions raise `InvalidMessage` and nothing else.
The code that reads from another process must handle it.
"""

from __future__ import annotations

import json
import math
import re
from itertools import accumulate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Final, NoReturn, TypeVar

    T = TypeVar("T")

__all__ = [
    "LONGEST",
    "LONGEST_ANSWER",
    "LONGEST_REQUEST",
    "InvalidMessage",
    "Message",
    "encode_message",
    "list_of",
    "optional",
    "parse_message",
    "read_errno",
    "read_fault",
    "read_fields",
    "read_number",
    "read_object",
    "read_objects",
    "read_seconds",
    "read_text",
    "read_texts",
    "read_token",
    "read_truth",
]

Message = dict[str, "Any"]

if TYPE_CHECKING:
    Reader = Callable[[Message, str], Any]

LONGEST: Final = 4 * 1024 * 1024
"""The default limit of a message, in bytes."""

LONGEST_REQUEST: Final = 65536
"""The limit of a request on the control socket, in bytes."""

LONGEST_ANSWER: Final = 16 * 1024 * 1024
"""The limit of the answer to it, in bytes."""

_DEEPEST: Final = 128  # levels; each level of a tree of services takes two
_DIGITS: Final = 20  # of the longest integer of 64 bits, with its sign
_STATUSES: Final = 255
_ERRNOS: Final = 4095  # MAX_ERRNO of Linux

# Strings, terminated or not. Possessive, so any text takes linear time and no memory.
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.?[^"\\]*+)*+(?:"|\Z)', re.DOTALL)
_BRACKETS: Final = b"[]{}"
_OTHERS: Final = bytes(set(range(256)) - set(_BRACKETS))
_STEPS: Final = dict(zip(_BRACKETS, (1, -1, 1, -1), strict=True))


class InvalidMessage(ValueError):
    """Another process sent invalid data, or an unexpected message."""


def encode_message(message: Mapping[str, Any], longest: int = LONGEST) -> bytes:
    """Return a message as a line.

    Raises InvalidMessage for a message that is too long for `parse_message`, or that JSON cannot express.
    """
    try:
        line = json.dumps(message, allow_nan=False).encode() + b"\n"
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidMessage(str(error)) from error
    if len(line) > longest:
        raise InvalidMessage(f"a message of {len(line)} bytes, more than {longest}")
    return line


def parse_message(data: bytes, longest: int = LONGEST) -> Message:
    """Parse a message of at most ``longest`` bytes. Raises InvalidMessage for anything else."""
    if len(data) > longest:
        raise InvalidMessage(f"longer than {longest} bytes")
    _check_depth(data)
    try:
        message = _DECODER.decode(data.decode())
    except InvalidMessage:
        raise
    except ValueError as error:  # of json, and of UTF-8
        raise InvalidMessage(f"invalid JSON: {error}") from error
    except (RecursionError, MemoryError) as error:
        raise InvalidMessage("too much data to parse") from error
    if not isinstance(message, dict):
        raise InvalidMessage("expected an object")
    return message


def _of_type(message: Message, key: str, kind: type[T], expected: str) -> T:
    if not isinstance(value := message.get(key), kind):
        raise InvalidMessage(f"{key}: expected {expected}")
    return value


def _list_of_type(message: Message, key: str, kind: type[T], expected: str) -> list[T]:
    values = _of_type(message, key, list, expected)
    if not all(isinstance(each, kind) for each in values):
        raise InvalidMessage(f"{key}: expected {expected}")
    return values


def read_text(message: Message, key: str) -> str:
    """Return the text at a key."""
    return _of_type(message, key, str, "a text")


def read_number(message: Message, key: str, least: int = 0, most: int = 2**31 - 1) -> int:
    """Return the integer at a key, which is within limits. A boolean is not accepted."""
    value = message.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidMessage(f"{key}: expected a whole number from {least} to {most}")
    return value


def read_token(message: Message, key: str) -> int:
    """Return the fencing token of a role at a key: it has 63 bits."""
    return read_number(message, key, most=2**63 - 1)


def read_seconds(message: Message, key: str) -> float:
    """Return the time in seconds at a key, which is not negative."""
    value = message.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
        raise InvalidMessage(f"{key}: expected seconds")
    return value


def read_truth(message: Message, key: str) -> bool:
    """Return the boolean at a key."""
    return _of_type(message, key, bool, "true or false")


def read_object(message: Message, key: str) -> Message:
    """Return the object at a key."""
    return _of_type(message, key, dict, "an object")


def read_objects(message: Message, key: str) -> list[Message]:
    """Return the list of objects at a key."""
    return _list_of_type(message, key, dict, "a list of objects")


def read_texts(message: Message, key: str) -> list[str]:
    """Return the list of texts at a key."""
    return _list_of_type(message, key, str, "a list of texts")


def read_fields(message: Message, /, **readers: Reader) -> Message:
    """Return the fields at these keys only, each read by its function: ``pid=read_number``."""
    return {key: read(message, key) for key, read in readers.items()}


def optional(read: Reader) -> Reader:
    """Return a reader for a field that may be missing or null; it is None then."""
    return lambda message, key: None if message.get(key) is None else read(message, key)


def list_of(**readers: Reader) -> Reader:
    """Return a reader for a list of objects with these fields."""
    return lambda message, key: [read_fields(each, **readers) for each in read_objects(message, key)]


def read_fault(message: Message) -> tuple[list[str], int]:
    """Return a reported failure: the lines to print, at least one, and the exit status."""
    fault = read_object(message, "fault")
    lines = read_texts(fault, "lines")
    if not lines:
        raise InvalidMessage("lines: expected one at least")
    return lines, read_number(fault, "status", most=_STATUSES)


def read_errno(message: Message) -> int:
    """Return the errno of a reported failure, 0 if there is none."""
    fault = read_object(message, "fault")
    return read_number(fault, "errno", most=_ERRNOS) if "errno" in fault else 0


def _check_depth(data: bytes) -> None:
    """Refuse deeply nested data before the recursive parser reads it."""
    if data.count(b"[") + data.count(b"{") <= _DEEPEST:  # nearly always
        return
    brackets = _STRING.sub(b"", data).translate(None, _OTHERS)
    if max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > _DEEPEST:
        raise InvalidMessage(f"nested deeper than {_DEEPEST} levels")


def _integer(text: str) -> int:
    if len(text) > _DIGITS or not -(2**63) <= (number := int(text)) < 2**63:
        raise InvalidMessage("a whole number of more than 64 bits")
    return number


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise InvalidMessage("a number that no float can hold")
    return number


def _no_constant(name: str) -> NoReturn:
    raise InvalidMessage(f"{name} is not JSON")


# Created once: `json.loads` would create one for each message, which takes longer than to parse a short one.
_DECODER: Final = json.JSONDecoder(parse_int=_integer, parse_float=_finite, parse_constant=_no_constant)
