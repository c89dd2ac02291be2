"""The commands for an instance: a daemon that runs, or has ended, found by its name in the run directory."""

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

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
from tamed.supervisor.last_state import LastState
from tamed.unix.detach import Report
from tamed.unix.rundir import Instance, RunDirectory

__all__ = ["logs", "reload", "reopen", "restart", "scale", "status", "status_lines", "stop", "upgrade"]

_STATUS_OF = {"running": 0, "starting": 3, "degraded": 4, "failing": 5, "stopping": 6}
_ENDED = 7  # the exit status for one that has ended by itself
_WORKER = ("WORKER", "GENERATION", "STATE", "UP", "MEMORY", "CPU", "CONNECTIONS", "ACCEPTED")
_WIDEST = 80  # characters of a cell
_FORCED_AFTER = 10.0  # seconds
_LOOK = 0.2  # seconds between two looks for more of a log


def status(name: str | None, rundir: str | None, as_json: bool) -> int:
    """Show how an instance stands, or how it has ended; return the status that tells."""
    directory = _directory(rundir)
    try:
        told = status_of_instance(find_instance(directory, name))
    except Unavailable:
        if (left := last_state_of(directory, name)) is None:
            raise
        told = {**left._asdict(), "state": left.state}
        lines, code = list(_ending(left)), _ENDED
    else:
        lines, code = list(status_lines(told)), _STATUS_OF.get(told["state"], _STATUS_OF["starting"])
    print(shown_in_json(json.dumps(told, indent=2)) if as_json else _shown_lines(lines))
    return code


def logs(name: str | None, rundir: str | None, lines: int, follow: bool) -> None:
    """Show the log of an instance."""
    directory = _directory(rundir)
    if (left := last_state_of(directory, name)) is not None:
        print(_shown_lines(_ending(left)), file=sys.stderr)
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


def stop(name: str | None, rundir: str | None, timeout: float | None, force: bool) -> None:
    """Stop an instance and wait until it is gone."""
    instance = _instance(name, rundir)
    seconds = _FORCED_AFTER if timeout is None and force else timeout
    if not stop_instance(instance, timeout=seconds, force=force, progress=_show_progress):
        remedy = "wait for it, or end it at once with --force"
        raise SystemRefused(f"{instance.name} is still there", f"{seconds:g} seconds have passed", remedy)
    print(f"{instance.name} has stopped")


def restart(name: str | None, rundir: str | None) -> int:
    """Stop an instance and start it again."""
    return _tell(restart_instance(_instance(name, rundir), _show_progress))


def reload(name: str | None, rundir: str | None) -> int:
    """Let new workers of an instance take over."""
    return _tell(reload_instance(_instance(name, rundir), _show_wait))


def upgrade(name: str | None, rundir: str | None) -> int:
    """Replace the program of an instance's supervisor."""
    return _tell(upgrade_instance(_instance(name, rundir), _show_wait))


def reopen(name: str | None, rundir: str | None) -> int:
    """Have the log of an instance opened anew."""
    return _tell(reopen_instance(_instance(name, rundir)))


def scale(count: int, name: str | None, rundir: str | None, yes: bool) -> int:
    """Change how many workers an instance has."""
    check_workers(count, yes=yes)
    instance = _instance(name, rundir)
    report = scale_instance(instance, count, _show_wait, yes=yes)
    text = f"{instance.name} has {count} worker{'s' * (count > 1)}" if report.ready else report.text
    return _tell(report._replace(text=text))


def _shown_lines(lines: Iterable[str]) -> str:
    """Return lines as they are printed: a text within one that has several cannot look like another."""
    return "\n".join(shown(line, indent="    ") for line in lines)


def _directory(rundir: str | None) -> RunDirectory:
    place = rundir or os.environ.get("TAMED_RUNDIR")
    return run_directory(Path(place) if place else None)


def _instance(name: str | None, rundir: str | None) -> Instance:
    return find_instance(_directory(rundir), name)


def _tell(report: Report) -> int:
    """Print what has come of a request; return its exit status."""
    print(shown(report.text), file=sys.stdout if report.ready else sys.stderr)
    return report.status


def _show_wait(what: str) -> None:
    """Say that a request waits for its turn, and for what."""
    print(f"tamed: {shown(what)} is under way; this waits for its turn", file=sys.stderr, flush=True)


def _show_progress(status: dict[str, Any]) -> None:
    """Say on a terminal how many connections are still open."""
    if sys.stderr.isatty():
        left = sum(worker.get("connections", 0) for worker in status["workers"])
        told = f"{status['name']} is {status['state']}: {left} connections open  "
        print(f"\r{shown(told)}", end="", file=sys.stderr, flush=True)


def _put(lines: Iterable[bytes]) -> None:
    """Print lines. Ours are escaped already; but whoever may write the file can put anything into it."""
    for line in lines:
        text = line.decode(errors="backslashreplace").removesuffix("\n")
        sys.stdout.write(f"{shown(text)}\n" if line.endswith(b"\n") else shown(text))
    sys.stdout.flush()


def _ending(left: LastState) -> Iterator[str]:
    """Yield lines that say how an instance has ended by itself."""
    status = "" if left.status is None else f", with exit status {left.status}"
    when = "" if left.ended_at is None else f" at {left.ended_at}"
    yield f"{left.name} has {left.state}{when}{status}: {left.error}"
    yield f"its log is {left.log}" if left.log else f"it has left no log file; see journalctl -t {left.name}"


def status_lines(told: dict[str, Any]) -> Iterator[str]:
    """Yield the lines that show a status to people."""
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
    yield from _table(_WORKER, [_worker(worker) for worker in _oldest_first(told["workers"])])
    serving = [worker for worker in told["workers"] if worker["generation"] == told["generation"]]
    trees = [worker["tree"] for worker in serving if "tree" in worker]
    if trees:
        yield ""
        yield from _table(("SERVICE", "STATE", "RESTARTS", ""), list(_services(trees[0])))


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


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table: columns as wide as their widest cell, two spaces apart."""
    rows = [[shown(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
