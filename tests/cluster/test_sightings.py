"""When a record that somebody else holds may be taken."""

from tamed.cluster.engine import Sightings


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_record_runs_out_when_it_was_the_same_for_so_long() -> None:
    """The time counts from the first sighting of a version, and from each change anew."""
    clock = Clock()
    sightings = Sightings(clock)
    assert not sightings.has_run_out("role", 7, 10)
    clock.now += 9
    assert not sightings.has_run_out("role", 7, 10)
    assert not sightings.has_run_out("role", 8, 10)
    clock.now += 9
    assert not sightings.has_run_out("role", 8, 10)
    assert not sightings.has_run_out("other", 8, 10)
    clock.now += 1
    assert sightings.has_run_out("role", 8, 10)
    assert not sightings.has_run_out("other", 8, 10)


def test_clock_goes_on_by_default() -> None:
    """Without a clock of the test, a record of no time runs out at once."""
    assert Sightings().has_run_out("role", "a", 0)
