"""Upgrading: another program replaces the supervisor in the same process, and then reloads.

The process keeps its pid, its children, the sockets, and the lock on the pid file, so service managers and
parents notice no change. An exec cannot be undone. So a child first tries the new program: it loads all of it
and reads the state that it would resume from.
"""

import os
import signal
from collections.abc import Callable
from typing import Any

from tamed._version import __version__
from tamed.errors import ExitStatus, TamedError, reason, status_of
from tamed.ipc.handoff import Data, HandoffState, Keep
from tamed.ipc.message import InvalidMessage, read_fault, read_text
from tamed.supervisor.helpers import HelperProcess, HelperProcesses
from tamed.supervisor.operations import History
from tamed.supervisor.plan import Plan
from tamed.supervisor.platform import Platform
from tamed.unix.privileges import is_traceable

__all__ = ["Upgrader"]

_TRIAL = "tamed.supervisor.trial"


class Upgrader:
    """Runs upgrades.

    ``export`` returns the state for the next program; its argument keeps a descriptor open. It raises
    Unavailable if the daemon stops. ``failed`` is called with the outcome of a failed upgrade; after a
    successful one, the next program answers. ``upgrading`` is called with True at the beginning, and with
    False after a failure.
    """

    def __init__(
        self,
        helpers: HelperProcesses,
        platform: Platform,
        export: Callable[[Keep], Data],
        *,
        failed: Callable[[dict[str, Any]], object],
        upgrading: Callable[[bool], object],
    ) -> None:
        self._helpers = helpers
        self._reactor = platform.reactor
        self._platform = platform
        self._export = export
        self._failed = failed
        self._upgrading = upgrading
        self._history = History(platform, "upgrade")

    def begin(self, plan: Plan, asked: str) -> None:
        """Try the program that the plan's interpreter would run, then execute it in this process.

        ``asked`` is the requester.
        """
        self._history = History(self._platform, "upgrade", asked=asked or None)
        self._platform.log("INFO", "upgrading")
        self._platform.notifier.reloading("reloading")
        self._upgrading(True)
        try:
            order = {"state": HandoffState().data | self._export(int)}
            self._helpers.send(
                _TRIAL, order, lambda helper: self._trial_ended(plan, helper), timeout=plan.helper_timeout
            )
        except TamedError as error:
            self._fail([f"tamed: {error}"], status_of(error))
        except OSError as error:
            self._fail([f"tamed: the new program cannot be tried out: {reason(error)}"], ExitStatus.OS_ERROR)

    def _trial_ended(self, plan: Plan, helper: HelperProcess) -> None:
        try:
            match helper.answer or {}:
                case {"ready": _} as answer:
                    version = read_text(answer, "ready")
                    self._platform.log("INFO", f"tamed {version} takes over")
                    self._history.record(f"tamed {version} takes over from {__version__}", outcome="done")
                    self._become(plan)
                case {"fault": _} as answer:
                    self._fail(*read_fault(answer))
                case _:
                    why = (
                        f"did not start within {plan.helper_timeout:g} s and was killed"
                        if helper.timed_out
                        else f"does not start (exit code {helper.code})"
                    )
                    line = f"tamed: the new program {why}; see its output in the log"
                    self._fail([line], ExitStatus.SOFTWARE)
        except InvalidMessage as error:
            self._fail([f"tamed: the new program sent an invalid message: {error}"], ExitStatus.SOFTWARE)

    def _become(self, plan: Plan) -> None:
        # Signals stay blocked until the new program can handle them: their default action would end it.
        # Pending signals are part of the state.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        taken = self._reactor.take_signals()
        try:
            self._execute(plan, taken)
        except TamedError as error:
            self._fail([f"tamed: {error}"], status_of(error))
        except OSError as error:
            why = f"cannot run {plan.interpreter[0]}: {reason(error)}"
            self._fail([f"tamed: {why}"], ExitStatus.OS_ERROR)
        finally:
            self._reactor.return_signals(taken)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _execute(self, plan: Plan, taken: bytes) -> None:
        state = HandoffState()
        state.data |= self._export(state.keep)
        state.data["signals"] = list(taken)
        state.data["traceable"] = is_traceable()
        descriptor = state.hand_over()
        command = [*plan.interpreter, "-m", "tamed.supervisor", "--resume", str(descriptor), plan.name]
        try:
            os.execv(command[0], command)
        finally:
            state.take_back(descriptor)

    def _fail(self, lines: list[str], status: int) -> None:
        self._upgrading(False)
        text = "\n".join(lines).removeprefix("tamed: ")
        self._platform.log("ERROR", f"upgrade failed, nothing has changed: {text}")
        self._history.record(f"the upgrade failed: {text}", outcome="failed")
        self._platform.notifier.ready(f"upgrade failed: {lines[-1]}")
        self._failed({"fault": {"lines": lines, "status": status}})
