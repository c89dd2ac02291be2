"""What the operations endpoint answers to a request, without the process around it."""

import gzip
import json
from collections.abc import MutableMapping
from typing import Any

import pytest

from tamed.metrics.merge import Merged
from tamed.ops.application import HostCheck, OpsApplication
from tamed.ops.observer import Observer
from tamed.ops.source import NoAnswer, Source

pytestmark = pytest.mark.anyio

HELD = {
    "role": "cron",
    "scope": "host",
    "holder": "",
    "trouble": "",
    "state": "held",
    "worker": 1,
    "pid": 8,
    "age": 3.0,
    "transitions": 2,
    "vacant": 0.25,
}
VACANT = HELD | {"role": "mail", "state": "vacant", "worker": None, "pid": None, "vacant": 4.0}
AWAY = VACANT | {"role": "bill", "scope": "cluster", "state": "standby", "holder": "web2", "trouble": "gone"}
HEALTH = {"phase": "running", "is_draining": False, "ready": 1, "wanted": 1, "beats": True, "last_error": ""}
HEALTH |= {"checks": []}
TREE = {"name": "verse", "state": "running", "restarts": 2, "summary": "a poem", "children": []}
STATUS = {
    "name": "app",
    "state": "running",
    "pid": 7,
    "uptime": 12.3,
    "generation": 1,
    "ready": 1,
    "wanted": 1,
    "restarts": 0,
    "endpoints": ["127.0.0.1:10000"],
    "certificates": [{"endpoint": "127.0.0.1:10000", "file": "/a.pem", "ends": "2040-01-01T00:00:00.000Z"}],
    "last_error": "worker 8 failed",
    "checks": [{"name": "verse/db", "gates": False, "asked": 1, "failing": 1, "why": "no answer"}],
    "last_error_at": "2026-11-28T10:00:00Z",
    "roles": [HELD, VACANT, AWAY],
    "workers": [
        {
            "number": 1,
            "pid": 8,
            "generation": 1,
            "state": "ready",
            "uptime": 3.0,
            "memory": 2**20,
            "connections": 4,
            "tree": TREE | {"children": [TREE]},
        }
    ],
}
FIGURES = {
    "uptime": 12.5,
    "generation": 1,
    "wanted": 2,
    "states": {"ready": 1},
    "checks": {"verse/db": False},
    "certificates": [{"endpoint": "127.0.0.1:9321", "file": "ops.pem", "ends": 3e9}],
    "queues": {"127.0.0.1:10000": [2, 100]},
    "log_records": {"ERROR": 5},
    "log_lost": 6,
    "roles": [HELD, VACANT, AWAY],
    "ends": {"SIGKILL": 3},
    "restarts": 3,
    "reloads": {"done": 2},
    "reload_seconds": {"done": 0.5},
    "supervisor": {"memory": 1000, "cpu": 0.25},
    "usage": [
        {"slot": 1, "leaves": False, "memory": 2000, "cpu": 1.5},
        {"slot": 1, "leaves": True, "memory": None, "cpu": 0.5},
    ],
}


class Known(Source):
    """Stands for the supervisor's answers."""

    def __init__(self, why_not: str = "") -> None:
        self.why_not = why_not

    async def health(self) -> dict[str, Any]:
        """Return them, or say why there are none."""
        if self.why_not:
            raise NoAnswer(self.why_not)
        return HEALTH

    async def status(self) -> dict[str, Any]:
        """Return the status."""
        return STATUS

    async def metrics(self) -> tuple[dict[str, Any], list[Merged], int]:
        """Return the daemon's own figures."""
        return FIGURES, [], 5


async def ask(
    path: str, method: str = "GET", source: Source | None = None, **headers: str
) -> tuple[int, dict[str, str], str]:
    """Return status, headers and body of an answer."""
    path, _, query = path.partition("?")
    sent: list[dict[str, Any]] = []
    named = {"host": "127.0.0.1", **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(dict(message))

    known = source or Known()
    await OpsApplication(known, HostCheck([]), Observer(known, "plain"))(scope, receive, send)
    found = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, b"".join(each.get("body", b"") for each in sent[1:]).decode("latin-1")


async def test_probes_are_answered_in_words() -> None:
    """By their checks if that is asked, without those that are excluded, and to HEAD by the status alone."""
    assert (await ask("/livez"))[::2] == (200, "ok")
    assert "[+]workers ok" in (await ask("/readyz?verbose"))[2]
    assert "[+]workers excluded: ok\n" in (await ask("/readyz?verbose&exclude=workers"))[2]
    status, headers, body = await ask("/startupz", "HEAD")
    assert (status, body, headers["content-length"]) == (200, "", "2")


async def test_status_is_json_for_programs_and_text_for_people() -> None:
    """The format follows the query, else the Accept header, else the client's name."""
    status, headers, body = await ask("/status")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body)["schema_version"] == 1
    for answer in (await ask("/status", user_agent="curl/8"), await ask("/status", accept="text/plain")):
        assert answer[2].startswith("app is running: pid 7, up 12 s, generation 1, 1 of")
    text = (await ask("/status?format=text"))[2]
    assert "last error, 2026-11-28T10:00:00Z: worker 8 failed\n" in text
    assert "worker 1 (pid 8, generation 1) is ready, up 3 s, 1 MiB, 4 connections\n" in text
    assert "    verse: running, 2 restarts, a poem\n" in text


async def test_metrics_are_in_the_format_of_prometheus() -> None:
    """With the daemon's own figures; what is not known is left out."""
    status, headers, body = await ask("/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain")
    for line in (
        "tamed_up 1.0",
        "tamed_metrics_refused_series_total 5.0",
        'tamed_check_passing{service="verse/db"} 0.0',
        'tamed_listen_queue{endpoint="127.0.0.1:10000"} 2.0',
        'tamed_listen_queue_limit{endpoint="127.0.0.1:10000"} 100.0',
        'tamed_log_records_total{level="ERROR"} 5.0',
        "tamed_log_lost_lines_total 6.0",
        'tamed_worker_ends_total{reason="SIGKILL"} 3.0',
        'tamed_reload_seconds_sum{result="done"} 0.5',
        'tamed_memory_bytes{worker="1"} 2000.0',
        'tamed_cpu_seconds_total{worker="1-draining"} 0.5',
        'tamed_certificate_end_timestamp_seconds{certificate="ops.pem",endpoint="127.0.0.1:9321"} 3e+09',
    ):
        assert line in body.splitlines()
    assert 'tamed_memory_bytes{worker="1-draining"}' not in body
    assert (await ask("/metrics", "HEAD"))[::2] == (200, "")


async def test_metrics_are_what_the_client_asks_for() -> None:
    """By name, in OpenMetrics, and compressed, unless it refuses that."""
    assert (await ask("/metrics?name[]=tamed_up&name[]=nothing"))[2].splitlines()[2:] == ["tamed_up 1.0"]
    _, headers, body = await ask("/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert headers["content-type"].startswith("application/openmetrics-text")
    assert body.endswith("# EOF\n")
    _, headers, packed = await ask("/metrics", accept_encoding="br, gzip;q=0.8")
    assert headers["content-encoding"] == "gzip"
    assert "\ntamed_up 1.0\n" in gzip.decompress(packed.encode("latin-1")).decode()
    assert "content-encoding" not in (await ask("/metrics", accept_encoding="gzip;q=0, br"))[1]


async def test_what_cannot_be_answered_is_refused_with_a_reason() -> None:
    """Another path, another method, another host, and a supervisor that does not answer."""
    expected = "expected one of /, /livez, /readyz, /startupz, /status, /metrics\n"
    assert (await ask("/nothing"))[::2] == (404, expected)
    status, headers, _ = await ask("/livez", "POST")
    assert (status, headers["allow"]) == (405, "GET, HEAD")
    assert (await ask("/livez", host="evil.example"))[0] == 403
    assert (await ask("/livez", source=Known("it is busy")))[::2] == (503, "it is busy\n")


async def test_roles_are_in_the_status_and_in_the_metrics() -> None:
    """The holder of each role is shown, and that one has none."""
    text = (await ask("/status?format=text"))[2]
    assert "role cron is held by worker 1 (pid 8)\nrole mail is vacant for 3 s\n" in text
    assert "role bill is on another machine, web2, for 3 s\n" in text
    metrics = (await ask("/metrics"))[2]
    for line in (
        'tamed_role_held{role="cron"} 1.0',
        'tamed_role_held{role="mail"} 0.0',
        'tamed_role_holder{role="cron"} 1.0',
        'tamed_role_engine_up{role="bill"} 0.0',
        'tamed_role_transitions_total{role="cron"} 2.0',
        'tamed_role_vacant_seconds_total{role="mail"} 4.0',
    ):
        assert f"{line}\n" in metrics
    assert 'tamed_role_holder{role="mail"}' not in metrics
