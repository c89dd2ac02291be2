"""The checks of services: what they say, and when it is reported."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tamed.service.checks import CheckResult, Checks
from tamed.service.service import MultiService, Service
from tests.patience import PATIENCE

pytestmark = pytest.mark.anyio


class Checked(Service):
    """A service whose check does what a test wants."""

    check_interval = 0.001

    def __init__(self, name: str, answer: Callable[[], Awaitable[Any]]) -> None:
        super().__init__(name)
        self.answer = answer

    async def check(self) -> str | None:
        said: str | None = await self.answer()
        return said


class Reports:
    """Receives reports."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[list[CheckResult]] = asyncio.Queue()

    async def until(self, wanted: Callable[[list[CheckResult]], bool]) -> list[CheckResult]:
        """Return the next report of this kind."""
        async with asyncio.timeout(PATIENCE):
            while not wanted(found := await self.queue.get()):
                continue
        return found


@asynccontextmanager
async def checked(*services: Service) -> AsyncIterator[tuple[MultiService, Reports]]:
    """Yield services that run and are checked, and the reports."""
    root = MultiService("root", *services)
    reports = Reports()
    async with root:
        checks = Checks(root, reports.queue.put_nowait)
        checks.start()
        try:
            yield root, reports
        finally:
            checks.close()
            checks.close()


async def _says(text: str | None) -> str | None:
    return text


async def _fails() -> None:
    raise OSError(111, "Connection refused")


async def _hangs() -> None:
    await asyncio.sleep(1000)


async def _times_out() -> None:
    raise TimeoutError("the other side is slow")


async def _is_cancelled() -> None:
    raise asyncio.CancelledError


async def _exits() -> None:
    raise SystemExit(3)


async def _is_wrong() -> bool:
    return False


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda: _says(None), ""),
        (lambda: _says(""), ""),
        (lambda: _says("the disk\nis full"), "the disk is full"),
        (_fails, "Connection refused"),
        (_hangs, "no answer within 0.01 s"),
        (_times_out, "TimeoutError: the other side is slow"),
        (_is_cancelled, "CancelledError"),
        (_exits, "SystemExit: 3"),
        (_is_wrong, "check() returned a bool, expected a text or None"),
    ],
    ids=["nothing", "empty", "a text", "raises", "hangs", "times out", "cancelled", "exits", "no text"],
)
async def test_check_says_why_a_service_cannot_work(answer: Any, why: str) -> None:
    """It passes if it returns nothing; before the first answer the result is unknown."""
    service = Checked("db", answer)
    service.check_timeout = 0.01
    async with checked(Service("other"), service) as (_, reports):
        assert await reports.queue.get() == [CheckResult("db", False, None)]
        assert await reports.until(bool) == [CheckResult("db", False, why)]


async def test_only_changes_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    """The log says when a check begins to fail, and when it passes again."""
    caplog.set_level(logging.INFO)
    answers = iter(["", "", "down", "down", "", ""])
    over = asyncio.Event()

    async def answer() -> str:
        said = next(answers, None)
        if said is None:
            over.set()
        return said or ""

    async with checked(Checked("db", answer)) as (_, reports), asyncio.timeout(PATIENCE):
        await over.wait()
        found = [reports.queue.get_nowait()[0].why for _ in range(reports.queue.qsize())]
    assert found == [None, "", "down", ""]
    told = [record.getMessage() for record in caplog.records if "check" in record.getMessage()]
    assert told == ["the check of db fails: down", "the check of db passes again"]


async def test_service_that_does_not_run_is_not_asked() -> None:
    """Its check fails with its state; one that was removed is not listed any more."""
    service = Checked("db", lambda: _says(None))
    service.check_gates_readiness = True
    async with checked(service, Service("other")) as (root, reports):
        await reports.until(lambda found: found[0].why == "")
        await service.lifecycle.stop()
        assert (await reports.until(lambda found: bool(found[0].why)))[0].why == "the service is stopped"
        await root.remove(service)
        await reports.until(lambda found: not found)


async def test_end_cancels_the_checks_that_run() -> None:
    """The one that waits is cancelled, and nothing is reported."""
    entered, left = asyncio.Event(), asyncio.Event()

    async def answer() -> None:
        entered.set()
        try:
            await asyncio.sleep(1000)
        finally:
            left.set()

    async with asyncio.timeout(PATIENCE):
        async with checked(Checked("db", answer)) as (_, reports):
            await entered.wait()
            assert (await reports.queue.get())[0].why is None
        await left.wait()
    assert reports.queue.empty()
