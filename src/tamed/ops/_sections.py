"""The sections of the page, each rendered from a view as HTML. Text from elsewhere is escaped."""

from collections.abc import Callable, Iterator, Mapping
from html import escape
from typing import Any, Final

from tamed._os.text import counted, shown
from tamed.ops.observer import SPAN, STEP, Sample, View

__all__ = ["SECTIONS", "text_of", "time_of", "workers_of"]

_GOOD: Final = {"running", "ready", "done"}
_BAD: Final = {"failing", "failed", "stuck", "death"}
_WARN: Final = {"starting", "degraded", "stopping", "reloading", "loading", "prepared", "draining", "restart"}
_CHECKS: Final = {"failing": "fails", "running": "passes", "starting": "no result yet"}
_WIDTH, _HEIGHT = round(SPAN / STEP), 24  # of a sparkline


def text_of(value: object) -> str:
    return escape(shown(str(value)))


def _state(state: str, name: str = "") -> str:
    is_bad = state in _BAD or state.endswith(" failed")
    kind = "bad" if is_bad else "good" if state in _GOOD else "warn" if state in _WARN else ""
    return f'<span class="state {kind}">{text_of(name or state)}</span>'


def _facts(facts: Mapping[str, object]) -> str:
    """Return a list of facts, without those that are None or empty."""
    known = {name: value for name, value in facts.items() if value not in (None, "")}
    rows = (f"<div><dt>{text_of(name)}</dt><dd>{text_of(value)}</dd></div>" for name, value in known.items())
    return f'<dl class="facts">{"".join(rows)}</dl>'


def time_of(time: str) -> str:
    day, _, rest = time.partition("T")
    return (
        f'<time datetime="{text_of(time)}"><span class="day">{text_of(day)} </span>{text_of(rest[:8])}</time>'
    )


def _size(count: float) -> str:
    return f"{count / 1e6:.1f} MB"


def _seconds(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, hours, days = (int(seconds // unit) for unit in (60, 3600, 86400))
    if hours < 1:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60} min" if days < 1 else f"{days} d {hours % 24} h"


# The sections.


def _health(view: View) -> Iterator[str]:
    if view.trouble:
        yield f'<p class="note bad">No answer: {text_of(view.trouble)}</p>'
    status = view.status
    if status is None:
        return
    reloading = f" {_state('reloading')}" if status["reloading"] else ""
    yield f"<h1>{text_of(status['name'])} is {_state(status['state'])}{reloading}</h1>"
    workers = workers_of(view)
    yield _facts(
        {
            "pid": status["pid"],
            "up": _seconds(status["uptime"]),
            "generation": status["generation"],
            "workers": f"{status['ready']} of {status['wanted']} ready",
            "restarts": status["restarts"],
            "connections": sum(each.get("connections", 0) for each in workers),
            "memory": _size(sum(each["memory"] or 0 for each in workers)),
            "listening on": ", ".join(status["endpoints"]),
            "certificates until": ", ".join(
                f"{(each['ends'] or 'unknown')[:10]} ({each['endpoint']})" for each in status["certificates"]
            ),
        }
    )
    for check in status["checks"]:
        if check["failing"]:
            name, why = text_of(check["name"]), text_of(check["why"])
            where = f"{check['failing']} of {check['asked']} workers"
            yield f'<p class="note bad">The check of {name} fails in {where}: {why}</p>'
    if (reload := _last_reload(view)) is not None and reload.get("outcome") == "failed":
        yield f'<p class="note bad">{time_of(reload["time"])}: {text_of(reload["text"])}</p>'
    if status["last_error"]:
        kind = "quiet" if status["state"] == "running" else "note bad"
        when, what = time_of(status["last_error_at"]), text_of(status["last_error"])
        yield f'<p class="{kind}">Last error, {when}: {what}</p>'


def workers_of(view: View) -> list[Mapping[str, Any]]:
    workers = [] if view.status is None else view.status["workers"]
    return sorted(workers, key=lambda each: (-each["generation"], each["number"]))


def _worker_table(view: View) -> Iterator[str]:
    workers = workers_of(view)
    samples = {each["pid"]: view.history.of(each["pid"]) for each in workers}
    heads = ("#", "pid", "state", "up", "connections", "memory", "CPU")
    yield f"<table><thead><tr>{''.join(f'<th>{each}</th>' for each in heads)}</tr></thead>"
    generation = None
    for worker in workers:
        if worker["generation"] != generation:
            begun = "" if generation is None else "</tbody>"
            generation = worker["generation"]
            yield f'{begun}<tbody><tr><th colspan="7" scope="rowgroup">generation {generation}</th></tr>'
        latest, own = view.history.latest(worker["pid"]), samples[worker["pid"]]
        graphs = (_graph(measure, latest, samples, own) for measure in _MEASURES)
        yield (
            f'<tr><td class="number">{worker["number"]}</td><td class="number">{worker["pid"]}</td>'
            f'<td>{_state(worker["state"])}</td><td class="number">{_seconds(worker["uptime"])}</td>'
            f"{''.join(graphs)}</tr>"
        )
    yield "</tbody></table>" if workers else "</table><p>There are no workers.</p>"


_Measure = tuple[str, Callable[[Sample], float | None], Callable[[float], str]]
"""A quantity that is drawn: its name, and the functions that get it from a sample and write it."""

_MEASURES: Final[tuple[_Measure, ...]] = (
    ("connections", lambda sample: sample.connections, lambda value: f"{value:.0f}"),
    ("memory", lambda sample: sample.memory, _size),
    ("CPU", lambda sample: sample.cpu, lambda share: f"{share * 100:.0f} %"),
)


def _graph(
    measure: _Measure, latest: Sample | None, samples: Mapping[int, list[Sample]], own: list[Sample]
) -> str:
    """Return a cell with the current figure and a sparkline; all workers have the same scale."""
    name, get, show = measure
    now = None if latest is None else get(latest)
    figure = "" if now is None else show(now)
    values = [(sample.time, value) for sample in own if (value := get(sample)) is not None]
    if not values:
        return f'<td class="number">{figure}</td>'
    top = max((value for each in samples.values() for sample in each if (value := get(sample))), default=1.0)
    end = max(each[-1].time for each in samples.values() if each)
    points = " ".join(
        f"{_WIDTH - (end - time) / STEP:.0f},{_HEIGHT - 1 - value / top * (_HEIGHT - 2):.1f}"
        for time, value in values
    )
    least, most = (show(bound(value for _, value in values)) for bound in (min, max))
    return (
        f'<td class="number">{figure}<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" '
        f'role="img" aria-label="{name}, last ten minutes: {least} to {most}">'
        f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="1.5" '
        'vector-effect="non-scaling-stroke"/></svg></td>'
    )


def _services(view: View) -> Iterator[str]:
    status = view.status
    if status is not None:
        name, pid = text_of(status["name"]), status["pid"]
        yield f"<p>{name}: supervisor, pid {pid} {_state(status['state'])}</p><ul>"
    for place, worker in enumerate(workers_of(view)):
        title = f"worker {worker['number']}, generation {worker['generation']} {_state(worker['state'])}"
        if (tree := worker.get("tree")) is None:
            yield f"<li>{title}</li>"
            continue
        is_open = place == 0 or not _is_well(tree)
        yield (
            f'<li><details id="tree-{worker["pid"]}"{" open" * is_open}>'
            f'<summary id="of-{worker["pid"]}">{title}</summary><ul>{_service(tree)}</ul></details></li>'
        )
    if status is None:
        return
    yield "</ul>"
    for check in status["checks"]:
        state = "failing" if check["failing"] else "running" if check["asked"] else "starting"
        yield f"<p>check of {text_of(check['name'])} {_state(state, _CHECKS[state])}</p>"


def _service(tree: Mapping[str, Any]) -> str:
    restarts = f", {counted(tree['restarts'], 'restart')}" if tree["restarts"] else ""
    summary = f" {text_of(tree['summary'])}" if tree["summary"] else ""
    below = "".join(_service(child) for child in tree["children"])
    head = f"{text_of(tree['name'])} {_state(tree['state'])}"
    rest = f"<ul>{below}</ul>" if below else ""
    return f'<li>{head}<span class="quiet">{restarts}{summary}</span>{rest}</li>'


def _is_well(tree: Mapping[str, Any]) -> bool:
    return tree["state"] == "running" and all(map(_is_well, tree["children"]))


def _last_reload(view: View) -> Mapping[str, Any] | None:
    return next((each for each in reversed(view.events) if each["event"] in ("reload", "upgrade")), None)


def _reload(view: View) -> Iterator[str]:
    event = _last_reload(view)
    if event is None:
        yield '<p class="quiet">There was none.</p>'
        return
    yield f"<p>{time_of(event['time'])} {_state(str(event.get('outcome', '')))} {text_of(event['text'])}</p>"
    changed = event.get("changed")
    stages = event.get("stages")
    yield _facts(
        {
            "requested by": event.get("asked"),
            "changed": None if changed is None else _words(changed) or "no setting",
            "took": _took(event.get("took")),
            "of that": ", ".join(f"{name} {_took(took)}" for name, took in stages.items())
            if isinstance(stages, dict)
            else None,
            "failed while it waited for": event.get("waited_for"),
        }
    )
    if reason := event.get("reason"):
        yield f"<pre>{text_of(reason)}</pre>"


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _took(value: object) -> str | None:
    return _seconds(value) if isinstance(value, int | float) else None


def _events(view: View) -> Iterator[str]:
    yield "<table><thead><tr><th>Time</th><th>Event</th><th>What</th></tr></thead><tbody>"
    for event in reversed(view.events):
        facts = {
            "worker": event.get("worker"),
            "generation": event.get("generation"),
            "requested by": event.get("asked"),
            "took": _took(event.get("took")),
            "lived": _took(event.get("lived")),
        }
        yield (
            f'<tr><td class="when">{time_of(event["time"])}</td><td>{_state(_kind(event))}</td>'
            f"<td>{text_of(event['text'])}{_facts(facts)}{_last_lines(event)}</td></tr>"
        )
    yield "</tbody></table>"


def _last_lines(event: Mapping[str, Any]) -> str:
    if not isinstance(lines := event.get("lines"), list):
        return ""
    key, text = f"{event['time']}-{event.get('pid')}", "\n".join(map(str, lines))
    return (
        f'<details id="said-{text_of(key)}"><summary>its last lines</summary>'
        f"<pre>{text_of(text)}</pre></details>"
    )


def _kind(event: Mapping[str, Any]) -> str:
    return f"{event['event']} failed" if event.get("outcome") == "failed" else str(event["event"])


SECTIONS: Final[Mapping[str, Callable[[View], Iterator[str]]]] = {
    "health": _health,
    "workers": _worker_table,
    "services": _services,
    "reload": _reload,
    "events": _events,
}
