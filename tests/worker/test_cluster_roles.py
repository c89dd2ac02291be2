"""A worker's campaigns in a fleet, with an engine in the hands of the test, on a clock of their own."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tamed.cluster.engine import Attempt, Engine, EngineError
from tamed.errors import ConfigurationError
from tamed.ipc.message import Message
from tamed.service.role import Campaign
from tamed.testing.clock import VirtualClockLoop
from tamed.worker.cluster_roles import Fleet
from tamed.worker.roles import SupervisedRoles

pytestmark = pytest.mark.anyio

LEASE = 12.0


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Run these tests on a clock of their own."""
    return "asyncio", {"loop_factory": VirtualClockLoop}


class Desk(Engine):
    """An engine: ``answer`` is what the next attempts get; an exception, or None for silence, else."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: Attempt | bool | Exception | None = Attempt(5, "")
        self.vacant = asyncio.Event()
        self.is_closed = False
        self.said = ""

    async def _answered(self, what: str) -> Any:
        self.asked.append(what)
        if self.answer is None:
            await asyncio.Event().wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def acquire(self, role: str, holder: str, ttl: float) -> Attempt:
        self.said = holder
        attempt: Attempt = await self._answered("acquire")
        return attempt

    async def renew(self, role: str) -> bool:
        return bool(await self._answered("renew"))

    async def release(self, role: str) -> None:
        await self._answered("release")

    async def release_ended(self, role: str, holder: str) -> None:
        await self._answered(f"release of {holder}")

    async def wait(self, role: str, seconds: float) -> None:
        if isinstance(self.answer, Exception):
            raise self.answer
        try:
            async with asyncio.timeout(seconds):
                await self.vacant.wait()
        except TimeoutError:
            pass

    async def close(self) -> None:
        self.is_closed = True
        await self._answered("close")


class Timer:
    """A timer that kills nobody."""

    def __init__(self, world: "World") -> None:
        self.world = world
        if world.no_timer is not None:
            raise world.no_timer

    def set(self, when: float) -> None:
        self.world.kill_times.append(when)

    def close(self) -> None:
        self.world.kill_times.append(0)


class World:
    """A worker with one service, and a supervisor that the test plays."""

    def __init__(self) -> None:
        self.engine = Desk()
        self.sent: list[Message] = []
        self.diary: list[str] = []
        self.kill_times: list[float] = []
        self.no_timer: Exception | None = None
        self.confirms = True
        self.roles = SupervisedRoles(self.hear)
        loop = asyncio.get_running_loop()
        make: Callable[[], Any] = lambda: Timer(self)  # noqa: E731 - a class that is not the real one
        self.fleet = self.roles.fleet = Fleet(
            lambda: self.engine, LEASE, "shop", clock=loop.time, kill_timer=make
        )
        self.campaign: Campaign = self.roles.campaign("cron", "cluster", self.granted, self.revoked)

    def hear(self, message: Message) -> None:
        """Do what the supervisor does: confirm a lease."""
        self.sent.append(message)
        if message.get("kill_at") is not None and self.confirms:
            self.order(confirmed=message["token"])

    def order(self, **what: Any) -> None:
        self.roles.obey({"role": "cron", "number": 1, **what})

    def granted(self) -> None:
        self.diary.append(f"granted at {self.time():g}")

    def revoked(self) -> None:
        self.diary.append(f"revoked at {self.time():g}")

    def time(self) -> float:
        return asyncio.get_running_loop().time()

    @property
    def reports(self) -> list[tuple[str, float | None]]:
        return [(each["phase"], each["kill_at"]) for each in self.sent if "lease" in each]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Yield a world with a campaign, which is withdrawn at the end."""
    world = World()
    yield world
    world.campaign.withdraw()
    await world.roles.close()


async def test_role_is_held_and_given_back() -> None:
    """The service runs when engine and supervisor have said so; the role is renewed, and given back once."""
    world = World()
    assert world.sent == [{"role": "cron", "number": 1, "wants": True, "scope": "cluster"}]
    world.order(token=1)
    await asyncio.sleep(5)
    assert world.campaign.lease is not None
    assert (world.campaign.lease.token, world.diary) == (5, ["granted at 0"])
    assert world.engine.asked == ["acquire", "renew", "renew"]
    assert world.reports == [("leading", 10.0), ("leading", 12.0), ("leading", 14.0)]
    assert set(world.kill_times) == {10.5, 12.5, 14.5}
    said = json.loads(world.engine.said)
    assert (said["deployment"], said["lease"]) == ("shop", LEASE)
    world.campaign.withdraw()
    await world.roles.close()
    assert world.engine.asked[3:] == ["release", "close"]
    assert (world.reports[-1], world.kill_times[-1]) == (("resigning", None), 0)
    assert world.sent[-1] == {"role": "cron", "number": 1, "wants": False}


async def test_holder_stops_when_the_engine_is_silent() -> None:
    """At two thirds of the lease the service must stop, once; its lease is tried for until it has."""
    world = World()
    world.order(token=1)
    await asyncio.sleep(1)
    world.engine.answer = None
    await asyncio.sleep(8)
    assert world.diary == ["granted at 0", "revoked at 8"]
    world.order(revoke=True)
    assert world.diary[2:] == []
    report = next(each for each in reversed(world.sent) if "lease" in each)
    assert (report["trouble"], report["kill_at"]) == ("no answer within 2.0 s", 10.0)
    world.campaign.withdraw()
    await world.roles.close()
    assert world.engine.is_closed


async def test_lost_role_stops_the_service() -> None:
    """When the engine says that the lease is lost, the service must stop, and nothing is given back."""
    world = World()
    world.order(token=1)
    await asyncio.sleep(1)
    world.engine.answer = False
    await asyncio.sleep(2)
    assert world.diary == ["granted at 0", "revoked at 2"]
    world.campaign.withdraw()
    await world.roles.close()
    assert "release" not in world.engine.asked


async def test_service_waits_for_the_supervisor(world: World) -> None:
    """A lease that the supervisor does not confirm in time is given back unused, and tried for again."""
    world.confirms = False
    world.order(token=1)
    await asyncio.sleep(1.5)
    world.order(confirmed=4)  # of an earlier lease
    assert world.diary == []
    world.confirms = True
    await asyncio.sleep(1)
    assert world.engine.asked == ["acquire", "release", "acquire"]
    assert world.diary == ["granted at 2"]
    world.order(revoke=True)
    assert world.diary[-1] == "revoked at 2.5"


async def test_standby_asks_when_the_role_is_vacant(world: World) -> None:
    """A standby that hears of a vacancy asks soon; one that hears of trouble says so and goes on."""
    world.engine.answer = Attempt(None, json.dumps({"host": "web2", "deployment": "shop", "lease": LEASE}))
    world.order(token=1)
    await asyncio.sleep(1)
    report = world.sent[-1]
    assert (report["phase"], report["holder"], report["trouble"]) == ("standby", "web2", "")
    world.engine.answer = EngineError("the line is cut")
    await asyncio.sleep(4)
    assert (world.sent[-1]["holder"], world.sent[-1]["trouble"]) == ("", "the line is cut")
    world.engine.answer = Attempt(6, "")
    world.engine.vacant.set()
    await asyncio.sleep(2)
    assert len(world.diary) == 1


async def test_vacancy_shortens_the_wait(world: World) -> None:
    """The next attempt comes within a sixtieth of the lease."""
    world.engine.answer = Attempt(None, "someone")
    world.order(token=1)
    await asyncio.sleep(0.5)
    assert world.sent[-1]["holder"] == "someone"
    world.engine.vacant.set()
    world.engine.answer = Attempt(6, "")
    await asyncio.sleep(0.3)
    assert len(world.diary) == 1


@pytest.mark.parametrize(
    ("said", "trouble"),
    [
        ({"lease": 30.0}, "it is held on web2 with another lease: '30.0', and here '12.0'"),
        ({"deployment": "mail"}, "it is held on web2 with another deployment: 'mail', and here 'shop'"),
    ],
)
async def test_another_deployment_is_noticed(world: World, said: dict[str, Any], trouble: str) -> None:
    """A holder with the same role and other settings is no machine of this fleet."""
    world.engine.answer = Attempt(None, json.dumps({"host": "web2", **said}))
    world.order(token=1)
    await asyncio.sleep(1)
    assert world.sent[-1]["trouble"] == trouble


async def test_one_that_has_resigned_lets_others_go_first(world: World) -> None:
    """After a resignation, this machine waits for a third of the lease; a stop meanwhile sends no request."""
    world.order(token=1, wait=True)
    await asyncio.sleep(3)
    assert world.engine.asked == []
    await asyncio.sleep(1.5)
    assert world.diary == ["granted at 4"]


async def test_former_holder_is_not_waited_for(world: World) -> None:
    """The role of a process that has ended is given back once, before the first attempt that is answered."""
    world.engine.answer = EngineError("the line is cut")
    world.order(token=1, former="the last one")
    await asyncio.sleep(1)
    assert world.engine.asked == ["release of the last one"]
    world.engine.answer = Attempt(6, "")
    await asyncio.sleep(2.5)
    assert world.engine.asked == ["release of the last one"] * 2 + ["acquire"]
    assert world.sent[-1]["claim"] == world.engine.said


async def test_process_without_a_timer_of_the_kernel_goes_on() -> None:
    """Where the kernel refuses a timer, the supervisor alone ends an overrun."""
    world = World()
    world.no_timer = OSError("refused")
    world.order(token=1)
    await asyncio.sleep(1)
    assert world.diary == ["granted at 0"]
    world.roles.lose_all()
    assert world.diary[1:] == ["revoked at 1"]
    world.campaign.withdraw()
    world.engine.answer = EngineError("no")
    await world.roles.close()


async def test_lease_of_a_service_that_cannot_stop_runs_out() -> None:
    """A role whose service has not been stopped is not given back at the end of the process."""
    world = World()
    world.order(token=1)
    await asyncio.sleep(1)
    await world.roles.close()
    assert world.engine.asked == ["acquire", "close"]
    assert world.kill_times[-1] != 0


async def test_role_of_a_fleet_needs_an_engine() -> None:
    """Without --cluster a service that runs once in a fleet is refused."""
    roles = SupervisedRoles(lambda _: None)
    with pytest.raises(ConfigurationError, match="add --cluster ENGINE"):
        roles.campaign("cron", "cluster", lambda: None, lambda: None)
    await roles.close()
