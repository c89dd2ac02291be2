"""Messages between processes: JSON objects, and the one function that reads them.

Whoever sent a message may be the application, which can write to the descriptors of its worker, or another
program of the same user. So a message is bounded in its size, in its depth and in its numbers before anything
is made of it, and each field is read by a function that knows its type. All of them raise `InvalidMessage`
and nothing else, and whoever reads from another process handles it.
"""

import json
import math
import re
from collections.abc import Mapping
from itertools import accumulate
from typing import Any, Final, NoReturn

__all__ = [
    "LONGEST",
    "InvalidMessage",
    "Message",
    "encode_message",
    "parse_message",
    "read_fault",
    "read_number",
    "read_object",
    "read_seconds",
    "read_text",
    "read_texts",
    "read_truth",
]

Message = dict[str, Any]

LONGEST: Final = 4 * 1024 * 1024
"""How many bytes a message has at most, unless its reader says otherwise."""

_DEEPEST: Final = 128  # levels; a tree of services takes two for each of its own
_DIGITS: Final = 20  # of the longest integer of 64 bits, with its sign
_STATUSES: Final = 255

# Strings, ended or not. Possessive, so it takes linear time and no memory, whatever the text.
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.?[^"\\]*+)*+(?:"|\Z)', re.DOTALL)
_BRACKETS: Final = b"[]{}"
_OTHERS: Final = bytes(set(range(256)) - set(_BRACKETS))
_STEPS: Final = dict(zip(_BRACKETS, (1, -1, 1, -1), strict=True))


class InvalidMessage(ValueError):
    """What another process sent is no message, or not the one that it should be."""


def encode_message(message: Mapping[str, Any], longest: int = LONGEST) -> bytes:
    """Return a message as a line.

    Raises InvalidMessage for one that `parse_message` would refuse by its size, or that is no JSON.
    """
    try:
        line = json.dumps(message, allow_nan=False).encode() + b"\n"
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidMessage(str(error)) from error
    if len(line) > longest:
        raise InvalidMessage(f"a message of {len(line)} bytes, and {longest} is the most")
    return line


def parse_message(data: bytes, longest: int = LONGEST) -> Message:
    """Read a message, which has at most ``longest`` bytes. Raises InvalidMessage for whatever is none."""
    if len(data) > longest:
        raise InvalidMessage(f"longer than {longest} bytes")
    _check_depth(data)
    try:
        message = _DECODER.decode(data.decode())
    except InvalidMessage:
        raise
    except ValueError as error:  # of json, and of UTF-8
        raise InvalidMessage(f"no JSON: {error}") from error
    except (RecursionError, MemoryError) as error:
        raise InvalidMessage("too much to be read") from error
    if not isinstance(message, dict):
        raise InvalidMessage("expected an object")
    return message


def read_text(message: Message, key: str) -> str:
    """Return the text at a key."""
    value = message.get(key)
    if not isinstance(value, str):
        raise InvalidMessage(f"{key}: expected a text")
    return value


def read_number(message: Message, key: str, least: int = 0, most: int = 2**31 - 1) -> int:
    """Return the whole number at a key, which is within limits. A truth value is none."""
    value = message.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidMessage(f"{key}: expected a whole number from {least} to {most}")
    return value


def read_seconds(message: Message, key: str) -> float:
    """Return the time in seconds at a key, which is not negative."""
    value = message.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
        raise InvalidMessage(f"{key}: expected seconds")
    return value


def read_truth(message: Message, key: str) -> bool:
    """Return the truth value at a key."""
    value = message.get(key)
    if not isinstance(value, bool):
        raise InvalidMessage(f"{key}: expected true or false")
    return value


def read_object(message: Message, key: str) -> Message:
    """Return the object at a key."""
    value = message.get(key)
    if not isinstance(value, dict):
        raise InvalidMessage(f"{key}: expected an object")
    return value


def read_texts(message: Message, key: str) -> list[str]:
    """Return the list of texts at a key."""
    value = message.get(key)
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise InvalidMessage(f"{key}: expected a list of texts")
    return value


def read_fault(message: Message) -> tuple[list[str], int]:
    """Return why something has failed: the lines to print, one at least, and the exit status."""
    fault = read_object(message, "fault")
    lines = read_texts(fault, "lines")
    if not lines:
        raise InvalidMessage("lines: expected one at least")
    return lines, read_number(fault, "status", most=_STATUSES)


def _check_depth(data: bytes) -> None:
    """Refuse what is nested too deep, before a parser calls itself for it."""
    if data.count(b"[") + data.count(b"{") <= _DEEPEST:  # as nearly always
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
    raise InvalidMessage(f"{name} is no JSON")


# Made once: `json.loads` would make one for each message, which takes longer than to read a short one.
_DECODER: Final = json.JSONDecoder(parse_int=_integer, parse_float=_finite, parse_constant=_no_constant)
