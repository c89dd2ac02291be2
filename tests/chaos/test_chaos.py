"""An excerpt of the chaos, and what its referee sees."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.logbook import Logbook
from tests.chaos.referee import Call, Referee
from tests.patience import PATIENCE, ROUNDS

ROOT = Path(__file__).parents[2]
HEAD = "2026-11-23T12:31:05.123+01:00 INFO"


@pytest.mark.excerpt
@pytest.mark.unmeasured
def test_nothing_is_wrong_in_some_seconds_of_chaos() -> None:
    """Every connection, line of the log and process is accounted for."""
    command = [sys.executable, "-m", "tests.chaos", "--seconds", str(4 * ROUNDS), "--seed", "1"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=3 * PATIENCE, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "no violation" in done.stdout


@pytest.fixture
def referee() -> Referee:
    """A referee before whom the first version serves."""
    made = Referee()
    made.allow_version(1)
    return made


def call(referee: Referee, outcome: str, worker: int = 0, version: int = 1) -> None:
    """Have a client come, and end so."""
    made = Call("tcp", time.monotonic(), referee.judge)
    if worker:
        made.greeted(f"{worker} {version} tcp-{worker}-0 1".encode())
    made.end(outcome)


def test_a_client_that_is_served_is_no_violation(referee: Referee) -> None:
    """It is counted."""
    call(referee, "served", worker=7)
    assert (referee.figures["tcp served"], referee.violations) == (1, [])


@pytest.mark.parametrize("outcome", ["refused", "broken", "wrong", "hung"])
def test_a_failure_that_nothing_explains_is_a_violation(referee: Referee, outcome: str) -> None:
    """Whatever it is."""
    call(referee, outcome)
    call(referee, outcome, worker=7)
    assert referee.figures["violations"] == 2


def test_only_the_worker_that_was_killed_explains_what_it_had_let_in(referee: Referee) -> None:
    """Another one's clients have nothing to do with it, and nobody may be refused."""
    with referee.risk(7, "killed"):
        call(referee, "broken", worker=7)
        assert referee.violations == []
        call(referee, "broken", worker=8)
        call(referee, "refused")
        call(referee, "hung", worker=7)
    assert referee.figures["violations"] == 3


def test_a_daemon_that_stops_as_asked_refuses_and_does_not_drop(referee: Referee) -> None:
    """One that is killed drops what waits in its queue too, but nothing that it had let in."""
    with referee.outage("stopped", is_orderly=True):
        call(referee, "refused")
        assert referee.violations == []
        call(referee, "broken")
    assert referee.figures["violations"] == 1
    with referee.outage("killed"):
        call(referee, "broken")
        call(referee, "refused")
        assert referee.figures["violations"] == 1
        call(referee, "broken", worker=7)
    assert referee.figures["violations"] == 2


def test_the_old_version_must_not_serve_after_a_reload(referee: Referee) -> None:
    """Either may while it is under way."""
    referee.allow_another_version(2)
    call(referee, "served", worker=7, version=1)
    call(referee, "served", worker=8, version=2)
    referee.allow_version(2)
    call(referee, "served", worker=8, version=2)
    assert referee.violations == []
    call(referee, "served", worker=7, version=1)
    assert referee.figures["violations"] == 1


def line(number: int, length: int | None = None) -> str:
    """Return a line as the programs under chaos log it."""
    return f"{HEAD} chaos: <tcp-7-0 {number} {'x' * (number if length is None else length)}>\n"


@pytest.mark.parametrize(
    ("lines", "violations"),
    [
        pytest.param([line(1), line(2), line(3)], 0, id="whole"),
        pytest.param([line(1), line(3)], 1, id="lost"),
        pytest.param(
            [line(1), f"{HEAD} tamed: 1 lines were lost between then and now\n", line(3)], 0, id="said"
        ),
        pytest.param([line(1), line(2), line(2), line(3)], 1, id="doubled"),
        pytest.param([line(1), line(3), line(2)], 2, id="disordered"),
        pytest.param([line(1), line(2, length=1), line(2), line(3)], 1, id="torn"),
        pytest.param([line(1), line(2)], 1, id="its end"),
    ],
)
def test_every_line_is_accounted_for(
    referee: Referee, tmp_path: Path, lines: list[str], violations: int
) -> None:
    """A client has heard of the third of a process."""
    log = tmp_path / "chaos.log"
    referee.noted["tcp-7-0"] = 3
    log.write_text("".join(lines))
    Logbook(log, referee, tmp_path / "copy").close()
    assert referee.figures["violations"] == violations


@pytest.mark.parametrize(
    "move",
    [
        pytest.param(lambda log: log.rename(f"{log}.1"), id="rotated"),
        pytest.param(
            lambda log: log.parent.rename(f"{log.parent}.old") and log.parent.mkdir(), id="vanished"
        ),
    ],
)
def test_no_line_is_missed(referee: Referee, tmp_path: Path, move: Callable[[Path], None]) -> None:
    """What was written before its file or folder went away is read, also if it was not read before."""
    (tmp_path / "disk").mkdir()
    log = tmp_path / "disk" / "chaos.log"
    log.write_text(line(1))
    book = Logbook(log, referee, tmp_path / "copy")
    book.read()
    with log.open("a") as file:
        file.write(line(2))
    move(log)
    log.write_text(line(3))
    referee.noted["tcp-7-0"] = 3
    book.close()
    assert (referee.figures["log lines"], referee.violations) == (3, [])
