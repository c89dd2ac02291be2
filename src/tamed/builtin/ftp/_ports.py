"""A range of ports, and a free one of it."""

import errno
import os
import random
import re
import socket
from dataclasses import dataclass
from typing import Final, Self

__all__ = ["PortRange"]

_FORM: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


@dataclass(frozen=True)
class PortRange:
    """Ports from ``first`` to ``last``, both included, written ``50000-50100``; 0 is any that is free."""

    first: int = 0
    last: int = 0

    def __post_init__(self) -> None:
        any_port = self.first == self.last == 0
        if not any_port and not 1 <= self.first <= self.last <= 65535:
            raise ValueError(f"expected ports from 1 to 65535, the lower one first, got {self}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``FIRST-LAST`` or one port; raises ValueError for everything else."""
        found = _FORM.fullmatch(text.strip())
        if found is None:
            raise ValueError(f"expected FIRST-LAST, such as 50000-50100, got {text!r}")
        return cls(int(found[1]), int(found[2] or found[1]))

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"

    def listen(self, host: str) -> socket.socket:
        """Return a socket that listens on a free port of the range, for a few connections.

        The ports are tried from one at random on, as several processes may share the range. Raises OSError;
        its number is EADDRINUSE if no port is free.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        count = self.last - self.first + 1
        start = random.randrange(count)  # noqa: S311 - it need not be secret: data connections are of the peer
        for step in range(count):
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((host, self.first + (start + step) % count))
                sock.listen(4)
            except OSError as error:
                sock.close()
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                sock.setblocking(False)
                return sock
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
