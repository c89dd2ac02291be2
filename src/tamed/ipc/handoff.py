"""What a supervisor leaves to the program that takes its place in the same process, by exec.

That is plain data, and descriptors, which stay open. Both programs know the form of the data by its
``version``: one that does not know it says so while it is tried out, and the one before goes on.
"""

import base64
import os
from collections.abc import Callable
from typing import Any

from tamed.errors import ConfigurationError, SystemRefused
from tamed.ipc.message import InvalidMessage, encode_message, parse_message

__all__ = ["Data", "HandoffState", "Keep", "decode", "encode"]

Data = dict[str, Any]

Keep = Callable[[int], int]
"""Has a descriptor stay open, and returns it."""

_VERSION = 3
_LONGEST = 64 * 1024 * 1024  # bytes


class HandoffState:
    """Data for the next program, and the descriptors that are in it."""

    def __init__(self) -> None:
        self.data: Data = {"version": _VERSION}
        self._descriptors: list[int] = []

    def keep(self, descriptor: int) -> int:
        """Have a descriptor stay open over the exec; return it."""
        self._descriptors.append(descriptor)
        return descriptor

    def hand_over(self) -> int:
        """Write the data into an anonymous file; return its descriptor. From now on all are inherited.

        Raises SystemRefused if it is more than the next program will read, and OSError if there is no room.
        """
        try:
            line = encode_message(self.data, _LONGEST)
        except InvalidMessage as error:
            raise SystemRefused("cannot leave the state to the next program", str(error)) from error
        descriptor = os.memfd_create("tamed-state", 0)
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(line)
        self._set_inheritable(True)
        return self.keep(descriptor)

    def take_back(self, descriptor: int) -> None:
        """Undo that: there was no exec."""
        os.close(descriptor)
        self._descriptors.remove(descriptor)
        self._set_inheritable(False)

    def _set_inheritable(self, inheritable: bool) -> None:
        for descriptor in self._descriptors:
            os.set_inheritable(descriptor, inheritable)

    @staticmethod
    def take_over(descriptor: int) -> Data:
        """Read the data that was handed over, and close its descriptor.

        Raises ConfigurationError for what this program cannot read.
        """
        os.lseek(descriptor, 0, os.SEEK_SET)
        with os.fdopen(descriptor, "rb") as file:
            try:
                return HandoffState.checked(parse_message(file.read(), _LONGEST))
            except InvalidMessage as error:
                raise ConfigurationError("cannot take over from the program before", str(error)) from error

    @staticmethod
    def checked(data: Data) -> Data:
        """Return the data; raise ConfigurationError if it is of a form that this program does not know."""
        if data.get("version") != _VERSION:
            why = f"it leaves version {data.get('version')} of its state, and this one knows {_VERSION}"
            raise ConfigurationError("cannot take over from the program before", why, "use tamed restart")
        return data


def encode(data: bytes) -> str:
    """Return bytes as text."""
    return base64.b64encode(data).decode()


def decode(text: str) -> bytes:
    """Return the bytes that a text was made from."""
    return base64.b64decode(text)
