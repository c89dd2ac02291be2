"""The holders of roles: a state machine without a clock, a process or a socket.

A role is held by one worker at a time. It changes hands on facts only: the holder has reported that its
service is stopped, or its process has ended and was reaped. No timer frees a role: a silent worker may still
act, and the watchdog ends it.

A worker is a candidate from the time its service is on standby until the service is stopped. Each such
period, a **campaign**, has its own number. A report about another campaign than the holder's frees nothing.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from tamed.ipc.handoff import Data

__all__ = ["Candidate", "Grants", "Role", "Roles"]


class Candidate(NamedTuple):
    """A campaign of a worker, by the worker's pid."""

    pid: int
    campaign: int


class Grants(Protocol):
    """The actions that the state machine decides on."""

    def eligible(self) -> Sequence[int]:
        """Return the pids of the eligible workers; those that will probably stay longest come first."""

    def grant(self, role: "Role", holder: Candidate) -> None:
        """Allow a worker to run the service of a role."""

    def revoke(self, role: "Role", holder: Candidate) -> None:
        """Order the holder to stop the service of a role, and to report that."""


class Role:
    """A role: its holder, and its candidates.

    ``scope`` is ``host``, or ``cluster`` for a role whose holder also campaigns for it in a fleet. ``token``
    is that of the last grant. ``since`` is the time when the holder got the role, or, without a holder, when
    the last one lost it; None if there was none. ``is_revoked`` is whether the holder was ordered to resign
    it. ``transitions`` counts grants. ``vacant`` is the total time without a holder between two grants, and
    ``gap`` the last such time, None before; both in seconds.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.scope = "host"
        self.holder: Candidate | None = None
        self.former = 0  # the pid of the last holder
        self.candidates: list[Candidate] = []
        self.token = 0
        self.since: float | None = None
        self.is_revoked = False
        self.transitions = 0
        self.vacant = 0.0
        self.gap: float | None = None

    def to_data(self) -> Data:
        """Return this as data, for the next program."""
        return dict(vars(self))

    @classmethod
    def from_data(cls, data: Data) -> "Role":
        """Return the role of the previous program."""
        role = cls(data["name"])
        vars(role).update(data)
        role.holder = None if data["holder"] is None else Candidate(*data["holder"])
        role.candidates = [Candidate(*each) for each in data["candidates"]]
        return role


class Roles:
    """All roles of a daemon, in ``roles`` by name.

    ``clock`` returns seconds, and ``token`` a number that never decreases.
    """

    def __init__(self, grants: Grants, clock: Callable[[], float], token: Callable[[], int]) -> None:
        self.roles: dict[str, Role] = {}
        self._last_token = 0
        self._grants = grants
        self._clock = clock
        self._token = token

    def wanted(self, name: str, candidate: Candidate, scope: str) -> None:
        """Handle a service that is on standby."""
        role = self.roles.setdefault(name, Role(name))
        role.scope = scope
        if candidate not in role.candidates:
            role.candidates.append(candidate)
        self.look()

    def stopped(self, name: str, candidate: Candidate) -> None:
        """Handle a service that has stopped, or was not started, and is no candidate any more."""
        role = self.roles.get(name)
        if role is not None and candidate in role.candidates:
            role.candidates.remove(candidate)
            if candidate == role.holder:
                self._free(role)
            self.look()

    def ended(self, pid: int) -> None:
        """Handle the end of a worker, which was reaped with its process group."""
        for role in self.roles.values():
            role.candidates = [each for each in role.candidates if each.pid != pid]
            if role.holder is not None and role.holder.pid == pid:
                self._free(role)
        self.look()

    def leaving(self, pid: int) -> None:
        """Revoke the roles of a worker that is about to drain: they need not wait for its connections."""
        for role in self.roles.values():
            if role.holder is not None and role.holder.pid == pid:
                self.revoke(role)

    def revoke(self, role: Role) -> None:
        """Order the holder of a role, if there is one, to resign it; another worker gets it."""
        if role.holder is not None and not role.is_revoked:
            role.is_revoked = True
            self._grants.revoke(role, role.holder)

    def held_by(self, pid: int) -> int:
        """Return how many roles a worker holds."""
        return sum(role.holder is not None and role.holder.pid == pid for role in self.roles.values())

    def look(self) -> None:
        """Grant the roles without a holder. Must be called when the eligible workers may have changed."""
        eligible = self._grants.eligible() if any(r.holder is None for r in self.roles.values()) else ()
        if not eligible:
            return
        for role in list(self.roles.values()):
            if role.holder is None and not role.candidates:
                del self.roles[role.name]  # no service of this generation has this role
            elif role.holder is None:
                self._choose(role, eligible)

    def _choose(self, role: Role, eligible: Sequence[int]) -> None:
        """Grant a role, preferably to a worker other than the last holder, and with few roles."""
        rank = {pid: place for place, pid in enumerate(eligible)}
        able = [each for each in role.candidates if each.pid in rank]
        if not able:
            return

        def order(candidate: Candidate) -> tuple[bool, int, int, int]:
            pid = candidate.pid
            return pid == role.former, self.held_by(pid), rank[pid], -candidate.campaign

        now = self._clock()
        role.holder = holder = min(able, key=order)
        role.token = self._last_token = max(self._last_token + 1, self._token())
        if role.since is not None:
            role.gap = now - role.since
            role.vacant += role.gap
        role.since = now
        role.transitions += 1
        self._grants.grant(role, holder)

    def _free(self, role: Role) -> None:
        assert role.holder is not None
        role.former, role.holder, role.is_revoked = role.holder.pid, None, False
        role.since = self._clock()

    def export(self) -> Data:
        """Return the roles as data, for the next program."""
        return {"roles": [role.to_data() for role in self.roles.values()], "last_token": self._last_token}

    def resume(self, left: Data) -> None:
        """Resume from the roles of the previous program."""
        self.roles = {data["name"]: Role.from_data(data) for data in left["roles"]}
        self._last_token = left["last_token"]
