"""The holders of roles: two state machines without a clock, a process or a socket.

A role is held by one worker at a time. It changes hands on facts only: the holder has reported that its
service is stopped, or its process has ended and was reaped. No timer frees a role: a silent worker may still
act, and the watchdog ends it.

A worker is a candidate from the time its service is on standby until the service is stopped. Each such
period, a **campaign**, has its own number. A report about another campaign than the holder's frees nothing.

For a role of a fleet, the holder in this machine also has a lease of an engine. It reports the time by which
its service will have stopped, again with each renewal. If it still runs then, it is killed: it may be blocked
or stopped, or its clock may have stood still.
"""

from collections.abc import Callable, Container, Sequence
from typing import Any, NamedTuple, Protocol

from tamed.ipc.handoff import Data
from tamed.ipc.message import InvalidMessage, Message, read_number, read_text, read_token

__all__ = ["Candidate", "Grants", "Leases", "Role", "Roles", "Standing"]

_LONGEST = 1000  # characters of a text


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


class Standing:
    """The state of a cluster role, as seen from this machine.

    ``pid`` and ``number`` are the worker that campaigns here, and its campaign. ``claim`` is its identity at
    the engine, and ``former`` that of a worker that ended before it resigned the role. ``state`` is ``held``
    or ``resigning`` here, ``standby`` while another machine holds the role, or ``vacant`` if the holder is
    unknown. ``holder`` is that machine. ``trouble`` is the reason for an unknown holder, or another problem.
    ``since`` is the time when the state began. ``transitions`` counts the leases won here, and ``vacant`` the
    seconds in that state before ``since``.
    """

    def __init__(self, now: float) -> None:
        self.pid = 0
        self.number = 0
        self.state = "vacant"
        self.token = 0
        self.kill_at: float | None = None
        self.trouble = ""
        self.holder = ""
        self.claim = ""
        self.former = ""
        self.since = now
        self.transitions = 0
        self.vacant = 0.0

    @property
    def is_held(self) -> bool:
        """Whether the worker of this machine has the role."""
        return self.state in ("held", "resigning")

    def enter(self, state: str, now: float) -> bool:
        """Enter a state; return whether it has changed."""
        if state == self.state:
            return False
        if self.state == "vacant":
            self.vacant += now - self.since
        self.state, self.since = state, now
        return True


class Leases:
    """The roles of a fleet, in ``standings`` by name.

    ``clock`` is CLOCK_BOOTTIME, in seconds. ``kill`` is called with a pid and a role to end an overrun, and
    ``set_alarm`` with the time at which `look` must be called, None for never. ``changed`` is called with a
    role whose state has changed, or, if it is not held here, whose engine begins to fail; ``confirm`` with a
    worker that may use its lease from now on.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        set_alarm: Callable[[float | None], object],
        kill: Callable[[int, str], object],
        changed: Callable[[str, Standing], object],
        confirm: Callable[[int, Message], object],
    ) -> None:
        self.standings: dict[str, Standing] = {}
        self._clock = clock
        self._set_alarm = set_alarm
        self._kill = kill
        self._changed = changed
        self._confirm = confirm
        self._alarm: float | None = None

    def granted(self, role: str, pid: int, number: int) -> str:
        """Handle the start of a worker's campaign; return the claim of a holder that ended here."""
        standing = self.standings.setdefault(role, Standing(self._clock()))
        standing.pid, standing.number = pid, number
        return standing.former

    def reported(self, pid: int, message: Message) -> None:
        """Handle a worker's report; one about an earlier campaign is ignored. Raises InvalidMessage."""
        role, number = read_text(message, "lease"), read_number(message, "number")
        if not self.is_of(role, pid, number):
            return
        standing = self.standings[role]
        phase, token = read_text(message, "phase"), read_token(message, "token")
        kill_at = _time(message.get("kill_at"))
        is_new = kill_at is not None and standing.kill_at is None
        had_trouble = bool(standing.trouble)
        standing.token = token or standing.token
        standing.kill_at = kill_at
        standing.claim = read_text(message, "claim") if message.get("claim") else standing.claim
        standing.trouble = read_text(message, "trouble")[:_LONGEST]
        standing.holder = read_text(message, "holder")[:_LONGEST]
        self._schedule()
        if is_new:
            standing.transitions += 1
            standing.former = ""
            self._confirm(pid, {"role": role, "number": number, "confirmed": token})
        is_changed = standing.enter(_state(phase, standing), self._clock())
        if is_changed or (standing.trouble and not had_trouble and not standing.is_held):
            self._changed(role, standing)

    def lost(self, role: str, pid: int) -> None:
        """Handle the end of a worker's campaign for a role: it reported that, or it has ended."""
        standing = self.standings.get(role)
        if standing is not None and standing.pid == pid:
            standing.pid, standing.kill_at, standing.holder, standing.claim = 0, None, "", ""
            self._schedule()
            if standing.enter("vacant", self._clock()):
                self._changed(role, standing)

    def ended(self, pid: int) -> None:
        """Handle the end of a worker, which was reaped with its process group."""
        for role, standing in self.standings.items():
            if standing.pid == pid:
                standing.former = standing.claim or standing.former
                self.lost(role, pid)

    def is_of(self, role: str, pid: int, number: int) -> bool:
        """Return whether this is the campaign for a role."""
        standing = self.standings.get(role)
        return standing is not None and (standing.pid, standing.number) == (pid, number)

    def keep(self, roles: Container[str]) -> None:
        """Forget all other roles, which no service has any more."""
        self.standings = {role: each for role, each in self.standings.items() if role in roles}

    def look(self) -> None:
        """Kill the workers that have not stopped in time."""
        now = self._clock()
        for role, standing in self.standings.items():
            if standing.kill_at is not None and standing.kill_at <= now:
                standing.kill_at = None
                self._kill(standing.pid, role)
        self._alarm = None
        self._schedule()

    def _schedule(self) -> None:
        times = [each.kill_at for each in self.standings.values() if each.kill_at is not None]
        alarm = min(times, default=None)
        if alarm != self._alarm:
            self._alarm = alarm
            self._set_alarm(alarm)

    def export(self) -> Data:
        """Return this as data, for the next program."""
        return {role: vars(each) for role, each in self.standings.items()}

    def resume(self, left: Data) -> None:
        """Resume from what the previous program has exported."""
        for role, data in left.items():
            self.standings[role] = Standing(self._clock())
            vars(self.standings[role]).update(data)
        self._schedule()


def _state(phase: str, standing: Standing) -> str:
    if standing.kill_at is not None:
        return "resigning" if phase == "resigning" else "held"
    return "standby" if standing.holder else "vacant"


def _time(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 2**53:
        raise InvalidMessage("kill_at: expected a time")
    return float(value)
