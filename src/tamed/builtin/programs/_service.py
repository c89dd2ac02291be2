"""A program as a service."""

import os
from contextlib import ExitStack
from typing import Final

from tamed._logger import own_logger
from tamed.builtin.keeper import Program
from tamed.builtin.programs._first import first
from tamed.builtin.programs._handover import Handover
from tamed.builtin.programs._output import Output
from tamed.builtin.programs._process import Ending, Process
from tamed.builtin.programs._readiness import Readiness, RunsFor
from tamed.builtin.programs._warden import Warden
from tamed.errors import ApplicationFailed
from tamed.service.restart import Restart
from tamed.service.service import Service

__all__ = ["ProgramService"]

log = own_logger("exec")

_GRACE: Final = 5.0
"""Seconds beyond its own deadline that a program may take to be gone after it was killed."""


class ProgramService(Service):
    """A program, as a service that lives as long as the program does.

    ``start`` returns when the program is ready, and fails if the program ends before. The program's end
    ends the service; with a status that is not among ``success`` it fails it, and the ``restart`` policy
    says what happens then. ``stop`` leaves nothing of the program behind.

    What it prints goes to the logger ``exec.LABEL``. ``warden`` must have been started before. ``handover``
    has the sockets that are passed to the program.
    """

    def __init__(
        self,
        program: Program,
        warden: Warden,
        *,
        name: str = "program",
        readiness: Readiness | None = None,
        handover: Handover | None = None,
        success: frozenset[int] = frozenset({0}),
        restart: Restart | None = None,
        start_timeout: float | None = 60.0,
        line_limit: int = 8192,
    ) -> None:
        super().__init__(
            name, restart=restart, start_timeout=start_timeout, stop_timeout=program.stop_timeout + _GRACE
        )
        self.program = program
        self.success = success
        self._warden = warden
        self._readiness = readiness or RunsFor(0)
        self._handover = handover
        self._line_limit = line_limit
        self._process: Process | None = None
        self._output: Output | None = None

    @property
    def label(self) -> str:
        """What the program is called in the log: as its multi-service, which the operator has named."""
        return self.name if self.parent is None else self.parent.name

    @property
    def pid(self) -> int | None:
        """The program's process id; None while it does not run."""
        return None if self._process is None else self._process.pid

    @property
    def summary(self) -> str:
        """The program, its process, and what it says of itself."""
        facts = [
            self.program.command[0],
            "" if self.pid is None else f"pid {self.pid}",
            self._readiness.status,
        ]
        return ", ".join(filter(None, facts))

    async def start(self) -> None:
        """Run the program, and wait until it is ready."""
        try:
            self._process = await self._launch()
            log.info("%s runs as pid %d", self.label, self._process.pid)
            await self._until_ready(self._process)
        except BaseException:
            await self._end()
            raise

    async def run(self) -> None:
        """Live as long as the program does."""
        assert self._process is not None
        ending = await self._process.wait()
        self._require_success(ending)
        log.info("%s: %s", self.label, ending)

    async def stop(self) -> None:
        """Ask the program to end, and wait until nothing of it is left."""
        if self._handover is not None and not self.restarting:
            self._handover.close()
        await self._end()

    async def _launch(self) -> Process:
        self._output = Output(log.getChild(self.label).info, self._line_limit)
        program = self.program._replace(environment={**self.program.environment, **self._variables()})
        with ExitStack() as undo:
            undo.callback(self._output.close_end)
            nothing = os.open(os.devnull, os.O_RDONLY)
            undo.callback(os.close, nothing)
            end = self._output.end
            sockets = () if self._handover is None else self._handover.sockets
            return await self._warden.launch(program, nothing, end, end, sockets)

    def _variables(self) -> dict[str, str]:
        identity = self.program.identity
        uids = {0, os.geteuid()} if identity is None else {0, os.geteuid(), identity.uid}
        variables = dict(self._readiness.begin(uids))
        if self._handover is not None:
            self._handover.listen()
            variables |= self._handover.variables(self.label)
        return variables

    async def _until_ready(self, process: Process) -> None:
        if await first(self._readiness.wait(), process.wait()) != 0:
            self._require_success(await process.wait())
            if not self._readiness.may_end:
                raise ApplicationFailed(self.label, "it ended before it was ready")

    def _require_success(self, ending: Ending) -> None:
        if ending.code not in self.success:
            raise ApplicationFailed(self.label, str(ending), f"its output is in the log as exec.{self.label}")

    async def _end(self) -> None:
        process, self._process = self._process, None
        output, self._output = self._output, None
        self._readiness.end()
        if process is not None:
            await process.stop()
        if output is not None:
            await output.finish()
