"""The supervisor as a program, which begins in one of three ways.

- In a process that `tamed start` forked before it read the command line (`tamed.control.head_start`).
- As ``python -m tamed.supervisor PLAN NAME``, where PLAN is a descriptor: a process of the command that has
  made the plan becomes this program by exec, which frees its memory.
- After an upgrade as ``python -m tamed.supervisor --resume STATE NAME``. STATE is the descriptor of the state
  that the previous program of this process exported.

The plan is data: nothing of the command's parser, the user's options or other packages is in this process.
"""

import faulthandler
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

from tamed.errors import ExitStatus, TamedError, reason, status_of
from tamed.ipc.handoff import Data, HandoffState
from tamed.supervisor.holdings import Holdings
from tamed.supervisor.last_state import LastState
from tamed.supervisor.plan import Plan
from tamed.supervisor.platform import print_error
from tamed.supervisor.spawner import FirstTemplate
from tamed.supervisor.supervisor import SIGNALS, Phase
from tamed.unix.detach import Reporter
from tamed.unix.privileges import AS_ROOT, forbid_tracing, stays_root
from tamed.unix.process import end_by_signal, ignore_to_the_end
from tamed.unix.rundir import Instance

__all__ = ["main", "supervise"]


def main() -> NoReturn:
    """Supervise a new plan, or resume from an exported state; exit with the status of the daemon."""
    left = _take_over(int(sys.argv[2])) if sys.argv[1] == "--resume" else None
    plan = Plan.take_over(int(sys.argv[1])) if left is None else _plan_in(left)
    supervise(plan._replace(template=None), FirstTemplate.of(plan), left)


def supervise(plan: Plan, first: FirstTemplate | None = None, left: Data | None = None) -> NoReturn:
    """Supervise a plan, with its first template if there is one, and exit with the status of the daemon.

    ``left`` is the state that the previous program of this process exported.
    """
    faulthandler.enable()  # a crash, or SIGABRT of the service manager's watchdog, writes the stack
    if plan.answers:  # a core dump would contain them
        forbid_tracing()
    reporter = Reporter(plan.report) if plan.report >= 0 else None
    why = f"tamed: {plan.name} was asked to stop before it was ready"
    try:
        with ExitStack() as held:
            status = _supervise(Holdings(plan, reporter, left, first, held), left)
    except TamedError as error:
        status = status_of(error)
        why = f"tamed: {error}"
        print_error(why)
    if reporter is not None:
        reporter.failed(why, status or ExitStatus.SOFTWARE)  # does nothing if a report was sent before
    ignore_to_the_end({*SIGNALS} - {signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD})
    if status < 0:
        status = end_by_signal(-status)
    sys.exit(status)


def _take_over(descriptor: int) -> Data:
    """Read the exported state. A process that dropped root stays untraceable."""
    left = HandoffState.take_over(descriptor)
    if not left["traceable"]:
        forbid_tracing()
    return left


def _supervise(holdings: Holdings, left: Data | None) -> int:
    """Supervise until the daemon ends. A bug in the supervisor is logged; the workers then end on their own.

    If a daemon that was ready ends without a request, the reason is kept in a file for later commands.
    """
    supervisor, platform = holdings.supervisor, holdings.platform
    try:
        holdings.notifier.watch()
        if left is None:
            if stays_root(supervisor.plan.user):
                platform.log("WARNING", AS_ROOT)
            holdings.start()
        else:
            holdings.resume(left)
        holdings.keep_house()
        holdings.reactor.run()
        failure, status = supervisor.ending.failure, supervisor.ending.status
    except Exception as error:
        import traceback

        platform.log("CRITICAL", f"the supervisor failed\n{traceback.format_exc().rstrip()}")
        failure, status = f"the supervisor failed: {reason(error)}", int(ExitStatus.SOFTWARE)
        platform.notifier.stopping(failure)
    platform.notifier.send({"EXIT_STATUS": str(status if status >= 0 else 128 - status)})
    plan = supervisor.plan
    if failure and plan.control and supervisor.phase is not Phase.STARTING:
        instance = Instance(plan.name, Path(plan.control).parent)
        LastState.now(plan.name, failure, status, plan.log.path).leave(instance)
        holdings.events.keep()
        if holdings.plan_file is not None:
            holdings.plan_file.keep()
    platform.record("end", failure or "ended on request", status=status)
    return status


def _plan_in(left: Data) -> Plan:
    rollout = left["supervisor"]["rollout"]
    serving = next(each for each in rollout["generations"] if each["number"] == rollout["serving"])
    return Plan.from_text(serving["plan"])
