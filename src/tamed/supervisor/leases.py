"""The cluster roles of this machine, as its workers report them, and the killing of workers that overrun.

A worker reports the time by which its service will have stopped, again with each renewal of its lease. If
it still runs then, it is killed: it may be blocked or stopped, or its clock may have stood still. This file
has neither a clock nor a process; both are arguments.
"""

from collections.abc import Callable, Container
from typing import Any

from tamed.ipc.handoff import Data
from tamed.ipc.message import InvalidMessage, Message, read_number, read_text

__all__ = ["Leases", "Standing"]

_LARGEST_TOKEN = 2**63 - 1
_LONGEST = 1000  # characters of a text


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
        phase, token = read_text(message, "phase"), read_number(message, "token", most=_LARGEST_TOKEN)
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
