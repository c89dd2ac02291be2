"""The life of an application in its process: from the prepare hooks to the exit status."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from signal import Signals
from types import FrameType, TracebackType
from typing import Any, NamedTuple, Self

from tamed.errors import ConfigurationError, ServiceFailed, exit_code, reason
from tamed.log.logger import own_logger
from tamed.service.application import Application

__all__ = ["Ending", "StopSignals", "live", "loop_factory"]


_Handler = Callable[[int, FrameType | None], Any] | int | None

_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignals:
    """While entered, INT, TERM or HUP calls ``stop`` in the loop; INT after it, or QUIT, ends the process.

    ``stop`` gets the signal; it may be replaced at any time. ``kill`` is ``os.kill``, handed in for tests.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        stop: Callable[[signal.Signals], object],
        kill: Callable[[int, int], None] = os.kill,
    ) -> None:
        self.stop = stop
        self._loop = loop
        self._kill = kill
        self._stopping = False
        self._former: dict[int, _Handler] = {}

    def __enter__(self) -> Self:
        for number in _STOP:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as nohup(1) has it
                self._former[number] = signal.signal(number, self._caught)
        # Ends the process, also while the loop is blocked outside of Python. A shell may have had it ignored.
        self._former[signal.SIGQUIT] = signal.signal(signal.SIGQUIT, signal.SIG_DFL)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            if handler is not None:  # it was not set from Python
                signal.signal(number, handler)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if self._stopping:
            if number == signal.SIGINT:
                self._die(number, frame)
            return  # systemd sends TERM to every process of a service, also to one that was told already
        self._stopping = True
        self._loop.call_soon_threadsafe(self._tell, signal.Signals(number))

    def _tell(self, number: signal.Signals) -> None:
        self.stop(number)

    def _die(self, number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        self._kill(os.getpid(), number)


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes an event loop: ``asyncio``'s, ``uvloop``'s, or with ``auto`` uvloop's where it is.

    Raises ConfigurationError if ``uvloop`` is asked for and cannot be imported.
    """
    if name != "asyncio":
        try:
            import uvloop

            return uvloop.new_event_loop
        except ImportError as error:
            if name == "uvloop":
                remedy = "pip install uvloop, or choose another loop"
                raise ConfigurationError("event loop uvloop", reason(error), remedy) from error
    return asyncio.new_event_loop


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
