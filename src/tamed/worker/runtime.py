"""What a worker works with, as its first order says (settings, log, application), and its life with that."""

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from tamed.config.identity import ReadAsRoot, drop_to, identity_of
from tamed.config.job import Job
from tamed.config.load import load
from tamed.config.reading import Reading
from tamed.errors import TamedError, exit_code, status_of
from tamed.ipc.channel import Channel
from tamed.ipc.fault import fault_message
from tamed.ipc.message import Message, read_object, read_seconds, read_text, read_truth
from tamed.log.layout import layout_of
from tamed.log.logger import flush_log
from tamed.net.listen import Gate, ServerEnvironment, SocketSource, set_environment
from tamed.service.application import Application
from tamed.unix.reaper import end_own_group
from tamed.unix.spawn import RECORDS
from tamed.worker.life import Ending, live, loop_factory
from tamed.worker.link import Link, SupervisedSource, wearing
from tamed.worker.log_handler import PipeHandler, log_to
from tamed.worker.report import report_of, serving

__all__ = ["Workplace", "exit_after", "say"]


class Workplace:
    """The settings, and the log; then the application, once it is loaded."""

    application: Application

    def __init__(self, order: Message) -> None:
        self._heartbeat_interval = read_seconds(order, "heartbeat")
        self._is_watched = read_truth(order, "files")
        self._files: dict[str, int] = {}
        job = Job.from_data(read_object(order, "job"))
        self._reading = Reading.from_data(job, read_object(order, "reading"))
        self._settings = self._reading.settings
        self._handler = PipeHandler(RECORDS)
        layout = layout_of(read_text(order, "layout"))
        log_to(self._handler, layout, self._settings.log, is_console=True)
        identity = self._identity = identity_of(self._settings.daemon)
        is_roots = identity is not None and identity.uid != 0 and os.geteuid() == 0
        self._read = ReadAsRoot(identity) if identity is not None and is_roots else None

    def settle(self, source: SocketSource, gate: Gate) -> None:
        """Have what listens in this process get its sockets from a source, and heed a gate."""
        set_environment(ServerEnvironment(source, self._settings.daemon.drain_timeout, gate))

    def load(self) -> None:
        """Import the application."""
        self.application = load(self._reading.fixed_job, self._reading.deployment)
        self._see_files()

    def _see_files(self) -> None:
        """Note when the application's files were written; what was noted stays, since it was read by then."""
        if self._is_watched:
            from tamed.worker.own_files import own_files

            self._files = own_files(self._reading.job, self._reading.deployment) | self._files

    def drop_privileges(self) -> None:
        """Become the user that the settings name, for good.

        Raises PermissionRefused for a file that was read as root and that the user cannot read.
        """
        drop_to(self._settings.daemon, self._identity)
        if self._read is not None:
            self._read.require_readable()

    def link(self, channel: Channel) -> Link:
        """Link this process to the supervisor, which has the sockets and opens the gate."""
        gate = Gate(is_open=False)
        link = Link(channel, lambda: report_of(self.application), self._heartbeat_interval, gate)
        self.settle(SupervisedSource(link), gate)
        return link

    def live(self, link: Link) -> int:
        """Run the application to its end; return the exit status."""
        ending = self._live(link)
        if ending.signal is None:
            link.say({"leaving": ending.status & 0xFF})
        return ending.status

    def _live(self, link: Link) -> Ending:
        application, daemon = self.application, self._settings.daemon

        async def prepared() -> None:
            await link.prepared()
            self.drop_privileges()
            link.say({"state": "starting"})

        def ready() -> None:
            self._see_files()
            link.say({"state": "ready"})
            if self._is_watched:
                link.say({"files": self._files})

        def accepted() -> int:
            return sum(each.accepted for each in serving(application))

        def worn(why: str) -> None:
            link.say({"worn": why})

        async def run() -> Ending:
            with link.open(), self._handler.open(), wearing(daemon, accepted, worn):
                return await live(
                    application, prepared=prepared, ready=ready, process=f"worker {os.getpid()}"
                )

        with asyncio.Runner(loop_factory=loop_factory(daemon.loop)) as runner:
            return runner.run(run())


def exit_after(channel: Channel, work: Callable[[], int]) -> NoReturn:
    """Work, tell the supervisor if that fails, and exit with the status of it.

    What this process has started is the supervisor's to end; if that is gone, it is ended here.
    """
    try:
        status = work()
    except TamedError as error:
        status = status_of(error)
        say(channel, fault_message(error))
    except SystemExit as error:
        status = exit_code(error)
        say(channel, {"leaving": status})
    finally:
        flush_log()
        logging.shutdown()
        if channel.is_cut_off():
            end_own_group()
    sys.exit(status)


def say(channel: Channel, message: Message) -> None:
    """Send the last words of this process; if the supervisor is gone, nobody is there to hear them."""
    try:
        channel.send(message)
    except OSError:
        return
