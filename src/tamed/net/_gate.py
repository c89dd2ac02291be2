"""The gate of a process: whether its servers let clients in.

It is how one process takes the place of another that listens on the same sockets, without a moment in which
clients are refused or are served by either: the old one shuts its gate, and then the new one opens its own.
Clients that come in between wait in the kernel's queue.
"""

from typing import Protocol

__all__ = ["Gate", "GateKeeper"]


class GateKeeper(Protocol):
    """What lets clients in, and heeds a gate."""

    def hold(self) -> None:
        """Let nobody in until `let_go` is called; leave those who wait where they are."""

    def let_go(self) -> None:
        """Let clients in again."""


class Gate:
    """Tells every keeper that has been added to it to hold while it is shut."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.is_open = is_open
        self._keepers: dict[GateKeeper, None] = {}

    def add(self, keeper: GateKeeper) -> None:
        """Have a keeper heed this gate from now on."""
        self._keepers[keeper] = None
        if not self.is_open:
            keeper.hold()

    def remove(self, keeper: GateKeeper) -> None:
        """Forget a keeper, as it is. May be called again."""
        self._keepers.pop(keeper, None)

    def open(self) -> None:
        """Let clients in."""
        if not self.is_open:
            self.is_open = True
            for keeper in tuple(self._keepers):
                keeper.let_go()

    def shut(self) -> None:
        """Let no more clients in; when this returns, nobody has come in who is not being served."""
        if self.is_open:
            self.is_open = False
            for keeper in tuple(self._keepers):
                keeper.hold()
