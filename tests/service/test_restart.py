import math
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tamed.service.restart import Backoff, Restart, RestartBudget

SECONDS = st.floats(0, 1e6)
CHANCE = st.floats(0, 1, exclude_max=True)


@st.composite
def backoffs(draw: st.DrawFn) -> Backoff:
    """Return any backoff that is allowed."""
    first, more = draw(SECONDS), draw(SECONDS)
    factor = draw(st.floats(1, 1e9) | st.integers(1, 10))
    return Backoff(first, factor, first + more, draw(st.floats(0, 1)))


@given(backoffs(), st.integers(1, 10**6), CHANCE)
def test_a_wait_is_never_negative_and_never_beyond_the_maximum(
    backoff: Backoff, attempt: int, chance: float
) -> None:
    """The jitter aside, which moves a wait by up to its share of it."""
    wait = backoff.delay(attempt, lambda: chance)
    assert 0 <= wait <= backoff.maximum * (1 + backoff.jitter)


@given(backoffs(), st.integers(1, 2000))
def test_waits_do_not_shrink(backoff: Backoff, attempt: int) -> None:
    """In the middle of the jitter each wait is as long as the one before, or longer."""
    assert backoff.delay(attempt, lambda: 0.5) <= backoff.delay(attempt + 1, lambda: 0.5)


def test_waits_grow_by_the_factor_up_to_the_maximum() -> None:
    """The first wait is ``first``; jitter moves it by a tenth either way."""
    backoff = Backoff(first=1, factor=3, maximum=10, jitter=0.1)
    assert [backoff.delay(attempt, lambda: 0.5) for attempt in (1, 2, 3, 4)] == [1, 3, 9, 10]
    assert (backoff.delay(1, lambda: 0.0), backoff.delay(1, lambda: 1.0)) == (0.9, 1.1)


def test_no_wait_stays_none_however_often_it_was_tried() -> None:
    """A backoff of 0 does not become the maximum when the factor's power leaves the floats."""
    assert Backoff(first=0, maximum=30).delay(5000) == 0
    assert Backoff(first=1, factor=2, maximum=30, jitter=0).delay(5000) == 30


def test_a_wait_without_a_source_of_chance_uses_the_systems() -> None:
    """The jitter is random by default."""
    assert len({Backoff().delay(1) for _ in range(20)}) > 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"first": -1},
        {"first": 2, "maximum": 1},
        {"first": math.nan},
        {"maximum": math.inf},
        {"factor": 0.5},
        {"factor": math.inf},
        {"factor": math.nan},
        {"jitter": 1.5},
        {"jitter": -0.1},
        {"jitter": math.nan},
    ],
)
def test_a_backoff_must_make_sense(wrong: dict[str, float]) -> None:
    """A backoff that would yield no time is refused when it is made."""
    with pytest.raises(ValueError, match="a backoff needs"):
        Backoff(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"when": "sometimes"}, "restart 'sometimes': expected never, on-failure or always"),
        ({"limit": -1}, "a restart policy needs limit >= 0 and within > 0"),
        ({"within": 0}, "a restart policy needs limit >= 0 and within > 0"),
        ({"within": math.nan}, "a restart policy needs limit >= 0 and within > 0"),
    ],
)
def test_a_policy_must_make_sense(wrong: dict[str, Any], message: str) -> None:
    """A policy that says nothing is refused when it is made."""
    with pytest.raises(ValueError, match=message):
        Restart(**wrong)


@pytest.mark.parametrize(
    ("when", "failed", "again"),
    [
        ("never", True, False),
        ("never", False, False),
        ("on-failure", True, True),
        ("on-failure", False, False),
        ("always", True, True),
        ("always", False, True),
    ],
)
def test_a_policy_says_when_there_is_a_restart(when: Any, failed: bool, again: bool) -> None:
    """The three kinds of policy, after a failure and after an end."""
    budget = RestartBudget(Restart(when))
    assert (budget.next_delay(failed=failed, now=0, ran=0) is not None) is again


@given(
    st.integers(0, 5),
    st.floats(0.1, 100),
    st.lists(st.floats(0, 50), max_size=60),
)
def test_there_are_never_more_restarts_in_a_window_than_the_limit(
    limit: int, within: float, gaps: list[float]
) -> None:
    """Whatever the times of the failures, each window of ``within`` seconds holds at most ``limit``."""
    budget = RestartBudget(Restart("on-failure", limit, within))
    now, restarts = 0.0, list[float]()
    for gap in gaps:
        now += gap
        if budget.next_delay(failed=True, now=now, ran=gap) is not None:
            restarts.append(now)
    for time in restarts:
        assert len([one for one in restarts if time - within < one <= time]) <= limit


@given(st.integers(1, 5), st.floats(0.1, 100), st.floats(0, 1e6))
def test_a_budget_is_whole_again_after_the_window(limit: int, within: float, start: float) -> None:
    """What is past counts no more."""
    budget = RestartBudget(Restart("on-failure", limit, within))
    later = start + within
    assume(later - within >= start)
    for now in (start, later):
        waits = [budget.next_delay(failed=True, now=now, ran=0) for _ in range(limit + 1)]
        assert [wait is None for wait in waits] == [False] * limit + [True]


def test_without_a_limit_there_is_always_another_restart() -> None:
    """A limit of None is no limit, and remembers nothing."""
    budget = RestartBudget(Restart("always", limit=None))
    assert all(budget.next_delay(failed=True, now=0, ran=0) is not None for _ in range(1000))


def test_the_backoff_begins_anew_after_a_time_without_failure() -> None:
    """One that was up for ``within`` is on its first attempt again."""
    policy = Restart("always", None, 60, Backoff(first=1, factor=2, maximum=100, jitter=0))
    budget = RestartBudget(policy, random=lambda: 0.5)
    waits = [budget.next_delay(failed=True, now=0, ran=ran) for ran in (0, 0, 59, 60, 0)]
    assert waits == [1, 2, 4, 1, 2]
