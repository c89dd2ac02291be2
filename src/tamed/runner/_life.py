"""The life of an application in its process: from the prepare hooks to the exit status."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from signal import Signals
from typing import NamedTuple

from tamed._logger import own_logger
from tamed.errors import ServiceFailed, exit_code
from tamed.runner._signals import StopSignals
from tamed.service.application import Application

__all__ = ["Ending", "live"]

log = own_logger("tamed")


class Ending(NamedTuple):
    """How a life ended that did not fail: the exit status, and the signal that asked for it, if one did."""

    status: int
    signal: Signals | None = None


async def live(
    application: Application,
    *,
    prepared: Callable[[], Awaitable[None]],
    ready: Callable[[], None],
    stopping: Callable[[], None] = lambda: None,
    process: str = "",
) -> Ending:
    """Run an application until it is told to stop, ends itself or fails; return how it ended.

    ``prepared`` is awaited when every service is prepared and none has started: it is there to drop
    privileges. ``ready`` is called once, when every service has started, and ``stopping`` when they are about
    to be stopped. ``process`` is what the log calls this process where it is one of several, whose supervisor
    says that the daemon stops. Raises ServiceFailed if a service fails past its restart policy, before it is
    ready or after, or while it stops; by then everything has been stopped and released. One that raised
    SystemExit has not failed, but has chosen the status.
    """
    told: list[Signals] = []
    task = asyncio.current_task()
    assert task is not None

    def stop_the_start(number: Signals) -> None:
        _end_line(number)
        _announce(process, f"{number.name} while starting")
        told.append(number)
        task.cancel()

    def stop(number: Signals) -> None:
        _end_line(number)
        _announce(process, number.name)
        told.append(number)
        application.exit()

    status = 0
    with StopSignals(asyncio.get_running_loop(), stop_the_start) as signals:
        try:
            await _prepare(application, prepared)
            async with application:
                signals.stop = stop
                status = await _serve(application, ready, stopping, leave=bool(told))
        except asyncio.CancelledError:
            if not told:
                raise
            task.uncancel()
        except ServiceFailed as failure:
            if not isinstance(failure.cause, SystemExit):
                log.debug("what failed, in full", exc_info=failure.cause)
                raise
            status = exit_code(failure.cause)
            log.info("service %s asked to exit with status %d", failure.path, status)
    log.info("%s", f"{process} has stopped" if process else "stopped")
    return Ending(status, told[0] if told else None)


def _announce(process: str, why: str) -> None:
    if process:
        log.info("%s is stopping (%s)", process, why)
    else:
        log.info("%s: stopping", why)


def _end_line(number: Signals) -> None:
    """End the line in which a terminal has just written ``^C``."""
    if number is Signals.SIGINT and sys.stderr.isatty():
        sys.stderr.write("\n")


async def _serve(
    application: Application, ready: Callable[[], None], stopping: Callable[[], None], *, leave: bool
) -> int:
    """Wait for the end; ``leave`` says that a signal asked for it before, and a start paid no heed."""
    if leave:
        application.exit()
    else:
        ready()
    try:
        return await application.wait()
    finally:
        stopping()


async def _prepare(application: Application, prepared: Callable[[], Awaitable[None]]) -> None:
    await application.lifecycle.prepare()
    try:
        await prepared()
    except BaseException:
        await application.lifecycle.release()
        raise
