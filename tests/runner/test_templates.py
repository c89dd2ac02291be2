"""Requests for workers, and templates that fork none: in a world without processes."""

import errno
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tamed.supervisor.supervisor import Phase
from tests.runner.world import Supervised, supervised


@pytest.fixture
def world() -> Iterator[Supervised]:
    """A supervisor of two workers that serve."""
    with supervised() as made:
        made.start()
        made.platform.logged.clear()
        yield made


def open_descriptors() -> int:
    """Return the number of open descriptors of this process."""
    return len(os.listdir("/dev/fd"))  # noqa: PTH208 - only the number of descriptors matters


def template_ends(world: Supervised, code: int = -signal.SIGKILL) -> None:
    """Let the last template end."""
    template = world.platform.templates[-1]
    world.platform.release(template)
    world.platform.dead.append((template.pid, code))
    world.supervisor.ending.signalled(signal.SIGCHLD)


def test_all_workers_come_from_one_template(world: Supervised) -> None:
    """This applies to replacements too, and to the next generation."""
    world.ends(world.hands[0], 1)
    world.supervisor.operations.reload()
    world.ends_with(world.platform.helpers[0], {"plan": world.plan.to_text(), "notes": []}, 0)
    assert [hand.number for hand in world.hands] == [1, 2, 1, 1, 2]
    assert len(world.platform.templates) == 1


def test_one_worker_that_serves_has_no_template() -> None:
    """It ends when the worker is ready; another is started when one is needed, and for more workers."""
    with supervised(workers=1) as world:
        world.start()
        assert world.platform.killed_templates == [801]
        world.pass_time(20)
        world.ends(world.hands[0], 1)
        world.comes_to("prepared", world.hands[1])
        assert len(world.platform.templates) == 2
        world.comes_to("starting", world.hands[1])
        world.comes_to("ready", world.hands[1])
        assert world.platform.killed_templates == [801, 802]
        world.supervisor.operations.scale(2)
        for state in ("prepared", "starting", "ready"):
            world.comes_to(state, world.hands[2])
        assert world.platform.killed_templates == [801, 802]
        world.supervisor.operations.scale(1)
        assert world.platform.killed_templates == [801, 802, 803]


def test_a_template_that_dies_is_started_again(world: Supervised) -> None:
    """The next one is there before it is needed; if it dies at once, it waits for a need."""
    for expected in (2, 2):
        template_ends(world)
        assert len(world.platform.templates) == expected
    assert world.platform.logged[-1] == ("WARNING", "the template of the workers was ended by SIGKILL")
    world.ends(world.hands[0], 1)
    assert len(world.hands) == 3
    assert len(world.platform.templates) == 3


def test_a_template_that_dies_with_requests_fails_a_reload(world: Supervised) -> None:
    """The error says so, and the daemon goes on."""
    answers: list[dict[str, Any]] = []
    world.supervisor.operations.reload([answers.append])
    (planner,) = world.platform.helpers
    world.platform.is_held_up = True
    world.ends_with(planner, {"plan": world.plan.to_text(), "notes": []}, 0)
    world.platform.is_held_up = False
    template_ends(world)
    (line,) = answers[0]["fault"]["lines"]
    assert line == "tamed: a worker cannot be started: the template of the workers was ended by SIGKILL"
    assert world.supervisor.phase is Phase.RUNNING


def test_a_worker_that_is_refused_is_requested_again(world: Supervised) -> None:
    """The reason is in the log; the restart counts once; no descriptor is left."""
    before = open_descriptors()
    world.platform.no_room = OSError(errno.EAGAIN, "")
    world.ends(world.hands[0], 1)
    world.pass_time(1)
    refused = "a worker cannot be started: Resource temporarily unavailable; trying again in 0.2 s"
    assert ("ERROR", refused) in world.platform.logged
    assert world.supervisor.recovery.restarts == 0
    world.platform.no_room = None
    world.pass_time(5)
    assert len(world.hands) == 3
    assert world.supervisor.recovery.restarts == 1
    assert open_descriptors() == before
    world.comes_to("prepared", world.hands[2])
    assert {"go": True} in world.hands[2].heard()


def test_a_template_that_does_not_answer_is_ended(world: Supervised) -> None:
    """After 15 seconds, another template forks the worker."""
    world.platform.is_held_up = True
    world.ends(world.hands[0], 1)
    world.pass_time(14)
    assert world.platform.killed_templates == []
    world.platform.is_held_up = False
    world.pass_time(2)
    assert world.platform.killed_templates == [801]
    assert len(world.hands) == 3


def test_requests_end_with_the_daemon(world: Supervised) -> None:
    """The daemon does not wait for a worker that was never forked, and signals nobody in its place."""
    world.platform.is_held_up = True
    world.ends(world.hands[0], 1)
    world.supervisor.ending.stop()
    world.ends(world.hands[1], 0)
    assert world.platform.sent == [(102, signal.SIGTERM)]
    assert world.reactor.stopped


def test_a_smaller_number_cancels_requests(world: Supervised) -> None:
    """A worker that was requested for more of them is not forked."""
    world.platform.is_held_up = True
    world.supervisor.operations.scale(4)
    world.supervisor.operations.scale(2)
    assert world.supervisor.pool.missing(world.supervisor.generation) == []
    assert len(world.supervisor.pool.of(world.supervisor.generation)) == 2
    assert world.platform.sent == []


def test_repeated_crashes_get_workers_from_another_template(world: Supervised) -> None:
    """Other deaths do not count."""
    for code in (-signal.SIGKILL, 1, *[-signal.SIGSEGV] * 3):
        assert world.platform.killed_templates == []
        world.ends(world.hands[-1], code)
        world.pass_time(20)
        for state in ("prepared", "starting", "ready"):
            world.comes_to(state, world.hands[-1])
    assert world.platform.killed_templates == [801]


def test_with_preload_a_generation_has_its_own_template() -> None:
    """It ends when the next generation serves."""
    with supervised(preload=True) as world:
        world.start()
        world.supervisor.operations.reload()
        world.ends_with(world.platform.helpers[0], {"plan": world.plan.to_text(), "notes": []}, 0)
        assert len(world.platform.templates) == 2
        for state in ("prepared", "starting", "ready"):
            world.comes_to(state, *world.hands[2:])
        world.reactor.advance(1)
        assert world.platform.killed_templates == [801]


def reload(world: Supervised) -> None:
    """Reload with the same plan, up to the start of the workers."""
    world.supervisor.operations.reload()
    world.ends_with(world.platform.helpers[-1], {"plan": world.plan.to_text(), "notes": []}, 0)


def test_a_template_whose_files_have_changed_is_replaced_by_a_reload(world: Supervised) -> None:
    """A fresh process reads the files, and the new workers come from a new template."""
    world.platform.has_changed = True
    reload(world)
    assert len(world.hands) == 4
    assert len(world.platform.templates) == 2
    assert world.platform.killed_templates == [801]


def test_a_planner_that_a_template_does_not_fork_is_started_afresh(world: Supervised) -> None:
    """The reload goes on if the template ends before it has forked."""
    world.platform.is_held_up = True
    world.supervisor.operations.reload()
    assert world.platform.helpers == []
    world.platform.is_held_up = False
    template_ends(world)
    world.ends_with(world.platform.helpers[0], {"plan": world.plan.to_text(), "notes": []}, 0)
    assert len(world.hands) == 4


def test_a_stop_cancels_a_planner_that_is_not_forked_yet(world: Supervised) -> None:
    """The daemon ends without it."""
    world.platform.is_held_up = True
    world.supervisor.operations.reload()
    world.supervisor.ending.stop()
    for hand in world.hands:
        world.ends(hand, 0)
    assert world.reactor.stopped
    assert world.platform.helpers == []
