"""The runtime of a worker, made from its first order: settings, log and application; and its life."""

import asyncio
import faulthandler
import importlib
import io
import logging
import math
import os
import site
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from tamed._os.fork import guard_forks
from tamed._os.identity import becomes_another
from tamed._os.secrets import SECRETS
from tamed.config.deployment import Deployment
from tamed.config.identity import ReadAsRoot, drop_to, identity_of
from tamed.config.job import Job, Reading
from tamed.config.kinds import own_kinds
from tamed.config.load import load
from tamed.config.settings import Daemon
from tamed.errors import TamedError, exit_code, status_of
from tamed.ipc.channel import CHANNEL, RECORDS, STACKS, Channel
from tamed.ipc.fault import fault_message
from tamed.ipc.message import Message, read_number, read_object, read_seconds, read_text, read_truth
from tamed.log.layout import layout_of
from tamed.log.logger import flush_log
from tamed.net.listen import Gate, ServerEnvironment, SocketSource, set_environment
from tamed.service.application import Application
from tamed.service.checks import CheckResult, Checks
from tamed.service.events import hub
from tamed.service.role import set_roles
from tamed.unix.privileges import forbid_tracing
from tamed.unix.reaper import end_own_group
from tamed.worker.life import Ending, StopRequests, beside, live, loop_factory, name_left_over, run_loop
from tamed.worker.link import Link, SupervisedSource
from tamed.worker.log_handler import PipeHandler, ProcessOrigin, log_to
from tamed.worker.report import hooks_of, measure, report_of, serving, timings_of

if TYPE_CHECKING:
    from tamed.metrics.values import Values
    from tamed.worker.cluster_roles import Fleet

__all__ = ["WorkerRuntime", "exit_after", "set_up_process"]

_CHECK_INTERVAL = 0.5  # seconds
_SPREAD = 0.1
_METRICS = "tamed.metrics.values"


def set_up_process() -> None:
    """Hide Tamed's descriptors and handlers from children, and make standard output line-buffered."""
    guard_forks()
    for descriptor in (CHANNEL, RECORDS):
        os.set_inheritable(descriptor, False)
    faulthandler.enable()  # a crash, or SIGABRT of the watchdog, writes the stacks of all threads to the log
    faulthandler.register(STACKS, all_threads=True)  # `tamed stacks` of a worker whose loop is blocked
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)


class WorkerRuntime:
    """The settings and the log, and the application after `load`."""

    application: Application

    def __init__(self, order: Message) -> None:
        self._heartbeat_interval = read_seconds(order, "heartbeat")
        self._reports_files = read_truth(order, "files")
        self._files: dict[str, int] = {}
        job = Job.from_data(read_object(order, "job"))._replace(answers=read_object(order, "answers"))
        self._reading = Reading.from_data(job, read_object(order, "reading"))
        self._settings = self._reading.settings
        self._handler = PipeHandler(RECORDS)
        layout = layout_of(read_text(order, "layout"))
        log_to(self._handler, layout, self._settings.log.level, is_console=True)
        self.identify(order)
        self._metrics = _metrics() if order.get("metrics") is True else None
        identity = self._identity = identity_of(self._settings.daemon)
        self._read_as_root = ReadAsRoot(identity) if identity and becomes_another(identity) else None

    def identify(self, order: Message) -> None:
        """Set the worker's number in the log; the order of a template has none."""
        if "origin" in order:
            origin = read_object(order, "origin")
            self._handler.name_origin(
                ProcessOrigin(
                    read_text(origin, "instance"),
                    read_number(origin, "worker"),
                    read_number(origin, "generation"),
                )
            )

    @staticmethod
    def rehearse(order: Message) -> None:
        """Load everything that a worker with this order loads before its application."""
        job = Job.from_data(read_object(order, "job"))
        daemon = Reading.from_data(job, read_object(order, "reading")).settings.daemon
        loop_factory(daemon.loop)
        for name in (*_needed_by(daemon), *([_METRICS] if order.get("metrics") is True else ())):
            importlib.import_module(name)
        tuple(own_kinds())
        with suppress(TamedError):  # a worker will report it
            identity_of(daemon)  # loads the C libraries that look up users

    def serve_from(self, source: SocketSource, gate: Gate) -> None:
        """Let the servers of this process get their sockets from a source, and obey a gate."""
        set_environment(ServerEnvironment(source, self._settings.daemon.drain_timeout, gate))

    def load(self) -> None:
        """Import the application."""
        began = time.monotonic()
        self.application = load(self._reading)
        if SECRETS:  # a core dump would contain them
            forbid_tracing()
        self._load_took = time.monotonic() - began
        self._record_files()

    def drop_privileges(self) -> None:
        """Become the user of the settings permanently.

        Raises PermissionRefused if the user cannot read a file that was read as root.
        """
        drop_to(self._settings.daemon, self._identity)
        if self._read_as_root is not None:
            self._read_as_root.require_readable()

    def link(self, channel: Channel) -> Link:
        """Link this process to the supervisor, which owns the sockets and opens the gate."""
        gate = Gate(is_open=False)
        link = Link(
            channel,
            lambda: report_of(self.application),
            self._heartbeat_interval,
            gate,
            lambda: hooks_of(self.application),
        )
        self.serve_from(SupervisedSource(link), gate)
        link.roles.fleet = self._fleet()
        set_roles(link.roles)
        hub.connect(lambda every_worker: link.send({"subscribe": "all" if every_worker else "one"}))
        if self._metrics is not None:
            _, descriptors = link.ask_now({"metrics": True})
            if descriptors:  # otherwise there is no shared memory, and this worker's values stay private
                self._metrics.move(descriptors[0])
        return link

    def live(self, link: Link) -> int:
        """Run the application to its end; return the exit status."""
        ending = run_loop(loop_factory(self._settings.daemon.loop), self._live(link))
        if ending.signal is None:
            link.send({"leaving": ending.status & 0xFF})
        return ending.status

    async def _live(self, link: Link) -> Ending:
        application = self.application

        async def prepared() -> None:
            await link.prepared()
            self.drop_privileges()
            link.send({"state": "starting"})

        def ready() -> None:
            # Later than the bodies of services begin, so that they can subscribe to this first event.
            asyncio.get_running_loop().call_soon(report_ready)

        def report_ready() -> None:
            self._record_files()
            link.send({"timings": timings_of(application, self._load_took)})
            checks.start()
            link.send({"state": "ready"})
            if self._reports_files:
                link.send({"files": self._files})

        def report_checks(results: list[CheckResult]) -> None:
            link.send({"checks": [_plain(each) for each in results]})

        def accepted() -> int:
            return sum(each.accepted for each in serving(application))

        def recycle(why: str) -> None:
            link.send({"recycle": why})

        requests = StopRequests(ends_process=True)
        process = f"worker {os.getpid()}"
        with (
            link.open(requests.request),
            self._handler.open(),
            beside(self._measuring()),
            beside(_recycling(self._settings.daemon, accepted, recycle)),
            closing(Checks(application, report_checks)) as checks,
        ):
            try:
                return await live(
                    application, prepared=prepared, ready=ready, process=process, requests=requests
                )
            finally:
                await link.roles.close()
                waiting = asyncio.get_running_loop(), "otherwise the supervisor ends it with SIGABRT"
                threading.Thread(target=name_left_over, args=waiting, name="end", daemon=True).start()

    def _measuring(self) -> Coroutine[Any, Any, None] | None:
        """Return what measures the application for the operations endpoint; None without one."""
        if self._metrics is None:
            return None
        return measure(self._metrics, self.application, lambda: self._handler.lost)

    def _fleet(self) -> "Fleet | None":
        """Return the object that campaigns for cluster roles; None without an engine."""
        daemon, reading = self._settings.daemon, self._reading
        if not daemon.cluster:
            return None
        from tamed.cluster.engine import open_engine  # lazy import: most daemons have no cluster
        from tamed.worker.cluster_roles import Fleet

        name = reading.job.name(reading.deployment)
        return Fleet(lambda: open_engine(daemon.cluster), daemon.cluster_lease, name)

    def _record_files(self) -> None:
        """Record the modification times of the application's files; the first time of a file is kept."""
        if self._reports_files:
            self._files = _own_files(self._reading.job, self._reading.deployment) | self._files


def _needed_by(daemon: Daemon) -> Iterator[str]:
    """Yield the modules that a worker with these settings imports lazily."""
    if daemon.cluster:
        yield from ("tamed.cluster.engine", "tamed.worker.cluster_roles")
    if daemon.max_connections_per_worker is not None or daemon.max_worker_age is not None:
        yield "random"


def exit_after(channel: Channel, work: Callable[[], int]) -> NoReturn:
    """Call ``work``, report its failure to the supervisor, and exit with its status.

    The supervisor ends the children of this process. If the supervisor has ended, this function ends them.
    """
    try:
        status = work()
    except TamedError as error:
        status = status_of(error)
        _send_last(channel, fault_message(error))
    except SystemExit as error:
        status = exit_code(error)
        _send_last(channel, {"leaving": status})
    finally:
        flush_log()
        logging.shutdown()
        if channel.is_cut_off():
            end_own_group()
    sys.exit(status)


def _send_last(channel: Channel, message: Message) -> None:
    """Send the last message of this process; ignore a supervisor that has ended."""
    try:
        channel.send(message)
    except OSError:
        return


# Metrics: those of the application, and of this process.


def _metrics() -> "Values":
    """Store the values of the application's metrics in memory that the supervisor can read."""
    from tamed.metrics.values import Values  # lazy import: most daemons have no operations endpoint

    values = Values()
    values.adopt()
    return values


def _plain(result: CheckResult) -> Message:
    values = result._asdict()
    return {
        name: SECRETS.hidden(value) if isinstance(value, str) else value for name, value in values.items()
    }


# Recycling: a worker that has reached a limit requests its replacement.


def _recycling(
    daemon: Daemon, accepted: Callable[[], int], ask: Callable[[str], object]
) -> Coroutine[Any, Any, None] | None:
    """Return what requests a replacement, with the reason, while a limit is reached; None without limits.

    ``accepted`` returns the number of accepted connections.
    """
    is_limited = daemon.max_connections_per_worker is not None or daemon.max_worker_age is not None
    return _ask_when_due(daemon, accepted, ask) if is_limited else None


async def _ask_when_due(daemon: Daemon, accepted: Callable[[], int], ask: Callable[[str], object]) -> None:
    import random  # lazy import: it loads hashlib, and most workers have no limits

    spread = random.uniform(1 - _SPREAD, 1 + _SPREAD)  # noqa: S311 - it is no secret
    most = math.inf if daemon.max_connections_per_worker is None else daemon.max_connections_per_worker
    oldest = math.inf if daemon.max_worker_age is None else daemon.max_worker_age
    begun = time.monotonic()
    while True:
        await asyncio.sleep(_CHECK_INTERVAL)
        age, count = time.monotonic() - begun, accepted()
        if age >= oldest * spread:
            ask(f"is {age:.0f} s old")
        elif count >= most * spread:
            ask(f"has served {count} connections")


# The files of the application, which ``--reload`` watches.


def _own_files(job: Job, deployment: Deployment | None) -> dict[str, int]:
    """Return the modification times of the application's files, in nanoseconds, by their absolute path.

    These are its modules, except those of Python and of installed packages, the deployment file, and files
    that options name.
    """
    found = {*_modules(), *_named(job, deployment)}
    if deployment is not None:
        found.add(deployment.file)
    return {str(file.absolute()): file.stat().st_mtime_ns for file in found if file.is_file()}


def _modules() -> Iterator[Path]:
    import sysconfig  # lazy import: few workers are watched

    installed = {*site.getsitepackages(), site.getusersitepackages(), *sysconfig.get_paths().values()}
    folders = [Path(folder) for folder in installed]
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and not any(Path(file).is_relative_to(folder) for folder in folders):
            yield Path(file)


def _named(job: Job, deployment: Deployment | None) -> Iterator[Path]:
    """Yield a path for each value of an option; only existing files are used."""
    folder = job.folder or Path.cwd()
    yield folder / job.target.name.partition(":")[0]
    yield from _paths_in(job.services, folder)
    if deployment is not None:
        for entry in deployment.services:
            yield from _paths_in(entry.table, deployment.folder)


def _paths_in(value: object, folder: Path) -> Iterator[Path]:
    match value:
        case Mapping():
            for each in value.values():
                yield from _paths_in(each, folder)
        case list() | tuple():
            for each in value:
                yield from _paths_in(each, folder)
        case str() if 0 < len(value) < 4096 and "\0" not in value:
            yield folder / value
