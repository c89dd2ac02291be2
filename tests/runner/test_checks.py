"""The checks of services, as a supervisor sums them up."""

from collections.abc import Iterator
from typing import Any

import pytest

from tamed.ipc.message import InvalidMessage
from tamed.supervisor.generation import read_checks
from tests.runner.world import Supervised, supervised


@pytest.fixture
def world() -> Iterator[Supervised]:
    """A supervisor of two workers, started."""
    with supervised() as made:
        made.start()
        yield made


def results(*whys: str | None) -> dict[str, Any]:
    """Return the report of a worker: the checks of a and b."""
    found = zip("ab", whys, strict=True)
    return {"checks": [{"name": name, "gates": name == "b", "why": why} for name, why in found]}


def recorded(world: Supervised) -> list[str]:
    """Return the events of checks."""
    return [each["text"] for each in world.platform.recorded if each.get("event") == "check"]


def test_check_fails_if_it_fails_in_one_worker(world: Supervised) -> None:
    """The event is recorded once; workers that have not asked yet do not count."""
    first, second = world.hands
    assert world.supervisor.checks.summaries() == []
    world.says(first, results(None, None))
    assert world.supervisor.checks.failing == []
    assert [each.asked for each in world.supervisor.checks.summaries()] == [0, 0]
    world.says(first, results("", ""))
    world.says(second, results("down", ""))
    assert world.supervisor.state == "degraded"
    world.says(first, results("far away", None))
    assert [tuple(each) for each in world.supervisor.checks.summaries()] == [
        ("a", False, 2, 2, "far away"),
        ("b", True, 1, 0, ""),
    ]
    assert recorded(world) == ["the check of a fails: down"]
    world.notifier.look()
    status = "degraded: 2 of 2 workers ready; the check of a fails: far away"
    assert ("status", status) in world.platform.events
    world.says(first, results("", ""))
    world.says(second, results("", ""))
    assert world.supervisor.state == "running"
    assert recorded(world) == ["the check of a fails: down", "the check of a passes again"]


def test_check_passes_again_when_the_worker_in_which_it_failed_has_ended(world: Supervised) -> None:
    """Failing checks are passed to the next program of an upgrade."""
    first, second = world.hands
    world.says(first, results("", "down"))
    world.says(second, results("", ""))
    assert world.supervisor.checks.export() == {"b": "down"}
    world.ends(first, 1)
    assert recorded(world) == ["the check of b fails: down", "the check of b passes again"]
    world.supervisor.checks.resume({"a": "down"})
    world.supervisor.checks.look()
    assert recorded(world)[-1] == "the check of a passes again"


@pytest.mark.parametrize("checks", ["no", [1], [{"name": "a"}], [{"name": "a", "gates": True, "why": 1}]])
def test_report_that_is_none_is_refused(checks: Any) -> None:
    """The application may have written it."""
    with pytest.raises(InvalidMessage):
        read_checks({"checks": checks})
