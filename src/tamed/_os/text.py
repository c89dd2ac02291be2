"""Text of others in our logs and on terminals: nothing of it does anything there.

A client can put an escape sequence into a URL, and an application into a message. Written raw, it would move
the cursor, change the title or answer for the person at the terminal, and a line break would make what comes
after it look like a record of ours.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["did_you_mean", "listed", "nearest", "noun", "shown", "shown_in_json", "value_text"]


# What a terminal acts upon (C0 with the escape itself, DEL, C1), what turns the direction of the text around
# it, and what ends a line for some readers. Tab and newline are left to the caller.
# As tables for `str.translate`, each escape is one string, however often a text has it.
_BEYOND_ASCII = (*range(0x80, 0xA0), 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF)
_IN_JSON = {number: f"\\u{number:04x}" for number in (0x7F, *_BEYOND_ASCII)}
_UNSAFE = _IN_JSON | {
    number: f"\\x{number:02x}" for number in (*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0))
}


def shown(text: str, indent: str = "") -> str:
    r"""Return a text with what must not be written raw as ``\x1b``, and lines after the first indented."""
    if text.isprintable():  # which nearly all are, and which is told in a tenth of the time
        return text
    return text.translate(_UNSAFE).replace("\n", f"\n{indent}")


def shown_in_json(text: str) -> str:
    r"""Return JSON in which such characters are escaped, as in ``\u009b``: it means the same."""
    return text if text.isprintable() else text.translate(_IN_JSON)


_LONGEST = 60


def value_text(value: object) -> str:
    """Show a value in a message as its writer knows it, on one line, however long it is."""
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
