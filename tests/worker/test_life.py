import asyncio
import logging
import signal
from collections.abc import Callable

import pytest

from tamed.errors import ServiceFailed
from tamed.service.application import Application
from tamed.service.lifecycle import State
from tamed.service.service import Service
from tamed.worker.life import Ending, StopDelay, live

pytestmark = pytest.mark.anyio

Hook = Callable[[], object]


class Noted(Service):
    """Records the calls of hooks; some hooks act."""

    def __init__(self, name: str, notes: list[str], **hooks: Hook) -> None:
        super().__init__(name)
        self.notes = notes
        self.hooks = hooks

    async def _note(self, hook: str) -> None:
        self.notes.append(f"{self.name} {hook}")
        result = self.hooks.get(hook, lambda: None)()
        if asyncio.iscoroutine(result):
            await result

    async def prepare(self) -> None:
        await self._note("prepare")

    async def start(self) -> None:
        await self._note("start")

    async def stop(self) -> None:
        await self._note("stop")

    async def release(self) -> None:
        await self._note("release")


class Life:
    """Runs an application of two services, and records the events."""

    def __init__(self, **hooks: Hook) -> None:
        self.notes: list[str] = []
        self.application = Application("verse", Noted("a", self.notes), Noted("b", self.notes, **hooks))
        self.on_prepared: Hook = lambda: None
        self.on_ready: Hook = lambda: None
        self.delay = StopDelay()

    async def _prepared(self) -> None:
        self.notes.append("prepared")
        self.on_prepared()

    def _ready(self) -> None:
        self.notes.append("ready")
        self.on_ready()

    async def live(self) -> Ending:
        """Run the application."""
        return await live(
            self.application,
            prepared=self._prepared,
            ready=self._ready,
            stopping=lambda: self.notes.append("stopping"),
            delay=self.delay,
        )


UP = ["a prepare", "b prepare", "prepared", "a start", "b start", "ready"]
DOWN = ["stopping", "b stop", "a stop", "b release", "a release"]


async def test_a_life_that_is_ended_by_a_signal(caplog: pytest.LogCaptureFixture) -> None:
    """The order is prepare, drop privileges, start, report, serve, stop, release; it ends with the signal."""
    caplog.set_level(logging.INFO)
    life = Life()
    life.on_ready = lambda: signal.raise_signal(signal.SIGTERM)
    assert await life.live() == Ending(0, signal.SIGTERM)
    assert life.notes == UP + DOWN
    told = [record.getMessage() for record in caplog.records if record.name == "tamed"]
    assert told == ["SIGTERM: stopping", "stopped"]


async def test_a_stop_waits_for_its_delay() -> None:
    """Everything goes on for so long after the request."""
    life = Life()
    life.delay = StopDelay(0.01, lambda seconds: life.notes.append(f"stopping in {seconds} s"))
    life.on_ready = lambda: signal.raise_signal(signal.SIGTERM)
    assert await life.live() == Ending(0, signal.SIGTERM)
    assert life.notes == [*UP, "stopping in 0.01 s", *DOWN]


@pytest.mark.parametrize("again", [signal.SIGTERM, signal.SIGINT])
async def test_another_request_ends_the_delay_of_a_stop(again: signal.Signals) -> None:
    """The stop begins then, and the process is not ended, whichever signal it is."""
    life = Life()
    life.delay = StopDelay(1000, lambda _: asyncio.get_running_loop().call_soon(signal.raise_signal, again))
    life.on_ready = lambda: signal.raise_signal(signal.SIGINT)
    assert await life.live() == Ending(0, signal.SIGINT)
    assert life.notes == UP + DOWN


async def test_a_life_that_ends_itself() -> None:
    """The application chooses the status, and the ending has no signal."""
    life = Life()
    life.on_ready = lambda: life.application.exit(3)
    assert await life.live() == Ending(3)
    assert life.notes == UP + DOWN


async def test_a_start_that_is_interrupted() -> None:
    """Started services are stopped, prepared ones are released, and this is no failure."""

    async def slow() -> None:
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(1000)

    life = Life(start=slow)
    assert await life.live() == Ending(0, signal.SIGINT)
    assert life.notes == [*UP[:-1], "a stop", "b release", "a release"]


async def test_a_start_that_does_not_let_itself_be_interrupted() -> None:
    """The stop follows the start: readiness is not reported, and the signal is not lost."""

    async def stubborn() -> None:
        signal.raise_signal(signal.SIGINT)
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            life.notes.append("interrupted")

    life = Life(start=stubborn)
    assert await life.live() == Ending(0, signal.SIGINT)
    assert life.notes == [*UP[:-1], "interrupted", *DOWN]


async def test_privileges_that_cannot_be_dropped_end_it() -> None:
    """Prepared services are released, and none has started."""

    def refuse() -> None:
        raise PermissionError

    life = Life()
    life.on_prepared = refuse
    with pytest.raises(PermissionError):
        await life.live()
    assert life.notes == [*UP[:3], "b release", "a release"]


async def test_a_failure_is_raised_after_everything_has_stopped() -> None:
    """This applies to a failure at the start and later; ``stopping`` is called if it was ready."""

    def fail() -> None:
        raise KeyError("verse")

    life = Life(start=fail)
    with pytest.raises(ServiceFailed, match="service b failed in start: KeyError"):
        await life.live()
    assert life.notes == [*UP[:-1], "a stop", "b release", "a release"]

    class Failing(Service):
        async def run(self) -> None:
            fail()

    life = Life()
    life.application.add(Failing())
    with pytest.raises(ServiceFailed, match="service failing failed in run: KeyError"):
        await life.live()
    assert life.notes == UP + DOWN
    assert life.application.state is State.STOPPED


async def test_system_exit_in_a_start_chooses_the_status(caplog: pytest.LogCaptureFixture) -> None:
    """SystemExit is no failure."""
    caplog.set_level(logging.INFO)

    def leave() -> None:
        raise SystemExit(5)

    life = Life(start=leave)
    assert await life.live() == Ending(5)
    assert life.notes == [*UP[:-1], "a stop", "b release", "a release"]
    assert "service b asked to exit with status 5" in caplog.text


async def test_a_cancellation_that_is_not_ours_is_let_through() -> None:
    """The caller's task may be cancelled; everything is stopped then, too."""
    life = Life()
    reached = asyncio.Event()
    life.on_ready = reached.set
    task = asyncio.create_task(life.live())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert life.notes == UP + DOWN
