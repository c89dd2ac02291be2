"""Granting roles to the workers of a daemon, and reporting them to commands and the operations endpoint."""

import time
from collections.abc import Sequence
from typing import Any

from tamed._os.syscalls import BootAlarm, boot_time
from tamed._os.text import did_you_mean
from tamed.errors import ExitStatus
from tamed.ipc.handoff import Data
from tamed.ipc.message import InvalidMessage, Message, read_number, read_text, read_truth
from tamed.supervisor.generation import Check, Serving, Worker, WorkerState
from tamed.supervisor.operations import Answer, fault
from tamed.supervisor.platform import Platform
from tamed.supervisor.roles import Candidate, Grants, Leases, Role, Roles, Standing
from tamed.supervisor.workers import WorkerPool

__all__ = ["RoleGrants"]

_MOST = 1000
_LONGEST = 1000  # characters of a service's path


class RoleGrants(Grants):
    """Grants each role to one ready worker of the serving generation, while the daemon is running."""

    def __init__(self, serving: Serving, pool: WorkerPool, platform: Platform) -> None:
        # The time of day, so that tokens increase over a restart too, unless the clock is set back.
        self._roles = Roles(self, platform.reactor.clock, lambda: int(time.time() * 1000))
        self._leases = Leases(
            boot_time,
            set_alarm=self._set_alarm,
            kill=self._overrun,
            changed=self._lease_changed,
            confirm=lambda pid, message: pool.tell_role(pool.workers[pid], message),
        )
        self._alarm: BootAlarm | None = None
        self._pool = pool
        self._reactor = platform.reactor
        self._platform = platform
        self._serving = serving
        self._waiting: dict[str, list[Answer]] = {}  # for another holder, by role

    # Events.

    def reported(self, worker: Worker, message: Message) -> None:
        """Handle a worker's report: a service is on standby or stopped, or the engine of a fleet answered.

        Raises InvalidMessage.
        """
        if "lease" in message:
            self._leases.reported(worker.pid, message)
            return
        name, candidate = read_text(message, "role"), Candidate(worker.pid, read_number(message, "number"))
        if not read_truth(message, "wants"):
            if self._leases.is_of(name, worker.pid, candidate.campaign):
                self._leases.lost(name, worker.pid)
            self._roles.stopped(name, candidate)
            return
        if name not in self._roles.roles and (len(name) > _LONGEST or len(self._roles.roles) == _MOST):
            raise InvalidMessage("role: too many, or with too long a name")
        self._roles.wanted(name, candidate, "cluster" if message.get("scope") == "cluster" else "host")

    def worker_leaves(self, worker: Worker) -> None:
        """Revoke the roles of a worker that is about to be drained, so that they need not wait for that."""
        self._roles.leaving(worker.pid)

    def worker_ended(self, worker: Worker) -> None:
        """Handle the end of a worker, which was reaped."""
        self._leases.ended(worker.pid)
        self._roles.ended(worker.pid)

    def look(self) -> None:
        """Grant vacant roles. Must be called when a worker is ready, or another generation serves."""
        self._roles.look()
        self._leases.keep(self._roles.roles)

    def end(self, why: str) -> None:
        """Answer the requests that wait for another holder, because the daemon stops."""
        for answers in self._waiting.values():
            for answer in answers:
                answer(fault(why))
        self._waiting.clear()

    # Decisions of the state machine.

    def eligible(self) -> Sequence[int]:
        if not self._serving.is_running:
            return ()
        workers = self._pool.of(self._serving.generation)
        ready = [each for each in workers if each.state is WorkerState.READY and not each.is_surplus]
        return [each.pid for each in sorted(ready, key=lambda each: each.number)]

    def grant(self, role: Role, holder: Candidate) -> None:
        if role.scope == "cluster":
            self._let_campaign(role, holder)
            return
        worker = self._pool.workers[holder.pid]
        text = f"{role.name} is now in worker {worker.number} (pid {worker.pid})"
        self._platform.log("INFO", text)
        gap = None if role.gap is None else round(role.gap, 3)
        self._platform.record("role", text, role=role.name, **worker.facts(), token=role.token, vacant=gap)
        self._pool.tell_role(worker, {"role": role.name, "number": holder.campaign, "token": role.token})
        for answer in self._waiting.pop(role.name, ()):
            answer({"resigned": text})

    def _let_campaign(self, role: Role, holder: Candidate) -> None:
        """Let a worker campaign in the fleet; after a resignation, other machines come first."""
        answers = self._waiting.pop(role.name, ())
        worker = self._pool.workers[holder.pid]
        message = {"role": role.name, "number": holder.campaign, "token": role.token}
        if former := self._leases.granted(role.name, holder.pid, holder.campaign):
            message["former"] = former
        if answers:
            message["wait"] = True
        self._pool.tell_role(worker, message)
        for answer in answers:
            answer({"resigned": f"{role.name} was resigned: another machine gets it, if there is one"})

    def revoke(self, role: Role, holder: Candidate) -> None:
        worker = self._pool.workers[holder.pid]
        self._pool.tell_role(worker, {"role": role.name, "number": holder.campaign, "revoke": True})

    # Decisions of the leases: see `Leases`.

    def _set_alarm(self, when: float | None) -> None:
        if self._alarm is None:
            self._alarm = BootAlarm()
            self._reactor.watch(self._alarm, self._look_at_leases)
        self._alarm.set(when)

    def _look_at_leases(self) -> None:
        if self._alarm is not None:
            self._alarm.set(None)
        self._leases.look()

    def _overrun(self, pid: int, role: str) -> None:
        worker = self._pool.workers[pid]
        text = f"worker {worker.number} (pid {pid}) is killed: {role} must have stopped before its lease ends"
        self._platform.log("ERROR", text)
        self._platform.record("role", text, role=role, **worker.facts(), outcome="killed")
        self._platform.kill(pid)

    def _lease_changed(self, role: str, standing: Standing) -> None:
        worker = self._pool.workers.get(standing.pid)
        facts = {} if worker is None else worker.facts()
        if standing.is_held and worker is not None:
            stops = ", which is resigning it" if standing.state == "resigning" else ""
            text = f"{role} is now here, in worker {worker.number} (pid {worker.pid}){stops}"
            facts["token"] = standing.token
        elif standing.state == "standby":
            trouble = f"; {standing.trouble}" if standing.trouble else ""
            text = f"{role} is on another machine: {standing.holder}{trouble}"
        else:
            text = f"{role} is no longer here" if not standing.trouble else f"{role}: {standing.trouble}"
        self._platform.log("WARNING" if standing.trouble else "INFO", text)
        self._platform.record("role", text, role=role, **facts, outcome=standing.state)

    # Requests.

    def checks(self) -> list[Check]:
        """Return a check for each cluster role: whether its engine answers and is suitable."""
        standings = self._leases.standings
        return [Check(f"role {role}", False, each.trouble) for role, each in standings.items()]

    def resign(self, name: str, answer: Answer) -> None:
        """Move a role to another worker on request; answer when one holds it."""
        role = self._roles.roles.get(name)
        if role is None:
            known = ", ".join(self._roles.roles) or "no service runs in one worker only"
            remedy = did_you_mean(name, self._roles.roles, f"known: {known}" if self._roles.roles else known)
            answer(fault(f"there is no role {name!r}; {remedy}", status=ExitStatus.USAGE))
            return
        self._waiting.setdefault(name, []).append(answer)
        self._roles.revoke(role)

    def status(self) -> list[dict[str, Any]]:
        """Return each role with its holder, for the status."""
        return [self._described(role) for role in self._roles.roles.values()]

    def _described(self, role: Role) -> dict[str, Any]:
        now = self._reactor.clock()
        worker = None if role.holder is None else self._pool.workers.get(role.holder.pid)
        age = 0.0 if role.since is None else max(0.0, now - role.since)
        described = {
            "role": role.name,
            "scope": role.scope,
            "state": "vacant" if worker is None else "resigning" if role.is_revoked else "held",
            "worker": None if worker is None else worker.number,
            "pid": None if worker is None else worker.pid,
            "generation": None if worker is None else worker.generation.number,
            "age": age,
            "token": role.token,
            "transitions": role.transitions,
            "vacant": role.vacant + (age if worker is None else 0.0),
            "standby": sum(each != role.holder for each in role.candidates),
            "holder": "",
            "trouble": "",
        }
        standing = self._leases.standings.get(role.name)
        return described if standing is None else {**described, **_of_fleet(standing)}

    # Upgrades: the handoff to the next program.

    def export(self) -> Data:
        """Return the roles as data, for the next program."""
        return {**self._roles.export(), "leases": self._leases.export()}

    def resume(self, left: Data) -> None:
        """Resume from the roles of the previous program."""
        self._roles.resume(left)
        self._leases.resume(left["leases"])


def _of_fleet(standing: Standing) -> dict[str, Any]:
    """Return the fields that differ in the description of a cluster role."""
    age = max(0.0, boot_time() - standing.since)
    nobody: dict[str, Any] = {} if standing.is_held else {"worker": None, "pid": None, "generation": None}
    return {
        **nobody,
        "state": standing.state,
        "age": age,
        "token": standing.token,
        "transitions": standing.transitions,
        "vacant": standing.vacant + (age if standing.state == "vacant" else 0.0),
        "holder": standing.holder,
        "trouble": standing.trouble,
    }
