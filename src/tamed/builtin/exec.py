"""Programs of any kind as services: run, watched, restarted, and ended with all that they have started."""

from dataclasses import dataclass
from typing import Literal

from tamed.builtin.programs import (
    Accepts,
    Handover,
    Notifies,
    ProgramOptions,
    ProgramService,
    Readiness,
    RunsFor,
    Warden,
)
from tamed.net import Endpoint, TlsEndpoint
from tamed.plugins.option import option
from tamed.plugins.plugin import plugin
from tamed.plugins.values import Duration
from tamed.service.restart import Backoff, Restart
from tamed.service.service import MultiService, Service

__all__ = ["Options", "exec_"]


@dataclass
class Options(ProgramOptions):
    """The options of ``exec``."""

    listen: list[Endpoint] = option([], "An endpoint whose socket is passed to the program as LISTEN_FDS.")
    restart: Literal["never", "on-failure", "always"] = option(
        "on-failure", "When a program that has ended is started again."
    )
    restart_limit: int = option(
        5, "More restarts than that, within the time of restart-within, end the application; 0: no limit."
    )
    restart_within: Duration = option(Duration("1m"), "The time in which restarts are counted.")
    restart_pause: Duration = option(
        Duration("100ms"), "The pause before the first restart; each after it is twice as long."
    )
    restart_pause_max: Duration = option(Duration("30s"), "The longest pause before a restart.")
    success: list[int] = option([0], "A status that the program ends with when nothing is wrong.")
    ready_after: Duration = option(Duration("1s"), "How long the program has to run to count as started.")
    ready_at: Endpoint | None = option(
        None, "An address at which the program accepts connections when it is ready."
    )
    ready_notify: bool = option(False, "The program says by NOTIFY_SOCKET (sd_notify) when it is ready.")
    start_timeout: Duration = option(Duration("1m"), "How long the program may take until it is ready.")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.readiness()
        self.policy()
        if any(isinstance(endpoint, TlsEndpoint) for endpoint in self.listen):
            raise ValueError("listen: a program is passed the socket itself, so TLS is up to the program")

    def readiness(self) -> Readiness:
        """Return how one knows that the program is ready. Raises ValueError if that is not clear."""
        if self.ready_notify and self.ready_at is not None:
            raise ValueError("ready-at and ready-notify exclude each other")
        if self.ready_notify:
            return Notifies()
        return RunsFor(self.ready_after) if self.ready_at is None else Accepts(self.ready_at)

    def policy(self) -> Restart:
        """Return when the program is restarted. Raises ValueError for a policy that is none."""
        backoff = Backoff(self.restart_pause, maximum=self.restart_pause_max)
        return Restart(self.restart, self.restart_limit or None, self.restart_within, backoff)


@plugin
def exec_(options: Options) -> Service:
    """Runs and watches any program."""
    warden = Warden()
    handover = Handover(options.listen, name="sockets") if options.listen else None
    program = ProgramService(
        options.program(),
        warden,
        readiness=options.readiness(),
        handover=handover,
        success=frozenset(options.success),
        restart=options.policy(),
        start_timeout=options.start_timeout,
        line_limit=options.line_limit,
    )
    parts = [warden, program] if handover is None else [warden, handover, program]
    return MultiService(options.command.name, *parts)
