"""A single process without a supervisor: ``tamed run`` without workers."""

import asyncio
import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from tamed._os.descriptors import close_inherited
from tamed._os.fork import guard_forks
from tamed._os.identity import becomes_another
from tamed._os.interrupts import deliver_interrupts
from tamed._os.limits import limit_open_files
from tamed._os.secrets import SECRETS
from tamed.config.identity import check_files, drop_to, identity_of
from tamed.config.job import Job, Reading
from tamed.config.load import load
from tamed.config.log_plan import log_in_foreground
from tamed.config.settings import Daemon
from tamed.errors import ApplicationFailed, ConfigurationError, ExitStatus, TamedError, status_of
from tamed.log.layout import layout_of
from tamed.log.logger import own_logger
from tamed.log.sink import open_sink
from tamed.net.inherit import Inheritance, passed_to_this_process
from tamed.net.listen import ServerEnvironment, set_environment
from tamed.service.application import Application
from tamed.service.checks import CheckResult, Checks
from tamed.service.events import hub
from tamed.service.role import OwnRoles, set_roles
from tamed.unix.housekeeping import INTERVAL, Duty, Housekeeping
from tamed.unix.notify import Notifier
from tamed.unix.privileges import AS_ROOT, forbid_tracing, stays_root
from tamed.unix.process import leave_first_process
from tamed.worker.life import (
    LEFT_OVER_AFTER,
    STOP_SIGNALS,
    Ending,
    StopDelay,
    StopRequests,
    beside,
    live,
    loop_factory,
    name_left_over,
    print_now,
    run_loop,
)
from tamed.worker.log_handler import SinkHandler, log_to

__all__ = ["run"]

log = own_logger("tamed")

_MARGIN = 5.0  # seconds beyond the time that a start or a stop may take


def run(reading: Reading) -> Ending:
    """Run the application in this process; return how it ended, or raise the TamedError of its failure.

    These are the steps of a daemon's life (see ARCHITECTURE.md) that a single process in the foreground has.
    """
    leave_first_process()
    manager = _Manager.from_environ(os.environ)
    manager.discard_sockets()
    manager.allow(reading.settings.daemon.start_timeout)
    deadline = _EndDeadline(reading.settings.daemon.longest_stop)
    try:
        return _run(reading, manager, deadline)
    except TamedError as error:
        deadline.begin(status_of(error))
        manager.failed(error)
        raise


def _run(reading: Reading, manager: "_Manager", deadline: "_EndDeadline") -> Ending:
    settings = reading.settings
    daemon = settings.daemon
    identity = identity_of(daemon)
    plan = log_in_foreground(settings.log)
    pid_file = "" if daemon.pid_file is None else str(daemon.pid_file.absolute())
    root = None if daemon.chroot is None else daemon.chroot.absolute()
    if root is not None and (plan.path or pid_file):
        what, remedy = "pid", "leave it out"
        if plan.path:
            what, remedy = "log", "log to stderr, the journal or syslog"
        why = "its open folder would be a way out of the new root directory"
        raise ConfigurationError(f"--chroot with --{what}-file", why, remedy)
    check_files(identity, log=plan.path, pid_files=[pid_file])
    if pid_file:
        from tamed.unix.pidfile import check_replaceable  # lazy import: most runs have no pid file

        check_replaceable(Path(pid_file))

    is_dropped = becomes_another(identity)

    def drop() -> None:
        if is_dropped:
            from tamed.unix.detach import leave_terminal  # lazy import: most runs keep the terminal

            leave_terminal()
        drop_to(daemon, identity, root)

    with ExitStack() as held:
        deadline.release = held.close
        if is_dropped:
            # An ``fd://`` endpoint may refer to some of them.
            close_inherited(keep=passed_to_this_process(os.environ), but_sockets=True)
        job = _set_up_process(reading.job, daemon)
        duties = []
        if pid_file:
            from tamed.unix.pidfile import PidFile  # lazy import, for the same reason

            file = held.enter_context(PidFile.acquire(Path(pid_file), owner=identity))
            duties.append(Duty(f"pid file {pid_file}", file.housekeep))
        sink = open_sink(plan, reading.name, identity)
        held.callback(sink.close)
        handler = SinkHandler(sink)
        log_to(handler, layout_of(plan.layout), settings.log.level, is_console=plan.kind == "stderr")
        set_environment(ServerEnvironment(drain_timeout=daemon.drain_timeout))
        set_roles(OwnRoles(is_alone=False))
        application = load(reading._replace(job=job, program=""))  # read here, once: links may change later
        if SECRETS:  # a core dump would contain them
            forbid_tracing()
        loops = loop_factory(daemon.loop)
        deliver_interrupts()
        life = _live(application, reading, handler, duties, drop, manager=manager)
        return run_loop(loops, deadline.after(life))


def _set_up_process(job: Job, daemon: Daemon) -> Job:
    """Set the attributes of this process; return the job, with its folder if the directory changes."""
    _hide_from_children()
    if sys.stderr is not None:
        faulthandler.enable()  # a crash, or SIGABRT of the service manager's watchdog, writes the stacks
    time.tzset()  # the zone's file may be inaccessible after a chroot
    if daemon.max_files is not None:
        limit_open_files(daemon.max_files)
    if daemon.umask is not None:
        os.umask(daemon.umask)
    if daemon.directory is None:
        return job
    job = job._replace(folder=Path.cwd())
    os.chdir(daemon.directory)
    return job


def _hide_from_children() -> None:
    """Hide Tamed's descriptors and signal handlers from children; unblock the handled signals."""
    guard_forks()
    for descriptor in passed_to_this_process(os.environ):  # including those that no server requests
        os.set_inheritable(descriptor, False)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # SIG_IGN would make waiting for a child impossible.
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


async def _live(
    application: Application,
    reading: Reading,
    handler: SinkHandler,
    duties: list[Duty],
    drop: Callable[[], None],
    *,
    manager: "_Manager",
) -> Ending:
    daemon = reading.settings.daemon
    loop = asyncio.get_running_loop()
    housekeeping = Housekeeping(log=_log, changed=manager.troubled, housekeep_log=handler.housekeep)
    housekeeping.duties += duties
    loop.add_signal_handler(signal.SIGUSR1, handler.reopen)
    signals: Sequence[signal.Signals] = STOP_SIGNALS
    if manager.is_connected:  # with Type=notify-reload, it sends SIGHUP for a reload
        signals = tuple(each for each in STOP_SIGNALS if each != signal.SIGHUP)
        loop.add_signal_handler(signal.SIGHUP, manager.refuse_reload)

    async def prepared() -> None:
        drop()

    def ready() -> None:
        deadline.reschedule(None)
        if stays_root(daemon.user):  # not earlier: a failed start prints one line only
            log.warning(AS_ROOT)
        log.info("%s is ready", application.name)
        manager.ready(f"{reading.name} is ready: pid {os.getpid()}")
        loop.call_soon(hub.publish, "start", f"{application.name} is ready")  # bodies subscribe before that
        checks.start()

    def stopping() -> None:
        manager.stopping("draining")
        manager.allow(daemon.longest_stop)

    def delayed(seconds: float) -> None:
        manager.stopping(f"stopping: clients are served for {seconds:g} s, and then drained")
        manager.allow(seconds + daemon.longest_stop)

    def checked(results: list[CheckResult]) -> None:
        failing = {each.name: each.why for each in results if each.why}
        hub.publish_checks(manager.failing, failing)
        manager.degraded(failing)

    interval = manager.alive_interval
    try:
        async with asyncio.timeout(daemon.start_timeout) as deadline:
            with (
                beside(_repeat(INTERVAL, housekeeping.look)),
                beside(None if interval is None else _repeat(interval, manager.watchdog)),
                closing(Checks(application, checked)) as checks,
            ):
                return await live(
                    application,
                    prepared=prepared,
                    ready=ready,
                    stopping=stopping,
                    requests=StopRequests(signals=signals, ends_process=True),
                    delay=StopDelay(daemon.stop_delay, delayed),
                )
    except TimeoutError:
        what = f"{application.name} was not ready after {daemon.start_timeout:g} s"
        raise ApplicationFailed(what) from None


def _log(level: str, text: str) -> None:
    log.log(logging.getLevelNamesMapping()[level], text)


async def _repeat(seconds: float, call: Callable[[], object]) -> None:
    """Call regularly from the event loop, so that a blocked loop makes no calls."""
    while True:
        call()
        await asyncio.sleep(seconds)


class _EndDeadline:
    """The time in which this process ends after its application, whatever threads and tasks are left.

    The event loop waits for tasks and calls in threads, and the interpreter for threads that are not daemon
    threads, both without a limit. ``release`` gives back what the process holds.
    """

    release: Callable[[], object]
    _status: int | None = None

    def __init__(self, seconds: float) -> None:
        self._seconds = max(seconds, LEFT_OVER_AFTER)

    async def after(self, life: Coroutine[None, None, Ending]) -> Ending:
        """Run the life of an application; begin when it ends."""
        status: int = ExitStatus.SOFTWARE
        try:
            ending = await life
            status = ending.status
        except TamedError as error:
            status = status_of(error)
            raise
        finally:
            self.begin(status, asyncio.get_running_loop())
        return ending

    def begin(self, status: int, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Begin, unless it has begun. The process ends with ``status`` at the deadline."""
        if self._status is None:
            self._status = status
            threading.Thread(target=self._watch, args=(status, loop), name="end", daemon=True).start()

    def _watch(self, status: int, loop: asyncio.AbstractEventLoop | None) -> None:
        name_left_over(loop, "SIGINT ends the process at once")
        time.sleep(self._seconds - LEFT_OVER_AFTER)
        print_now(f"ended without waiting any longer, {self._seconds:g} s after the application")
        self.release()
        os._exit(status)


class _Manager(Notifier):
    """The service manager, if there is one.

    ``failing`` are the checks that fail: the reasons, by the names of the services.
    """

    failing: Mapping[str, str] = {}
    _others: Sequence[str] = ()

    def discard_sockets(self) -> None:
        """Close the sockets in the manager's store, which this daemon left there when it had a supervisor.

        Otherwise they would prevent it from binding.
        """
        stored = Inheritance(os.environ, os.getpid()).stored()
        for descriptor, name in stored.items():
            self.remove_stored(name)
            os.close(descriptor)
        if stored:
            self.barrier()

    def allow(self, seconds: float) -> None:
        """Request the time that a start or a stop may take; Tamed itself enforces it."""
        self.extend_timeout(seconds + _MARGIN)

    def troubled(self, troubles: Sequence[str]) -> bool:
        """Notify of the current problems, besides the failing checks."""
        self._others = troubles
        return self._show_troubles()

    def degraded(self, failing: Mapping[str, str]) -> None:
        """Notify of the failing checks."""
        if failing != self.failing:
            self.failing = failing
            self._show_troubles()

    def _show_troubles(self) -> bool:
        failing = (f"the check of {name} fails: {why}" for name, why in self.failing.items())
        return super().troubled([*failing, *self._others])

    def refuse_reload(self) -> None:
        """Refuse a reload, with a warning: it needs a process that outlives the application."""
        log.warning("SIGHUP: cannot reload a process without workers; add --workers 1, or restart it")
        self.reloading()
        self.send({"READY": "1", "STATUS": f"{self.shown}; not reloaded: it has no workers"})

    def failed(self, error: TamedError) -> None:
        """Notify of the reason for the end."""
        from tamed.ipc.fault import errno_of  # lazy import: failures are rare

        variables = {"STATUS": str(error), "EXIT_STATUS": str(status_of(error))}
        if number := errno_of(error):
            variables["ERRNO"] = str(number)
        self.send(variables)
