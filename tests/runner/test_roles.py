"""Roles: never two holders, whatever is late or dies; and what the supervisor of a world does with them."""

import json
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tamed._os.syscalls import boot_time
from tamed.ipc.message import Message
from tamed.service.role import Campaign
from tamed.supervisor.generation import WorkerState
from tamed.supervisor.roles import Candidate, Role, Roles
from tamed.worker.roles import SupervisedRoles
from tests.runner.world import Hand, Supervised, supervised

NAMES = st.sampled_from(("cron", "mail"))


class Actor:
    """A service with a role in a simulated worker: it acts from its grant until its stop has ended."""

    def __init__(self, roles: SupervisedRoles, name: str) -> None:
        self.is_acting = False
        self.must_stop = False
        self.campaign: Campaign = roles.campaign(name, "host", self._granted, self._revoked)

    def _granted(self) -> None:
        self.is_acting = True

    def _revoked(self) -> None:
        self.must_stop = True


class Process:
    """A simulated worker, with the messages that are under way in both directions."""

    def __init__(self) -> None:
        self.sent: deque[Message] = deque()
        self.coming: deque[Message] = deque()
        self.roles = SupervisedRoles(self.sent.append)
        self.actors: dict[str, Actor] = {}
        self.is_alive = True
        self.is_leaving = False

    def start(self, name: str) -> None:
        """Start a service, which stands by."""
        if name not in self.actors:
            self.actors[name] = Actor(self.roles, name)

    def stop(self, name: str) -> None:
        """Stop a service to its end."""
        if (actor := self.actors.pop(name, None)) is not None:
            actor.is_acting = False
            actor.campaign.withdraw()


class Everything(RuleBasedStateMachine):
    """Workers come, go and die, and messages take their time, while the state machine grants roles."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: dict[int, Process] = {}
        self.now = 0.0
        self.tokens: dict[str, int] = {}
        self.roles = self._machine()

    def _machine(self) -> Roles:
        return Roles(self, lambda: self.now, lambda: 0)

    # What the state machine asks for.

    def eligible(self) -> Sequence[int]:
        """Return the workers that neither leave nor are known to have ended."""
        return [pid for pid, process in self.processes.items() if not process.is_leaving]

    def grant(self, role: Role, holder: Candidate) -> None:
        """Send a grant, whose token must be larger than any before."""
        assert role.token > self.tokens.get(role.name, -1)
        self.tokens[role.name] = role.token
        self._send(holder, {"role": role.name, "number": holder.campaign, "token": role.token})

    def revoke(self, role: Role, holder: Candidate) -> None:
        """Send an order to stop."""
        self._send(holder, {"role": role.name, "number": holder.campaign, "revoke": True})

    def _send(self, holder: Candidate, message: Message) -> None:
        self.processes[holder.pid].coming.append(message)

    # What happens.

    def _one(self, data: st.DataObject) -> int:
        return data.draw(st.sampled_from(sorted(self.processes)))

    @rule(names=st.sets(NAMES))
    def spawn(self, names: set[str]) -> None:
        """A worker becomes ready; some of its services stand by."""
        process = Process()
        self.processes[max(self.processes, default=100) + 1] = process
        for name in sorted(names):
            process.start(name)
        self.roles.look()

    @precondition(lambda self: self.processes)
    @rule(data=st.data(), name=NAMES)
    def start(self, data: st.DataObject, name: str) -> None:
        """A service is started again."""
        process = self.processes[self._one(data)]
        if process.is_alive:
            process.start(name)

    @precondition(lambda self: self.processes)
    @rule(data=st.data(), name=NAMES)
    def stop(self, data: st.DataObject, name: str) -> None:
        """A service is stopped for whatever reason."""
        process = self.processes[self._one(data)]
        if process.is_alive:
            process.stop(name)

    @precondition(lambda self: self.processes)
    @rule(data=st.data())
    def hear(self, data: st.DataObject) -> None:
        """The supervisor reads a message, of a worker that may be dead already."""
        self._hear(self._one(data))

    def _hear(self, pid: int) -> bool:
        process = self.processes[pid]
        if not process.sent:
            return False
        message = process.sent.popleft()
        candidate = Candidate(pid, message["number"])
        if message["wants"]:
            self.roles.wanted(message["role"], candidate, "host")
        else:
            self.roles.stopped(message["role"], candidate)
        return True

    @precondition(lambda self: self.processes)
    @rule(data=st.data())
    def obey(self, data: st.DataObject) -> None:
        """A worker reads a message."""
        self._obey(self._one(data))

    def _obey(self, pid: int) -> bool:
        process = self.processes[pid]
        if not process.coming or not process.is_alive:
            return False
        process.roles.obey(process.coming.popleft())
        return True

    @precondition(lambda self: self.processes)
    @rule(data=st.data())
    def drain(self, data: st.DataObject) -> None:
        """A worker is about to be drained."""
        pid = self._one(data)
        self.roles.leaving(pid)
        self.processes[pid].is_leaving = True

    @precondition(lambda self: self.processes)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        """A worker dies, which the supervisor does not know yet."""
        process = self.processes[self._one(data)]
        process.is_alive = False
        for actor in process.actors.values():
            actor.is_acting = False

    @rule()
    def reap(self) -> None:
        """The supervisor reaps the dead workers."""
        for pid in [pid for pid, process in self.processes.items() if not process.is_alive]:
            del self.processes[pid]
            self.roles.ended(pid)

    @rule(name=NAMES)
    def resign(self, name: str) -> None:
        """An operator moves a role."""
        if (role := self.roles.roles.get(name)) is not None:
            self.roles.revoke(role)

    @rule()
    def upgrade(self) -> None:
        """Another program takes over, with what the one before has left."""
        left = json.loads(json.dumps(self.roles.export()))
        self.roles = self._machine()
        self.roles.resume(left)

    @rule(seconds=st.floats(0, 10))
    def wait(self, seconds: float) -> None:
        """Time passes, and changes nothing."""
        self.now += seconds

    # What must hold.

    @invariant()
    def one_holder_at_most(self) -> None:
        """Never do two act in the same role."""
        for name in ("cron", "mail"):
            acting = [
                pid
                for pid, each in self.processes.items()
                if name in each.actors and each.actors[name].is_acting
            ]
            assert len(acting) <= 1, (name, acting)

    def teardown(self) -> None:
        """When all messages have arrived and the dead are reaped, each role that is wanted has a holder."""
        self.reap()
        while self._settle():
            pass
        for name in ("cron", "mail"):
            wanted = [
                each for pid, each in self.processes.items() if name in each.actors and not each.is_leaving
            ]
            acting = [each for each in self.processes.values() if self._acts(each, name)]
            assert not wanted or len(acting) == 1, name

    def _settle(self) -> bool:
        pids = sorted(self.processes)
        moved = [self._hear(pid) or self._obey(pid) for pid in pids]
        for process in self.processes.values():
            for name in [name for name, actor in process.actors.items() if actor.must_stop]:
                process.stop(name)
                process.start(name)
                moved.append(True)
        return any(moved)

    @staticmethod
    def _acts(process: Process, name: str) -> bool:
        return name in process.actors and process.actors[name].is_acting


TestEverything = Everything.TestCase
"""Never two holders, and one at the end."""


# The supervisor.


@pytest.fixture
def world() -> Iterator[Supervised]:
    """A supervisor of two workers that serve, and whose service stands by."""
    with supervised() as made:
        made.notifier.watch()
        made.supervisor.start()
        for state in ("prepared", "starting"):
            made.comes_to(state, *made.hands)
        for hand in made.hands:
            made.says(hand, wants(1))
            made.says(hand, {"state": "ready"})
        yield made


def wants(number: int, *, wanted: bool = True, role: str = "cron") -> Message:
    """Return a worker's report that its service stands by, or is stopped."""
    return {"role": role, "number": number, "wants": wanted}


def orders(hand: Hand) -> list[str]:
    """Return what a worker was told of its role since the last time: ``grant``, ``revoke``, ``drain``."""
    known = {"token": "grant", "revoke": "revoke", "drain": "drain"}
    return [name for message in hand.heard() for key, name in known.items() if key in message]


def state(world: Supervised) -> tuple[str, int | None]:
    """Return the state of the role, and the pid of its holder."""
    role = world.supervisor.roles.status()[0]
    return role["state"], role["pid"]


def reload(world: Supervised) -> list[Hand]:
    """Reload; return the workers of the new generation, which are ready and stand by."""
    world.supervisor.operations.reload()
    world.ends_with(world.platform.helpers[-1], {"plan": world.plan.to_text(), "notes": []}, 0)
    new = world.hands[2:]
    for step in ("prepared", "starting"):
        world.comes_to(step, *new)
    for hand in new:
        world.says(hand, wants(1))
        world.says(hand, {"state": "ready"})
    return new


def test_one_worker_gets_the_role_when_the_daemon_is_ready(world: Supervised) -> None:
    """After the start, the first worker holds the role and the other is a standby; the status shows it."""
    first, second = world.hands
    assert (orders(first), orders(second)) == (["grant"], [])
    assert state(world) == ("held", first.pid)
    events = [each for each in world.platform.recorded if each["event"] == "role"]
    assert [(each["role"], each["worker"], each["pid"]) for each in events] == [("cron", 1, first.pid)]


def test_a_silent_holder_keeps_its_role_until_it_was_reaped(world: Supervised) -> None:
    """A holder that does not answer is ended by the watchdog, and the role passes on when it was reaped."""
    first, second = world.hands
    orders(first)
    for _ in range(200):
        world.says(second, {"heartbeat": True})
        world.reactor.advance(0.25)
    assert (first.pid, signal.SIGABRT) in world.platform.sent
    assert (state(world), orders(second)) == (("held", first.pid), [])
    world.ends(first, -signal.SIGKILL)
    assert (state(world), orders(second)) == (("held", second.pid), ["grant"])


def test_a_reload_moves_the_role_when_the_old_worker_has_stopped_its_service(world: Supervised) -> None:
    """The old holder stops the service before it drains; only then does a new worker get the role."""
    first, _ = world.hands
    orders(first)
    new = reload(world)
    assert orders(first) == ["revoke", "drain"]
    assert [orders(each) for each in new] == [[], []]
    assert state(world) == ("resigning", first.pid)
    world.says(first, wants(1, wanted=False))
    assert [orders(each) for each in new] == [["grant"], []]
    assert world.supervisor.roles.status()[0]["generation"] == 2


def test_a_failed_reload_leaves_the_role_alone(world: Supervised) -> None:
    """A worker that is not of the serving generation gets no role."""
    first, _ = world.hands
    orders(first)
    world.supervisor.operations.reload()
    world.ends_with(world.platform.helpers[-1], {"plan": world.plan.to_text(), "notes": []}, 0)
    new = world.hands[2]
    world.comes_to("prepared", new)
    world.says(new, wants(1))
    world.ends(new, 1)
    assert (state(world), orders(first)) == (("held", first.pid), [])


def test_scaling_down_moves_the_role(world: Supervised) -> None:
    """A holder that becomes surplus gives its role to one that stays."""
    first, second = world.hands
    world.says(first, wants(1, wanted=False))  # so that the second one gets it
    world.says(first, wants(2))
    assert state(world) == ("held", second.pid)
    orders(first), orders(second)
    world.supervisor.operations.scale(1)
    assert orders(second) == ["revoke", "drain"]
    world.says(second, wants(1, wanted=False))
    assert (state(world), orders(first)) == (("held", first.pid), ["grant"])


def test_a_daemon_that_stops_grants_nothing(world: Supervised) -> None:
    """While all workers stop, a role that becomes free stays free, and who waits for it is answered."""
    first, second = world.hands
    answers: list[dict[str, Any]] = []
    world.supervisor.roles.resign("cron", answers.append)
    orders(second)
    world.supervisor.ending.stop()
    world.says(first, wants(1, wanted=False))
    assert (orders(second), state(world)[0]) == ([], "vacant")
    assert "poetry stops" in answers[0]["fault"]["lines"][0]


def test_resigning_moves_the_role_and_answers_then(world: Supervised) -> None:
    """A role is moved on purpose to the other worker; the answer comes when that one has it."""
    first, second = world.hands
    answers: list[dict[str, Any]] = []
    world.supervisor.roles.resign("cron", answers.append)
    assert (orders(first), answers) == (["grant", "revoke"], [])
    world.says(first, wants(1, wanted=False))
    world.says(first, wants(2))
    assert orders(second) == ["grant"]
    assert answers == [{"resigned": f"cron is now in worker 2 (pid {second.pid})"}]


def test_resigning_an_unknown_role_is_refused(world: Supervised) -> None:
    """The answer names the role that was probably meant."""
    answers: list[dict[str, Any]] = []
    world.supervisor.roles.resign("corn", answers.append)
    assert answers[0]["fault"]["lines"] == ["tamed: there is no role 'corn'; did you mean 'cron'?"]


def test_a_role_that_no_service_has_any_more_is_forgotten(world: Supervised) -> None:
    """A reload to an application without the service removes the role."""
    first, second = world.hands
    world.says(second, wants(1, wanted=False))
    world.says(first, wants(1, wanted=False))
    assert world.supervisor.roles.status() == []


@pytest.mark.parametrize(
    "message", [wants(1, role="x" * 2000), {"role": "cron", "number": -1, "wants": True}, {"role": 1}]
)
def test_a_worker_that_reports_nonsense_is_ended(world: Supervised, message: Message) -> None:
    """An invalid report is what no worker of ours sends."""
    first, second = world.hands
    world.says(first, message)
    assert (first.pid, "kill") in world.platform.sent
    assert state(world) == ("held", first.pid)
    world.ends(first, -signal.SIGKILL)
    assert state(world) == ("held", second.pid)


def test_the_next_program_knows_the_holder(world: Supervised) -> None:
    """After an upgrade, the role has the same holder, and no other worker gets it."""
    first, second = world.hands
    left = json.loads(json.dumps(world.supervisor.roles.export()))
    world.supervisor.roles.resume(left)
    world.supervisor.roles.look()
    orders(second)
    assert (state(world), orders(second)) == (("held", first.pid), [])
    world.supervisor.pool.workers[first.pid].enter_state(WorkerState.READY, 0.0)
    world.ends(first, -signal.SIGKILL)
    assert state(world) == ("held", second.pid)


# Roles of a fleet.


@pytest.fixture
def fleet(world: Supervised) -> Supervised:
    """A world whose first worker campaigns for a role of a fleet."""
    first, _ = world.hands
    world.says(first, {**wants(7, role="mail"), "scope": "cluster"})
    assert orders(first)[-1] == "grant"
    return world


def role(world: Supervised) -> dict[str, Any]:
    """Return how the role of the fleet stands."""
    return next(each for each in world.supervisor.roles.status() if each["role"] == "mail")


def lease(phase: str, kill_at: float | None, **facts: Any) -> Message:
    """Return a worker's report of its lease."""
    known = {"token": 0, "trouble": "", "holder": "", **facts}
    return {"lease": "mail", "number": 7, "phase": phase, "kill_at": kill_at, **known}


def test_holder_in_a_fleet_is_confirmed_and_shown(fleet: Supervised) -> None:
    """The worker may run its service when the supervisor has answered; the status has its token."""
    first, _ = fleet.hands
    assert (role(fleet)["scope"], role(fleet)["state"], role(fleet)["pid"]) == ("cluster", "vacant", None)
    fleet.says(first, lease("leading", boot_time() + 1000, token=42))
    assert first.heard() == [{"role": "mail", "number": 7, "confirmed": 42}]
    shown = role(fleet)
    assert (shown["state"], shown["pid"], shown["token"]) == ("held", first.pid, 42)
    fleet.says(first, lease("resigning", boot_time() + 1000, token=42))
    assert role(fleet)["state"] == "resigning"
    fleet.says(first, wants(7, wanted=False, role="mail"))
    states = [each["outcome"] for each in fleet.platform.recorded if each.get("role") == "mail"]
    assert states == ["held", "resigning", "vacant"]


def test_holder_that_overruns_its_lease_is_killed(fleet: Supervised) -> None:
    """A worker whose lease has expired is killed with its process group; the other one campaigns then."""
    first, second = fleet.hands
    fleet.says(second, {**wants(7, role="mail"), "scope": "cluster"})
    fleet.says(first, lease("leading", boot_time() - 1, token=42))
    fleet.reactor.turn(0)
    assert (first.pid, "kill") in fleet.platform.sent
    assert fleet.platform.recorded[-1]["outcome"] == "killed"
    fleet.ends(first, -signal.SIGKILL)
    assert "grant" in orders(second)
    assert role(fleet)["state"] == "vacant"


def test_trouble_with_the_engine_degrades_the_daemon(fleet: Supervised) -> None:
    """A daemon that does not hear of the engine is degraded, and ready; one that stands by is neither."""
    first, _ = fleet.hands
    fleet.says(first, lease("standby", None, trouble="no answer"))
    assert fleet.supervisor.state == "degraded"
    assert [(each.name, each.gates, each.why) for each in fleet.supervisor.checks.failing] == [
        ("role mail", False, "no answer")
    ]
    fleet.says(first, lease("standby", None, holder="web2"))
    assert (fleet.supervisor.state, role(fleet)["state"], role(fleet)["holder"]) == (
        "running",
        "standby",
        "web2",
    )


def test_resigned_role_of_a_fleet_goes_to_others_first(fleet: Supervised) -> None:
    """The command is answered when the role was given back, and the next campaign here waits."""
    first, second = fleet.hands
    answers: list[dict[str, Any]] = []
    fleet.says(second, {**wants(7, role="mail"), "scope": "cluster"})
    second.heard()
    fleet.supervisor.roles.resign("mail", answers.append)
    assert orders(first) == ["revoke"]
    fleet.says(first, wants(7, wanted=False, role="mail"))
    assert answers == [{"resigned": "mail was resigned: another machine gets it, if there is one"}]
    assert second.heard()[-1]["wait"] is True
