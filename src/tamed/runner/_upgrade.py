"""Upgrading: another program takes the supervisor's place in the same process, and then reloads.

The process stays: its pid, its children, the sockets, the lock on the pid file. So service managers and
parents notice nothing. Since there is no way back from an exec, the new program is tried out first, by
a child that loads all of it and reads what it would take over.
"""

import os
import signal
from collections.abc import Callable, Iterable, Sequence

from tamed.errors import ExitStatus, TamedError, reason, status_of
from tamed.runner._control import Answer
from tamed.runner._errand import Errand, Errands
from tamed.runner._legacy import Data, Keep, Legacy
from tamed.runner._message import InvalidMessage, read_fault, read_text
from tamed.runner._plan import Plan
from tamed.runner._reactor import Reactor
from tamed.runner._station import Station

__all__ = ["Upgrader", "become"]

_TRIAL = "tamed.runner.trial"
_AGAIN = 0.05  # seconds
_ATTEMPTS = 100


class Upgrader:
    """Conducts upgrades.

    ``estate`` returns all that the next program needs, given the means to keep a descriptor open and the
    answers that it will owe. It raises BlockingIOError if this is no moment for it. ``execute`` runs the
    program in this process, and raises the same, or OSError if it cannot be run.
    """

    def __init__(
        self,
        errands: Errands,
        reactor: Reactor,
        station: Station,
        estate: Callable[[Keep, Sequence[Answer]], Data],
        execute: Callable[[Plan, int], object],
    ) -> None:
        self.is_busy = False
        self._errands = errands
        self._reactor = reactor
        self._station = station
        self._estate = estate
        self._execute = execute
        self._answers: list[Answer] = []

    def begin(self, plan: Plan, answers: Iterable[Answer]) -> None:
        """Try the program out that the plan's interpreter would run, and become it.

        An answer is only called from here if that fails.
        """
        self._answers += answers
        if self.is_busy:
            return
        self.is_busy = True
        self._station.say("INFO", "upgrading")
        self._station.tell_reloading()
        try:
            data = Legacy().data | self._estate(int, self._answers)
            self._errands.send(_TRIAL, {"legacy": data}, lambda errand: self._tried(plan, errand))
        except TamedError as error:
            self._fail([f"tamed: {error}"], status_of(error))
        except OSError as error:
            self._fail([f"tamed: the new program cannot be tried out: {reason(error)}"], ExitStatus.OS_ERROR)

    def _tried(self, plan: Plan, errand: Errand) -> None:
        try:
            match errand.answer or {}:
                case {"ready": _} as answer:
                    self._station.say("INFO", f"tamed {read_text(answer, 'ready')} takes over")
                    self._become(plan, _ATTEMPTS)
                case {"fault": _} as answer:
                    self._fail(*read_fault(answer))
                case _:
                    why = f"does not start (exit code {errand.code}); the log has what it printed"
                    self._fail([f"tamed: the new program {why}"], ExitStatus.SOFTWARE)
        except InvalidMessage as error:
            self._fail([f"tamed: the new program cannot be understood: {error}"], ExitStatus.SOFTWARE)

    def _become(self, plan: Plan, attempts: int) -> None:
        try:
            self._leave_to_next(plan)
        except BlockingIOError:
            if attempts:
                self._reactor.later(_AGAIN, lambda: self._become(plan, attempts - 1))
            else:
                self._fail(["tamed: cannot upgrade: there was always something to do"], ExitStatus.SOFTWARE)
        except TamedError as error:
            self._fail([f"tamed: {error}"], status_of(error))
        except OSError as error:
            told = f"cannot run {plan.interpreter[0]}: {reason(error)}"
            self._fail([f"tamed: {told}"], ExitStatus.OS_ERROR)

    def _leave_to_next(self, plan: Plan) -> None:
        legacy = Legacy()
        legacy.data |= self._estate(legacy.keep, self._answers)
        descriptor = legacy.hand_over()
        try:
            self._execute(plan, descriptor)
        except BaseException:
            legacy.take_back(descriptor)
            raise

    def _fail(self, lines: list[str], status: int) -> None:
        self.is_busy = False
        text = "\n".join(lines).removeprefix("tamed: ")
        self._station.say("ERROR", f"upgrade failed, nothing has changed: {text}")
        self._station.tell_reloaded(f"upgrade failed: {lines[-1]}")
        answers, self._answers = self._answers, []
        for answer in answers:
            answer({"fault": {"lines": lines, "status": status}})


def become(reactor: Reactor, plan: Plan, descriptor: int) -> None:
    """Run the program of the plan's interpreter in this process.

    Raises BlockingIOError if signals have come that the reactor has yet to see to, which would be lost, and
    OSError if the program cannot be run.
    """
    # Signals stay blocked until the new program can take them: what they do by default would end it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        if reactor.has_signals():
            raise BlockingIOError
        command = [*plan.interpreter, "-m", "tamed.runner.supervisor", "--resume", str(descriptor), plan.name]
        os.execv(command[0], command)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
