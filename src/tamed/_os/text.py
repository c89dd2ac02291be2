"""Text of others in our logs and on terminals: nothing of it does anything there.

A client can put an escape sequence into a URL, and an application into a message. Written raw, it would move
the cursor, change the title or answer for the person at the terminal, and a line break would make what comes
after it look like a record of ours.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cache

__all__ = ["did_you_mean", "listed", "nearest", "noun", "shown", "shown_in_json", "value_text"]


# What a terminal acts upon (C0 with the escape itself, DEL, C1), what turns the direction of the text around
# it, and what ends a line for some readers. Tab and newline are left to the caller.
_UNSAFE = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_IN_JSON = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def shown(text: str, indent: str = "") -> str:
    r"""Return a text with what must not be written raw as ``\x1b``, and lines after the first indented."""
    if text.isprintable():  # which nearly all are, and which is told in a tenth of the time
        return text
    return _UNSAFE.sub(lambda found: _escape(found[0]), text).replace("\n", f"\n{indent}")


def shown_in_json(text: str) -> str:
    r"""Return JSON in which such characters are escaped, as in ``\u009b``: it means the same."""
    return text if text.isprintable() else _IN_JSON.sub(lambda found: _escape_in_json(found[0]), text)


# One string a character, not one a place: what is nothing but escapes must not take a hundred times its size.
@cache
def _escape(letter: str) -> str:
    number = ord(letter)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


@cache
def _escape_in_json(letter: str) -> str:
    return f"\\u{ord(letter):04x}"


_LONGEST = 60


def value_text(value: object) -> str:
    """Show a value in a message as its writer knows it, on one line, however long it is."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return repr(value if len(value) <= _LONGEST else value[:_LONGEST] + "…")
    if isinstance(value, (int, float)):
        return _number(value)
    if isinstance(value, Mapping):
        return "a table"
    return "a list" if isinstance(value, (list, tuple)) else noun(type(value).__name__)


def noun(name: str) -> str:
    """Turn a class's name into a noun with its article: ``Duration`` is ``a duration``."""
    if name == "NoneType":
        return "None"
    words = re.sub("(?<=[a-z0-9])(?=[A-Z])", " ", name).lower()
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def listed(words: Iterable[str]) -> str:
    """List words in a sentence: ``a, b or c``."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that ``word`` was probably meant to be, or None when none is near."""
    import difflib  # only needed when something is wrong

    return next(iter(difflib.get_close_matches(word, list(known), n=1)), None)


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return the remedy for an unknown word: its nearest neighbour, or else ``otherwise``."""
    near = nearest(word, known)
    return f"did you mean {near!r}?" if near is not None else otherwise


def _number(value: float) -> str:
    try:
        text = str(value)
    except ValueError:  # more digits than the interpreter prints
        text = ""
    return text if 0 < len(text) <= _LONGEST else "a very long number"
