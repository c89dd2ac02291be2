"""The simulation of fleets shows what it claims to show."""

import pytest

from bench.campaigns import ENGINES, FAULTS, Setting, simulate


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_no_two_machines_act_at_once(engine: str) -> None:
    """With clocks of about the same rate, whatever happens to the holder, there is never another."""
    figures = simulate(Setting(4, engine, rounds=3))
    assert figures.overlaps == 0
    assert figures.overlap == 0
    assert sorted(figures.gaps) == sorted(FAULTS)
    assert figures.transitions > 3 * len(FAULTS) / 2


@pytest.mark.parametrize("engine", ["etcd", "NATS"])
def test_referee_sees_two_at_once(engine: str) -> None:
    """With clocks whose rates differ by more than the margin of a sixth, overlaps happen, and are seen."""
    settings = [Setting(4, engine, drift=0.4, rounds=3, seed=seed) for seed in range(10)]
    done = [simulate(each, ["worker blocked or stopped, 0.3 to 3 leases"]) for each in settings]
    assert sum(each.overlaps for each in done) > 0
    assert sum(each.overlap for each in done) > 0


def test_requests_grow_with_the_fleet() -> None:
    """Each machine asks six times in a lease, more or less."""
    figures = simulate(Setting(30, rounds=1), ["worker killed"])
    a_second = sum(figures.quiet) / len(figures.quiet)
    assert a_second == pytest.approx(30 * 6 / 15, rel=0.2)


def test_same_seed_gives_the_same_figures() -> None:
    """A simulation can be repeated, and another seed gives another one."""
    first, again, other = (simulate(Setting(3, rounds=1, seed=seed)) for seed in (7, 7, 8))
    assert first == again
    assert first != other
