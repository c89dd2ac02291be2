"""What a runner does with an application, and an application with a service: bring it up, take it down.

A service's own hook comes before its children's on the way up and after them on the way down, so a
multi-service may acquire what its children use. On the way up the first failure undoes what was done and
is raised; on the way down every failure is logged and collected, and keeps nothing else from being
stopped.

All of it happens in the caller's task: no service costs a task unless it has a ``run`` body. Whoever
comes while another brings the same service up or down waits until that is done.
"""

from typing import TYPE_CHECKING

from tamed.errors import ServiceFailed, ServiceMisuse
from tamed.service import _up
from tamed.service._down import Descent
from tamed.service._turn import turn

if TYPE_CHECKING:
    from tamed.service._service import Service

__all__ = ["bring_up", "prepare", "release", "start", "stop", "take_down"]


async def bring_up(service: "Service") -> None:
    """Prepare a whole tree, if that is not done, and start it.

    If that fails or is cancelled, nothing of it is left started or prepared. Raises ServiceFailed, and
    ServiceMisuse if it is started already.
    """
    async with turn(service):
        _must_be_down(service)
        await _up.bring_up(service)


async def take_down(service: "Service") -> list[ServiceFailed]:
    """Stop and release a whole tree, as far as it is up; return what failed, which has been logged."""
    return await _descend(service, stop=True, release=True)


async def prepare(service: "Service") -> None:
    """Call the ``prepare`` hooks of a tree; if one fails, release those prepared and raise ServiceFailed."""
    async with turn(service):
        if not service._needs_release:
            await _up.prepare(service)


async def start(service: "Service") -> None:
    """Start a tree in order; if a service fails, stop those started, in reverse, and raise ServiceFailed.

    What is not prepared is prepared before. Raises ServiceMisuse if it is started already.
    """
    async with turn(service):
        _must_be_down(service)
        await _up.start(service)


async def stop(service: "Service") -> list[ServiceFailed]:
    """Stop a tree in reverse order, each service after the next one has stopped; return what failed.

    A cancellation interrupts the hook that is being waited for and is raised when all is stopped.
    """
    return await _descend(service, stop=True)


async def release(service: "Service") -> list[ServiceFailed]:
    """Release a tree in reverse order; return what failed. Raises ServiceMisuse if it is not stopped."""
    if service._needs_stop:
        what = f"cannot release service {service.full_name}"
        raise ServiceMisuse(what, f"it is {service.state.value}", "stop it first")
    return await _descend(service, release=True)


def _must_be_down(service: "Service") -> None:
    if service._needs_stop:
        raise ServiceMisuse(
            f"cannot start service {service.full_name}", f"it is {service.state.value} already"
        )


async def _descend(service: "Service", *, stop: bool = False, release: bool = False) -> list[ServiceFailed]:
    descent = Descent()
    await descent.free(service)
    async with turn(service):
        return await descent.walk(service, stop=stop, release=release)
