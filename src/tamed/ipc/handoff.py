"""What is handed to the next program in the same process, over an exec: a plan, or the state of a supervisor.

The state is plain data, and descriptors, which stay open. The data has a ``version``. A program that does not
support it reports that in the trial before the upgrade, and the current program continues.
"""

import base64
import os
from collections.abc import Callable
from typing import Any

from tamed.errors import ConfigurationError, SystemRefused
from tamed.ipc.message import InvalidMessage, encode_message, parse_message

__all__ = ["Data", "HandoffState", "Keep", "decode", "encode", "hand_over", "take_over"]

Data = dict[str, Any]

Keep = Callable[[int], int]
"""Keeps a descriptor open over the exec, and returns it."""

_VERSION = 5
_LONGEST = 64 * 1024 * 1024  # bytes


def hand_over(name: str, data: bytes) -> int:
    """Write data into an anonymous file of this name; return its descriptor, which is inheritable."""
    descriptor = os.memfd_create(name, 0)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(data)
    return descriptor


def take_over(descriptor: int) -> bytes:
    """Return the data that was handed over, and close its descriptor."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


class HandoffState:
    """Data for the next program, and the descriptors that are in it."""

    def __init__(self) -> None:
        self.data: Data = {"version": _VERSION}
        self._descriptors: list[int] = []

    def keep(self, descriptor: int) -> int:
        """Keep a descriptor open over the exec; return it."""
        self._descriptors.append(descriptor)
        return descriptor

    def hand_over(self) -> int:
        """Write the data into an anonymous file; return its descriptor. Kept descriptors become inheritable.

        Raises SystemRefused if the data is too long for the next program, and OSError if the system refuses.
        """
        try:
            line = encode_message(self.data, _LONGEST)
        except InvalidMessage as error:
            raise SystemRefused("cannot export the state for the next program", str(error)) from error
        descriptor = hand_over("tamed-state", line)
        self._set_inheritable(True)
        return self.keep(descriptor)

    def take_back(self, descriptor: int) -> None:
        """Undo `hand_over`, because the exec has failed."""
        os.close(descriptor)
        self._descriptors.remove(descriptor)
        self._set_inheritable(False)

    def _set_inheritable(self, inheritable: bool) -> None:
        for descriptor in self._descriptors:
            os.set_inheritable(descriptor, inheritable)

    @staticmethod
    def take_over(descriptor: int) -> Data:
        """Read the data that was handed over, and close its descriptor.

        Raises ConfigurationError for data that this program cannot read.
        """
        try:
            return HandoffState.checked(parse_message(take_over(descriptor), _LONGEST))
        except InvalidMessage as error:
            raise ConfigurationError("cannot take over from the previous program", str(error)) from error

    @staticmethod
    def checked(data: Data) -> Data:
        """Return the data; raise ConfigurationError if this program does not support its version."""
        if data.get("version") != _VERSION:
            why = f"its state has version {data.get('version')}, and this program supports {_VERSION}"
            raise ConfigurationError("cannot take over from the previous program", why, "use tamed restart")
        return data


def encode(data: bytes) -> str:
    """Return bytes as text."""
    return base64.b64encode(data).decode()


def decode(text: str) -> bytes:
    """Return the bytes that a text was made from."""
    return base64.b64decode(text)
