"""Reloads, scaling and recycling, in a world without processes."""

import errno
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tamed.errors import ExitStatus, PermissionRefused
from tamed.ipc.message import Message
from tamed.supervisor.supervisor import Phase
from tests.runner.world import Hand, Supervised, supervised


@pytest.fixture
def world() -> Iterator[Supervised]:
    """A supervisor of two workers that serve."""
    with supervised() as made:
        made.start()
        made.platform.events.clear()
        for hand in made.hands:
            hand.heard()
        yield made


def reload(world: Supervised, **changes: Any) -> list[dict[str, Any]]:
    """Request a reload with changed files; return the list that will contain the answer."""
    answers: list[dict[str, Any]] = []
    world.supervisor.operations.reload([answers.append])
    plan(world, **changes)
    return answers


def plan(world: Supervised, **changes: Any) -> None:
    """Let the last planner answer with the plan, changed."""
    text = world.plan._replace(**changes).to_text()
    helper_ends(world, {"plan": text, "notes": []})


def helper_ends(world: Supervised, answer: dict[str, Any] | None, code: int = 0) -> None:
    """Let the last helper end."""
    world.ends_with(world.platform.helpers[-1], answer, code)


def come_up(world: Supervised, *hands: Hand) -> None:
    """Let workers become ready."""
    for state in ("prepared", "starting", "ready"):
        world.comes_to(state, *hands)


def test_a_new_generation_takes_over(world: Supervised) -> None:
    """The old workers shut, then the new ones open, and then the caller gets an answer."""
    old = world.hands[:2]
    answers = reload(world)
    new = world.hands[2:]
    assert [hand.number for hand in new] == [1, 2]
    assert world.platform.events == ["reloading"]
    come_up(world, *new)
    assert [hand.heard() for hand in old] == [[{"drain": True}]] * 2
    assert {"open": True} not in new[0].heard()
    world.says(old[0], {"shut": True})
    assert answers == []
    world.says(old[1], {"shut": True})
    assert new[0].heard() == [{"open": True}]
    line = "poetry was reloaded: generation 2, 2 workers"
    assert answers == [{"reloaded": line}]
    assert world.platform.events == ["reloading", ("log", world.plan.log), ("reloaded", line)]
    assert world.supervisor.generation.number == 2
    for hand in old:
        world.ends(hand, 0)
    assert len(world.hands) == 4
    assert world.supervisor.phase is Phase.RUNNING


def test_nobody_waits_long_for_an_old_worker_that_is_busy(world: Supervised) -> None:
    """The new workers accept clients after half a second."""
    answers = reload(world)
    new = world.hands[2:]
    come_up(world, *new)
    assert answers == []
    world.reactor.advance(0.5)
    assert len(answers) == 1
    assert new[0].heard()[-1] == {"open": True}


def test_an_old_worker_that_dies_is_not_waited_for(world: Supervised) -> None:
    """A dead old worker is neither waited for nor replaced."""
    answers = reload(world)
    come_up(world, *world.hands[2:])
    for hand in world.hands[:2]:
        world.ends(hand, -signal.SIGSEGV)
    assert len(answers) == 1
    assert ("WARNING", "worker 101 was ended by SIGSEGV; it was about to leave") in world.platform.logged
    world.pass_time(5)
    assert len(world.hands) == 4


def test_old_workers_have_their_time_and_no_more(world: Supervised) -> None:
    """Their time is the ``stop_timeout`` of their own plan."""
    reload(world)
    come_up(world, *world.hands[2:])
    world.pass_time(39.5)
    assert (101, signal.SIGABRT) not in world.platform.sent
    world.pass_time(1)
    assert (101, signal.SIGABRT) in world.platform.sent


def test_a_worker_that_fails_fails_the_reload(world: Supervised) -> None:
    """Its error is the answer; the other new worker ends, and the old ones are not affected."""
    answers = reload(world)
    third, fourth = world.hands[2:]
    world.says(third, {"fault": {"lines": ["trace", "tamed: no poem"], "status": 66}})
    world.ends(third, 66)
    assert answers == [{"fault": {"lines": ["trace", "tamed: no poem"], "status": 66}}]
    assert world.platform.sent == [(fourth.pid, signal.SIGTERM)]
    assert world.platform.logged[-1][0] == "ERROR"
    assert world.platform.logged[-1][1].startswith("reload failed, generation 1 continues: trace")
    assert world.platform.events == ["reloading", ("reloaded", "reload failed: no poem")]
    assert world.hands[0].heard() == []
    assert world.supervisor.generation.number == 1
    world.ends(fourth, -signal.SIGTERM)
    assert world.supervisor.phase is Phase.RUNNING


def test_a_mistake_in_the_files_fails_the_reload(world: Supervised) -> None:
    """No worker is started."""
    answers: list[dict[str, Any]] = []
    world.supervisor.operations.reload([answers.append])
    fault = {"lines": ["tamed: bad key"], "status": 78}
    helper_ends(world, {"fault": fault}, 0)
    assert answers == [{"fault": fault}]
    assert len(world.hands) == 2


def test_a_planner_may_crash(world: Supervised) -> None:
    """The answer has its exit code."""
    answers: list[dict[str, Any]] = []
    world.supervisor.operations.reload([answers.append])
    helper_ends(world, None, -9)
    (told,) = answers[0]["fault"]["lines"]
    assert told == "tamed: the process that reads the files ended with -9"


def test_a_reload_that_takes_too_long_fails(world: Supervised) -> None:
    """The answer names the late workers; those that do not end are ended after a few seconds."""
    answers = reload(world)
    world.comes_to("prepared", world.hands[2])
    world.pass_time(60)
    told = "tamed: it was not ready after 60 s: worker 103 is prepared, worker 104 is loading"
    assert answers == [{"fault": {"lines": [told], "status": ExitStatus.SOFTWARE}}]
    world.pass_time(5)
    assert (104, signal.SIGABRT) in world.platform.sent


def test_a_reload_during_a_reload_comes_after_it(world: Supervised) -> None:
    """Several are merged into one."""
    answers = reload(world)
    later: list[dict[str, Any]] = []
    for _ in range(3):
        world.supervisor.operations.reload([later.append])
    assert len(world.platform.helpers) == 1
    come_up(world, *world.hands[2:])
    world.reactor.advance(0.5)
    assert (len(answers), later) == (1, [])
    assert len(world.platform.helpers) == 2
    plan(world)
    come_up(world, *world.hands[4:])
    world.reactor.advance(0.5)
    assert later == [{"reloaded": "poetry was reloaded: generation 3, 2 workers"}] * 3
    assert len(world.platform.helpers) == 2


def test_a_planner_that_was_given_up_is_not_heard(world: Supervised) -> None:
    """Its answer does not affect the next reload."""
    world.supervisor.operations.reload()
    first = world.platform.helpers[0]
    world.pass_time(60)
    assert (first.pid, "kill") in world.platform.sent
    world.supervisor.operations.reload()
    world.ends_with(first, {"plan": world.plan.to_text(), "notes": []}, -9)
    assert len(world.hands) == 2
    plan(world)
    assert len(world.hands) == 4


def test_changes_that_take_a_restart_are_reported(world: Supervised) -> None:
    """They are logged and answered, and the other changes are applied."""
    answers: list[Message] = []
    world.supervisor.operations.reload([answers.append])
    note = "user has changed and needs a restart"
    helper_ends(world, {"plan": world.plan.to_text(), "notes": [note]})
    assert ("WARNING", note) in world.platform.logged
    come_up(world, *world.hands[2:])
    world.reactor.advance(0.5)
    assert [answer["warnings"] for answer in answers] == [[note]]


def test_the_number_of_workers_may_change(world: Supervised) -> None:
    """The number of the new files is used."""
    reload(world, workers=3)
    assert [hand.number for hand in world.hands[2:]] == [1, 2, 3]


def test_who_has_scaled_keeps_the_number(world: Supervised) -> None:
    """The scaled number stays, unless the files have another one."""
    world.supervisor.operations.scale(3)
    come_up(world, world.hands[2])
    reload(world)
    assert len(world.hands) == 6
    come_up(world, *world.hands[3:])
    world.reactor.advance(0.5)
    reload(world, workers=1)
    assert len(world.hands) == 7


def test_a_log_that_cannot_be_changed_fails_the_reload(world: Supervised) -> None:
    """The reload fails before it changes anything."""
    world.platform.no_log = PermissionRefused("cannot open the log")
    answers = reload(world)
    come_up(world, *world.hands[2:])
    assert answers[0]["fault"]["lines"] == ["tamed: cannot open the log"]
    assert world.hands[0].heard() == []


def test_a_worker_that_dies_during_a_reload_is_replaced(world: Supervised) -> None:
    """The replacement is of the same generation, and leaves with the others."""
    answers = reload(world)
    world.ends(world.hands[1], -signal.SIGSEGV)
    world.pass_time(1)
    other = world.hands[4]
    assert other.number == 2
    come_up(world, *world.hands[2:4])
    assert (other.pid, signal.SIGTERM) in world.platform.sent
    world.says(world.hands[0], {"shut": True})
    assert len(answers) == 1
    world.ends(other, -signal.SIGTERM)
    world.pass_time(5)
    assert len(world.hands) == 5


def test_a_replacement_during_a_reload_lets_no_new_worker_start_early(world: Supervised) -> None:
    """Workers of the new generation still wait for each other."""
    reload(world)
    third, fourth = world.hands[2:]
    world.comes_to("prepared", third)
    world.ends(world.hands[1], -signal.SIGSEGV)
    world.pass_time(1)
    other = world.hands[4]
    world.comes_to("prepared", other)
    assert other.heard()[-1] == {"go": True}
    assert {"go": True} not in third.heard()
    world.comes_to("prepared", fourth)
    assert third.heard() == [{"go": True}]


def test_what_a_worker_needs_is_measured_in_each_generation(world: Supervised) -> None:
    """It is measured when the worker is ready, also after a reload."""
    world.platform.used = {103: 5, 104: 6}
    reload(world)
    come_up(world, *world.hands[2:])
    workers = world.supervisor.pool.of(world.supervisor.generation)
    assert [worker.needs for worker in workers] == [5, 6]


def test_a_reload_that_is_given_up_while_it_hands_over_has_not_succeeded(world: Supervised) -> None:
    """The caller gets one answer, and no reload is logged."""
    answers = reload(world)
    come_up(world, *world.hands[2:])
    world.supervisor.ending.stop()
    world.reactor.advance(1)
    assert [list(each) for each in answers] == [["fault"]]
    assert not any("was reloaded" in text for _, text in world.platform.logged)


def test_no_room_for_a_planner_fails_the_reload(world: Supervised) -> None:
    """The answer has the error of the system."""
    world.platform.no_room = OSError(errno.EAGAIN, "Resource temporarily unavailable")
    answers: list[dict[str, Any]] = []
    world.supervisor.operations.reload([answers.append])
    world.reactor.turn(0)
    told = "tamed: the files cannot be read: Resource temporarily unavailable"
    assert answers == [{"fault": {"lines": [told], "status": ExitStatus.OS_ERROR}}]


def test_a_stop_ends_a_reload(world: Supervised) -> None:
    """The callers of this reload and of the next get an answer."""
    answers = reload(world)
    world.supervisor.operations.reload([answers.append])
    world.supervisor.ending.stop()
    told = {"fault": {"lines": ["tamed: poetry stops"], "status": ExitStatus.UNAVAILABLE}}
    assert answers == [told, told]
    assert ("INFO", "the reload was cancelled: poetry stops") in world.platform.logged
    assert "ERROR" not in {level for level, _ in world.platform.logged}
    for hand in world.hands:
        world.ends(hand, 0)
    assert world.reactor.stopped
    assert world.supervisor.ending.status == 0


def test_a_reload_during_the_start_comes_after_it() -> None:
    """The reload is neither refused nor lost."""
    answers: list[dict[str, Any]] = []
    with supervised() as world:
        world.supervisor.start()
        assert world.supervisor.operations.reload([answers.append]) == "the start"
        come_up(world, *world.hands)
        assert (answers, len(world.platform.helpers)) == ([], 1)
        world.supervisor.ending.stop()
    assert answers[0]["fault"]["lines"] == ["tamed: poetry stops"]


def test_one_that_stops_cannot_reload(world: Supervised) -> None:
    """It says so."""
    answers: list[dict[str, Any]] = []
    world.supervisor.ending.stop()
    world.supervisor.operations.reload([answers.append])
    assert answers[0]["fault"]["lines"] == ["tamed: poetry is stopping"]


# Sockets of generations.


def listen(world: Supervised, hand: Hand, text: str) -> None:
    """Let a worker request a socket."""
    world.says(hand, {"listen": text, "kind": 1, "index": 0, "number": 1})


def test_sockets_go_with_the_last_generation_that_uses_them(world: Supervised) -> None:
    """A kept socket is never closed; a removed one is closed when the old workers have ended."""
    old = world.hands[:2]
    listen(world, old[0], "127.0.0.1:0")
    listen(world, old[0], "localhost:0")
    kept, *gone = world.sockets.addresses(1)
    reload(world)
    new = world.hands[2:]
    listen(world, new[0], "127.0.0.1:0")
    listen(world, new[0], "tcp://:0")
    come_up(world, *new)
    world.reactor.advance(0.5)
    first, *added = world.sockets.addresses(2)
    assert first == kept
    assert added
    assert set(gone) <= set(world.sockets.addresses(1))
    for hand in old:
        world.ends(hand, 0)
    assert world.sockets.addresses(1) == []
    assert world.sockets.addresses(2) == [kept, *added]


def test_sockets_of_a_reload_that_failed_are_closed(world: Supervised) -> None:
    """Only the sockets that the reload had added are closed."""
    listen(world, world.hands[0], "127.0.0.1:0")
    kept = world.sockets.addresses(1)
    reload(world)
    third, fourth = world.hands[2:]
    listen(world, third, "127.0.0.1:0")
    listen(world, third, "tcp://:0")
    world.ends(third, 1)
    world.ends(fourth, -signal.SIGTERM)
    assert world.sockets.addresses(2) == []
    assert world.sockets.addresses(1) == kept


# Scaling.


def test_more_workers(world: Supervised) -> None:
    """The caller gets an answer when they are ready; they do not wait for each other."""
    answers: list[dict[str, Any]] = []
    world.supervisor.operations.scale(4, [answers.append])
    new = world.hands[2:]
    assert sorted(hand.number for hand in new) == [3, 4]
    come_up(world, new[0])
    assert new[0].heard()[-1] == {"open": True}
    assert answers == []
    come_up(world, new[1])
    assert answers == [{"scaled": "poetry has 4 workers"}]


def test_fewer_workers(world: Supervised) -> None:
    """The workers with the highest numbers leave, and are not replaced."""
    answers: list[dict[str, Any]] = []
    world.supervisor.operations.scale(1, [answers.append])
    assert answers == [{"scaled": "poetry has 1 worker"}]
    first, second = world.hands
    assert (first.heard(), second.heard()) == ([], [{"drain": True}])
    world.ends(second, 0)
    world.pass_time(5)
    assert len(world.hands) == 2
    assert world.supervisor.phase is Phase.RUNNING


def test_signals_scale_by_one(world: Supervised) -> None:
    """TTIN adds one worker, TTOU removes one, and at least one stays."""
    world.supervisor.ending.signalled(signal.SIGTTIN)
    assert world.supervisor.generation.count == 3
    for _ in range(5):
        world.supervisor.ending.signalled(signal.SIGTTOU)
    assert world.supervisor.generation.count == 1
    assert world.platform.logged[-1] == ("WARNING", "cannot scale: at least one worker is needed")


def test_scaling_during_a_reload_comes_after_it(world: Supervised) -> None:
    """A later number replaces an earlier one, whose caller gets an answer."""
    reload(world)
    early: list[dict[str, Any]] = []
    late: list[dict[str, Any]] = []
    world.supervisor.operations.scale(9, [early.append])
    assert world.supervisor.operations.scale(3, [late.append]) == "a reload"
    world.supervisor.operations.scale(3, [late.append])
    told = "tamed: a later request for another number of workers has replaced it"
    assert early == [{"fault": {"lines": [told], "status": ExitStatus.UNAVAILABLE}}]
    come_up(world, *world.hands[2:])
    world.reactor.advance(0.5)
    assert len(world.hands) == 5
    assert late == []
    come_up(world, world.hands[4])
    assert late == [{"scaled": "poetry has 3 workers"}] * 2


def test_signals_during_a_reload_scale_by_what_they_add_up_to(world: Supervised) -> None:
    """Three signals up and one down add two workers."""
    reload(world)
    for number in (signal.SIGTTIN, signal.SIGTTIN, signal.SIGTTOU, signal.SIGTTIN):
        world.supervisor.ending.signalled(number)
    come_up(world, *world.hands[2:])
    world.reactor.advance(0.5)
    assert world.supervisor.generation.count == 4


def test_workers_come_up_a_few_at_a_time(world: Supervised) -> None:
    """As many workers as CPUs start at once; the next one starts when one is ready."""
    world.platform.cpus = 3
    world.supervisor.operations.scale(9)
    assert [hand.number for hand in world.hands[2:]] == [3, 4, 5]
    come_up(world, world.hands[2])
    assert [hand.number for hand in world.hands[2:]] == [3, 4, 5, 6]


def test_a_later_number_is_obeyed_at_once(world: Supervised) -> None:
    """Surplus workers are not started, and those that are starting are ended."""
    answers: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    world.platform.cpus = 3
    world.supervisor.operations.scale(90, [answers.append])
    world.reactor.turn(0)
    assert world.supervisor.operations.scale(2, [others.append]) is None
    assert others == [{"scaled": "poetry has 2 workers"}]
    assert "fault" in answers[0]
    sent = {(hand.pid, signal.SIGTERM) for hand in world.hands[2:]}
    assert set(world.platform.sent) == sent
    for hand in world.hands[2:]:
        world.ends(hand, -signal.SIGTERM)
    world.pass_time(5)
    assert len(world.hands) == 5


@pytest.mark.parametrize(
    ("count", "yes", "why"),
    [
        (0, False, "at least one worker is needed"),
        (513, False, "at most 512 workers, or more with --yes"),
        (4097, True, "at most 4096 workers"),
        (10**400, True, "at most 4096 workers"),
    ],
    ids=["none", "many", "absurd", "huge"],
)
def test_the_supervisor_knows_its_bounds(world: Supervised, count: int, yes: bool, why: str) -> None:
    """It refuses numbers of workers beyond its limits."""
    answers: list[dict[str, Any]] = []
    world.supervisor.operations.scale(count, [answers.append], yes=yes)
    assert answers == [{"fault": {"lines": [f"tamed: cannot scale: {why}"], "status": ExitStatus.USAGE}}]
    assert len(world.hands) == 2


def test_a_signal_does_not_go_beyond_the_bound(world: Supervised) -> None:
    """TTIN stops at 32 workers a CPU."""
    world.platform.cpus = 1
    world.supervisor.operations.scale(32)
    world.supervisor.ending.signalled(signal.SIGTTIN)
    assert world.supervisor.generation.count == 32
    assert ("WARNING", "cannot scale: at most 32 workers") in world.platform.logged


def test_a_caller_that_scales_is_notified_of_a_worker_that_fails(world: Supervised) -> None:
    """The caller gets the worker's error at once; the number stays, and the start is tried again."""
    answers: list[dict[str, Any]] = []
    world.supervisor.operations.scale(3, [answers.append])
    world.says(world.hands[2], {"fault": {"lines": ["tamed: no poem"], "status": 66}})
    world.ends(world.hands[2], 66)
    (told,) = answers[0]["fault"]["lines"]
    assert told == "tamed: 2 of 3 workers are ready, retrying the others: worker 103 failed: no poem"
    assert answers[0]["fault"]["status"] == 66
    world.pass_time(1)
    assert len(world.hands) == 4


def test_scaling_comes_to_an_end(world: Supervised) -> None:
    """Scaling ends also if a worker neither becomes ready nor ends, and the next operation begins."""
    answers: list[dict[str, Any]] = []
    world.supervisor.operations.scale(3, [answers.append])
    world.supervisor.operations.reload()
    world.pass_time(121)
    assert "fault" in answers[0]
    assert len(world.platform.helpers) == 1


def test_a_worker_that_dies_after_scaling_down_is_not_replaced(world: Supervised) -> None:
    """A surplus worker is not replaced."""
    world.ends(world.hands[1], -signal.SIGSEGV)
    world.supervisor.operations.scale(1)
    world.pass_time(5)
    assert len(world.hands) == 2


def test_a_stop_answers_who_waits_for_workers(world: Supervised) -> None:
    """The callers get an answer, because the workers will not start."""
    answers: list[dict[str, Any]] = []
    world.supervisor.operations.scale(3, [answers.append])
    world.supervisor.ending.stop()
    assert answers == [{"fault": {"lines": ["tamed: poetry stops"], "status": ExitStatus.UNAVAILABLE}}]


# Recycling.


def test_a_worker_to_recycle_is_replaced_before_it_goes(world: Supervised) -> None:
    """The replacement has the same number."""
    first, second = world.hands
    world.says(second, {"recycle": "has served 100 connections"})
    third = world.hands[2]
    assert third.number == 2
    assert second.heard() == []
    come_up(world, third)
    assert second.heard() == [{"drain": True}]
    world.says(second, {"shut": True})
    assert third.heard()[-1] == {"open": True}
    world.ends(second, 0)
    world.pass_time(5)
    assert (len(world.hands), first.heard()) == (3, [])


def test_a_worker_to_recycle_may_ask_again(world: Supervised) -> None:
    """A repeated request starts no third worker."""
    for _ in range(3):
        world.says(world.hands[1], {"recycle": "is an hour old"})
    assert len(world.hands) == 3


def test_a_worker_to_recycle_goes_on_if_the_other_one_fails(world: Supervised) -> None:
    """It goes on until it requests its replacement again."""
    old = world.hands[1]
    world.says(old, {"recycle": "is an hour old"})
    world.ends(world.hands[2], 1)
    assert world.platform.logged[-1][1].endswith("worker 103 ended with status 1; worker 102 replaces it")
    world.pass_time(5)
    assert (len(world.hands), old.heard()) == (3, [])
    world.says(old, {"recycle": "is an hour old"})
    assert len(world.hands) == 4


def test_a_worker_to_recycle_that_dies_has_its_successor_already(world: Supervised) -> None:
    """The replacement becomes an ordinary worker."""
    old = world.hands[1]
    world.says(old, {"recycle": "is an hour old"})
    third = world.hands[2]
    world.ends(old, -signal.SIGSEGV)
    world.pass_time(5)
    assert len(world.hands) == 3
    come_up(world, third)
    assert third.heard()[-1] == {"open": True}
