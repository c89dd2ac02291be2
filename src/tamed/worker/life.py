"""The life of an application in its process: from the prepare hooks to the exit status.

It is the same for a worker and for a single process: steps 6 to 11 of a daemon's life.
"""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from signal import Signals
from types import FrameType, TracebackType
from typing import Any, Final, NamedTuple, Self

from tamed._os.text import shown
from tamed.errors import ConfigurationError, ServiceFailed, exit_code, exit_request, reason
from tamed.log.logger import own_logger
from tamed.service.application import Application
from tamed.service.events import hub
from tamed.unix.process import ignore_to_the_end

__all__ = [
    "LEFT_OVER_AFTER",
    "STOP_SIGNALS",
    "Ending",
    "StopDelay",
    "StopRequests",
    "beside",
    "live",
    "loop_factory",
    "name_left_over",
    "print_now",
    "run_loop",
]

log = own_logger("tamed")

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

LEFT_OVER_AFTER: Final = 1.0
"""Seconds after which a process that does not end reports what it waits for."""


class Ending(NamedTuple):
    """The end of an application without a failure: its exit status, and the signal that requested it."""

    status: int
    signal: Signals | None = None


class StopDelay(NamedTuple):
    """The time, in seconds, in which clients are still served after a stop request; a second request ends it.

    ``begun`` is called with the seconds at the start of the delay: load balancers then stop sending clients.
    """

    seconds: float = 0.0
    begun: Callable[[float], object] = lambda _: None


_NO_DELAY = StopDelay()


async def live(
    application: Application,
    *,
    prepared: Callable[[], Awaitable[None]],
    ready: Callable[[], None],
    stopping: Callable[[], None] = lambda: None,
    process: str = "",
    requests: "StopRequests | None" = None,
    delay: StopDelay = _NO_DELAY,
) -> Ending:
    """Run an application until it is asked to stop, ends itself or fails; return how it ended.

    ``prepared`` is awaited when every service is prepared and none has started, so that the caller can drop
    privileges. ``ready`` is called once, when every service has started, and ``stopping`` before they are
    stopped. ``process`` is the name of this process in the log if it is one of several, whose supervisor logs
    the stop of the daemon. ``requests`` are further sources of stop requests, besides signals. ``delay`` is
    the time between a request and the stop.

    Raises ServiceFailed if a service fails beyond its restart policy, before or after it is ready, or while
    it stops; everything has then been stopped and released. A service that raised SystemExit has not
    failed: it has chosen the exit status.
    """
    asked: list[Signals] = []
    task = asyncio.current_task()
    assert task is not None
    requests = requests or StopRequests()

    def stop_the_start(number: Signals) -> None:
        _end_line(number)
        _announce(process, f"{number.name} while starting")
        asked.append(number)
        task.cancel()

    def stop(number: Signals) -> None:
        _end_line(number)
        _announce(process, number.name, delay.seconds)
        if not process:
            hub.publish("stop", "asked to stop", asked=number.name)
        asked.append(number)
        if not delay.seconds:
            application.exit()
            return
        delay.begun(delay.seconds)
        delays.callback(asyncio.get_running_loop().call_later(delay.seconds, stop_now).cancel)
        requests.again = stop_now

    def stop_now() -> None:
        requests.again = None
        application.exit()

    status = 0
    requests.stop = stop_the_start
    with requests, ExitStack() as delays:
        try:
            await _prepare(application, prepared)
            async with application:
                requests.stop = stop
                status = await _serve(application, ready, stopping, leave=bool(asked))
        except asyncio.CancelledError:
            if not asked:
                raise
            task.uncancel()
        except ServiceFailed as failure:
            if not isinstance(failure.cause, SystemExit):
                log.debug("full traceback of the failure", exc_info=failure.cause)
                raise
            status = exit_code(failure.cause)
            log.info("service %s %s", failure.path, exit_request(failure.cause))
    log.info("%s", f"{process} has stopped" if process else "stopped")
    return Ending(status, asked[0] if asked else None)


async def _prepare(application: Application, prepared: Callable[[], Awaitable[None]]) -> None:
    await application.lifecycle.prepare()
    try:
        await prepared()
    except BaseException:
        await application.lifecycle.release()
        raise


async def _serve(
    application: Application, ready: Callable[[], None], stopping: Callable[[], None], *, leave: bool
) -> int:
    """Wait for the end; with ``leave``, a signal requested it while the start ignored its cancellation."""
    if leave:
        application.exit()
    else:
        ready()
    try:
        return await application.wait()
    finally:
        stopping()


def _announce(process: str, why: str, delay: float = 0.0) -> None:
    if process:
        log.info("%s is stopping (%s)", process, why)
    else:
        log.info("%s: stopping%s", why, f" in {delay:g} s" if delay else "")


def _end_line(number: Signals) -> None:
    """End the line in which a terminal has just shown ``^C``."""
    if number is Signals.SIGINT and sys.stderr.isatty():
        sys.stderr.write("\n")


_Handler = Callable[[int, FrameType | None], Any] | int | None


class StopRequests:
    """The first request to stop calls ``stop`` from the running loop, with the signal; others are ignored.

    While this context is entered, ``signals`` count as requests. ``again``, if set, is called for the first
    request after that. After a request, a further SIGINT ends the process at once; SIGQUIT does so at any
    time. ``stop`` may be replaced at any time. If the process ends after the context (``ends_process``),
    SIGINT ends it at once from then on, and a requested stop leaves the other signals ignored, see
    `ignore_to_the_end`. ``kill`` is ``os.kill``; tests pass another function.
    """

    stop: Callable[[Signals], object]
    again: Callable[[], object] | None = None

    def __init__(
        self,
        kill: Callable[[int, int], None] = os.kill,
        *,
        signals: Sequence[Signals] = STOP_SIGNALS,
        ends_process: bool = False,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._ends_process = ends_process
        self._kill = kill
        self._signals = signals
        self._stopping = False
        self._former: dict[int, _Handler] = {}

    def request(self, number: Signals = signal.SIGTERM) -> None:
        """Request the stop, as this signal does."""
        if not self._stopping:
            self._stopping = True
            self._loop.call_soon_threadsafe(lambda: self.stop(number))

    def __enter__(self) -> Self:
        for number in self._signals:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as nohup(1) sets it
                self._former[number] = signal.signal(number, self._handle)
        # Ends the process even while the loop is blocked outside Python. A shell may have ignored it.
        self._former[signal.SIGQUIT] = signal.signal(signal.SIGQUIT, signal.SIG_DFL)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_end = self._ends_process and self._stopping
        ignored = self._former.keys() & {signal.SIGTERM, signal.SIGHUP} if is_end else set()
        ignore_to_the_end(ignored)
        if self._ends_process:  # Python's own handler would raise KeyboardInterrupt out of the exit
            self._former[signal.SIGINT] = signal.SIG_DFL
        for number, handler in self._former.items():
            if number not in ignored and handler is not None:  # None: it was not set from Python
                signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.again is not None:
            self._loop.call_soon_threadsafe(self.again)
            self.again = None
            return
        # A second SIGTERM does not force the end: systemd sends it to all processes of a service, including
        # those that are already stopping.
        if self._stopping and number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
            self._kill(os.getpid(), number)
        self.request(Signals(number))


@contextmanager
def beside(work: Coroutine[Any, Any, None] | None) -> Iterator[None]:
    """Run a coroutine in a task of its own inside the ``with``; None: nothing."""
    task = None if work is None else asyncio.get_running_loop().create_task(work)
    try:
        yield
    finally:
        if task is not None:
            task.cancel()


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return the factory of ``asyncio``'s or ``uvloop``'s event loop; ``auto`` is uvloop if it is installed.

    Raises ConfigurationError if ``uvloop`` is requested and cannot be imported.
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


def run_loop(loops: Callable[[], asyncio.AbstractEventLoop], life: Coroutine[None, None, Ending]) -> Ending:
    """Run the life of an application in an event loop of its own; return how it ended.

    A task or callback of the application that raises SystemExit ends the loop. All is then stopped as after a
    cancellation, and SystemExit is raised.
    """
    with asyncio.Runner(loop_factory=loops) as runner:
        try:
            return runner.run(life)
        except SystemExit as error:
            log.info("a task %s", exit_request(error))
            _report_no_more(error, runner.get_loop())
            raise


def _report_no_more(error: SystemExit, loop: asyncio.AbstractEventLoop) -> None:
    """Have the loop ignore this exception, which it would report again: nobody has awaited the task."""
    report = loop.get_exception_handler()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if context.get("exception") is error:
            return
        if report is None:
            loop.default_exception_handler(context)
        else:
            report(loop, context)

    loop.set_exception_handler(handle)


# What an application has left, and its process waits for.


def name_left_over(loop: asyncio.AbstractEventLoop | None, end: str) -> None:
    """Print what this process waits for, in a daemon thread of it; ``end`` is when it ends otherwise."""
    time.sleep(LEFT_OVER_AFTER)
    if rest := ", ".join(_left_over(loop)):
        print_now(f"the process waits for {rest}: end each in the stop of its service; {end}")


def _left_over(loop: asyncio.AbstractEventLoop | None) -> list[str]:
    threads = (each for each in threading.enumerate() if not each.daemon)
    tasks = asyncio.all_tasks(loop) if loop is not None and loop.is_running() else set()
    left = [f"the thread {each.name}" for each in threads if each is not threading.main_thread()]
    left += sorted(f"the task {getattr(each.get_coro(), '__qualname__', each.get_name())}" for each in tasks)
    return [shown(each) for each in left if "shutdown" not in each]  # asyncio waits in some of its own


def print_now(text: str) -> None:
    """Print a line on standard error: the log may have been closed."""
    if sys.stderr is not None:
        sys.stderr.write(f"tamed: {text}\n")
        sys.stderr.flush()
