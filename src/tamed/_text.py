"""Text of others in our logs and on terminals: nothing of it does anything there.

A client can put an escape sequence into a URL, and an application into a message. Written raw, it would move
the cursor, change the title or answer for the person at the terminal, and a line break would make what comes
after it look like a record of ours.
"""

import re
from functools import cache

__all__ = ["shown", "shown_in_json"]

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
