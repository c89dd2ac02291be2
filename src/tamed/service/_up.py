"""How a tree of services is prepared and started: in order, or not at all."""

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from tamed.service._body import Body
from tamed.service._down import Descent
from tamed.service._hook import Rest, begin, call, is_telling, tell
from tamed.service._state import FAILED, PREPARED, RUNNING, STARTING
from tamed.service._turn import until_done
from tamed.service._watch import Watch

if TYPE_CHECKING:
    from tamed.service._service import Service

__all__ = ["bring_up", "prepare", "start"]


async def bring_up(service: "Service") -> None:
    """Prepare a tree, if it is not, and start it; if that fails, nothing is left started or prepared."""
    if not service._needs_release:
        await prepare(service)
    try:
        await start(service)
    except (Exception, asyncio.CancelledError):
        await Descent().walk(service, release=True)
        raise


async def prepare(service: "Service") -> None:
    """Prepare a tree; if that fails or is cancelled, nothing of it is left prepared."""
    service._begin_anew()
    if service._has_prepare:
        await call(service, "prepare", service.prepare())
    service._needs_release = True
    service.state = PREPARED
    try:
        for child in service._children:  # the list itself, because a hook may add to it meanwhile
            if child._nothing_to_prepare:
                child._needs_release = True
                child.state = PREPARED
            elif not child._needs_release:
                await prepare(child)
    except (Exception, asyncio.CancelledError):
        try:
            await Descent().walk(service, release=True)
        finally:
            service.state = FAILED
        raise


async def start(service: "Service") -> None:
    """Start a tree, prepare what is not; if that fails or is cancelled, nothing of it is left started."""
    if (rest := _start(service)) is not None:
        await rest
    tell(service)


def _start(service: "Service") -> Rest:
    """Start a tree as far as that goes without waiting; return what is left of it.

    Most services are leaves whose hooks do not wait, and a coroutine for each would be what a walk over
    many spends its time on.
    """
    if not service._is_plain or not service._needs_release:
        return _start_whole(service)
    if service._has_start:
        service.state = STARTING
        if (rest := begin(service, "start", service.start())) is not None:
            return _start_rest(service, rest)
    service._needs_stop = True
    service.state = RUNNING
    return None


async def _start_rest(service: "Service", rest: Coroutine[Any, Any, None]) -> None:
    await rest
    service._needs_stop = True
    service.state = RUNNING


async def _start_whole(service: "Service") -> None:
    await until_done(service._departures())
    if not service._needs_release:
        await prepare(service)
    service.state = STARTING
    if service._has_start:
        await call(service, "start", service.start())
    service._needs_stop = True
    if (error := await _start_children(service)) is not None:
        try:
            await Descent().walk(service, stop=True)
        finally:
            service.state = FAILED
        raise error
    service.state = RUNNING
    service._up_since = asyncio.get_running_loop().time()
    if service._has_run:
        service._run_body = Body(service)


async def _start_children(service: "Service") -> BaseException | None:
    """Start them in order; return what keeps the service from starting.

    That may be a child which was started before and fails meanwhile: nothing is started on top of what
    has failed for good.
    """
    error: BaseException | None = None
    watch = service._start_watch = Watch()
    telling = is_telling()
    try:
        for child in service._children:  # the list itself, because whoever is started may add to it
            if not child._needs_stop:
                if (rest := _start(child)) is not None:
                    await rest
                if telling:
                    tell(child)
    except (Exception, asyncio.CancelledError) as raised:
        error = raised
    service._start_watch = None
    return watch.end(error) or error
