"""The supervisor as a program: ``python -m tamed.runner.supervisor PLAN NAME``, where PLAN is a descriptor.

The command ``tamed`` becomes this program by exec, when it has understood what it is to do, and hands over
a plan as data. What it was (command line, the user's options, third-party packages) is then gone from memory.
"""

import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

from tamed.daemon import Identity, Instance, Reporter, limit_open_files
from tamed.errors import ExitStatus, TamedError, status_of
from tamed.net import Inheritance
from tamed.runner._control import ControlServer
from tamed.runner._desk import Desk
from tamed.runner._intake import Intake
from tamed.runner._layout import layout_of
from tamed.runner._pid_file import held_pid_file
from tamed.runner._plan import Plan
from tamed.runner._plan_file import held_plan_file
from tamed.runner._reactor import Reactor
from tamed.runner._real_station import RealStation
from tamed.runner._root import AS_ROOT, stays_root
from tamed.runner._sink import open_sink
from tamed.runner._sockets import SocketTable
from tamed.runner._status import StatusDesk
from tamed.runner._supervisor import SIGNALS, Supervisor
from tamed.runner._terminal import tell_person

__all__ = ["main"]

_TEND = 1.0  # seconds
_IGNORED = (signal.SIGUSR2,)


def main() -> NoReturn:
    """Supervise the plan that was handed over, and exit as the daemon should."""
    plan = Plan.take_over(int(sys.argv[1]))
    reporter = Reporter(plan.report) if plan.report >= 0 else None
    told = f"tamed: {plan.name} was told to stop before it was ready"
    try:
        status = supervise(plan, reporter)
    except TamedError as error:
        status = status_of(error)
        told = f"tamed: {error}"
        tell_person(told)
    if reporter is not None:
        reporter.failed(told, status or ExitStatus.SOFTWARE)  # unless whoever waits has been told already
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
        status = 128 - status  # as pid 1, which no signal of its own ends
    sys.exit(status)


def supervise(plan: Plan, reporter: Reporter | None) -> int:
    """Take hold of all that outlives a worker, supervise, and let go of it in reverse order."""
    identity = Identity.resolve(plan.user, plan.group) if plan.user or plan.group else None
    owner = (identity.uid, identity.gid) if identity else None
    with ExitStack() as held:
        reactor = Reactor()
        held.callback(reactor.close)
        reactor.hold_signals(SIGNALS)  # none of them ends this process now and leaves something behind
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        if plan.max_files is not None:
            limit_open_files(plan.max_files)
        if plan.control:
            held.callback(Instance(plan.name, Path(plan.control).parent).remove_if_empty)
        if plan.pid_file:
            held.enter_context(held_pid_file(Path(plan.pid_file), owner))
        if plan.plan_file:
            held.enter_context(held_plan_file(plan))
        sink = open_sink(plan.log, plan.name, owner)
        intake = Intake(reactor, sink, layout_of(plan.log.layout))
        held.callback(intake.close)
        sockets = SocketTable(Inheritance(os.environ, plan.listen_pid))
        held.callback(sockets.close)
        station = RealStation(plan, intake, identity=identity, reporter=reporter, environ=os.environ)
        supervisor = Supervisor(plan, reactor, sockets, station)
        reactor.on_signal = supervisor.signalled
        if plan.control:
            desk = Desk(supervisor, StatusDesk(supervisor, reactor, sockets))
            held.callback(ControlServer(Path(plan.control), reactor, desk.serve, owner=owner).close)
        if stays_root(plan.user):
            station.say("WARNING", AS_ROOT)
        _tend(reactor, intake)
        return _run(supervisor, reactor, station)


def _run(supervisor: Supervisor, reactor: Reactor, station: RealStation) -> int:
    """Supervise to the end. A mistake of ours is told in the log; the workers then end by themselves."""
    try:
        supervisor.start()
        reactor.run()
    except Exception:
        import traceback

        station.say("CRITICAL", f"the supervisor failed\n{traceback.format_exc().rstrip()}")
        return ExitStatus.SOFTWARE
    return supervisor.status


def _tend(reactor: Reactor, intake: Intake) -> None:
    """Let the log do what is due, about once a second."""
    intake.sink.tend()
    reactor.later(_TEND, lambda: _tend(reactor, intake))


if __name__ == "__main__":
    main()
