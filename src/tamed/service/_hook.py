"""How a hook of a service is called: in the task that walks the tree, under a deadline, and at little cost.

A tree of 100,000 services is mostly hooks that never wait: a coroutine around each, and a timer armed and
disarmed, would be most of the cost of starting it. And a hook that never suspends cannot be interrupted
by a timer anyway. So it is begun by a plain call, and what is left of it is awaited under a deadline only
if it suspends.
"""

import asyncio
import logging
import types
from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any, Final, NoReturn

from tamed._logger import own_logger
from tamed.errors import ApplicationFailed, DeadlinePassed, ServiceFailed, TamedError
from tamed.service._state import FAILED, RUNNING, STOPPED

if TYPE_CHECKING:
    from tamed.service._service import Service

__all__ = ["Rest", "begin", "call", "failure_of", "is_cancelled", "is_telling", "report", "tell"]

log = own_logger("tamed.service")

Rest = Coroutine[Any, Any, None] | None
"""What is left of a step that was begun by a plain call, to be awaited; None if it is done."""

_DONE: Final = object()

_TOLD: Final = {RUNNING: "started", STOPPED: "stopped"}


def begin(service: "Service", phase: str, hook: Coroutine[Any, Any, None]) -> Rest:
    """Run a hook as far as it goes without waiting; return what is left of it.

    The rest is cancelled if it is not done within the service's timeout for the phase; one that catches
    its cancellation and goes on is waited for. Here and there ServiceFailed is raised for whatever the
    hook raises.
    """
    try:
        awaited = next(hook.__await__(), _DONE)  # `hook.send(None)` ends by raising, and takes twice the time
    except (Exception, SystemExit, asyncio.CancelledError) as error:
        _fail(service, phase, error)
    return None if awaited is _DONE else _rest(service, phase, hook, awaited)


async def call(service: "Service", phase: str, hook: Coroutine[Any, Any, None]) -> None:
    """Run a hook to its end, as `begin` and what it returns do."""
    if (rest := begin(service, phase, hook)) is not None:
        await rest


async def _rest(service: "Service", phase: str, hook: Coroutine[Any, Any, None], awaited: object) -> None:
    seconds = service.start_timeout if phase in ("prepare", "start") else service.stop_timeout
    deadline = asyncio.timeout(seconds)
    try:
        async with deadline:
            await _resumed(hook, awaited)
    except (Exception, SystemExit, asyncio.CancelledError) as error:
        if seconds is not None and deadline.expired() and isinstance(error, TimeoutError):
            _fail(service, phase, DeadlinePassed(seconds))
        _fail(service, phase, error)


@types.coroutine
def _resumed(hook: Coroutine[Any, Any, None], awaited: object) -> Generator[Any, Any, None]:
    """Go on with a coroutine that is suspended on ``awaited``, as ``await`` would have done (PEP 380)."""
    while True:
        try:
            try:
                sent = yield awaited
            except GeneratorExit:
                hook.close()
                raise
            except BaseException as error:
                awaited = hook.throw(error)
            else:
                awaited = hook.send(sent)
        except StopIteration:
            return


def _fail(service: "Service", phase: str, error: BaseException) -> NoReturn:
    """Raise ServiceFailed for what a hook has raised, or the cancellation of this very task as it is."""
    service.state = FAILED
    if isinstance(error, asyncio.CancelledError) and is_cancelled():
        raise error
    raise failure_of(service, phase, error)


def is_cancelled() -> bool:
    """Whether somebody has cancelled the current task."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def failure_of(service: "Service", phase: str, error: BaseException) -> ServiceFailed:
    """Return the failure of a service for what one of its hooks raised, or let through.

    A cancellation that nobody asked for comes from something the hook had awaited. Let through as such it
    would end whatever task it reached, and be taken for the wish of whoever started that one.
    """
    if isinstance(error, asyncio.CancelledError):
        error = ApplicationFailed("something it waited for was cancelled")
    failure = ServiceFailed(service.full_name, phase, error)
    failure.__cause__ = error
    return failure


def is_telling() -> bool:
    """Whether `tell` would log; a walk over many services asks once."""
    return log.isEnabledFor(logging.INFO)


def tell(service: "Service") -> None:
    """Log that a service has started or stopped, if it has, and does something of its own."""
    if service._is_told and service.state in _TOLD and is_telling():
        log.info("%s %s", _TOLD[service.state], service.full_name)


def report(failure: ServiceFailed, remark: str = "") -> None:
    """Log a failure that is not raised to anyone, with what is done about it."""
    says_all = isinstance(failure.cause, TamedError)
    told = f"{failure}; {remark}" if remark else f"{failure}"
    log.error("%s", told, exc_info=None if says_all else failure.cause)
