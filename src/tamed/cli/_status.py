"""``tamed status``, whose exit status tells the state."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from tamed._text import shown, shown_in_json
from tamed.cli._instance import for_instance
from tamed.cli._table import table
from tamed.errors import Unavailable
from tamed.runner import LastState, find_instance, last_state_of, run_directory, status_of_instance

__all__ = ["ending_of", "status"]

_WORKER = ("WORKER", "GENERATION", "STATE", "UP", "MEMORY", "CPU", "CONNECTIONS", "ACCEPTED")

_HELP = """Show how the instance NAME stands: its workers, its services and where it listens.

NAME may be left out if only one instance runs. The exit status is 0 only if all of its workers are ready.
"""
_STATUS_OF = {"running": 0, "starting": 3, "degraded": 4, "failing": 5, "stopping": 6}
_ENDED = 7


@for_instance(_HELP)
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
    click.echo(shown_in_json(json.dumps(told, indent=2)) if as_json else shown("\n".join(lines)))
    return code


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
        worker["state"],
        _time(worker["uptime"]),
        memory,
        cpu,
        *counts,
    )


def _services(tree: dict[str, Any], depth: int = 0) -> Iterator[tuple[str, ...]]:
    yield (f"{'  ' * depth}{tree['name']}", tree["state"], str(tree["restarts"] or ""), tree["summary"])
    for child in tree["children"]:
        yield from _services(child, depth + 1)


def _time(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days}d {hours:02}:{minutes:02}:{rest:02}" if days else f"{hours:02}:{minutes:02}:{rest:02}"
