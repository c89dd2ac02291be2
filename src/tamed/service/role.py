"""Roles: services that run in one process of several that have prepared them.

A service with ``only`` campaigns for a role when it is started, and stands by until the role is granted. Who
grants it depends on the process: a worker asks its supervisor, and a process on its own has every role at
once. The protocols here are all that a service's lifecycle knows of that.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final, Literal, NamedTuple, Protocol, get_args

from tamed._os.text import did_you_mean
from tamed.errors import ConfigurationError, ServiceMisuse

__all__ = [
    "NAME_ONE",
    "NO_ENGINE",
    "Campaign",
    "Lease",
    "OwnRoles",
    "RoleSource",
    "Scope",
    "check_scope",
    "current_roles",
    "set_roles",
]

Scope = Literal["", "host", "cluster"]
"""Where one service runs at a time: ``host``, in this machine's daemon; ``cluster``, in one of a fleet of
machines; empty: no limit."""

NO_ENGINE: Final = "no engine grants it across machines"
NAME_ONE: Final = "name one with --cluster"


class Lease(NamedTuple):
    """A role that is held.

    ``token`` is larger than that of every earlier holder of the role: in this daemon, or in the fleet.
    """

    token: int


class Campaign(Protocol):
    """The wish of one service for its role, from its start to its stop."""

    @property
    def lease(self) -> Lease | None:
        """The lease, None while another process holds the role."""

    def withdraw(self) -> None:
        """Give the role back, or wait for it no longer. The service must be stopped to its end."""


class RoleSource(Protocol):
    """Grants roles to the services of a process."""

    def campaign(
        self, role: str, scope: Scope, granted: Callable[[], object], revoked: Callable[[], object]
    ) -> Campaign:
        """Campaign for a role from now on.

        If the role is not granted at once, ``granted`` is called from the event loop when it is. ``revoked``
        is called when the service must stop and withdraw. Raises TamedError if nobody can grant it.
        """


class OwnRoles:
    """The roles of a process on its own, which holds all of them.

    Unless ``is_alone``, it may be one of several machines that run the same: those of a fleet are refused.
    """

    def __init__(self, *, is_alone: bool = True) -> None:
        self._is_alone = is_alone

    def campaign(
        self, role: str, scope: Scope, granted: Callable[[], object], revoked: Callable[[], object]
    ) -> Campaign:
        """Grant a role at once."""
        if scope == "cluster" and not self._is_alone:
            raise ConfigurationError(f"service {role}: only='cluster'", NO_ENGINE, NAME_ONE)
        return _Held()


class _Held:
    """A role of a process on its own: the number of its holders does not grow."""

    lease = Lease(1)

    def withdraw(self) -> None:
        """Do nothing: no other process waits for it."""


_roles: ContextVar[RoleSource | None] = ContextVar("tamed_roles", default=None)


def current_roles() -> RoleSource:
    """Return the source of roles of the running task; if none was set, that of a process on its own."""
    return _roles.get() or OwnRoles()


def set_roles(source: RoleSource) -> None:
    """Set the source of roles of the running task, and of every task that it starts from now on."""
    _roles.set(source)


def check_scope(value: Any, what: str) -> None:
    """Raise ServiceMisuse if a value is no scope; ``what`` has it."""
    known = [each for each in get_args(Scope) if each]
    if value not in get_args(Scope):
        remedy = f"expected {' or '.join(map(repr, known))}"
        raise ServiceMisuse(f"{what}: only={value!r}", remedy=did_you_mean(str(value), known, remedy))
