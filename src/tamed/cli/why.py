"""The command ``tamed why``: the last events of an instance, explained.

It shows the state of the instance, what a start or reload in progress waits for, how long the steps of the
last one took, and how the last worker died.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, Final

from tamed.cli._text import duration, one_line, shown_lines, size, uptime
from tamed.cli.instances import directory_of, ending
from tamed.cli.status import failing_checks, last_state
from tamed.control.instances import find_instance, stacks_of_instance, status_of_instance
from tamed.control.records import EventReader, events_of_instance
from tamed.errors import MissingInput, TamedError, Unavailable
from tamed.supervisor.records import Event
from tamed.unix.rundir import RunDirectory

__all__ = ["why"]

_EVENTS: Final = 1000  # events to search
_LINES: Final = 20  # last lines of a worker's output to show
_SERVICES: Final = 5
_OURS: Final = ("/tamed/service/", "/tamed/worker/")  # frames of Tamed, which do not help to find the hook


def why(name: str | None, rundir: str | None) -> None:
    """Explain the last start, reload and death of an instance."""
    directory = directory_of(rundir)
    events = _events(directory, name)
    lines = [*_state(directory, name, events)]
    lines += ["", *_last_start(events)]
    death = next((each for each in reversed(events) if each["event"] == "death"), None)
    lines += ["", *(["no worker has died, as far as is known"] if death is None else _death(death))]
    print(shown_lines(lines))


def _events(directory: RunDirectory, name: str | None) -> list[Event]:
    try:
        path, owner = events_of_instance(directory, name)
        with closing(EventReader(path, owner)) as reader:
            return reader.last(_EVENTS)
    except (MissingInput, Unavailable):
        return []


# How it is now.


def _state(directory: RunDirectory, name: str | None, events: Sequence[Event]) -> Iterator[str]:
    try:
        instance = find_instance(directory, name)
    except Unavailable:
        left = last_state(directory, name)
        if left is None and (name is None or not events):
            raise
        yield from [f"{name} is not running"] if left is None else ending(left)
        return
    found = status_of_instance(instance)
    ready = f"{found['ready']} of {found['wanted']} workers ready"
    yield f"{found['name']} is {found['state']}: pid {found['pid']}, up {uptime(found['uptime'])}, {ready}"
    if found["state"] == "stopping":
        yield from _stop(events)
    yield from failing_checks(found)
    coming = {
        each["pid"] for each in found["workers"] if each["state"] in ("loading", "prepared", "starting")
    }
    if found["reloading"] or coming:
        what = "a reload" if found["reloading"] else "the start of a worker"
        yield f"{what if found['state'] != 'starting' else 'the start'} is in progress"
    if coming:
        try:
            for worker in stacks_of_instance(instance):
                if worker["pid"] in coming:
                    yield from _waits_for(worker)
        except TamedError as error:
            yield f"what the worker waits for is unknown: {error}"


def _stop(events: Sequence[Event]) -> Iterator[str]:
    """Yield a line with the time and the reason of a stop in progress."""
    event = next((each for each in reversed(events) if each["event"] == "stop"), None)
    if event is not None:
        asked = f", by {event['asked']}" if isinstance(event.get("asked"), str) else ""
        yield f"the stop is in progress since {event['time']}: {event['text']}{asked}"


def _waits_for(worker: dict[str, Any]) -> Iterator[str]:
    """Yield lines that explain what a worker waits for before it is ready."""
    what = f"worker {worker['worker']}, pid {worker['pid']}, is {worker['state']}"
    if not worker["answered"]:
        yield f"{what}, and does not answer: it loads the application, or a hook blocks its event loop"
        yield from (f"    {one_line(line)}" for line in worker["printed"][-_LINES:])
        return
    if not worker["hooks"]:
        yield f"{what}, and waits for the other workers"
        return
    for hook in worker["hooks"]:
        yield f"{what}, and waits for {hook['name']}: in {hook['hook']} for {duration(hook['since'])}"
    for task in worker["tasks"]:
        if any("/tamed/service/" in line for line in task["lines"]):
            lines = [line for line in task["lines"] if not any(part in line for part in _OURS)]
            yield from (f"    {one_line(line)}" for line in lines)


# The last start or reload.


def _last_start(events: Sequence[Event]) -> Iterator[str]:
    event = next((each for each in reversed(events) if each["event"] in ("start", "reload")), None)
    if event is None:
        yield "it has not been ready yet, as far as is known"
        return
    failed = event.get("outcome") == "failed"
    asked = f", requested by {event['asked']}" if isinstance(event.get("asked"), str) else ""
    took = _seconds(event.get("took"))
    outcome = f"{'failed' if failed else 'done'} after {took}"
    yield f"the last {event['event']}, at {event['time']}{asked}: {outcome}"
    if failed:
        yield f"  it waited until {event.get('waited_for')}"
        yield from (f"  {line}" for line in str(event.get("reason", event["text"])).split("\n"))
    if isinstance(event.get("changed"), list):
        yield f"  changed: {', '.join(map(str, event['changed'])) or 'no setting'}"
    stages = event.get("stages")
    if isinstance(stages, dict):
        yield f"  {', '.join(f'{stage} {_seconds(seconds)}' for stage, seconds in stages.items())}"
    if "load" in event:
        yield f"  in the slowest worker: import of the application {_seconds(event['load'])}"
    services = event.get("services")
    if isinstance(services, list):
        yield from _slowest([each for each in services if isinstance(each, dict)][:_SERVICES])


def _slowest(services: Iterable[dict[str, Any]]) -> Iterator[str]:
    for each in services:
        prepare, start = _seconds(each.get("prepare")), _seconds(each.get("start"))
        yield f"    {each.get('name')}: prepare {prepare}, start {start}"


def _seconds(value: object) -> str:
    return duration(value) if isinstance(value, int | float) else "an unknown time"


# The last death.


def _death(event: Event) -> Iterator[str]:
    yield f"the last death, at {event['time']}: {event['text']}"
    signal = f"signal {event['signal']}" if "signal" in event else f"exit status {event.get('status')}"
    memory = event.get("memory")
    used = f", {size(memory)} in memory at most" if isinstance(memory, int) else ""
    lived = _seconds(event.get("lived"))
    who = f"worker {event.get('worker')} of generation {event.get('generation')}"
    yield f"  {who} was {event.get('state')}: {signal}, lived {lived}{used}"
    if event.get("oom") is True:
        yield "  out of memory: the kernel's OOM killer killed a process at that moment"
    elif event.get("signal") == "SIGKILL":
        yield "  it was not the kernel's OOM killer: another process sent the signal"
    if isinstance(event.get("reason"), str):
        yield from (f"  {line}" for line in event["reason"].split("\n"))
    lines = event.get("lines")
    if isinstance(lines, list) and lines:
        yield "  its last lines:"
        kept = "\n".join(map(str, lines)).split("\n")[-_LINES:]
        yield from (f"    {line}" for line in kept)
