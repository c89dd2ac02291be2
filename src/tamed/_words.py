"""The words that messages are made of: values, nouns, lists, and what was probably meant."""

import re
from collections.abc import Iterable, Mapping

__all__ = ["did_you_mean", "listed", "nearest", "noun", "value_text"]

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


def did_you_mean(word: str, known: Iterable[str], otherwise: str) -> str:
    """Return the remedy for an unknown word: its nearest neighbour, or else ``otherwise``."""
    near = nearest(word, known)
    return f"did you mean {near!r}?" if near is not None else otherwise


def _number(value: float) -> str:
    try:
        text = str(value)
    except ValueError:  # more digits than the interpreter prints
        text = ""
    return text if 0 < len(text) <= _LONGEST else "a very long number"
