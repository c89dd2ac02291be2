"""The commands that change an instance: a running or ended daemon, found by its name in the run directory."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path

from tamed._os.text import counted, shown
from tamed.control.instances import (
    find_instance,
    reload_instance,
    reopen_instance,
    resign_role,
    run_directory,
    scale_instance,
    stop_instance,
    upgrade_instance,
)
from tamed.errors import SystemRefused, TamedError, UsageError, status_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from tamed.supervisor.records import LastState
    from tamed.unix.rundir import Instance, RunDirectory

__all__ = [
    "directory_of",
    "each_instance",
    "ending",
    "instance_of",
    "instances_of",
    "progress_line",
    "reload",
    "reopen",
    "resign",
    "restart",
    "scale",
    "stop",
    "upgrade",
]

_FORCED_AFTER = 10.0  # seconds
_CLEAR_LINE = "\r\x1b[K"


def stop(names: Sequence[str], rundir: str | None, every: bool, timeout: float | None, force: bool) -> int:
    """Stop instances and wait until they are gone."""
    instances = instances_of(names, rundir, every=every)
    is_only = len(instances) == 1

    def stop_one(instance: Instance) -> int:
        seconds = _FORCED_AFTER if timeout is None and force else timeout
        with progress_line() as show:
            progress = show if is_only else lambda _: None
            ended = stop_instance(instance, timeout=seconds, force=force, progress=progress, keep_plan=True)
        if not ended:
            remedy = "wait for it, or end it at once with --force"
            raise SystemRefused(f"{instance.name} is still there", f"{seconds:g} s have passed", remedy)
        sys.stdout.write(f"{instance.name} has stopped\n")  # in one call: there may be several threads
        return 0

    return each_instance(instances, stop_one, at_once=True)


def restart(names: Sequence[str], rundir: str | None, every: bool) -> int:
    """Stop instances and start them again, one after the other; start those that have stopped."""
    from tamed._os.interrupts import release_interrupts
    from tamed.cli.password import ask_secret  # lazy import: no other command here starts anything
    from tamed.control.launch import find_restartable, restart_instance

    if names and not every:
        directory = directory_of(rundir)
        instances = [find_restartable(directory, name, _show_wait) for name in names]
    else:
        instances = instances_of(names, rundir, every=every)

    def restart_one(instance: Instance) -> int:
        with progress_line() as show:
            report = restart_instance(instance, show, ask_secret, _show_wait)
        status = _print_outcome(report.text, report.status)
        release_interrupts()
        return status

    return each_instance(instances, restart_one)


def reload(names: Sequence[str], rundir: str | None, every: bool) -> int:
    """Replace the workers of instances with new ones."""
    instances = instances_of(names, rundir, every=every)
    return each_instance(instances, lambda each: _print_outcome(*reload_instance(each, _show_wait)))


def upgrade(name: str | None, rundir: str | None) -> int:
    """Replace the program of an instance's supervisor."""
    return _print_outcome(*upgrade_instance(instance_of(name, rundir), _show_wait))


def reopen(name: str | None, rundir: str | None) -> int:
    """Reopen the log of an instance."""
    return _print_outcome(*reopen_instance(instance_of(name, rundir)))


def resign(name: str, role: str, rundir: str | None) -> int:
    """Move a role to another worker of an instance."""
    return _print_outcome(*resign_role(instance_of(name, rundir), role, _show_wait))


def scale(count: int, name: str | None, rundir: str | None, yes: bool) -> int:
    """Change the number of workers of an instance."""
    from tamed._os.limits import check_workers  # lazy import: only needed here

    check_workers(count, yes=yes)
    return _print_outcome(*scale_instance(instance_of(name, rundir), count, _show_wait, yes=yes))


def _print_outcome(text: str, status: int) -> int:
    """Print the outcome of an operation; return its exit status."""
    print(shown(text), file=sys.stderr if status else sys.stdout)
    return status


def _show_wait(what: str) -> None:
    """Report that a request waits, and for which operation."""
    print(f"tamed: {shown(what)} is in progress; waiting for it to finish", file=sys.stderr, flush=True)


def directory_of(rundir: str | None) -> RunDirectory:
    """Return the run directory that an option or the environment names, or by default that of this user."""
    place = rundir or os.environ.get("TAMED_RUNDIR")
    return run_directory(Path(place) if place else None)


def instance_of(name: str | None, rundir: str | None) -> Instance:
    """Return the instance that a command names, or the only running one."""
    return find_instance(directory_of(rundir), name)


def instances_of(names: Sequence[str], rundir: str | None, *, every: bool) -> list[Instance]:
    """Return the running instances of these names, or the only one, or all of them.

    Raises UsageError for names beside ``--all``, and as `find_instance` does.
    """
    directory = directory_of(rundir)
    if not every:
        return [find_instance(directory, name) for name in names] or [find_instance(directory, None)]
    if names:
        raise UsageError("--all", f"{names[0]} is named, too", "use one or the other")
    return directory.running() or [find_instance(directory, None)]


def each_instance(
    instances: Sequence[Instance], work: Callable[[Instance], int], *, at_once: bool = False
) -> int:
    """Call ``work`` for each instance, even after a failure: one by one, or ``at_once`` in threads.

    With one instance, an error of ``work`` is raised; with several it is printed. Return the first status
    that is not 0.
    """
    if len(instances) == 1:
        return work(instances[0])
    statuses: dict[str, int] = {}

    def attempt(instance: Instance) -> None:
        try:
            statuses[instance.name] = work(instance)
        except TamedError as error:
            sys.stderr.write(f"tamed: {shown(str(error))}\n")
            statuses[instance.name] = status_of(error)

    if at_once:
        import threading  # lazy import: only needed for several instances

        threads = [threading.Thread(target=attempt, args=(each,), daemon=True) for each in instances]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    else:
        for instance in instances:
            attempt(instance)
    return next(filter(None, map(statuses.__getitem__, (each.name for each in instances))), 0)


@contextmanager
def progress_line() -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield a function that shows a status, with its open connections, on one line of the terminal.

    The line is erased at the end. If standard error is no terminal, nothing is shown.
    """
    is_shown = False

    def show(status: dict[str, Any]) -> None:
        nonlocal is_shown
        if sys.stderr.isatty():
            left = sum(worker.get("connections", 0) for worker in status["workers"])
            line = f"{status['name']} is {status['state']}: {counted(left, 'connection')} open"
            print(f"{_CLEAR_LINE}{shown(line)}", end="", file=sys.stderr, flush=True)
            is_shown = True

    try:
        yield show
    finally:
        if is_shown:
            print(_CLEAR_LINE, end="", file=sys.stderr, flush=True)


def ending(left: LastState) -> Iterator[str]:
    """Yield lines that explain how an instance ended, and how to start it again."""
    if left.state == "stopped":
        yield f"{left.name} has stopped; tamed restart {left.name} starts it again"
        return
    status = "" if left.status is None else f", with exit status {left.status}"
    when = "" if left.ended_at is None else f" at {left.ended_at}"
    yield f"{left.name} has {left.state}{when}{status}: {left.error}"
    yield f"its log is {left.log}" if left.log else f"it has left no log file; see journalctl -t {left.name}"
