"""The memory of workers, and its limit."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tamed._os.proc import memory_of
from tests.runner.world import Supervised, supervised

LIMIT = 300_000_000
LITTLE = 50_000_000
LOOK = 3.0  # seconds


@pytest.fixture
def world() -> Iterator[Supervised]:
    """Two workers that use little memory, and a limit."""
    with supervised(max_worker_memory=LIMIT) as made:
        made.platform.used = {101: LITTLE, 102: LITTLE}
        made.start()
        made.pass_time(LOOK)
        made.platform.logged.clear()
        yield made


def test_a_peak_is_no_leak(world: Supervised) -> None:
    """A worker must exceed the limit three times in a row."""
    for _ in range(3):
        world.platform.used[101] = LIMIT + 1
        world.pass_time(2 * LOOK)
        world.platform.used[101] = LIMIT
        world.pass_time(LOOK)
    assert len(world.hands) == 2


def test_the_largest_goes_first(world: Supervised) -> None:
    """Workers are replaced one at a time; the log has the figure and the limit."""
    world.platform.used = {101: LIMIT + 1_000_000, 102: LIMIT + 12_300_000}
    world.pass_time(10 * LOOK)
    told = "uses 312.3 MB, more than 300.0 MB (max-worker-memory): replacing it"
    assert world.platform.logged == [("INFO", f"worker 102 {told}")]
    world.comes_to("ready", world.hands[2])
    world.pass_time(LOOK)
    assert [hand.pid for hand in world.hands] == [101, 102, 103, 104]
    assert world.platform.logged[-1][1].startswith("worker 101 uses 301.0 MB")


def test_one_that_was_never_below_is_held_on_to() -> None:
    """Its needs seem to exceed the limit; this is logged once."""
    with supervised(max_worker_memory=LIMIT, workers=1) as world:
        world.platform.used = {101: LIMIT + 1}
        world.start()
        world.pass_time(590)
        assert len(world.hands) == 1
        ((level, text),) = world.platform.logged
        assert level == "WARNING"
        assert "from its beginning: the limit may be less than a worker needs" in text
        world.pass_time(20)
        assert len(world.hands) == 2


def test_without_a_limit_nothing_is_too_much() -> None:
    """Without a limit, no worker is replaced."""
    with supervised() as world:
        world.platform.used = {101: 10**15}
        world.start()
        world.pass_time(10 * LOOK)
        assert len(world.hands) == 2


def test_a_limit_that_is_soon_reached_starts_no_workers_without_end() -> None:
    """Each replacement of a worker that was soon above the limit serves for longer."""
    with supervised(max_worker_memory=LIMIT, workers=1) as world:
        world.start()
        minutes = []
        for _ in range(4):
            worker, begun = world.hands[-1], world.reactor.time.now
            world.platform.used = {worker.pid: LIMIT}
            world.pass_time(LOOK)
            world.platform.used = {worker.pid: LIMIT + 1}
            while world.hands[-1] is worker:
                world.pass_time(1)
            minutes.append(round((world.reactor.time.now - begun) / 60))
            world.comes_to("ready", world.hands[-1])
            world.ends(worker, 0)
        assert minutes == [0, 1, 2, 4]


def test_what_a_process_uses_is_what_it_has_allocated(tmp_path: Path) -> None:
    """The figure includes resident and swapped memory, in bytes; it is unknown for an ended process."""
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "status").write_text(
        "VmRSS:\t 9 kB\nRssAnon:\t 5 kB\nRssFile:\t 4 kB\nVmSwap:\t 2 kB\n"
    )
    assert memory_of(7, tmp_path) == 7 * 1024
    assert memory_of(8, tmp_path) is None
    own = memory_of(os.getpid())
    assert own is not None
    block = bytearray(b"x" * 50_000_000)
    more = memory_of(os.getpid())
    assert more is not None
    assert 40_000_000 < more - own < 90_000_000
    del block


def test_a_limit_for_all_is_divided() -> None:
    """When the daemon is scaled, the part of each changes."""
    with supervised(max_workers_memory=2 * LIMIT) as world:
        generation = world.supervisor.generation
        assert generation.max_worker_memory == LIMIT
        generation.count = 4
        assert generation.max_worker_memory == LIMIT // 2
