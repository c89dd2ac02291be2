"""How many connections may wait to be accepted, and who says so.

``listen(2)`` cuts what is asked down to the kernel's limit without a word, and above it clients are
dropped under load for a reason that no log tells. So we tell.
"""

from collections.abc import Callable
from typing import Final

from tamed._os.limits import sysctl
from tamed.log.logger import own_logger

__all__ = ["DEFAULT_BACKLOG", "Once", "effective_backlog", "somaxconn", "usable_backlog"]


DEFAULT_BACKLOG: Final = 4096
"""The backlog of a server that names none: Linux's own limit since 5.4."""

log = own_logger("tamed.net")


class Once:
    """True the first time it is called, and never again."""

    def __init__(self) -> None:
        self._done = False

    def __call__(self) -> bool:
        """Tell whether this is the first call."""
        first, self._done = not self._done, True
        return first


def effective_backlog(wanted: int, somaxconn: int | None) -> int:
    """Return what ``listen(wanted)`` really gives under this limit; None stands for an unknown one."""
    return wanted if somaxconn is None else min(wanted, somaxconn)


def somaxconn() -> int | None:
    """Return the kernel's limit; None where the system does not tell."""
    return sysctl("net.core.somaxconn")


_first_in_this_process = Once()


def usable_backlog(
    wanted: int,
    *,
    limit: Callable[[], int | None] = somaxconn,
    first: Callable[[], bool] = _first_in_this_process,
) -> int:
    """Return the backlog that the kernel will grant; warn, once in a process, if that is less."""
    granted = effective_backlog(wanted, limit())
    if granted < wanted and first():
        log.warning(
            "net.core.somaxconn allows %d waiting connections of the %d asked for; "
            "raise it: sysctl -w net.core.somaxconn=%d",
            granted,
            wanted,
            wanted,
        )
    return granted
