"""``tamed status``."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from tamed._text import shown, shown_in_json
from tamed.cli._instance import for_instance, instance_of
from tamed.cli._table import table
from tamed.runner import status_of_instance

__all__ = ["status"]

_WORKER = ("WORKER", "GENERATION", "STATE", "UP", "MEMORY", "CPU", "CONNECTIONS", "ACCEPTED")

_HELP = """Show how the instance NAME stands: its workers, its services and where it listens.

NAME may be left out if only one instance runs.
"""


@for_instance(_HELP)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def status(name: str | None, rundir: Path | None, as_json: bool) -> None:
    """Show how an instance stands."""
    told = status_of_instance(instance_of(name, rundir))
    click.echo(shown_in_json(json.dumps(told, indent=2)) if as_json else shown("\n".join(_lines(told))))


def _lines(told: dict[str, Any]) -> Iterator[str]:
    yield f"{told['name']} is {told['state']}: pid {told['pid']}, up {_time(told['uptime'])}"
    for endpoint in told["endpoints"]:
        yield f"listening on {endpoint}"
    if told["last_error"]:
        yield f"last error: {told['last_error']}"
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
