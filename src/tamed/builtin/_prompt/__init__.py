"""A Python prompt into the running process, for the plugins that let somebody type into it."""

from tamed.builtin._prompt._dialogue import Dialogue, Screen
from tamed.builtin._prompt._keyboard import Interrupted, Keyboard, TooLong
from tamed.builtin._prompt._limits import Limits
from tamed.builtin._prompt._lines import Lines
from tamed.builtin._prompt._quiet import quieten
from tamed.builtin._prompt._sessions import Sessions

__all__ = [
    "Dialogue",
    "Interrupted",
    "Keyboard",
    "Limits",
    "Lines",
    "Screen",
    "Sessions",
    "TooLong",
    "quieten",
]
