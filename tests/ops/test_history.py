"""What is kept of the figures of workers."""

from itertools import pairwise
from typing import Any

from tamed.ops.observer import SPAN, STEP, History


def worker(pid: int, cpu: float | None = 0.0, **figures: Any) -> dict[str, Any]:
    """Return a worker as a status has it."""
    return {"pid": pid, "memory": 1000, "cpu": cpu, **figures}


def test_samples_are_five_seconds_apart_and_of_ten_minutes() -> None:
    """However often the workers are looked at."""
    history = History()
    for second in range(2000):
        history.add(second, [worker(1, connections=second)])
    samples = history.of(1)
    assert {round(after.time - before.time) for before, after in pairwise(samples)} == {round(STEP)}
    assert samples[-1].time - samples[0].time == SPAN - STEP
    assert history.latest(1) is not None


def test_cpu_is_a_share_of_the_time_between_two_looks() -> None:
    """None where there was no look before, or a process that is gone has no figure."""
    history = History()
    history.add(0.0, [worker(1, 1.0)])
    first = history.latest(1)
    history.add(2.0, [worker(1, 2.0)])
    second = history.latest(1)
    history.add(4.0, [worker(1, None)])
    third = history.latest(1)
    assert first is not None
    assert second is not None
    assert third is not None
    assert (first.cpu, second.cpu, third.cpu) == (None, 0.5, None)


def test_nothing_is_kept_of_a_worker_that_is_gone() -> None:
    """So the memory is bounded by the workers that there are."""
    history = History()
    history.add(0.0, [worker(1), worker(2)])
    history.add(5.0, [worker(2)])
    assert history.of(1) == []
    assert history.latest(1) is None
    assert len(history.of(2)) == 2
