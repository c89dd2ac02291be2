"""ASGI's lifespan protocol: the start and the stop of an application, as a service."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from tamed.errors import ApplicationFailed, reason
from tamed.log.logger import own_logger
from tamed.service.service import Service
from tamed.web.asgi import ASGIApplication, Message

__all__ = ["Lifespan"]

log = own_logger("web")


class Lifespan(Service):
    """Speaks the lifespan protocol of ASGI with an application.

    ``start`` returns when the application is ready, and raises ApplicationFailed if it reports a failure, or
    raises after it has received the event. An application that raises earlier does not support the protocol,
    and is served without it. ``stop`` waits until the application has stopped, and raises in the same way.
    ``app_state`` is the state for each request: ``state``, and what the application adds.
    """

    def __init__(self, application: ASGIApplication, state: Mapping[str, Any]) -> None:
        super().__init__("lifespan")
        self.app_state: dict[str, Any] = {}
        self._state = state
        self._application = application
        self._events: asyncio.Queue[Any] = asyncio.Queue()
        self._event = ""  # the last one
        self._answer: asyncio.Future[Any] | None = None
        self._task: asyncio.Task[None] | None = None
        self._has_received = False
        self._has_failed = False  # and has said so
        self._failure: BaseException | None = None  # not reported yet

    async def start(self) -> None:
        self._events = asyncio.Queue()
        self._has_received = self._has_failed = False
        self.app_state.clear()
        self.app_state.update(self._state)
        self._task = asyncio.get_running_loop().create_task(self._run())
        try:
            answer = await self._send("startup")
        except BaseException:
            await self._end()
            raise
        await self._require(answer, "start")

    async def stop(self) -> None:
        answer = await self._send("shutdown")
        await self._require(answer, "stop")
        await self._end()

    async def _require(self, answer: Any, what: str) -> None:
        """Raise if the application reported a failure, or raised instead of an answer."""
        if self._has_failed:
            await self._end()
        # What it raised has its place; its message may be a whole traceback, as that of Starlette is.
        failure, self._failure = self._failure, None
        if isinstance(failure, SystemExit):
            raise failure
        if failure is not None:
            raise ApplicationFailed(f"the web application failed to {what}", reason(failure)) from failure
        if self._has_failed:
            raise ApplicationFailed(f"the web application failed to {what}", answer.get("message", ""))

    async def _send(self, event: str) -> Any:
        """Send an event, and return the answer; None without lifespan support."""
        assert self._task is not None
        if self._task.done():
            return None
        self._event = event
        self._answer = asyncio.get_running_loop().create_future()
        self._events.put_nowait({"type": f"lifespan.{event}"})
        await asyncio.wait([self._task, self._answer], return_when=asyncio.FIRST_COMPLETED)
        return self._answer.result() if self._answer.done() else None

    async def _run(self) -> None:
        versions = {"version": "3.0", "spec_version": "2.0"}
        scope: Any = {"type": "lifespan", "asgi": versions, "state": self.app_state}
        try:
            await self._application(scope, self._receive, self._on_answer)
        except (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # SystemExit would end the event loop
            if not self._has_received and isinstance(error, Exception):
                log.info("the web application has no lifespan: %s", reason(error))
            elif self._answer is not None and self._answer.done() and not self._has_failed:
                log.exception("the web application's lifespan has failed")
            else:
                self._failure = error

    async def _receive(self) -> Any:
        event = await self._events.get()
        self._has_received = True
        return event

    async def _on_answer(self, message: Message) -> None:
        kind = message["type"]
        if kind not in {f"lifespan.{self._event}.complete", f"lifespan.{self._event}.failed"}:
            raise RuntimeError(f"the application sent {kind} during its {self._event}")
        if self._answer is not None and not self._answer.done():
            self._has_failed = kind.endswith(".failed")
            self._answer.set_result(message)

    async def _end(self) -> None:
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
