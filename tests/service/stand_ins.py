"""Services that tell what is called, and do as they are told."""

import asyncio

from tamed.service.service import Service


class Diary(list[str]):
    """What was called, in order: ``start a``, ``stop a``."""

    def __init__(self) -> None:
        super().__init__()
        self._readers: dict[str, asyncio.Event] = {}

    def append(self, line: str) -> None:
        """Write a line, and tell who waits for it."""
        super().append(line)
        if line in self._readers:
            self._readers.pop(line).set()

    async def until(self, line: str) -> None:
        """Wait until that line is written next."""
        await self._readers.setdefault(line, asyncio.Event()).wait()

    def of(self, phase: str) -> list[str]:
        """Return the names of the services whose hook of that phase was called, in order."""
        return [line.split()[1] for line in self if line.split()[0] == phase]

    def take(self) -> list[str]:
        """Return what was written since the last time."""
        lines = list(self)
        self.clear()
        return lines


class Broken(Exception):
    """What a stand-in raises when it is told to."""


class Probe(Service):
    """Writes into the diary which of its hooks are called.

    ``fails`` maps a phase to what its hook raises, ``holds`` maps one to the event that it waits for, having
    set ``entered``. Both may be changed at any time.
    """

    def __init__(
        self,
        name: str,
        diary: Diary,
        *,
        fails: dict[str, BaseException] | None = None,
        holds: dict[str, asyncio.Event] | None = None,
    ) -> None:
        super().__init__(name)
        self.diary = diary
        self.fails = fails or {}
        self.holds = holds or {}
        self.entered = asyncio.Event()

    async def prepare(self) -> None:
        await self._do("prepare")

    async def start(self) -> None:
        await self._do("start")

    async def stop(self) -> None:
        await self._do("stop")

    async def release(self) -> None:
        await self._do("release")

    async def _do(self, phase: str) -> None:
        self.diary.append(f"{phase} {self.name}")
        if phase in self.holds:
            self.entered.set()
            await self.holds[phase].wait()
        if phase in self.fails:
            raise self.fails[phase]


class Body(Probe):
    """A probe with a ``run``, which goes on until it is told to end or to fail, by `end` and `fail`."""

    async def start(self) -> None:
        self.told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await super().start()

    async def run(self) -> None:
        self.diary.append(f"run {self.name}")
        try:
            await self.told
        finally:
            self.diary.append(f"ran {self.name}")

    def end(self) -> None:
        """Have ``run`` return."""
        self.told.set_result(None)

    async def fail_inside(self) -> None:
        """Fail while somebody is inside ``async with`` this service, and waits."""
        async with self:
            await asyncio.sleep(0)
            self.fail()
            await asyncio.Event().wait()

    def fail(self, error: BaseException | None = None) -> None:
        """Have ``run`` raise."""
        self.told.set_exception(error or Broken(f"{self.name} broke"))
