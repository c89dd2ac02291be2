"""What the supervisor says to the person who started it in the foreground."""

import contextlib
import os

from tamed._text import shown

__all__ = ["tell_person"]


def tell_person(text: str, descriptor: int = 2) -> None:
    """Write lines to standard error. That nobody can read them any more is no reason to stop."""
    with contextlib.suppress(OSError):
        os.write(descriptor, f"{shown(text)}\n".encode(errors="backslashreplace"))
