"""Roles: services that run in only one of the processes that have prepared them.

A service with ``only`` campaigns for a role when it is started, and is on standby until the role is granted.
The source of grants depends on the process: a worker asks its supervisor, and a single process has every
role at once. A service's lifecycle uses only the protocols below.
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
"""Where one instance of a service runs at a time: ``host``, in this machine's daemon; ``cluster``, in a fleet
of machines; empty: no limit."""

NO_ENGINE: Final = "there is no engine to grant it across machines"
NAME_ONE: Final = "add --cluster ENGINE"


class Lease(NamedTuple):
    """The lease of a held role.

    ``token`` is larger than that of every earlier holder of the role: in this daemon, or in the fleet.
    """

    token: int


class Campaign(Protocol):
    """The candidacy of a service for its role, from its start to its stop."""

    @property
    def lease(self) -> Lease | None:
        """The lease, None while another process holds the role."""

    def withdraw(self) -> None:
        """Resign the role, or stop waiting for it. The service must be completely stopped."""


class RoleSource(Protocol):
    """Grants roles to the services of a process."""

    def campaign(
        self, role: str, scope: Scope, granted: Callable[[], object], revoked: Callable[[], object]
    ) -> Campaign:
        """Campaign for a role from now on.

        If the role is not granted at once, ``granted`` is called from the event loop when it is. ``revoked``
        is called when the service must stop and withdraw. Raises TamedError if there is no source of grants.
        """


class OwnRoles:
    """The roles of a single process, which holds all of them.

    Unless ``is_alone``, other machines may run the same application: cluster roles are refused.
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
    """A role of a single process; its token never changes."""

    lease = Lease(1)

    def withdraw(self) -> None:
        """Do nothing: no other process waits for the role."""


_roles: ContextVar[RoleSource | None] = ContextVar("tamed_roles", default=None)


def current_roles() -> RoleSource:
    """Return the source of roles of the running task; by default that of a single process."""
    return _roles.get() or OwnRoles()


def set_roles(source: RoleSource) -> None:
    """Set the source of roles of the running task, and of every task that it starts from now on."""
    _roles.set(source)


def check_scope(value: Any, what: str) -> None:
    """Raise ServiceMisuse, about ``what``, if a value is not a `Scope`."""
    known = [each for each in get_args(Scope) if each]
    if value not in get_args(Scope):
        remedy = f"expected {' or '.join(map(repr, known))}"
        raise ServiceMisuse(f"{what}: only={value!r}", remedy=did_you_mean(str(value), known, remedy))
