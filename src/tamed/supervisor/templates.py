"""The templates of a supervisor: processes that have loaded an application, and fork its workers.

Each preloaded generation has one.
"""

import errno
import os
import select
import socket
import time
from collections.abc import Callable
from functools import partial

from tamed.errors import ExitStatus
from tamed.ipc.channel import Channel
from tamed.ipc.handoff import Data, Keep
from tamed.ipc.message import InvalidMessage, Message, read_fault, read_number
from tamed.supervisor.generation import Generation
from tamed.supervisor.loop import Reactor, deliver
from tamed.supervisor.platform import Platform

__all__ = ["Template", "Templates"]

_MODULE = "tamed.worker.template"
_PATIENCE = 15.0  # seconds for a fork, which takes milliseconds unless the machine is overloaded


class Template:
    """A template process.

    ``loaded`` is called when it can fork. ``failed`` is called with the reason and the status if it ends
    before.
    """

    def __init__(
        self,
        pid: int,
        channel: Channel,
        loaded: Callable[[], object],
        failed: Callable[[list[str], int], object],
    ) -> None:
        self.pid = pid
        self.channel = channel
        self.loaded = loaded
        self.failed = failed
        self.is_loaded = False
        self.fault: tuple[list[str], int] | None = None

    def fork(self, channel: int, records: int, output: int) -> int:
        """Order the fork of a worker with copies of these descriptors; return its pid.

        Blocks until the fork is done, which takes milliseconds. Raises OSError if the template does not fork.
        """
        self.channel.send({"fork": True}, [channel, records, output])
        deadline = time.monotonic() + _PATIENCE
        while not self.channel.closed and (left := deadline - time.monotonic()) > 0:
            select.select([self.channel], [], [], left)
            try:
                for message, _ in self.channel.receive():
                    if "forked" in message:
                        return _forked(message)
            except InvalidMessage as error:
                raise OSError(errno.EPROTO, f"the template cannot be understood: {error}") from error
        raise OSError(errno.EAGAIN, "the template does not fork")

    def resume(self) -> None:
        """Record that it loaded the application under the previous program."""
        self.is_loaded = True

    def handle(self, message: Message) -> None:
        """Handle a message that is no answer. Raises InvalidMessage for an invalid one."""
        match message:
            case {"loaded": _}:
                self.is_loaded = True
                self.loaded()
            case {"fault": _}:
                self.fault = read_fault(message)
            case {"leaving": _} if not self.is_loaded:
                status = read_number(message, "leaving", most=255)
                why = f"tamed: the application ended while it was loaded, with status {status}"
                self.fault = [why], status


class Templates:
    """Starts templates and ends them.

    If the template of a generation has ended, its workers are started without one.
    """

    def __init__(self, reactor: Reactor, platform: Platform) -> None:
        self._reactor = reactor
        self._platform = platform
        self._of: dict[int, Template] = {}

    def load(
        self,
        generation: Generation,
        loaded: Callable[[], object],
        failed: Callable[[list[str], int], object],
    ) -> None:
        """Start a template; call ``loaded`` when it has loaded the application, or ``failed``.

        Raises OSError if the system cannot start a process.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                pid = self._platform.spawn(theirs.fileno(), _MODULE, plan=generation.plan)
            except BaseException:
                ours.close()
                raise
        template = self._of[generation.number] = Template(pid, Channel(ours), loaded, failed)
        self._reactor.watch(template.channel, lambda: self._receive(template))
        template.channel.send(generation.plan.first_order)
        deliver(template.channel, self._reactor, lambda: self._close(template))

    def of(self, generation: Generation) -> Template | None:
        """Return the template of a generation if it can fork, else None."""
        template = self._of.get(generation.number)
        return template if template is not None and template.is_loaded else None

    def export(self, keep: Keep) -> list[Data]:
        """Return the templates that can fork, as data."""
        return [
            {"generation": number, "pid": each.pid, "channel": each.channel.export(keep)}
            for number, each in self._of.items()
            if each.is_loaded and not each.channel.closed
        ]

    def resume(self, left: list[Data]) -> None:
        """Resume the templates of the previous program."""
        for data in left:
            channel = Channel.imported(data["channel"])
            template = Template(data["pid"], channel, lambda: None, lambda *_: None)
            template.resume()
            self._of[data["generation"]] = template
            self._reactor.watch(channel, partial(self._receive, template))
            deliver(channel, self._reactor, partial(self._close, template))

    def drop_privileges(self) -> None:
        """Order every template to drop its privileges, as its workers have done."""
        for template in self._of.values():
            template.channel.send({"drop": True})

    def end(self, generation: Generation | None = None) -> None:
        """End the template of a generation, or all templates."""
        for number in list(self._of) if generation is None else [generation.number]:
            template = self._of.pop(number, None)
            if template is not None:
                self._close(template)
                self._platform.kill(template.pid)

    def ended(self, pid: int, code: int) -> None:
        """Handle the end of a child, which may be a template."""
        number = next((number for number, each in self._of.items() if each.pid == pid), None)
        if number is None:
            return
        template = self._of.pop(number)
        self._receive(template)
        self._close(template)
        if template.is_loaded:
            why = f"the template of the workers has ended ({code}): others are started without one"
            self._platform.log("ERROR", why)
        else:
            why = f"tamed: the process that loads the application ended with {code}"
            template.failed(*(template.fault or ([why], ExitStatus.SOFTWARE)))

    def _receive(self, template: Template) -> None:
        try:
            for message, _ in template.channel.receive():
                template.handle(message)
        except (OSError, InvalidMessage):
            self._close(template)
        if template.channel.closed:
            self._close(template)

    def _close(self, template: Template) -> None:
        if template.channel.fileno() >= 0:
            self._reactor.unwatch(template.channel)
            template.channel.close()


def _forked(message: Message) -> int:
    """Return the pid of a forked worker. Raises OSError if it is no child of this process."""
    pid = read_number(message, "forked")
    if not pid:
        number = read_number(message, "errno")
        raise OSError(number, os.strerror(number))
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # raises ChildProcessError
    return pid
