"""A head start: the daemon of `tamed start` begins before the command line is read.

Then three processes load what they need at the same time, and nothing is loaded twice:

- the command, which has loaded what all three need, waits for the daemon's report, and asks for secrets;
- the daemon, its child (`tamed.unix.detach`), loads the supervisor, and waits for the plan;
- the reader, a child of the daemon, goes on as the command: it reads the options and makes the plan. Then it
  becomes the template of the workers (`tamed.control.first_template`), or ends.

What is wrong in the command line is printed by the reader, whose exit status is then that of the command.

There is no head start for an interpreter with options, since the supervisor and the template have others, and
none for a command with inherited sockets, which systemd has given to a process of that pid.
"""

import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final, NoReturn

from tamed._os.beginning import Unwind, has_options, leave_command, words_of
from tamed._os.descriptors import receive_descriptors
from tamed._os.fork import threads
from tamed._os.identity import Identity, becomes_another
from tamed._os.proc import show_program, show_words
from tamed._os.syscalls import be_subreaper, die_with_parent
from tamed.errors import ExitStatus
from tamed.supervisor.plan import Plan
from tamed.supervisor.plan_file import forget_plan
from tamed.supervisor.spawner import FirstTemplate
from tamed.unix.detach import fork_daemon, settle
from tamed.unix.privileges import forbid_tracing
from tamed.unix.report import Launch, Report, Reporter
from tamed.unix.rundir import Instance

__all__ = ["HEAVY", "HeadStart", "begin"]

_HELP: Final = {"-h", "--help"}
HEAVY: Final = {"asyncio", "logging", "tamed.config", "tamed.plugins"}
"""Modules that a supervisor must not have loaded: it is executed anew if the command had, from its start."""
_FOR_PLAN: Final = 1000  # milliseconds for the reader to finish after the command was killed


class HeadStart:
    """The reader's connection with the supervisor, and with the command, whose pid is ``command``.

    ``of_this_process`` is set in a reader.
    """

    of_this_process: ClassVar["HeadStart | None"] = None

    def __init__(self, supervisor: socket.socket, reporter: Reporter, command: int) -> None:
        self._supervisor = supervisor
        self._reporter = reporter
        self._command = command

    def ask(self, name: str) -> str:
        """Have the command prompt for a secret, which has the terminal; allow no core dump from then on."""
        secret = self._reporter.ask(name)
        if secret is None:
            raise Unwind(partial(sys.exit, ExitStatus.SOFTWARE))  # the command has ended, or prints why
        forbid_tracing()
        return secret

    def place(self, instance: Instance) -> None:
        """Have the command remove the folder of an instance, which may be created now, if the start fails."""
        self._reporter.placed(str(instance.socket))

    def hand_over(
        self, plan: Plan, identity: Identity | None, keep: Sequence[int], timeout: float
    ) -> NoReturn:
        """Give the plan to the supervisor, and become its template or end, by Unwind.

        The supervisor keeps the inherited descriptors in ``keep``, and the command waits ``timeout`` seconds.
        """
        from tamed.control.first_template import become_template  # lazy import: only the reader needs it

        plan = plan._replace(listen_pid=self._command)
        os.umask(plan.umask)  # for the workers

        def give(first: FirstTemplate | None = None) -> None:
            header = {
                "environ": {**os.environ},
                "keep": keep,
                "timeout": timeout,
                "template": first and first.pid,
            }
            descriptors = () if first is None else first.descriptors
            with self._supervisor as supervisor:
                socket.send_fds(supervisor, [b" "], descriptors)
                supervisor.sendall(json.dumps(header).encode() + b"\n" + plan.to_text().encode())
            self._reporter.close()

        status = 0
        try:
            become_template(plan, identity, give)
            give()
        except OSError:  # the supervisor has ended, which the command reports
            status = ExitStatus.SOFTWARE
        raise Unwind(partial(sys.exit, status))


def begin(arguments: Sequence[str], ask: Callable[[str], str]) -> Report | Callable[[], NoReturn] | None:
    """Begin the daemon of a command line before it is read.

    Returns the outcome in the command, and the rest of its life in the daemon. Returns None in the process
    that must read the command line: the reader, or, without a head start, this one.
    """
    if not _is_possible(arguments):
        return None
    command = os.getpid()
    side = fork_daemon()
    if isinstance(side, Launch):
        return _outcome(side, ask)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if it was ignored, the reader's status would be lost
    daemon = os.getpid()
    try:
        ours, theirs = socket.socketpair()
        reader = os.fork()
    except OSError as error:
        side.failed(f"tamed: cannot start the daemon: {error.strerror}", ExitStatus.OS_ERROR)
        return partial(sys.exit, ExitStatus.OS_ERROR)
    if reader == 0:
        die_with_parent()  # the command waits until both have closed its socket
        if os.getppid() != daemon:
            os._exit(ExitStatus.SOFTWARE)
        ours.close()
        HeadStart.of_this_process = HeadStart(theirs, side, command)
        return None
    theirs.close()
    return partial(_supervise, ours, side, reader)


def _is_possible(arguments: Sequence[str]) -> bool:
    return (
        arguments[:1] == ["start"]
        and not _HELP & {*arguments}
        and not has_options()
        and "LISTEN_PID" not in os.environ
        and threads() == 1
    )


# In the command.


def _outcome(launched: Launch, ask: Callable[[str], str]) -> Report:
    is_ready = False
    try:
        report = launched.wait(ask=ask)
        is_ready = report.ready
    finally:
        if launched.control and not is_ready:
            instance = _instance_at(launched.control)
            if instance.is_trusted:
                instance.remove_if_empty()
            if launched.is_planned:
                forget_plan(instance)
    return report


def _instance_at(control: str) -> Instance:
    folder = Path(control).parent
    return Instance(folder.name, folder)


# In the daemon.


def _supervise(plans: socket.socket, reporter: Reporter, reader: int) -> NoReturn:
    """Load the supervisor, receive the plan, and carry it out; or end with the status of the reader."""
    # lazy import: the command does not need them
    from tamed.supervisor.generation import how_it_ended
    from tamed.supervisor.program import supervise

    if not _is_awaited(plans, reporter):  # the command was killed: nobody would learn that the daemon runs
        os.kill(reader, signal.SIGKILL)
        sys.exit(ExitStatus.SOFTWARE)
    descriptors, header, text = _received(plans)
    if not text:
        code = os.waitstatus_to_exitcode(os.waitpid(reader, 0)[1])
        why = f"tamed: the process that reads the command line {how_it_ended(code)}" if code < 0 else ""
        status = code if code >= 0 else ExitStatus.SOFTWARE
        reporter.failed(why, status)
        sys.exit(status)
    os.environ.clear()
    os.environ.update(header["environ"])
    plan = Plan.from_text(text)
    reporter.planned(header["timeout"])
    if reporter.fileno() < 0:  # the command was killed meanwhile
        _instance_at(plan.control).remove_if_empty()
        sys.exit(ExitStatus.SOFTWARE)
    plan = plan._replace(report=reporter.fileno())
    settle(reporter, keep=header["keep"], umask=plan.umask, directory=Path(plan.directory))
    be_subreaper(True)
    first = FirstTemplate(header["template"], *descriptors) if descriptors else None
    words = words_of("tamed.supervisor", plan.name)
    if (
        not words
        or becomes_another(Identity.named(plan.user, plan.group))
        or not HEAVY.isdisjoint(sys.modules)
    ):
        from tamed.control.first_template import become_supervisor

        os.set_inheritable(plan.report, True)
        become_supervisor(plan, first)
    leave_command()
    show_words(words, len(sys.orig_argv))
    show_program(Path(sys.executable).name)
    supervise(plan, first)


def _is_awaited(plans: socket.socket, reporter: Reporter) -> bool:
    """Wait for the plan, and return True, or for the end of the command, and return False.

    A plan that comes soon after the end of the command is received, too: it names the folder to remove.
    """
    if reporter.fileno() < 0:
        return False
    poll = select.poll()
    poll.register(plans, select.POLLIN)
    poll.register(reporter.fileno(), 0)  # which reports that the other end was closed (poll(2))
    if reporter.fileno() not in dict(poll.poll()):
        return True
    poll.unregister(reporter.fileno())
    return bool(poll.poll(_FOR_PLAN))


def _received(plans: socket.socket) -> tuple[list[int], Any, str]:
    """Return the descriptors of a template, if there is one, the header and the plan; an empty text for none.

    The reader is what this process was a moment ago, so the header is not validated.
    """
    _, descriptors = receive_descriptors(plans, 1, 3)
    with plans, plans.makefile("rb") as rest:
        header, text = rest.readline(), rest.read()
    return descriptors, json.loads(header) if text else None, text.decode()
