"""The templates of a supervisor: one for each generation that is preloaded, at most."""

import socket
from collections.abc import Callable
from functools import partial

from tamed.errors import ExitStatus
from tamed.ipc.channel import Channel
from tamed.ipc.handoff import Data, Keep
from tamed.ipc.message import InvalidMessage
from tamed.supervisor.generation import Generation
from tamed.supervisor.loop import Reactor, deliver
from tamed.supervisor.platform import Platform, Template

__all__ = ["Templates"]

_MODULE = "tamed.worker.template"


class Templates:
    """Starts templates and ends them.

    A generation whose template has ended gets its workers in the ordinary way.
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
        """Have an application loaded, and call ``loaded``, or ``failed`` with the reason and the status.

        Raises OSError if the system has no room for a process, or cannot do this at all.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                pid = self._platform.spawn(theirs.fileno(), _MODULE, plan=generation.plan)
            except BaseException:
                ours.close()
                raise
        template = self._of[generation.number] = Template(pid, Channel(ours), loaded, failed)
        self._reactor.watch(template.channel, lambda: self._hear(template))
        template.channel.send(generation.plan.first_order)
        deliver(template.channel, self._reactor, lambda: self._hang_up(template))

    def of(self, generation: Generation) -> Template | None:
        """Return the template of a generation, if it has one that can fork."""
        template = self._of.get(generation.number)
        return template if template is not None and template.is_loaded else None

    def export(self, keep: Keep) -> list[Data]:
        """Return those that can fork, as data."""
        return [
            {"generation": number, "pid": each.pid, "channel": each.channel.export(keep)}
            for number, each in self._of.items()
            if each.is_loaded and not each.channel.closed
        ]

    def resume(self, left: list[Data]) -> None:
        """Go on with those of the program before."""
        for data in left:
            channel = Channel.imported(data["channel"])
            template = Template(data["pid"], channel, lambda: None, lambda *_: None)
            template.is_loaded = True
            self._of[data["generation"]] = template
            self._reactor.watch(channel, partial(self._hear, template))
            deliver(channel, self._reactor, partial(self._hang_up, template))

    def drop_privileges(self) -> None:
        """Have every template become the user that its workers have become."""
        for template in self._of.values():
            template.channel.send({"drop": True})

    def end(self, generation: Generation | None = None) -> None:
        """End the template of a generation, or all: no more workers are wanted of it."""
        for number in list(self._of) if generation is None else [generation.number]:
            template = self._of.pop(number, None)
            if template is not None:
                self._hang_up(template)
                self._platform.kill(template.pid)

    def ended(self, pid: int, code: int) -> None:
        """Hear that a child has ended, which may be a template."""
        number = next((number for number, each in self._of.items() if each.pid == pid), None)
        if number is None:
            return
        template = self._of.pop(number)
        self._hear(template)
        self._hang_up(template)
        if template.is_loaded:
            told = f"the template of the workers has ended ({code}): others are started without one"
            self._platform.log("ERROR", told)
        else:
            told = f"tamed: the process that loads the application ended with {code}"
            template.failed(*(template.fault or ([told], ExitStatus.SOFTWARE)))

    def _hear(self, template: Template) -> None:
        try:
            for message, _ in template.channel.receive():
                template.understand(message)
        except (OSError, InvalidMessage):
            self._hang_up(template)
        if template.channel.closed:
            self._hang_up(template)

    def _hang_up(self, template: Template) -> None:
        if template.channel.fileno() >= 0:
            self._reactor.unwatch(template.channel)
            template.channel.close()
