"""The metrics in the formats of Prometheus: the daemon's own, and those of the application."""

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from tamed.metrics.merge import Merged
from tamed.worker.report import CERTIFICATE_END, CERTIFICATE_END_HELP

__all__ = ["metrics_of", "text_of"]

_LIMIT: Final = "Series without space in the table of a worker, which are missing."


def metrics_of(figures: dict[str, Any], merged: Sequence[Merged], refused: int) -> list[Metric]:
    """Return the metrics of the supervisor's figures, and the merged metrics of the workers.

    An application's metric with the name of one of the daemon's is omitted.
    """
    own = [*_own(figures, refused)]
    names = {metric.name for metric in own}
    others = [_metric(each) for each in merged if each.family.name not in names]
    ends = _certificate_ends(figures["certificates"])
    if (of_workers := next((each for each in others if each.name == ends.name), None)) is not None:
        of_workers.samples += ends.samples
    elif ends.samples:
        own.append(ends)
    return own + others


def text_of(metrics: Sequence[Metric], accept: str = "", names: Collection[str] = ()) -> tuple[bytes, str]:
    """Return the text of the metrics, and its media type.

    ``accept`` is the client's ``Accept`` header: Prometheus' own format, or OpenMetrics. With ``names``, the
    text has only the samples of these names.
    """
    if names:
        for metric in metrics:
            metric.samples = [sample for sample in metric.samples if sample.name in names]
        metrics = [metric for metric in metrics if metric.samples]
    encode, kind = choose_encoder(accept)
    return encode(_Collected(metrics)), kind


class _Collected(Collector):
    """The argument of the library's encoders."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Sequence[Metric]:
        return self._metrics


def _metric(merged: Merged) -> Metric:
    metric = Metric(merged.family.name, merged.explanation, merged.family.kind)
    metric.samples = [Sample(name, dict(labels), value) for name, labels, value in merged.samples]
    return metric


def _own(figures: dict[str, Any], refused: int) -> Iterator[Metric]:
    yield _counter("tamed_metrics_refused_series", _LIMIT, {(): refused})
    is_up = float(figures["states"].get("ready", 0) > 0)
    yield _gauge("tamed_up", "1 while the daemon has a ready worker.", {(): is_up})
    yield _gauge("tamed_uptime_seconds", "Time since the start of the supervisor.", {(): figures["uptime"]})
    yield _gauge("tamed_generation", "Number of the serving generation.", {(): figures["generation"]})
    yield _gauge("tamed_workers_wanted", "Wanted workers.", {(): figures["wanted"]})
    yield _gauge("tamed_workers", "Workers by state.", _by(figures["states"]), ["state"])
    passing = _by({name: float(passes) for name, passes in figures["checks"].items()})
    yield _gauge("tamed_check_passing", "1 while the check of a service passes.", passing, ["service"])
    ends, restarts = figures["ends"], figures["restarts"]
    yield _counter("tamed_worker_ends", "Ended workers by reason.", _by(ends), ["reason"])
    yield _counter("tamed_worker_restarts", "Lost workers that were replaced.", {(): restarts})
    yield _reloads(figures)
    lengths, limits = ({at: queue[each] for at, queue in figures["queues"].items()} for each in (0, 1))
    yield _gauge("tamed_listen_queue", "Clients waiting to be accepted.", _by(lengths), ["endpoint"])
    yield _gauge("tamed_listen_queue_limit", "Maximum number of waiting clients.", _by(limits), ["endpoint"])
    yield _counter("tamed_log_records", "Records of the log.", _by(figures["log_records"]), ["level"])
    lost = figures["log_lost"]
    yield _counter("tamed_log_lost_lines", "Lines that could not be written to the log.", {(): lost})
    if figures["roles"]:
        yield from _roles(figures["roles"])
    yield from _usage(figures)


def _by(counts: dict[str, float]) -> dict[tuple[str, ...], float]:
    return {(name,): count for name, count in counts.items()}


def _reloads(figures: dict[str, Any]) -> Metric:
    metric = SummaryMetricFamily("tamed_reload_seconds", "Reloads by result.", labels=["result"])
    for result, count in figures["reloads"].items():
        metric.add_metric([result], count_value=count, sum_value=figures["reload_seconds"][result])
    return metric


def _roles(roles: Sequence[dict[str, Any]]) -> Iterator[Metric]:
    def by_role(key: str) -> dict[tuple[str, ...], float]:
        return {(role["role"],): role[key] for role in roles}

    held: dict[tuple[str, ...], float] = {(role["role"],): float(role["pid"] is not None) for role in roles}
    yield _gauge("tamed_role_held", "1 while a worker holds the role.", held, ["role"])
    holder = by_role("worker")
    yield _gauge("tamed_role_holder", "Number of the worker that holds the role.", holder, ["role"])
    passed = by_role("transitions")
    yield _counter("tamed_role_transitions", "Number of grants of the role.", passed, ["role"])
    vacant = by_role("vacant")
    yield _counter("tamed_role_vacant_seconds", "Time without a known holder.", vacant, ["role"])
    of_fleet = [role for role in roles if role["scope"] == "cluster"]
    if of_fleet:
        text = "1 while the engine that grants the role across machines answers."
        answers: dict[tuple[str, ...], float] = {
            (each["role"],): float(not each["trouble"]) for each in of_fleet
        }
        yield _gauge("tamed_role_engine_up", text, answers, ["role"])


def _certificate_ends(certificates: Sequence[dict[str, Any]]) -> Metric:
    """Return the metric of the certificates of this endpoint; those of workers are a metric of each."""
    values: dict[tuple[str, ...], float] = {
        (each["endpoint"], each["file"]): each["ends"] for each in certificates
    }
    return _gauge(CERTIFICATE_END, CERTIFICATE_END_HELP, values, ["endpoint", "certificate"])


def _usage(figures: dict[str, Any]) -> Iterator[Metric]:
    processes = {"supervisor": figures["supervisor"]}
    for each in figures["usage"]:
        processes[f"{each['slot']}-draining" if each["leaves"] else str(each["slot"])] = each
    memory = _by({process: usage["memory"] for process, usage in processes.items()})
    cpu = _by({process: usage["cpu"] for process, usage in processes.items()})
    yield _gauge("tamed_memory_bytes", "Resident memory by worker.", memory, ["worker"])
    yield _counter("tamed_cpu_seconds", "CPU time by worker.", cpu, ["worker"])


def _filled(
    kind: type[GaugeMetricFamily | CounterMetricFamily],
    name: str,
    text: str,
    values: dict[tuple[str, ...], float],
    labels: Sequence[str] = (),
) -> Metric:
    metric = kind(name, text, labels=labels)
    for key, value in values.items():
        if value is not None:
            metric.add_metric(key, value)
    return metric


_gauge: Final = partial(_filled, GaugeMetricFamily)
_counter: Final = partial(_filled, CounterMetricFamily)
