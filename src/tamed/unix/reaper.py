"""The children of the supervisor: reaping them, and ending the processes that they leave behind.

A worker leads a process group. Its child processes are in that group, unless they leave it deliberately
(`setsid(2)`, ``start_new_session=True``). The supervisor is a subreaper (prctl(2)): a process whose parent
ends becomes a child of the supervisor. So it can end every process that a worker has started:

- The **group** of a worker ends with it: it gets SIGTERM, and SIGKILL two seconds later. The end of the
  worker is reported only when the group is gone; a replacement is spawned, and a stop completes, after that.
- **Strays** have left the group, and become children of the supervisor when the worker ends. They get SIGTERM
  too, and SIGKILL after the stop timeout of a worker. Only the end of the supervisor waits for them.

A process that left the group and lost its parent while its worker was still running is a deliberate daemon:
it is left alone until the supervisor ends.

A worker that has ended is not reaped before its group is gone, so that the kernel cannot give its pid, by
which the group is signalled, to another process.

As pid 1, which adopts all orphans, the supervisor cannot distinguish strays from other orphans. It leaves
them to the kernel, which ends all of them with it.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator

from tamed._os.proc import ProcessEntry, children_of, members_of

__all__ = ["Reaper", "end_own_group", "signal_group"]

_GRACE = 2.0  # seconds between SIGTERM and SIGKILL for a group
_PAUSE = 0.02  # seconds
_LAST = 5.0  # seconds for a killed process to be gone; one that waits for a dead disk never is


class Reaper:
    """Reaps children.

    ``is_ours`` returns whether a pid is that of a worker or helper, which leads a group. ``log`` writes a
    line to the log, and ``grace`` is the time between SIGTERM and SIGKILL for strays, in seconds. ``spared``
    are children to leave alone: those of the previous program in this process. ``peaks`` is the largest
    resident memory, in bytes, of each reaped worker and helper (getrusage(2)), until the caller takes it out.
    """

    def __init__(
        self,
        is_ours: Callable[[int], bool],
        log: Callable[[str, str], object],
        grace: float,
        spared: Iterable[int] = (),
    ) -> None:
        self.spared = set(spared)
        self.grace = grace
        self._is_ours = is_ours
        self._log = log
        self._settled: set[int] = set()  # orphans of workers that still run
        self._settles_later = False
        # Of leaders that have ended, and of strays: the time when they are killed, or abandoned.
        self._deadlines: dict[int, float] = {}
        self._killed: set[int] = set()
        self.peaks: dict[int, int] = {}

    def ended(self) -> Iterator[tuple[int, int]]:
        """Reap each child that has ended and whose group is gone; yield its pid and wait status."""
        while (pid := _first_that_ended()) is not None and not (self._is_ours(pid) or pid in self._deadlines):
            yield self._reap(pid)
        if pid is not None or self._deadlines:
            self._kill_late()
            family = children_of(os.getpid())
            yield from self._ended_of(family) if family else self._ended_unseen()
        if self._settles_later:
            self.settle()

    @property
    def strays(self) -> list[int]:
        """The strays that got SIGTERM."""
        return [pid for pid in self._deadlines if not self._is_ours(pid)]

    def adopt(self, spared: Iterable[int], strays: Iterable[int]) -> None:
        """Continue with the children of the previous program; other orphans are left alone: see `settle`."""
        self.spared = set(spared)
        self._deadlines = dict.fromkeys(strays, time.monotonic() + self.grace)
        self.settle()

    @property
    def due(self) -> float | None:
        """The seconds until the next deadline; None if there is none."""
        return max(0.0, min(self._deadlines.values()) - time.monotonic()) if self._deadlines else None

    def settle(self) -> None:
        """Record the orphans that exist now: they are not strays of the worker that ends next.

        An orphan may be a stray of a child that has ended and is not reaped yet. So this is delayed until
        `ended` has reaped all of those.
        """
        strays = self._strays_in(children_of(os.getpid()))
        self._settles_later = _first_that_ended() is not None  # checked last, to find one that has just ended
        if not self._settles_later:
            self._settled |= {each.pid for each in strays}

    def end_all(self, grace: float) -> bool:
        """Kill the children, and end strays within ``grace`` seconds; return whether none is left.

        Call it again until it returns true.
        """
        self._settled.clear()
        family = [each for each in children_of(os.getpid()) if not each.is_over]
        for each in family:
            if self._is_ours(each.pid):
                signal_group(each.pid, signal.SIGKILL)
        self._terminate(self._strays_in(family), grace)
        latest = time.monotonic() + grace
        for pid in self._deadlines.keys() - self._killed:
            self._deadlines[pid] = min(self._deadlines[pid], latest)
        self._kill_late()
        return not any(self._is_ours(each.group) or each.pid in self._deadlines for each in family)

    def _ended_of(self, family: list[ProcessEntry]) -> Iterator[tuple[int, int]]:
        for each in family:
            is_leader = self._is_ours(each.pid)
            if not each.is_over or (is_leader and self._is_group_there(each.pid, family)):
                continue
            leaves_strays = is_leader or each.pid in self._deadlines
            yield self._reap(each.pid)
            if leaves_strays:
                self._terminate(self._strays_in(family), self.grace)

    def _ended_unseen(self) -> Iterator[tuple[int, int]]:
        """Reap ended children when processes cannot be listed, because no descriptor is left.

        Their groups may have more members, so the groups are killed at once.
        """
        while (pid := _first_that_ended()) is not None:
            if self._is_ours(pid):
                signal_group(pid, signal.SIGKILL)
            yield self._reap(pid)

    def _is_group_there(self, leader: int, family: list[ProcessEntry]) -> bool:
        """End the rest of the group of a leader that has ended; return whether it still exists."""
        is_there = any(each.group == leader and not each.is_over for each in family)
        if not is_there or leader in self.spared:
            signal_group(leader, signal.SIGKILL)  # members that are not children of this process
            return False
        if leader not in self._deadlines:
            self._deadlines[leader] = time.monotonic() + _GRACE
            signal_group(leader, signal.SIGTERM)
            signal_group(leader, signal.SIGCONT)  # a stopped process does not get SIGTERM before that
        return True

    def _terminate(self, strays: Iterable[ProcessEntry], grace: float) -> None:
        """Send SIGTERM to strays, and set their deadline."""
        for each in strays:
            self._deadlines[each.pid] = time.monotonic() + grace
            _signal(each.pid, signal.SIGTERM)
            _signal(each.pid, signal.SIGCONT)

    def _kill_late(self) -> None:
        """Kill processes after their deadline, and abandon those that SIGKILL does not end."""
        now = time.monotonic()
        for pid, deadline in list(self._deadlines.items()):
            if now < deadline:
                continue
            if pid in self._killed:
                self._log("ERROR", f"process {pid}, or its group, cannot be killed; abandoning it")
                del self._deadlines[pid]
                self.spared.add(pid)
                continue
            self._killed.add(pid)
            self._deadlines[pid] = now + _LAST
            if self._is_ours(pid):
                signal_group(pid, signal.SIGKILL)
            else:
                _signal(pid, signal.SIGKILL)

    def _reap(self, pid: int) -> tuple[int, int]:
        """Reap a child, and forget its pid, which another process may get from now on."""
        self._deadlines.pop(pid, None)
        for pids in (self._killed, self._settled, self.spared):
            pids.discard(pid)
        _, status, usage = os.wait4(pid, 0)
        if self._is_ours(pid):
            self.peaks[pid] = usage.ru_maxrss * 1024
        return pid, status

    def _strays_in(self, family: list[ProcessEntry]) -> list[ProcessEntry]:
        """Return the orphans in the family that are in no group of Tamed."""
        if os.getpid() == 1:
            return []
        known = self.spared | self._settled | self._deadlines.keys()
        return [
            each
            for each in family
            if not (each.is_over or each.pid in known or self._is_ours(each.pid) or self._is_ours(each.group))
        ]


def end_own_group() -> None:
    """End the group that this process leads, because the supervisor has ended.

    May kill this process too, after the deadline.
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
    """Return whether the group may have other members; true if no descriptor is left to list them."""
    members = members_of(leader)
    return not members or any(each.pid != leader and not each.is_over for each in members)


def _first_that_ended() -> int | None:
    """Return the pid of a child that has ended and can be reaped; None if there is none."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if found is None else found.si_pid


def signal_group(leader: int, number: signal.Signals) -> None:
    """Signal the group of a child, which is a member until it is reaped."""
    try:
        os.killpg(leader, number)
    except ProcessLookupError:  # it does not lead a group yet
        _signal(leader, number)
    except PermissionError:  # all members belong to another user, by a set-user-ID program
        return


def _signal(pid: int, number: signal.Signals) -> None:
    """Signal a child, which may belong to another user."""
    with contextlib.suppress(PermissionError):
        os.kill(pid, number)
