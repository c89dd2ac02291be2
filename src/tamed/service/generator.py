"""The short form of a service: set up, yield, tear down."""

import asyncio
import functools
import inspect
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Generic, ParamSpec, TypeVar

from tamed.errors import ApplicationFailed
from tamed.service._tasks import until_done
from tamed.service.service import Service

__all__ = ["GeneratorService", "service"]

P = ParamSpec("P")
T = TypeVar("T")


def service(function: Callable[P, AsyncGenerator[T, None]]) -> "Callable[P, GeneratorService[T]]":
    """Turn an async generator function into a factory of services.

    ::

        @service
        async def database(url: str) -> AsyncGenerator[Pool, None]:
            async with connect(url) as pool:
                yield pool

        pool = database("postgresql:///verse")  # a service named "database"

    The code before the ``yield`` is the service's ``start``, the code after it its ``stop``, and the yielded
    object its ``value`` while it runs. All of it runs in one task, so the ``yield`` may be inside context
    managers and task groups; a failure of a task group fails the service. Raises TypeError for any
    other kind of function.
    """
    if not inspect.isasyncgenfunction(function):
        raise TypeError(f"{function.__qualname__} is not a service: write 'async def' with one 'yield'")

    @functools.wraps(function)
    def make(*args: P.args, **kwargs: P.kwargs) -> GeneratorService[T]:
        return GeneratorService(functools.wraps(function)(lambda: function(*args, **kwargs)))

    return make


class GeneratorService(Service, Generic[T]):
    """A service made by `service`; ``value`` is what its generator yielded, while it runs."""

    value: T

    def __init__(self, generate: Callable[[], AsyncGenerator[T, None]], name: str | None = None) -> None:
        super().__init__(name)
        self._generate = generate
        self._task: asyncio.Task[SystemExit | None] | None = None

    def default_name(self) -> str:
        """Return the name of the generator function: ``postgres_pool`` → ``postgres-pool``."""
        return self._generate.__name__.strip("_").replace("_", "-")

    async def start(self) -> None:
        """Run the generator to its ``yield``."""
        ready = asyncio.get_running_loop().create_future()
        self._leave = asyncio.Event()
        self._task = asyncio.create_task(self._drive(ready), name=self.full_name)
        try:
            await asyncio.wait([self._task, ready], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._leave.set()  # for a generator that catches its cancellation and reaches its yield
            self._task.cancel()
            await until_done([self._task])
            await _outcome(self._task)
            raise
        if not ready.done():
            await _outcome(self._task)

    async def run(self) -> None:
        """Wait for the generator; it ends only when the service stops, or by a failure."""
        assert self._task is not None
        await asyncio.wait([self._task])
        task, self._task = self._task, None  # `stop` has nothing to do
        await _outcome(task)
        raise ApplicationFailed("its generator ended without a stop")

    async def stop(self) -> None:
        """Run the generator from its ``yield`` to its end."""
        if self._task is not None:
            self._leave.set()
            await _outcome(self._task)

    async def _drive(self, ready: "asyncio.Future[None]") -> SystemExit | None:
        try:
            async with asynccontextmanager(self._generate)() as self.value:
                ready.set_result(None)
                await self._leave.wait()
        except SystemExit as error:  # a task that raises it ends the event loop at once
            return error
        return None


async def _outcome(task: "asyncio.Task[SystemExit | None]") -> None:
    """Wait for a generator's end and raise its exception."""
    error = await task
    if error is not None:
        raise error
