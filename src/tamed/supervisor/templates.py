"""The templates of a supervisor: processes that have loaded the workers' code, and fork workers.

Every worker is forked from a template (`tamed.worker.template`). With ``--preload`` a generation has its own,
which has loaded the application too. Otherwise a template is independent of generations, and all generations
that have the same interpreter use the same one.

A fork is a request and an answer, so the supervisor never waits for a template. A forked process does nothing
before its first message, which the supervisor sends when it has the pid. Until then the process is in the
process group of its template and ends with it, or when the supervisor closes the channel. So a request that
fails or is cancelled at any moment leaves no process behind.
"""

import errno
import itertools
import os
from collections.abc import Callable
from pathlib import Path

from tamed.errors import ExitStatus, reason
from tamed.ipc.channel import Channel
from tamed.ipc.handoff import Data, Keep
from tamed.ipc.message import Message, read_fault, read_number
from tamed.supervisor.generation import Generation, how_it_ended
from tamed.supervisor.loop import NO_TIMER, Peer
from tamed.supervisor.platform import Platform, PreparedFork
from tamed.supervisor.spawner import TEMPLATE

__all__ = ["ForkRequest", "Templates"]

_PATIENCE = 15.0  # seconds for a fork, which takes milliseconds unless the machine is overloaded
_CRASHES = 3
_STEADY = 10.0  # seconds between two templates that are started in advance

_Key = tuple[str, ...]


class ForkRequest:
    """A fork that was requested. One of the callbacks is called, once, unless the request is cancelled.

    ``forked`` is called with the pid and our end of the channel; ``refused`` if the system or the template
    does not fork; ``failed``, with the lines and the status, if the template ends while it loads.
    """

    def __init__(
        self,
        forked: Callable[[int, Channel], object],
        refused: Callable[[OSError], object],
        failed: Callable[[list[str], int], object],
        prepared: PreparedFork,
        channel: Channel,
    ) -> None:
        self.forked = forked
        self.refused = refused
        self.failed = failed
        self._prepared = prepared
        self._channel = channel
        self._is_over = False

    def cancel(self) -> bool:
        """Cancel the request; return False if a callback was already called."""
        was_over, self._is_over = self._is_over, True
        if not was_over:
            self._prepared.close()
            self._channel.close()
        return not was_over

    def answered(self, pid: int) -> None:
        """Adopt the forked process."""
        if self._is_over:
            return
        try:
            self._prepared.adopt(pid)
        except OSError as error:  # it has already ended, or is not our child
            self.give_up(error)
        else:
            self._is_over = True
            self.forked(pid, self._channel)

    def give_up(self, error: OSError) -> None:
        """Report that no process will be forked."""
        if self.cancel():
            self.refused(error)


class _Template:
    """A template process, with the requests that it has not answered."""

    def __init__(self, key: _Key, pid: int, *, is_loaded: bool = False, stays_root: bool = False) -> None:
        self.key = key
        self.pid = pid
        self.is_loaded = is_loaded
        self.stays_root = stays_root
        self.is_outdated = False
        self.peer: Peer
        self.fault: tuple[list[str], int] | None = None
        self.requests: dict[int, ForkRequest] = {}
        self.deadline = NO_TIMER
        self.crashes = 0

    def handle(self, message: Message) -> None:
        """Handle a message of the process."""
        match message:
            case {"loaded": _}:
                self.is_loaded = True
            case {"forked": _}:
                if (request := self.requests.pop(read_number(message, "forked"), None)) is not None:
                    request.answered(read_number(message, "pid", least=1))
            case {"refused": _}:
                number = read_number(message, "errno", least=1)
                if (request := self.requests.pop(read_number(message, "refused"), None)) is not None:
                    request.give_up(OSError(number, os.strerror(number)))
            case {"changed": _}:
                self.is_outdated = True
                if (request := self.requests.pop(read_number(message, "changed"), None)) is not None:
                    request.give_up(OSError(errno.ESTALE, "the template's files have changed"))
            case {"fault": _}:
                self.fault = read_fault(message)
            case {"leaving": _} if not self.is_loaded:
                status = read_number(message, "leaving", most=255)
                why = f"tamed: the application ended while it was loaded, with status {status}"
                self.fault = [why], status

    def close(self) -> list[ForkRequest]:
        """Close the channel; return the requests that will not be answered."""
        self.peer.close()
        self.deadline.cancel()
        left = list(self.requests.values())
        self.requests.clear()
        return left


class Templates:
    """Starts templates when they are needed, forks from them, and ends them."""

    def __init__(self, platform: Platform) -> None:
        self._reactor = platform.reactor
        self._platform = platform
        self._of: dict[_Key, _Template] = {}
        self._numbers = itertools.count(1)
        self._started = -_STEADY

    def fork(
        self,
        generation: Generation,
        role: Message,
        *,
        forked: Callable[[int, Channel], object],
        refused: Callable[[OSError], object],
        failed: Callable[[list[str], int], object],
    ) -> ForkRequest:
        """Request the fork of a process with a channel; start a template if there is none.

        Raises OSError if the system refuses what the request needs.
        """
        template = self._of.get(_key_of(generation))
        if template is not None and template.is_outdated and not template.requests:
            self._end(template)
            template = None
        template = template or self._start(generation)
        number = next(self._numbers)
        with Channel.to_child() as (channel, theirs):
            prepared = self._platform.prepare_fork(generation.plan)
            request = ForkRequest(forked, refused, failed, prepared, channel)
            try:
                template.peer.send({"fork": number, **role}, [theirs, *prepared.theirs])
            except BrokenPipeError:
                pass  # it has just ended: `ended` answers the request with the reason
            except OSError:
                request.cancel()
                raise
        prepared.close_theirs()
        template.requests[number] = request
        self._set_deadline(template, generation.plan.start_timeout)
        return request

    def can_read(self, generation: Generation) -> bool:
        """Return whether the template of a generation can fork a process that reads the current files.

        It must not have loaded the application, nor an interpreter that is no longer the current one: the
        interpreter may be in a folder that a link leads to.
        """
        template = self._of.get(_key_of(generation))
        plan = generation.plan
        if template is None or not template.is_loaded or plan.preload:
            return False
        now, then = Path(plan.interpreter[0]), Path((plan.worker_interpreter or plan.interpreter)[0])
        return now.parent.resolve() == then.parent.resolve()

    def tend(self, generation: Generation, *, is_whole: bool) -> None:
        """Keep a template of the serving generation as long as another worker may soon be needed.

        ``is_whole`` is whether all its workers are ready. For a single one, a template would not be worth its
        memory.
        """
        for key in self._of.keys() - {_key_of(generation)}:
            self._end(self._of[key])
        if generation.plan.preload or generation.count > 1:
            self.keep(generation)
        elif is_whole:
            self._end_unused(generation)

    def keep(self, generation: Generation) -> None:
        """Start a template for a generation soon, if it has none.

        If one template after the other ends, another is started only when it is needed.
        """
        now = self._reactor.clock()
        if _key_of(generation) in self._of or now - self._started < _STEADY:
            return
        self._started = now
        try:
            self._start(generation)
        except OSError as error:
            self._platform.log("WARNING", f"cannot start a template for the workers: {reason(error)}")

    def _end_unused(self, generation: Generation) -> None:
        """End the template of a generation, unless a fork request is pending."""
        template = self._of.get(_key_of(generation))
        if template is not None and template.is_loaded and not template.requests:
            self._end(template)

    def end(self) -> None:
        """End all templates; processes that they are forking end with them."""
        for template in list(self._of.values()):
            self._end(template)

    def crashed(self, generation: Generation, *, is_loading: bool) -> None:
        """Count the crash of a worker; after several, replace the template, unless a worker is loading.

        All workers of a template share their memory layout and stack canaries; a new template invalidates
        what an attacker has learned from the crashes.
        """
        template = self._of.get(_key_of(generation))
        if template is None:
            return
        template.crashes += 1
        if template.crashes >= _CRASHES and not is_loading:
            self._platform.log(
                "WARNING", "workers have crashed repeatedly: starting others with a new memory layout"
            )
            self._end_unused(generation)

    def drop_privileges(self) -> None:
        """End all root templates; those with an application drop root, as the workers have done."""
        for template in list(self._of.values()):
            if not template.stays_root:
                continue
            if _is_preloaded(template.key):
                template.peer.send({"drop": True})
            else:
                self._end(template)

    def ended(self, pid: int, code: int) -> None:
        """Handle the end of a child, which may be a template."""
        template = next((each for each in self._of.values() if each.pid == pid), None)
        if template is None:
            return
        template.peer.receive()
        del self._of[template.key]
        requests = template.close()
        how = how_it_ended(code)
        if template.is_loaded:
            self._platform.log("WARNING", f"the template of the workers {how}")
            for request in requests:
                request.give_up(OSError(errno.ECHILD, f"the template of the workers {how}"))
            return
        what = "loads the application" if _is_preloaded(template.key) else "loads Tamed for the workers"
        why = f"tamed: the process that {what} {how}"
        lines, status = template.fault or ([why], int(ExitStatus.SOFTWARE))
        for request in requests:
            if request.cancel():
                request.failed(lines, status)

    def export(self, keep: Keep) -> list[Data]:
        """Return the templates that can fork, as data. Those that are about to fork end with the exec."""
        return [
            {"key": each.key, "pid": each.pid, "channel": each.peer.channel.export(keep)}
            for each in self._of.values()
            if each.is_loaded and not each.requests and not each.peer.channel.closed
        ]

    def resume(self, left: list[Data]) -> None:
        """Resume the templates of the previous program."""
        for data in left:
            template = _Template(tuple(data["key"]), data["pid"], is_loaded=True)
            self._connect(template, Channel.imported(data["channel"]))

    def _start(self, generation: Generation) -> _Template:
        plan = generation.plan
        with Channel.to_child() as (channel, theirs):
            pid = self._platform.spawn(theirs, *TEMPLATE, plan=plan)
        template = self.adopt(generation, pid, channel)
        try:
            template.peer.send(plan.template_order)
        except OSError:
            self._end(template)
            raise
        return template

    def adopt(self, generation: Generation, pid: int, channel: Channel) -> _Template:
        """Use this child as a template; it was spawned for the generation, and has its order or gets it."""
        plan = generation.plan
        template = _Template(_key_of(generation), pid, stays_root=plan.prepare_as_root)
        self._connect(template, channel)
        self._set_deadline(template, plan.start_timeout)
        return template

    def _connect(self, template: _Template, channel: Channel) -> None:
        def handle(message: Message) -> None:
            template.handle(message)
            self._set_deadline(template)

        self._of[template.key] = template
        template.peer = Peer(channel, self._reactor, handle)

    def _set_deadline(self, template: _Template, start_timeout: float = 0.0) -> None:
        """Extend a template's deadline after an answer or a request, as long as an answer is due."""
        template.deadline.cancel()
        if template.requests or not template.is_loaded:
            seconds = _PATIENCE if template.is_loaded else start_timeout + _PATIENCE
            template.deadline = self._reactor.later(seconds, lambda: self._time_out(template))

    def _time_out(self, template: _Template) -> None:
        """End a template that does not answer; do not wait for a process that cannot be killed."""
        self._platform.log("ERROR", f"the template of the workers, process {template.pid}, does not answer")
        self._end(template, OSError(errno.ETIMEDOUT, "the template of the workers does not answer"))

    def _end(self, template: _Template, error: OSError | None = None) -> None:
        """End a template, and forked processes that were not adopted."""
        if self._of.get(template.key) is template:
            del self._of[template.key]
        self._platform.kill(template.pid)
        for request in template.close():
            request.give_up(error or OSError(errno.ECANCELED, "the template of the workers was ended"))


def _key_of(generation: Generation) -> _Key:
    """Return the same key for generations that may use the same template."""
    plan = generation.plan
    return ("preloaded", str(generation.number)) if plan.preload else ("", *plan.worker_interpreter)


def _is_preloaded(key: _Key) -> bool:
    return key[0] == "preloaded"
