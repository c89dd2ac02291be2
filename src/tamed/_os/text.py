"""Making untrusted text safe for logs and terminals.

A client can put an escape sequence into a URL, and an application into a message. Written raw, it could move
the cursor, change the title or type input at the terminal, and the text after a line break would look like a
log record.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "counted",
    "did_you_mean",
    "listed",
    "nearest",
    "noun",
    "shown",
    "shown_in_json",
    "signal_name",
    "value_text",
    "why_no_name",
]


# Control characters for terminals (C0 with the escape itself, DEL, C1), those that change the direction of
# text, those that end a line for some readers, and undecodable bytes, which a stream may refuse (surrogates,
# PEP 383). The caller handles tab and newline.
# In a table for `str.translate`, each escape is one string, regardless of how often a text contains it.
_BEYOND_ASCII = (
    *range(0x80, 0xA0),
    *(0x200E, 0x200F),
    *range(0x2028, 0x202F),
    *range(0x2066, 0x206A),
    *range(0xDC80, 0xDD00),
    0xFEFF,
)
_IN_JSON = {number: f"\\u{number:04x}" for number in (0x7F, *_BEYOND_ASCII)}
_UNSAFE = _IN_JSON | {
    number: f"\\x{number:02x}" for number in (*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0))
}


def shown(text: str, indent: str = "") -> str:
    r"""Return a text with unsafe characters escaped, as in ``\x1b``, and lines after the first indented."""
    if text.isprintable():  # true for nearly all texts, and checked in a tenth of the time
        return text
    return text.translate(_UNSAFE).replace("\n", f"\n{indent}")


def shown_in_json(text: str) -> str:
    r"""Return equivalent JSON with unsafe characters escaped, as in ``\u009b``."""
    return text if text.isprintable() else text.translate(_IN_JSON)


_LONGEST = 60
_LONGEST_NAME = 64  # bytes
_ALSO = "_.@+-"  # in a name, besides letters and digits


def value_text(value: object) -> str:
    """Describe a value in a message, in the words of a configuration file, on one short line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return repr(value if len(value) <= _LONGEST else value[:_LONGEST] + "…")
    if isinstance(value, (int, float)):
        return _number(value)
    if isinstance(value, dict):
        return "a table"
    return "a list" if isinstance(value, (list, tuple)) else noun(type(value).__name__)


def noun(name: str) -> str:
    """Turn a class's name into a noun with its article: ``Duration`` is ``a duration``."""
    if name == "NoneType":
        return "None"
    ends = ("", *name[:-1])  # a capital letter begins a word, unless it follows another one
    words = "".join(
        f" {each}" if each.isupper() and before and not before.isupper() else each
        for before, each in zip(ends, name, strict=True)
    ).lower()
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def counted(number: int, what: str) -> str:
    """Return a number with its noun: ``1 restart``, ``2 restarts``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def signal_name(number: int) -> str:
    """Return the name of a signal, ``SIGTERM``; real-time ones have none: ``signal 40``."""
    from signal import Signals  # not at the top: completion does not need it

    try:
        return Signals(number).name
    except ValueError:
        return f"signal {number}"


def listed(words: Iterable[str]) -> str:
    """List words in a sentence: ``a, b or c``."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def nearest(word: str, known: Iterable[str], similarity: float = 0.6) -> str | None:
    """Return the known word most similar to ``word``, or None if none has this ``similarity`` (0 to 1)."""
    import difflib  # not at the top: only needed for errors

    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=similarity)), None)


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return the remedy for an unknown word: a question with the nearest one, or ``otherwise``."""
    near = nearest(word, known)
    return f"did you mean {near!r}?" if near is not None else otherwise


def why_no_name(name: str) -> str:
    """Return why this is not a valid name of an instance and its folder; empty if it is valid."""
    try:
        length = len(os.fsencode(name))
    except UnicodeEncodeError as error:
        bad = name[error.start]
        return f"the encoding of file names, {error.encoding}, has no {bad!r}; use a locale with UTF-8"
    if not 0 < length <= _LONGEST_NAME:
        return f"a name must have 1 to {_LONGEST_NAME} bytes"
    if not name[0].isalnum() and name[0] != "_":
        return "a name must begin with a letter, a digit or _"
    bad = next((one for one in name if not one.isalnum() and one not in _ALSO), "")
    return f"a name may only contain letters, digits and {_ALSO}, not {bad!r}" if bad else ""


def _number(value: float) -> str:
    try:
        text = str(value)
    except ValueError:  # more digits than the interpreter prints
        text = ""
    return text if 0 < len(text) <= _LONGEST else "a very long number"
