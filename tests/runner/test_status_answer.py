"""A status, as a command reads it from an untrusted answer."""

from typing import Any

import pytest

from tamed.ipc.message import InvalidMessage
from tamed.supervisor.reports import read_status

WORKER: dict[str, Any] = {
    "pid": 12,
    "number": 1,
    "generation": 1,
    "state": "ready",
    "uptime": 1.5,
    "memory": 30_000_000,
    "cpu": 0.2,
    "connections": 0,
    "accepted": 3,
}
STATUS: dict[str, Any] = {
    "name": "poetry",
    "state": "stopping",
    "pid": 11,
    "uptime": 2.5,
    "generation": 1,
    "reloading": False,
    "endpoints": ["127.0.0.1:10000"],
    "certificates": [
        {"endpoint": "127.0.0.1:10000", "file": "/srv/verse.pem", "ends": "2027-01-02T03:04:05.000+01:00"}
    ],
    "ready": 1,
    "wanted": 1,
    "restarts": 0,
    "checks": [{"name": "db", "gates": True, "asked": 2, "failing": 1, "why": "down"}],
    "roles": [
        {
            "role": "cron",
            "scope": "host",
            "state": "held",
            "worker": 1,
            "pid": 4712,
            "generation": 2,
            "age": 1.5,
            "token": 2**50,
            "transitions": 3,
            "vacant": 0.5,
            "standby": 1,
            "holder": "",
            "trouble": "",
        }
    ],
    "last_error": "",
    "last_error_at": None,
    "log": "",
    "events_file": "",
    "events": [{"time": "2026-11-28T17:46:33.399+00:00", "event": "start", "text": "poetry is ready"}],
    "workers": [WORKER],
    "warnings": [],
}


def test_a_status_is_read_as_it_is() -> None:
    """Only the known fields are returned."""
    assert read_status({**STATUS, "news": 1}) == STATUS


@pytest.mark.parametrize("key", STATUS)
@pytest.mark.parametrize("value", [None, [3], {"a": 1}, -1, True, 2**60], ids=str)
def test_what_is_no_status_is_an_error(key: str, value: object) -> None:
    """A wrong type in any field is an error."""
    if (key, value) in (("reloading", True), ("last_error_at", None), ("uptime", 2**60)):
        return
    with pytest.raises(InvalidMessage, match=key):
        read_status({**STATUS, key: value})


@pytest.mark.parametrize("key", WORKER)
def test_what_is_no_worker_is_an_error(key: str) -> None:
    """Each field of a worker is validated."""
    with pytest.raises(InvalidMessage, match=key):
        read_status({**STATUS, "workers": [{**WORKER, key: []}]})
