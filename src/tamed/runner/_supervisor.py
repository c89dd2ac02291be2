"""The supervisor: the process that stays.

It holds what must outlive any worker: the pid file, the listening sockets, the log and the control socket. It
starts the workers, replaces those that die, and stops them. It is small: the standard library, one thread,
and never the application's code, so that nothing in the application can take it down.

Its own life has three phases. STARTING ends when every worker of the first generation is ready, or one has
failed, which fails the start. RUNNING ends with a signal, with the wish of an application to end, or when
workers fail faster than the restart policy allows. In STOPPING the workers drain, and the last one to end
ends the supervisor.
"""

import enum
import signal
from collections.abc import Iterable

from tamed.errors import ExitStatus, TamedError, reason, status_of
from tamed.runner._crew import Crew
from tamed.runner._plan import Plan
from tamed.runner._reactor import Reactor
from tamed.runner._sockets import SocketTable
from tamed.runner._station import Station
from tamed.runner._watchdog import Watchdog
from tamed.runner._worker_record import Worker, WorkerState
from tamed.service import Backoff, Restart, RestartBudget

__all__ = ["SIGNALS", "Phase", "Supervisor"]

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGCHLD)
"""What `Supervisor.signalled` is to be called with."""

_ROLLBACK_GRACE = 5.0  # seconds for the workers to undo a start that failed
_LAST_GRACE = 1.0  # seconds for processes that were killed to be gone
# With longer waits than these the eleventh restart of a lone worker would never fall within the minute.
_PATIENCE = Restart("always", limit=10, within=60.0, backoff=Backoff(maximum=4.0))


class Phase(enum.Enum):
    """The phases of the supervisor's life."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"


class Supervisor:
    """Supervises the workers of one plan.

    ``status`` is the exit status, once the reactor has been stopped; negative for the signal by which the
    process is to end. ``last_error`` is what happened to the worker that failed last.
    """

    def __init__(self, plan: Plan, reactor: Reactor, sockets: SocketTable, station: Station) -> None:
        self.plan = plan
        self.phase = Phase.STARTING
        self.status = int(ExitStatus.OK)
        self.last_error = ""
        self.crew = Crew(plan, reactor, sockets, station)
        self.crew.on_change = self._changed
        self.crew.on_end = self._ended
        self._reactor = reactor
        self._sockets = sockets
        self._station = station
        self._budget = RestartBudget(_PATIENCE)
        self._is_privileged = True
        self._watchdog = Watchdog(plan, self.crew.workers, reactor, station)

    def start(self) -> None:
        """Start the workers; what comes of it is seen to by the reactor."""
        self._reactor.later(self.plan.start_timeout, self._start_overran)
        self._watchdog.watch()
        self._tell_alive()
        for number in range(1, self.plan.workers + 1):
            self._hire(number)

    def stop(self, status: int = ExitStatus.OK) -> None:
        """Stop every worker, and then the reactor. The first call counts, and so does its exit status.

        Workers that serve have the plan's ``stop_timeout`` for it. Those of a start that has not come to its
        end have a few seconds.
        """
        if self.phase is Phase.STOPPING:
            return
        grace = _ROLLBACK_GRACE if self.phase is Phase.STARTING else self.plan.stop_timeout
        self.phase = Phase.STOPPING
        self.status = int(status)
        self._station.tell_stopping()
        # Clients must not wait in a queue that nobody will serve; the workers take what is in it by now.
        self._sockets.close()
        for worker in self.crew.workers.values():
            self.crew.dismiss(worker)
        self._reactor.later(grace, self._stop_overran)
        self._end_if_alone()

    def signalled(self, number: signal.Signals) -> None:
        """Do what a signal asks for."""
        match number:
            case signal.SIGCHLD:
                self.crew.reap()
                self._end_if_alone()
            case signal.SIGUSR1:
                self._station.reopen_log()
                self._station.say("INFO", "SIGUSR1: the log was opened anew")
            case signal.SIGQUIT:
                self._end_at_once(number)
            case signal.SIGINT if self.phase is Phase.STOPPING:
                self._end_at_once(number)
            case _ if self.phase is not Phase.STOPPING:
                self._station.say("INFO", f"{number.name}: stopping")
                self.stop()

    # The way to readiness.

    def _changed(self, worker: Worker) -> None:
        match worker.state:
            case WorkerState.PREPARED:
                self._let_start()
            case WorkerState.STARTING:
                self._drop_privileges()
            case WorkerState.READY:
                self._became_ready(worker)

    def _let_start(self) -> None:
        """Let workers start, once all of the first generation have what they need privilege for."""
        if self.phase is Phase.STARTING and self._any_in(WorkerState.LOADING):
            return
        for worker in self.crew.workers.values():
            if worker.state is WorkerState.PREPARED:
                self.crew.let_start(worker)

    def _drop_privileges(self) -> None:
        """Give up privilege once all workers have: until then it takes privilege to end one of them."""
        if not self._is_privileged or self._any_in(WorkerState.LOADING, WorkerState.PREPARED):
            return
        self._is_privileged = False
        try:
            self._station.drop_privileges()
        except TamedError as error:
            self._fail([f"tamed: {error}"], status_of(error))

    def _became_ready(self, worker: Worker) -> None:
        if self.phase is Phase.RUNNING:
            self._station.say("INFO", f"worker {worker.pid} is ready")
        elif self.phase is Phase.STARTING and not any(
            each.is_on_the_way for each in self.crew.workers.values()
        ):
            self.phase = Phase.RUNNING
            self._station.tell_ready(self._sockets.addresses())

    def _any_in(self, *states: WorkerState) -> bool:
        return any(worker.state in states for worker in self.crew.workers.values())

    def _start_overran(self) -> None:
        late = [
            f"worker {each.pid} is {each.state.value}"
            for each in self.crew.workers.values()
            if each.is_on_the_way
        ]
        told = f"tamed: {self.plan.name} was not ready after {self.plan.start_timeout:g} s: {', '.join(late)}"
        self._fail([told], ExitStatus.SOFTWARE)

    def _fail(self, lines: Iterable[str], status: int) -> None:
        """End a start that has failed; the first reason counts."""
        if self.phase is Phase.STARTING:
            self._station.tell_failed(lines, status)
            self.stop(status)

    # Workers come and go.

    def _hire(self, number: int) -> None:
        if self.phase is Phase.STOPPING:
            return
        try:
            self.crew.hire(number)
        except OSError as error:
            told = f"a worker cannot be started: {reason(error)}"
            self._fail([f"tamed: {told}"], ExitStatus.OS_ERROR)
            self._replace(number, told, ran=0.0, status=ExitStatus.OS_ERROR)

    def _ended(self, worker: Worker, code: int) -> None:
        match self.phase:
            case Phase.STARTING:
                self._fail(worker.why_not_ready(code), worker.status)
            case Phase.RUNNING if worker.leaving is not None:
                self._station.say("INFO", f"the application ends, with status {worker.leaving}: stopping")
                self.stop(worker.leaving)
            case Phase.RUNNING:
                ran = self._reactor.clock() - worker.started
                self._replace(worker.number, worker.how_it_ended(code), ran, worker.status)
            case Phase.STOPPING if code not in (0, -signal.SIGTERM) and self.status == ExitStatus.OK:
                self._station.say("ERROR", worker.how_it_ended(code))
                self.status = worker.status

    def _replace(self, number: int, told: str, ran: float, status: int) -> None:
        """Start another worker in a while, unless that has happened too often."""
        if self.phase is not Phase.RUNNING:
            return
        self.last_error = told
        wait = self._budget.after(failed=True, now=self._reactor.clock(), ran=ran)
        if wait is None:
            self._station.say("CRITICAL", f"{told}; workers fail too often: stopping")
            self.stop(status)
        else:
            self._station.say("ERROR", f"{told}; another one is started in {wait:.1f} s")
            self._reactor.later(wait, lambda: self._hire(number))

    # The end.

    def _stop_overran(self) -> None:
        for worker in self.crew.workers.values():
            self._station.say(
                "ERROR", f"worker {worker.pid} does not stop: its stacks follow, and it is ended"
            )
            self._watchdog.put_down(worker)

    def _end_at_once(self, number: signal.Signals) -> None:
        self._station.say("WARNING", f"{number.name}: ending at once")
        self.phase = Phase.STOPPING
        self.status = -number
        for pid in self.crew.workers:
            self._station.kill(pid)
        self._reactor.later(_LAST_GRACE, self._reactor.stop)
        self._end_if_alone()

    def _end_if_alone(self) -> None:
        if self.phase is Phase.STOPPING and not self.crew.workers:
            self._reactor.stop()

    def _tell_alive(self) -> None:
        """Tell the system's manager, as often as it wants to hear it, that all is well, while it is."""
        if self._station.alive_interval is not None:
            self._reactor.later(self._station.alive_interval, self._tell_alive)
            if self._watchdog.is_content:
                self._station.tell_alive()
