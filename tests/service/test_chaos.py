"""Trees in which anything fails at any time: the promises about hooks hold all the same."""

import asyncio
import traceback
from collections.abc import Awaitable
from contextlib import suppress
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from tamed.errors import TamedError
from tamed.service.application import Application
from tamed.service.group import Strategy
from tamed.service.lifecycle import State
from tamed.service.restart import Backoff, Restart
from tamed.service.service import MultiService, Service
from tamed.testing.clock import VirtualClockLoop

STRATEGIES: list[Strategy] = ["one_for_one", "one_for_all", "rest_for_one"]


class Fault(Exception):
    """What happens to services here."""


class Strict(Service):
    """Holds the framework to its promises, and fails by chance while there is trouble."""

    def __init__(self, chaos: "Chaos") -> None:
        super().__init__(chaos.next_name())
        self.chaos = chaos
        self.is_prepared = self.is_up = self.is_running = self.is_busy = False
        self.told: asyncio.Future[None] | None = None

    async def prepare(self) -> None:
        self.expect(not self.is_prepared)
        await self.hook(1)
        self.is_prepared = True

    async def start(self) -> None:
        self.expect(self.is_prepared and not self.is_up)
        await self.hook(10)
        self.is_up = True

    async def run(self) -> None:
        self.expect(self.is_up and not self.is_running)
        self.is_running = True
        self.told = asyncio.get_running_loop().create_future()
        try:
            await self.told
        finally:
            self.is_running = False

    async def stop(self) -> None:
        self.expect(self.is_up and not self.is_running)
        self.is_up = False
        await self.hook(10)

    async def release(self) -> None:
        self.expect(self.is_prepared and not self.is_up)
        self.is_prepared = False
        await self.hook(1)

    async def hook(self, seconds: float) -> None:
        """Take a while by chance, and fail by chance."""
        self.expect(not self.is_busy)
        self.is_busy = True
        try:
            if self.chaos.random.random() < 0.5:
                await asyncio.sleep(self.chaos.random.random() * seconds)
            if self.chaos.is_trouble(0.1):
                raise Fault
        finally:
            self.is_busy = False

    def expect(self, condition: bool) -> None:
        """Take note of a promise that was broken; an exception would be one more fault."""
        if not condition:
            self.chaos.broken.append("".join(traceback.format_stack()))


class Plain(Strict):
    """The same without a body."""

    run = Service.run


class Chaos:
    """A tree that a seed makes, and what a seed does to it."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.trouble = False
        self.services: list[Strict] = []
        self.broken: list[str] = []
        self.count = 0
        self.jobs: list[asyncio.Task[None]] = []
        self.root = Application("root", strategy=self.random.choice(STRATEGIES), restart=self.policy(0.5))
        self.grow(self.root, 3)

    def next_name(self) -> str:
        """Return a name that is not taken."""
        self.count += 1
        return f"s{self.count}"

    def is_trouble(self, chance: float) -> bool:
        """Tell whether something goes wrong now."""
        return self.trouble and self.random.random() < chance

    def policy(self, chance: float) -> Restart:
        """Return a policy, by chance one that never gives up."""
        if self.random.random() > chance:
            return Restart()
        when = self.random.choice(["on-failure", "always"])
        return Restart(when, self.random.choice([None, 1, 3]), 60, Backoff(0.5, 2, 10))  # type: ignore[arg-type]

    def grow(self, parent: MultiService, depth: int) -> None:
        """Add children, some with children of their own."""
        for _ in range(self.random.randint(1, 3)):
            if depth and self.random.random() < 0.3:
                strategy = self.random.choice(STRATEGIES)
                group = MultiService(self.next_name(), strategy=strategy, restart=self.policy(0.7))
                self.grow(group, depth - 1)
                parent.add(group)
            else:
                parent.add(self.leaf())

    def leaf(self) -> Strict:
        """Return a service, with a body or without."""
        service = self.random.choice([Strict, Strict, Plain])(self)
        service.restart = self.policy(0.8)
        self.services.append(service)
        return service

    async def live(self) -> None:
        """Run the tree through trouble, stop it, and see what is left."""
        random = self.random
        with suppress(TamedError):
            self.trouble = random.random() < 0.2
            starting = asyncio.create_task(self.root.lifecycle.bring_up())
            if random.random() < 0.1:
                asyncio.get_running_loop().call_later(random.random() * 20, starting.cancel)
            with suppress(asyncio.CancelledError):
                await starting
        self.trouble = True
        for _ in range(random.randint(0, 30)):
            await asyncio.sleep(random.random() * random.choice([0, 1, 30]))
            self.disturb()
        self.trouble = False
        if random.random() < 0.5:
            await self.calm_down()
        await self.end()

    def disturb(self) -> None:
        """Do one bad thing."""
        random = self.random
        multis = [one for one in self.root.walk() if isinstance(one, MultiService)]
        match random.choice(["fail", "fail", "fail", "end", "add", "remove"]):
            case "fail":
                self.tell(Fault())
            case "end":
                self.tell(None)
            case "add":
                with suppress(TamedError):
                    added = random.choice(multis).add(self.leaf())
                    if random.random() < 0.5:
                        self.do(added)
            case _:
                child = random.choice(list(self.root.walk()))
                if child.parent is not None:
                    self.do(child.parent.remove(child))

    def tell(self, error: Exception | None) -> None:
        """Have a body fail or end."""
        running = [one.told for one in self.services if one.told is not None and not one.told.done()]
        if running:
            told = self.random.choice(running)
            if error is None:
                told.set_result(None)
            else:
                told.set_exception(error)

    def do(self, what: Awaitable[None]) -> None:
        """Wait for something in the background; by chance give up waiting."""

        async def wait() -> None:
            with suppress(TamedError):
                await what

        job = asyncio.create_task(wait())
        self.jobs.append(job)
        if self.random.random() < 0.2:
            asyncio.get_running_loop().call_later(self.random.random() * 10, job.cancel)

    async def calm_down(self) -> None:
        """Without further trouble all run again, or the application has failed: there is no dead service."""
        await asyncio.sleep(1000)
        if self.root.state is not State.RUNNING:
            assert self.root.state is State.FAILED
            return
        for service in self.root.walk():
            assert service.state is State.RUNNING, service
            assert not service.restarting

    async def end(self) -> None:
        """After a stop, whoever interrupts it, nothing is left."""
        stops = [
            asyncio.create_task(self.root.lifecycle.take_down()) for _ in range(self.random.randint(1, 2))
        ]
        if self.random.random() < 0.3:
            asyncio.get_running_loop().call_later(self.random.random() * 10, stops[0].cancel)
        await asyncio.wait(stops)
        await self.root.lifecycle.take_down()
        await asyncio.gather(*self.jobs, return_exceptions=True)
        await asyncio.sleep(1000)
        for one in self.services:
            assert [one.is_up, one.is_running, one.is_prepared, one.restarting] == [False] * 4, one
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert self.broken == []


@given(st.integers(0, 2**32))
def test_whatever_happens_the_promises_hold(seed: int) -> None:
    """Hooks come in pairs and one at a time, bodies live between them, and nothing is left at the end."""
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        runner.run(Chaos(seed).live())
