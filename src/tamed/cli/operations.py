"""The commands that change a running instance: reload, upgrade, restart, reopen, resign, scale."""

from __future__ import annotations

import sys

from tamed._os.limits import check_workers
from tamed._os.text import shown
from tamed.cli.instances import directory_of, each_instance, instance_of, instances_of, progress_line
from tamed.control.operations import (
    reload_instance,
    reopen_instance,
    resign_role,
    scale_instance,
    upgrade_instance,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from tamed.control.operations import Outcome
    from tamed.unix.detach import Report
    from tamed.unix.rundir import Instance

__all__ = ["reload", "reopen", "resign", "restart", "scale", "upgrade"]


def restart(names: Sequence[str], rundir: str | None, every: bool) -> int:
    """Stop instances and start them again, one after the other; start those that have stopped."""
    from tamed.cli.password import ask_secret  # lazy import: the other operations start nothing
    from tamed.control.restart import find_restartable, restart_instance

    if names and not every:
        directory = directory_of(rundir)
        instances = [find_restartable(directory, name) for name in names]
    else:
        instances = instances_of(names, rundir, every=every)

    def restart_one(instance: Instance) -> int:
        with progress_line() as show:
            report = restart_instance(instance, show, ask_secret)
        return _report(report)

    return each_instance(instances, restart_one)


def reload(names: Sequence[str], rundir: str | None, every: bool) -> int:
    """Replace the workers of instances with new ones."""
    instances = instances_of(names, rundir, every=every)
    return each_instance(instances, lambda each: _report(reload_instance(each, _show_wait)))


def upgrade(name: str | None, rundir: str | None) -> int:
    """Replace the program of an instance's supervisor."""
    return _report(upgrade_instance(instance_of(name, rundir), _show_wait))


def reopen(name: str | None, rundir: str | None) -> int:
    """Reopen the log of an instance."""
    return _report(reopen_instance(instance_of(name, rundir)))


def resign(name: str, role: str, rundir: str | None) -> int:
    """Move a role to another worker of an instance."""
    return _report(resign_role(instance_of(name, rundir), role, _show_wait))


def scale(count: int, name: str | None, rundir: str | None, yes: bool) -> int:
    """Change the number of workers of an instance."""
    check_workers(count, yes=yes)
    instance = instance_of(name, rundir)
    return _report(scale_instance(instance, count, _show_wait, yes=yes))


def _report(outcome: Report | Outcome) -> int:
    """Print the outcome of a request; return its exit status."""
    print(shown(outcome.text), file=sys.stderr if outcome.status else sys.stdout)
    return outcome.status


def _show_wait(what: str) -> None:
    """Report that a request waits, and for which operation."""
    print(f"tamed: {shown(what)} is in progress; waiting for it to finish", file=sys.stderr, flush=True)
