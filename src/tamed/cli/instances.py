"""The commands for an instance: a running or ended daemon, found by its name in the run directory."""

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tamed._os.text import shown, shown_in_json
from tamed.control.instances import find_instance, run_directory, status_of_instance, stop_instance
from tamed.errors import SystemRefused, Unavailable, from_os_error
from tamed.unix.rundir import Instance, RunDirectory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tamed.supervisor.last_state import LastState

__all__ = [
    "directory_of",
    "instance_of",
    "logs",
    "show_progress",
    "status",
    "status_lines",
    "stop",
]

_STATUS_OF = {"running": 0, "starting": 3, "degraded": 4, "failing": 5, "stopping": 6}
_ENDED = 7  # the exit status for an instance that has ended by itself
_WORKER = ("WORKER", "GENERATION", "STATE", "UP", "MEMORY", "CPU", "CONNECTIONS", "ACCEPTED")
_WIDEST = 80  # characters of a cell
_FORCED_AFTER = 10.0  # seconds
_LOOK = 0.2  # seconds between two reads of a log that is followed


def status(name: str | None, rundir: str | None, as_json: bool) -> int:
    """Show the state of an instance, or how it ended; return the exit status for it."""
    directory = directory_of(rundir)
    try:
        found = status_of_instance(find_instance(directory, name))
    except Unavailable:
        from tamed.control.records import last_state_of

        if (left := last_state_of(directory, name)) is None:
            raise
        found = {**left._asdict(), "state": left.state}
        lines, code = list(_ending(left)), _ENDED
    else:
        lines, code = list(status_lines(found)), _STATUS_OF.get(found["state"], _STATUS_OF["starting"])
    print(shown_in_json(json.dumps(found, indent=2)) if as_json else _shown_lines(lines))
    return code


def logs(name: str | None, rundir: str | None, lines: int, follow: bool) -> None:
    """Show the log of an instance."""
    from tamed.control.records import last_state_of, log_of_instance
    from tamed.log.reader import LogReader

    directory = directory_of(rundir)
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
    instance = instance_of(name, rundir)
    seconds = _FORCED_AFTER if timeout is None and force else timeout
    if not stop_instance(instance, timeout=seconds, force=force, progress=show_progress):
        remedy = "wait for it, or end it at once with --force"
        raise SystemRefused(f"{instance.name} is still there", f"{seconds:g} seconds have passed", remedy)
    print(f"{instance.name} has stopped")


def _shown_lines(lines: Iterable[str]) -> str:
    """Return lines as printed: a line break inside one is shown so that it cannot imitate another line."""
    return "\n".join(shown(line, indent="    ") for line in lines)


def directory_of(rundir: str | None) -> RunDirectory:
    """Return the run directory that an option or the environment names, or by default that of this user."""
    place = rundir or os.environ.get("TAMED_RUNDIR")
    return run_directory(Path(place) if place else None)


def instance_of(name: str | None, rundir: str | None) -> Instance:
    """Return the instance that a command names, or the only running one."""
    return find_instance(directory_of(rundir), name)


def show_progress(status: dict[str, Any]) -> None:
    """Show the number of open connections, on a terminal."""
    if sys.stderr.isatty():
        left = sum(worker.get("connections", 0) for worker in status["workers"])
        line = f"{status['name']} is {status['state']}: {left} connections open  "
        print(f"\r{shown(line)}", end="", file=sys.stderr, flush=True)


def _put(lines: Iterable[bytes]) -> None:
    """Print lines of a log, escaped: Tamed escapes what it logs, but other programs may write to the file."""
    for line in lines:
        text = line.decode(errors="backslashreplace").removesuffix("\n")
        sys.stdout.write(f"{shown(text)}\n" if line.endswith(b"\n") else shown(text))
    sys.stdout.flush()


def _ending(left: "LastState") -> Iterator[str]:
    """Yield lines that report how an instance has ended by itself."""
    status = "" if left.status is None else f", with exit status {left.status}"
    when = "" if left.ended_at is None else f" at {left.ended_at}"
    yield f"{left.name} has {left.state}{when}{status}: {left.error}"
    yield f"its log is {left.log}" if left.log else f"it has left no log file; see journalctl -t {left.name}"


def status_lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a status for people to read."""
    ready = "" if found["state"] == "running" else f", {found['ready']} of {found['wanted']} workers ready"
    yield f"{found['name']} is {found['state']}: pid {found['pid']}, up {_time(found['uptime'])}{ready}"
    for endpoint in found["endpoints"]:
        yield f"listening on {endpoint}"
    if found["last_error"]:
        yield f"last error, at {found['last_error_at']}: {found['last_error']}"
    if found["restarts"]:
        yield f"restarts: {found['restarts']}"
    for warning in found.get("warnings", ()):
        yield f"warning: {warning}"
    yield ""
    yield from _table(_WORKER, [_worker(worker) for worker in _oldest_first(found["workers"])])
    serving = [worker for worker in found["workers"] if worker["generation"] == found["generation"]]
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
    """Return a text from a worker on one line, shortened."""
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
