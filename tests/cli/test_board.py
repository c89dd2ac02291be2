"""The table of `tamed top`: its rows, their order, and the problems it shows."""

from typing import Any

from tamed.cli._screen import Board


def worker(
    number: int, *, cpu: float | None = 0.0, memory: int | None = 1_000_000, **more: Any
) -> dict[str, Any]:
    """Return a worker as in a status; its pid is 100 plus its number."""
    return {
        "pid": 100 + number,
        "number": number,
        "generation": 1,
        "state": "ready",
        "uptime": 5.0,
        "cpu": cpu,
        "memory": memory,
        **more,
    }


def status(*workers: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return the status of an instance."""
    return {
        "name": "verse",
        "state": "running",
        "pid": 7,
        "uptime": 60.0,
        "generation": 1,
        "reloading": False,
        "ready": 3,
        "wanted": 3,
        "restarts": 0,
        "checks": [],
        "last_error": "",
        "last_error_at": None,
        "workers": list(workers),
        **more,
    }


def test_workers_are_sorted_by_what_they_use() -> None:
    """The largest row comes first; the CPU share is known from the second update on."""
    board = Board()
    board.update([status(worker(1, cpu=1.0), worker(2, cpu=1.0), worker(3, cpu=None))], 10.0)
    assert [row.cpu for row in board.rows()] == [None, None, None]
    later = [
        worker(1, cpu=1.1, memory=5, connections=2),
        worker(2, cpu=2.0, memory=3, connections=9),
        worker(3, cpu=None, memory=None),
    ]
    board.update([status(*later)], 12.0)
    for sort, order in (("CPU", [2, 1, 3]), ("memory", [1, 2, 3]), ("connections", [2, 1, 3])):
        board.sort = sort
        assert [row.number for row in board.rows()] == order
    board.sort = "CPU"
    assert board.rows()[0].cells[-1] == "50 %"
    assert board.table()[0].split() == [
        *("INSTANCE", "#", "PID", "GENERATION", "STATE", "UP", "CONNECTIONS", "MEMORY", "CPU")
    ]


def test_the_selection_stays_on_a_worker() -> None:
    """The selection follows the worker; if it is gone, the first row is selected, or none."""
    board = Board()
    assert board.selection() is None
    board.move(1)
    board.update([status(worker(1), worker(2), worker(3))], 1.0)
    board.move(1)
    board.update([status(worker(2), worker(3, cpu=5.0), worker(1, cpu=9.0))], 2.0)
    chosen = board.selection()
    assert chosen is not None
    assert chosen.number == 2
    board.move(99)
    board.update([status(worker(1))], 3.0)
    chosen = board.selection()
    assert chosen is not None
    assert chosen.number == 1


def test_a_filter_leaves_the_rows_that_have_a_text() -> None:
    """The filter matches a text in any column."""
    board = Board()
    board.update([status(worker(1)), status(worker(2, state="draining"), name="prose")], 1.0)
    for pattern, left in (("drain", [2]), ("verse", [1]), ("10", [1, 2]), ("none", [])):
        board.pattern = pattern
        assert sorted(row.number for row in board.rows()) == left


def test_what_is_wrong_is_said() -> None:
    """A degraded and a silent instance are shown with their problems; no text imitates another line."""
    board = Board()
    checks = [{"name": "db", "failing": 1, "why": "no\nanswer"}, {"name": "cache", "failing": 0, "why": ""}]
    ill = status(
        worker(1, memory=None),
        state="degraded",
        reloading=True,
        checks=checks,
        last_error="worker 8 failed",
        last_error_at="now",
    )
    board.update([ill, {"name": "prose", "error": "prose is not running"}], 1.0)
    lines = list(board.head())
    assert [state for state, _ in lines] == ["degraded", "warning", "warning", "unknown"]
    assert lines[0][1].startswith("verse is degraded, reloading: pid 7, up 00:01:00, 3 of 3")
    assert [text for _, text in lines[1:]] == [
        "  the check of db fails: no\\nanswer",
        "  last error, at now: worker 8 failed",
        "prose is not running",
    ]
