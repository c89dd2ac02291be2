"""The part of the command line that the commands for an instance share: its name, and where it is."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from tamed._os.limits import check_workers
from tamed._os.text import shown, shown_in_json
from tamed.control.instances import (
    find_instance,
    last_state_of,
    log_of_instance,
    reload_instance,
    reopen_instance,
    restart_instance,
    scale_instance,
    status_of_instance,
    stop_instance,
    upgrade_instance,
)
from tamed.control.launch import run_directory
from tamed.errors import SystemRefused, Unavailable, from_os_error
from tamed.log.reader import LogReader
from tamed.plugins.values import Duration
from tamed.supervisor.last_state import LastState
from tamed.unix.rundir import Instance

__all__ = [
    "ending_of",
    "for_instance",
    "instance_of",
    "logs",
    "reload",
    "reopen",
    "restart",
    "scale",
    "show_progress",
    "show_wait",
    "status",
    "stop",
    "table",
    "upgrade",
]


_RUNDIR = click.Option(
    ["--rundir"],
    type=click.Path(path_type=Path),
    envvar="TAMED_RUNDIR",
    metavar="FOLDER",
    help="The folder in which the instances live.  [env: TAMED_RUNDIR]",
)


def for_instance(help_text: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a command that takes the NAME of an instance, which may be left out if only one runs."""

    def make(function: Callable[..., Any]) -> click.Command:
        command = click.command(help=help_text, context_settings={"help_option_names": ["-h", "--help"]})(
            function
        )
        command.params.append(_RUNDIR)
        command.params.append(click.Argument(["name"], required=False))
        return command

    return make


def instance_of(name: str | None, rundir: Path | None) -> Instance:
    """Return the instance that was asked for."""
    return find_instance(run_directory(rundir), name)


def show_wait(what: str) -> None:
    """Say that a request waits for its turn, and for what."""
    click.echo(f"tamed: {shown(what)} is under way; this waits for its turn", err=True)


_WIDEST = 80  # characters of a cell
_WORKER = ("WORKER", "GENERATION", "STATE", "UP", "MEMORY", "CPU", "CONNECTIONS", "ACCEPTED")

_STATUS_HELP = """Show how the instance NAME stands: its workers, its services and where it listens.

NAME may be left out if only one instance runs. The exit status is 0 only if all of its workers are ready.
"""
_STATUS_OF = {"running": 0, "starting": 3, "degraded": 4, "failing": 5, "stopping": 6}
_ENDED = 7


@for_instance(_STATUS_HELP)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def status(name: str | None, rundir: Path | None, as_json: bool) -> int:
    """Show how an instance stands, or how it has ended; return the status that tells."""
    directory = run_directory(rundir)
    try:
        told = status_of_instance(find_instance(directory, name))
    except Unavailable:
        if (left := last_state_of(directory, name)) is None:
            raise
        told = {**left._asdict(), "state": left.state}
        lines, code = list(ending_of(left)), _ENDED
    else:
        lines, code = list(_lines(told)), _STATUS_OF.get(told["state"], _STATUS_OF["starting"])
    click.echo(shown_in_json(json.dumps(told, indent=2)) if as_json else _shown_lines(lines))
    return code


def _shown_lines(lines: Iterable[str]) -> str:
    """Return lines as they are printed: a text within one that has several cannot look like another."""
    return "\n".join(shown(line, indent="    ") for line in lines)


def ending_of(left: LastState) -> Iterator[str]:
    """Yield lines that say how an instance has ended by itself."""
    status = "" if left.status is None else f", with exit status {left.status}"
    when = "" if left.ended_at is None else f" at {left.ended_at}"
    yield f"{left.name} has {left.state}{when}{status}: {left.error}"
    yield f"its log is {left.log}" if left.log else f"it has left no log file; see journalctl -t {left.name}"


def _lines(told: dict[str, Any]) -> Iterator[str]:
    ready = "" if told["state"] == "running" else f", {told['ready']} of {told['wanted']} workers ready"
    yield f"{told['name']} is {told['state']}: pid {told['pid']}, up {_time(told['uptime'])}{ready}"
    for endpoint in told["endpoints"]:
        yield f"listening on {endpoint}"
    if told["last_error"]:
        yield f"last error, at {told['last_error_at']}: {told['last_error']}"
    if told["restarts"]:
        yield f"restarts: {told['restarts']}"
    for warning in told.get("warnings", ()):
        yield f"warning: {warning}"
    yield ""
    yield from table(_WORKER, [_worker(worker) for worker in _oldest_first(told["workers"])])
    serving = [worker for worker in told["workers"] if worker["generation"] == told["generation"]]
    trees = [worker["tree"] for worker in serving if "tree" in worker]
    if trees:
        yield ""
        yield from table(("SERVICE", "STATE", "RESTARTS", ""), list(_services(trees[0])))


def _oldest_first(workers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(workers, key=lambda worker: (worker["generation"], worker["number"]))


def _worker(worker: dict[str, Any]) -> tuple[str, ...]:
    memory = "" if worker["memory"] is None else f"{worker['memory'] / 1e6:.1f} MB"
    cpu = "" if worker["cpu"] is None else f"{worker['cpu']:.2f} s"
    counts = (str(worker.get(key, "")) for key in ("connections", "accepted"))
    return (
        str(worker["pid"]),
        str(worker["generation"]),
        _cell(worker["state"]),
        _time(worker["uptime"]),
        memory,
        cpu,
        *counts,
    )


def _services(tree: dict[str, Any], depth: int = 0) -> Iterator[tuple[str, ...]]:
    name, state, summary = (_cell(tree[key]) for key in ("name", "state", "summary"))
    yield (f"{'  ' * depth}{name}", state, str(tree["restarts"] or ""), summary)
    for child in tree["children"]:
        yield from _services(child, depth + 1)


def _cell(text: str) -> str:
    """Return a text of others on one line, and cut: as many rows may follow as the answer has room for."""
    cut = text if len(text) <= _WIDEST else f"{text[:_WIDEST]}..."
    return cut.replace("\n", "\\n")


def _time(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days}d {hours:02}:{minutes:02}:{rest:02}" if days else f"{hours:02}:{minutes:02}:{rest:02}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table: columns as wide as their widest cell, two spaces apart."""
    rows = [[shown(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


_STOP_HELP = """Stop the instance NAME and wait until it is gone: its open connections are served to the end.

NAME may be left out if only one instance runs.
"""


@for_instance(_STOP_HELP)
@click.option("--timeout", metavar="DURATION", help="How long to wait; without it, until it is gone.")
@click.option(
    "--force", is_flag=True, help="End it at once if it is not gone in time (10s without --timeout)."
)
def stop(name: str | None, rundir: Path | None, timeout: str | None, force: bool) -> None:
    """Stop an instance."""
    instance = instance_of(name, rundir)
    seconds = _seconds(timeout) if timeout else (10.0 if force else None)
    if not stop_instance(instance, timeout=seconds, force=force, progress=show_progress):
        remedy = "wait for it, or end it at once with --force"
        raise SystemRefused(f"{instance.name} is still there", f"{seconds:g} seconds have passed", remedy)
    click.echo(f"{instance.name} has stopped")


def show_progress(status: dict[str, Any]) -> None:
    """Say on a terminal how many connections are still open."""
    if sys.stderr.isatty():
        left = sum(worker.get("connections", 0) for worker in status["workers"])
        told = f"{status['name']} is {status['state']}: {left} connections open  "
        click.echo(f"\r{shown(told)}", err=True, nl=False)


def _seconds(text: str) -> float:
    try:
        return Duration.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--timeout") from error


_RESTART_HELP = """Stop the instance NAME, wait until it is gone, and start it again as it was started.

NAME may be left out if only one instance runs. The environment is that of this command.
"""


@for_instance(_RESTART_HELP)
def restart(name: str | None, rundir: Path | None) -> int:
    """Stop an instance and start it again."""
    report = restart_instance(instance_of(name, rundir), show_progress)
    click.echo(report.text, err=not report.ready)
    return report.status


_RELOAD_HELP = """Let new workers, which read files and code anew, take over from those of the instance NAME.

No connection is lost: the old workers serve those they have let in to the end. If one of the new workers
does not become ready, everything stays as it was, and this says why. While another reload, an upgrade or
scaling is under way, it waits for its turn. NAME may be left out if only one instance runs.
"""


@for_instance(_RELOAD_HELP)
def reload(name: str | None, rundir: Path | None) -> int:
    """Reload an instance."""
    report = reload_instance(instance_of(name, rundir), show_wait)
    click.echo(shown(report.text), err=not report.ready)
    return report.status


_REOPEN_HELP = """Let the instance NAME open its log file anew, which logrotate, say, has moved away.

If that fails, it goes on in the old file, and this says why. NAME may be left out if only one instance runs.
"""


@for_instance(_REOPEN_HELP)
def reopen(name: str | None, rundir: Path | None) -> int:
    """Have the log of an instance opened anew."""
    report = reopen_instance(instance_of(name, rundir))
    click.echo(shown(report.text), err=not report.ready)
    return report.status


_SCALE_HELP = """Let the instance NAME run with COUNT workers from now on; return when they are ready.

Workers that are too many serve the connections they have to the end. The number holds until the instance is
restarted, or reloaded with another number in its files, also if some of them do not become ready. While a
reload or an upgrade is under way, it waits for its turn; a later number takes the place of an earlier one.
NAME may be left out if only one instance runs.
"""


@for_instance(_SCALE_HELP)
@click.option("--yes", is_flag=True, help="Do it, also if it is more than 32 workers for each CPU.")
@click.argument("count", type=click.IntRange(min=1))
def scale(name: str | None, rundir: Path | None, count: int, yes: bool) -> int:
    """Scale an instance."""
    check_workers(count, yes=yes)
    instance = instance_of(name, rundir)
    report = scale_instance(instance, count, show_wait, yes=yes)
    workers = f"{count} worker{'s' * (count > 1)}"
    click.echo(f"{instance.name} has {workers}" if report.ready else shown(report.text), err=not report.ready)
    return report.status


_UPGRADE_HELP = """Let the supervisor of NAME become the program that is installed now, and reload.

That takes a new Tamed, or a new Python in the same place, into use. The process stays the same, with its pid,
its sockets and its workers, and no connection is lost. If the new program does not start, everything stays as
it was, and this says why. While a reload, another upgrade or scaling is under way, it waits for its turn.
NAME may be left out if only one instance runs.
"""


@for_instance(_UPGRADE_HELP)
def upgrade(name: str | None, rundir: Path | None) -> int:
    """Upgrade an instance."""
    report = upgrade_instance(instance_of(name, rundir), show_wait)
    click.echo(shown(report.text), err=not report.ready)
    return report.status


_LOGS_HELP = """Show the last lines of the log of the instance NAME.

NAME may be left out if only one instance runs.
"""
_MOST = 1_000_000_000  # lines
_LOOK = 0.2  # seconds between two looks for more


@for_instance(_LOGS_HELP)
@click.option(
    "-n",
    "--lines",
    default=20,
    type=click.IntRange(0, _MOST),
    show_default=True,
    metavar="NUMBER",
    help="How many lines.",
)
@click.option(
    "-f", "--follow", is_flag=True, help="Go on with what is logged from now on, also in a new file."
)
def logs(name: str | None, rundir: Path | None, lines: int, follow: bool) -> None:
    """Show the log of an instance."""
    directory = run_directory(rundir)
    if (left := last_state_of(directory, name)) is not None:
        click.echo(_shown_lines(ending_of(left)), err=True)
    file, owner = log_of_instance(directory, name)
    try:
        with closing(LogReader(file, owner)) as reader:
            _put(reader.last(lines))
            while follow:
                _put(reader.more())
                time.sleep(_LOOK)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise from_os_error(f"cannot read the log {file}", error) from error


def _put(lines: Iterable[bytes]) -> None:
    """Print lines. Ours are escaped already; but whoever may write the file can put anything into it."""
    for line in lines:
        text = line.decode(errors="backslashreplace").removesuffix("\n")
        sys.stdout.write(f"{shown(text)}\n" if line.endswith(b"\n") else shown(text))
    sys.stdout.flush()
