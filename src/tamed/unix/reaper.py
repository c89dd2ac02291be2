"""The children of the supervisor: hearing of their ends, and ending what they leave behind.

A worker leads a process group. What it starts is in that group, unless it leaves it on purpose (`setsid(2)`,
``start_new_session=True``). Since the supervisor is a subreaper (prctl(2)), whatever loses its parent becomes
a child of the supervisor. So nothing that a worker has started is out of reach:

- Its **group** ends with it: it gets SIGTERM, two seconds to obey, and SIGKILL. Only when nobody is left is
  the end of the worker reported, so another takes its place, and a stop is reported, after that.
- **Strays** have left the group, and become ours when the worker ends. They get SIGTERM too, and as long to
  obey as a worker has to stop. Nothing waits for them but the end of the supervisor.

What has left the group and lost its parent while its worker goes on was meant to live on: it is left alone
until the supervisor ends.

A worker that has ended is not reaped before its group is gone. So its number, by which the group is
signalled, cannot become another's.

As pid 1, which adopts everybody, the supervisor cannot tell strays from others. It leaves them to the kernel,
which ends all of them with it.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator

from tamed._os.proc import Relative, children_of, members_of

__all__ = ["Reaper", "end_own_group", "signal_group"]

_GRACE = 2.0  # seconds for a group to obey
_PAUSE = 0.02  # seconds
_LAST = 5.0  # seconds for what was killed to be gone; what waits for a dead disk never is


class Reaper:
    """Reaps children.

    ``is_ours`` tells whether a pid is that of a child that we have made, which leads a group. ``say`` writes
    a line to the log, and ``grace`` is how long strays have to obey, in seconds. ``spared`` are children that
    are to be left alone: those of the program that was this process before.
    """

    def __init__(
        self,
        is_ours: Callable[[int], bool],
        say: Callable[[str, str], object],
        grace: float,
        spared: Iterable[int] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.spared = set(spared)
        self.grace = grace
        self._is_ours = is_ours
        self._say = say
        self._clock = clock
        self._settled: set[int] = set()  # of workers that go on
        self._settles_later = False
        self._doomed: dict[
            int, float
        ] = {}  # leaders that have ended, strays; when they are killed, or given up
        self._killed: set[int] = set()

    def ended(self) -> Iterator[tuple[int, int]]:
        """Yield pid and wait status of each child that has ended and left no group behind, and reap it."""
        while (pid := _first_that_ended()) is not None and not (self._is_ours(pid) or pid in self._doomed):
            yield self._reap(pid)
        if pid is not None or self._doomed:
            self._press()
            family = children_of(os.getpid())
            yield from self._ended_of(family) if family else self._ended_unseen()
        if self._settles_later:
            self.settle()

    @property
    def strays(self) -> list[int]:
        """Those that were asked to end."""
        return [pid for pid in self._doomed if not self._is_ours(pid)]

    def inherit(self, spared: Iterable[int], strays: Iterable[int]) -> None:
        """Go on where another one has stopped; what else there is by now is left alone, as `settle` says."""
        self.spared = set(spared)
        self._doomed = dict.fromkeys(strays, self._clock() + self.grace)
        self.settle()

    @property
    def due(self) -> float | None:
        """In how many seconds to look again at the latest; None if there is nothing to wait for."""
        return max(0.0, min(self._doomed.values()) - self._clock()) if self._doomed else None

    def settle(self) -> None:
        """Take note of what has lost its parent by now: the next worker that ends has not left it behind.

        While a child that has ended is not reaped, it may be what that one has left behind. So this waits
        until `ended` has seen to all of those.
        """
        strays = self._strays_in(children_of(os.getpid()))
        self._settles_later = _first_that_ended() is not None  # asked last: who ends meanwhile is found
        if not self._settles_later:
            self._settled |= {each.pid for each in strays}

    def end_all(self, grace: float) -> bool:
        """End every child, strays within so many seconds; tell whether none is left.

        To be called again until then.
        """
        self._settled.clear()
        family = [each for each in children_of(os.getpid()) if not each.is_over]
        for each in family:
            if self._is_ours(each.pid):
                signal_group(each.pid, signal.SIGKILL)
        self._doom(self._strays_in(family), grace)
        latest = self._clock() + grace
        for pid in self._doomed.keys() - self._killed:
            self._doomed[pid] = min(self._doomed[pid], latest)
        self._press()
        return not any(self._is_ours(each.group) or each.pid in self._doomed for each in family)

    def _ended_of(self, family: list[Relative]) -> Iterator[tuple[int, int]]:
        for each in family:
            is_leader = self._is_ours(each.pid)
            if not each.is_over or (is_leader and self._is_group_there(each.pid, family)):
                continue
            leaves_strays = is_leader or each.pid in self._doomed
            yield self._reap(each.pid)
            if leaves_strays:
                self._doom(self._strays_in(family), self.grace)

    def _ended_unseen(self) -> Iterator[tuple[int, int]]:
        """Reap those that have ended although nobody can be listed: there is no descriptor left for that.

        Whether anybody is left of their groups cannot be told, so these are killed at once.
        """
        while (pid := _first_that_ended()) is not None:
            if self._is_ours(pid):
                signal_group(pid, signal.SIGKILL)
            yield self._reap(pid)

    def _is_group_there(self, leader: int, family: list[Relative]) -> bool:
        """End what is left of the group of one that has ended; tell whether it is still there."""
        is_there = any(each.group == leader and not each.is_over for each in family)
        if not is_there or leader in self.spared:
            signal_group(leader, signal.SIGKILL)  # what is in it below one that has left it
            return False
        if leader not in self._doomed:
            self._doomed[leader] = self._clock() + _GRACE
            signal_group(leader, signal.SIGTERM)
            signal_group(leader, signal.SIGCONT)  # one that is stopped does not hear it
        return True

    def _doom(self, strays: Iterable[Relative], grace: float) -> None:
        """Ask strays to end within so many seconds."""
        for each in strays:
            self._doomed[each.pid] = self._clock() + grace
            _signal(each.pid, signal.SIGTERM)
            _signal(each.pid, signal.SIGCONT)

    def _press(self) -> None:
        """Kill what has had its time, and give up what cannot even be killed."""
        now = self._clock()
        for pid, deadline in list(self._doomed.items()):
            if now < deadline:
                continue
            if pid in self._killed:
                self._say("ERROR", f"process {pid}, or its group, cannot be ended: it is left behind")
                del self._doomed[pid]
                self.spared.add(pid)
                continue
            self._killed.add(pid)
            self._doomed[pid] = now + _LAST
            if self._is_ours(pid):
                signal_group(pid, signal.SIGKILL)
            else:
                _signal(pid, signal.SIGKILL)

    def _reap(self, pid: int) -> tuple[int, int]:
        """Reap a child, and forget it: the number may be another's from now on."""
        self._doomed.pop(pid, None)
        for pids in (self._killed, self._settled, self.spared):
            pids.discard(pid)
        return os.waitpid(pid, 0)

    def _strays_in(self, family: list[Relative]) -> list[Relative]:
        """Return those of the family that have lost their parents, and are in no group that we see to."""
        if os.getpid() == 1:
            return []
        known = self.spared | self._settled | self._doomed.keys()
        return [
            each
            for each in family
            if not (each.is_over or each.pid in known or self._is_ours(each.pid) or self._is_ours(each.group))
        ]


def end_own_group() -> None:
    """End the group that this process leads, as the supervisor would have done; it is gone.

    May end this process too, in the last resort.
    """
    leader = os.getpid()
    if os.getpgrp() != leader:
        return
    deadline = time.monotonic() + _GRACE
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGCONT):
        signal_group(leader, number)
    while _is_accompanied(leader):
        if time.monotonic() > deadline:
            signal_group(leader, signal.SIGKILL)
        time.sleep(_PAUSE)


def _is_accompanied(leader: int) -> bool:
    """Tell whether anybody else is in this process's group, or may be: to look takes a descriptor."""
    members = members_of(leader)
    return not members or any(each.pid != leader and not each.is_over for each in members)


def _first_that_ended() -> int | None:
    """Return a child that has ended, and may be reaped; None if there is none."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if found is None else found.si_pid


def signal_group(leader: int, number: signal.Signals) -> None:
    """Signal the group of a child of ours; the child is in it also when it has ended."""
    try:
        os.killpg(leader, number)
    except ProcessLookupError:  # it has not come to lead a group
        _signal(leader, number)
    except PermissionError:  # all are another user's, by way of a set-user-ID program
        return


def _signal(pid: int, number: signal.Signals) -> None:
    """Signal a child, which may be another user's."""
    with contextlib.suppress(PermissionError):
        os.kill(pid, number)
