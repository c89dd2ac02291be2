"""The life of an ASGI application: told that it starts and stops, before and after it is served."""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tamed.errors import ApplicationFailed, reason
from tamed.log.logger import own_logger
from tamed.service.service import Service

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

__all__ = ["Lifespan"]

log = own_logger("web")


class Lifespan(Service):
    """Speaks the lifespan protocol of ASGI with an application.

    ``start`` returns when the application is ready, and raises ApplicationFailed if it says that it failed,
    or raises once it has taken the event. One that raises before does not know the protocol, and is served
    without. ``stop`` waits until the application says that it has stopped, and raises in the same way.
    ``app_state`` is what it wants to have in each request.
    """

    def __init__(self, application: "ASGI3Application") -> None:
        super().__init__("lifespan")
        self.app_state: dict[str, Any] = {}
        self._application = application
        self._events: asyncio.Queue[Any] = asyncio.Queue()
        self._answer: asyncio.Future[Any] | None = None
        self._life: asyncio.Task[None] | None = None
        self._has_taken = False
        self._failure: Exception | None = None  # that nobody was told of yet

    async def start(self) -> None:
        """Let the application start."""
        self._events = asyncio.Queue()
        self._has_taken = False
        self.app_state.clear()
        self._life = asyncio.get_running_loop().create_task(self._live())
        try:
            answer = await self._tell("startup")
        except BaseException:
            await self._end()
            raise
        await self._require(answer, "start")

    async def stop(self) -> None:
        """Let the application stop."""
        answer = await self._tell("shutdown")
        await self._require(answer, "stop")
        await self._end()

    async def _require(self, answer: Any, what: str) -> None:
        """Raise if the application said that it failed, or has raised instead of an answer."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise ApplicationFailed(f"the web application failed to {what}", reason(failure)) from failure
        if answer is not None and answer["type"].endswith(".failed"):
            await self._end()
            raise ApplicationFailed(f"the web application failed to {what}", answer.get("message", ""))

    async def _tell(self, event: str) -> Any:
        """Tell the application, and return what it answers; None if it has no life of this kind."""
        assert self._life is not None
        if self._life.done():
            return None
        self._answer = asyncio.get_running_loop().create_future()
        self._events.put_nowait({"type": f"lifespan.{event}"})
        await asyncio.wait([self._life, self._answer], return_when=asyncio.FIRST_COMPLETED)
        return self._answer.result() if self._answer.done() else None

    async def _live(self) -> None:
        versions = {"version": "3.0", "spec_version": "2.0"}
        scope: Any = {"type": "lifespan", "asgi": versions, "state": self.app_state}
        try:
            await self._application(scope, self._next, self._hear)
        except Exception as error:
            if not self._has_taken:
                log.info("the web application has no lifespan: %s", reason(error))
            elif self._answer is not None and self._answer.done():
                log.exception("the web application's lifespan has failed")
            else:
                self._failure = error

    async def _next(self) -> Any:
        event = await self._events.get()
        self._has_taken = True
        return event

    async def _hear(self, message: Any) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(message)

    async def _end(self) -> None:
        assert self._life is not None
        self._life.cancel()
        with suppress(asyncio.CancelledError):
            await self._life
