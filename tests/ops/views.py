"""A supervisor for the tests of the page: what it answers, and when."""

from collections.abc import Mapping
from typing import Any

from tamed.ops.source import NoAnswer, Source

TREE = {"name": "verse", "state": "running", "restarts": 0, "summary": "a poem", "children": []}
WORKER = {
    "pid": 8,
    "number": 1,
    "generation": 1,
    "state": "ready",
    "uptime": 3.0,
    "memory": 2_000_000,
    "cpu": 1.0,
    "connections": 4,
    "accepted": 9,
    "tree": TREE | {"children": [TREE | {"name": "server", "restarts": 2}]},
}
STATUS: dict[str, Any] = {
    "name": "app",
    "state": "running",
    "pid": 7,
    "uptime": 12.3,
    "generation": 1,
    "reloading": False,
    "ready": 1,
    "wanted": 1,
    "restarts": 0,
    "endpoints": ["127.0.0.1:10000"],
    "certificates": [],
    "last_error": "",
    "last_error_at": None,
    "events": [],
    "checks": [],
    "workers": [WORKER],
}


class Told(Source):
    """Answers with what the test has put in."""

    def __init__(self) -> None:
        self.status_now: dict[str, Any] = STATUS
        self.why_not = ""
        self.program = 1
        self.events: list[dict[str, Any]] = []
        self.records: list[dict[str, Any]] = []
        self.asked: list[dict[str, int]] = []

    async def status(self) -> dict[str, Any]:
        """Return the status."""
        return self.status_now

    async def view(self, seen: Mapping[str, int]) -> dict[str, Any]:
        """Return what is new, as the supervisor does."""
        if self.why_not:
            raise NoAnswer(self.why_not)
        self.asked.append(dict(seen))
        is_known = seen["program"] == self.program
        return {
            "status": self.status_now,
            "program": self.program,
            "events": len(self.events),
            "new_events": self.events[seen["events"] if is_known else 0 :],
            "log": len(self.records),
            "new_records": self.records[seen["log"] if is_known else 0 :],
        }

    def happens(self, event: str, text: str, **facts: Any) -> None:
        """Let there be an event."""
        self.events.append({"time": "2026-11-28T10:00:00.000+01:00", "event": event, "text": text, **facts})

    def logs(self, message: str, severity: int = 6, worker: int | None = 1) -> None:
        """Let there be a record of the log."""
        self.records.append(
            {"time": 1.0, "severity": severity, "logger": "verse", "worker": worker, "text": message}
        )
