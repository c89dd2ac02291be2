"""How a tree of services is prepared and started: in order, or not at all."""

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from tamed.service._body import Body
from tamed.service._down import Descent
from tamed.service._hook import Rest, begin, call
from tamed.service._state import FAILED, PREPARED, RUNNING, STARTING
from tamed.service._watch import Watch

if TYPE_CHECKING:
    from tamed.service._service import Service

__all__ = ["prepare", "start"]


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
        await Descent().walk(service, release=True)
        service.state = FAILED
        raise


def start(service: "Service") -> Rest:
    """Start a tree, prepare what is not; if that fails or is cancelled, nothing of it is left started.

    Return what is left of it to be awaited. Most services are leaves whose hooks do not wait, and a
    coroutine for each would be what a walk over many spends its time on.
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
    if not service._needs_release:
        await prepare(service)
    service.state = STARTING
    if service._has_start:
        await call(service, "start", service.start())
    service._needs_stop = True
    if (error := await _start_children(service)) is not None:
        await Descent().walk(service, stop=True)
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
    try:
        for child in service._children:  # the list itself, because whoever is started may add to it
            if not child._needs_stop and (rest := start(child)) is not None:
                await rest
    except (Exception, asyncio.CancelledError) as raised:
        error = raised
    service._start_watch = None
    return watch.end(error) or error
