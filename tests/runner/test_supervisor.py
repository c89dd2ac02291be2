"""The decisions of the supervisor, in a world without processes."""

import errno
import re
import signal
from collections.abc import Iterator

import pytest

from tamed.errors import ExitStatus, PermissionRefused, Unavailable
from tamed.supervisor.supervisor import Phase
from tests.runner.world import STEP, Hand, Supervised, supervised


@pytest.fixture
def world() -> Iterator[Supervised]:
    """A supervisor of two workers, not started."""
    with supervised() as made:
        yield made


# The way to readiness.


def test_it_starts_as_many_workers_as_planned(world: Supervised) -> None:
    """Each worker has its own number, and gets the job as its first order."""
    world.supervisor.start()
    assert [hand.number for hand in world.hands] == [1, 2]
    for hand in world.hands:
        origin = {"instance": "poetry", "worker": hand.number, "generation": 1}
        assert hand.heard() == [{**world.plan.first_order, "origin": origin}]


def test_no_worker_starts_before_all_are_prepared(world: Supervised) -> None:
    """Workers of the first generation wait for each other."""
    world.supervisor.start()
    first, second = world.hands
    for hand in world.hands:
        hand.heard()
    world.comes_to("prepared", first)
    assert first.heard() == []
    world.comes_to("prepared", second)
    assert first.heard() == second.heard() == [{"go": True}]


def test_privilege_is_given_up_once_all_workers_have(world: Supervised) -> None:
    """Privileges are dropped only then, and only once."""
    world.supervisor.start()
    world.comes_to("prepared", *world.hands)
    world.comes_to("starting", world.hands[0])
    assert world.platform.events == []
    world.comes_to("starting", world.hands[1])
    world.comes_to("starting", world.hands[1])
    assert world.platform.events == ["dropped"]


def test_it_is_ready_when_every_worker_is(world: Supervised) -> None:
    """The waiting command gets the addresses then."""
    world.supervisor.start()
    for state in ("prepared", "starting"):
        world.comes_to(state, *world.hands)
    world.says(world.hands[0], {"listen": "127.0.0.1:0", "kind": 1, "index": 0, "number": 1})
    world.comes_to("ready", world.hands[0])
    assert world.platform.events == ["dropped"]
    world.comes_to("ready", world.hands[1])
    assert world.supervisor.phase is Phase.RUNNING
    log = ("log", world.plan.log)  # which each generation has, and is the current one
    assert world.platform.events == ["dropped", log, ("ready", world.sockets.addresses(1))]
    assert world.sockets.addresses(1)


def test_the_deadline_of_the_start_is_of_no_matter_to_one_that_runs(world: Supervised) -> None:
    """The daemon goes on after the deadline of its start."""
    world.start()
    world.pass_time(61)
    assert world.supervisor.phase is Phase.RUNNING


def test_a_worker_that_loads_waits_for_nothing(world: Supervised) -> None:
    """A repeated state of loading has no effect."""
    world.supervisor.start()
    world.hands[0].heard()
    world.comes_to("loading", world.hands[0])
    assert world.hands[0].heard() == []
    assert world.platform.events == []


# A start that fails.


def test_a_start_fails_with_its_first_worker(world: Supervised) -> None:
    """The start fails with that worker's error and status; the others stop, and then it ends."""
    world.supervisor.start()
    first, second = world.hands
    world.says(first, {"fault": {"lines": ["trace", "tamed: no poems"], "status": 78}})
    world.ends(first, 78)
    assert world.platform.events == [("failed", ["trace", "tamed: no poems"], 78), ("stopping", "no poems")]
    assert world.platform.sent == [(second.pid, signal.SIGTERM)]
    assert not world.reactor.stopped
    world.ends(second, -signal.SIGTERM)
    assert world.reactor.stopped
    assert world.supervisor.ending.status == 78


@pytest.mark.parametrize(
    ("code", "how"),
    [
        (3, "worker 101 ended with status 3 before it was ready"),
        (-signal.SIGKILL, "worker 101 was ended by SIGKILL before it was ready"),
        (-42, "worker 101 was ended by signal 42 before it was ready"),
    ],
)
def test_a_worker_may_end_without_a_word(world: Supervised, code: int, how: str) -> None:
    """Without an error from the worker, its exit code is reported."""
    world.supervisor.start()
    world.ends(world.hands[0], code)
    assert world.platform.events[0] == ("failed", [f"tamed: {how}"], ExitStatus.SOFTWARE)


def test_an_application_that_ends_before_it_is_ready_fails_the_start(world: Supervised) -> None:
    """The start fails with the status that the application chose."""
    world.supervisor.start()
    world.says(world.hands[0], {"leaving": 5})
    world.ends(world.hands[0], 5)
    told = "tamed: the application ended before it was ready, with status 5"
    assert world.platform.events[0] == ("failed", [told], 5)


def test_a_start_that_takes_too_long_fails(world: Supervised) -> None:
    """The error names the late workers."""
    world.supervisor.start()
    for state in ("prepared", "starting"):
        world.comes_to(state, *world.hands)
    world.comes_to("ready", world.hands[0])
    world.pass_time(60)
    why = "poetry was not ready after 60 s: worker 102 is starting"
    assert world.platform.events[1:] == [
        ("failed", [f"tamed: {why}"], ExitStatus.SOFTWARE),
        ("stopping", why),
    ]


def test_the_workers_of_a_failed_start_have_a_few_seconds(world: Supervised) -> None:
    """The ``stop_timeout`` does not apply to them."""
    world.supervisor.start()
    world.ends(world.hands[0], 1)
    world.reactor.advance(4.75)
    assert (102, signal.SIGABRT) not in world.platform.sent
    world.reactor.advance(0.25)
    assert (102, signal.SIGABRT) in world.platform.sent


def test_a_system_without_room_for_workers_fails_the_start(world: Supervised) -> None:
    """The daemon ends at once, and starts no other worker."""
    world.platform.no_room = OSError(errno.EAGAIN, "Resource temporarily unavailable")
    world.supervisor.start()
    why = "a worker cannot be started: Resource temporarily unavailable"
    assert world.platform.events == [("failed", [f"tamed: {why}"], ExitStatus.OS_ERROR), ("stopping", why)]
    assert world.reactor.stopped


def test_privilege_that_cannot_be_given_up_fails_the_start(world: Supervised) -> None:
    """Nothing runs as root by mistake."""
    world.platform.no_drop = PermissionRefused("cannot become poet")
    world.supervisor.start()
    world.comes_to("prepared", *world.hands)
    world.comes_to("starting", *world.hands)
    failed = ("failed", ["tamed: cannot become poet"], ExitStatus.NO_PERMISSION)
    assert world.platform.events == ["dropped", failed, ("stopping", "cannot become poet")]


# Replacing workers.


def test_a_worker_that_dies_is_replaced(world: Supervised) -> None:
    """The replacement has the same number, starts at once, and waits for no other worker."""
    world.start()
    world.ends(world.hands[1], -signal.SIGSEGV)
    assert world.supervisor.recovery.last_error == "worker 102 was ended by SIGSEGV"
    level, text = world.platform.logged[-1]
    assert level == "ERROR"
    assert text == "worker 102 was ended by SIGSEGV; starting another one now"
    third = world.hands[2]
    assert third.number == 2
    third.heard()
    world.comes_to("prepared", third)
    assert third.heard() == [{"go": True}]
    world.comes_to("starting", third)
    world.comes_to("ready", third)
    assert world.platform.logged[-1] == ("INFO", "worker 103 is ready")
    assert world.platform.events.count("dropped") == 1


def test_only_the_first_replacement_has_no_delay(world: Supervised) -> None:
    """A worker that becomes ready and dies at once, over and over, is replaced with growing delays."""
    world.start()
    for delay in ("now", "in 0.2 s", "in 0.4 s"):
        world.ends(world.hands[-1], -signal.SIGSEGV)
        assert world.platform.logged[-1][1].endswith(f"starting another one {delay}")
        world.pass_time(0.5)
        for state in ("prepared", "starting", "ready"):
            world.comes_to(state, world.hands[-1])


def test_a_fault_is_the_reason_that_is_remembered(world: Supervised) -> None:
    """The reason is the last line of the worker's error, without the program's name."""
    world.start()
    world.says(world.hands[0], {"fault": {"lines": ["trace", "tamed: service a failed"], "status": 70}})
    world.ends(world.hands[0], 70)
    assert world.supervisor.recovery.last_error == "worker 101 failed: service a failed"


def _ends_and_is_replaced(world: Supervised, hand: Hand, code: int = 1) -> Hand:
    """Let a worker end; return its replacement, whenever it starts."""
    before = len(world.hands)
    world.ends(hand, code)
    while len(world.hands) == before:
        world.pass_time(STEP)
    return world.hands[-1]


def test_a_worker_that_had_served_for_a_while_is_replaced_at_once(world: Supervised) -> None:
    """It is replaced at once; only the next attempt waits."""
    world.start()
    world.pass_time(10)
    world.ends(world.hands[0], 1)
    assert len(world.hands) == 3
    assert world.platform.logged[-1][1].endswith("ended with status 1; starting another one now")
    world.ends(world.hands[2], 1)
    assert len(world.hands) == 3
    world.pass_time(STEP)
    assert len(world.hands) == 4


def test_while_anybody_serves_it_is_tried_for_ever(world: Supervised) -> None:
    """The delays grow to half a minute; the state is degraded, and then running again."""
    world.start()
    assert world.supervisor.state == "running"
    world.pass_time(10)
    replacement = world.hands[0]
    for _ in range(31):
        replacement = _ends_and_is_replaced(world, replacement)
        assert world.supervisor.state == "degraded"
    assert re.search(r"starting another one in (2[789]|3[0123])\.\d s", world.platform.logged[-1][1])
    world.comes_to("ready", replacement)
    assert world.supervisor.state == "running"
    assert world.supervisor.recovery.restarts == 31


@pytest.mark.parametrize("seconds", [0, 20], ids=["at once", "slowly"])
def test_when_nobody_serves_ten_attempts_in_a_row_end_it(seconds: int) -> None:
    """The duration of an attempt does not matter; status and reason are those of the last one."""
    with supervised(workers=1) as world:
        world.start()
        world.pass_time(10)
        replacement = _ends_and_is_replaced(world, world.hands[0])
        for attempt in range(1, 11):
            assert world.supervisor.state == "failing"
            world.pass_time(seconds)
            world.says(replacement, {"fault": {"lines": ["tamed: no poems"], "status": 66}})
            if attempt < 10:
                replacement = _ends_and_is_replaced(world, replacement, 66)
        world.ends(replacement, 66)
        told = "worker 111 failed: no poems"
        gave_up = f"{told}; no worker serves, and no attempt is left: stopping"
        assert world.platform.logged[-1] == ("CRITICAL", gave_up)
        assert (world.supervisor.ending.status, world.supervisor.ending.failure) == (66, told)
        assert world.reactor.stopped


def test_workers_that_die_together_are_one_failure_of_each() -> None:
    """Workers that are lost at the same time do not use up each other's attempts."""
    with supervised(workers=12) as world:
        world.start()
        world.pass_time(10)
        for _ in range(3):
            for hand in world.hands[-12:]:
                world.ends(hand, 1)
            world.pass_time(1)
        assert world.supervisor.state == "failing"
        assert len(world.hands) == 48


def test_one_that_is_ready_and_dies_at_once_has_not_succeeded() -> None:
    """Its replacements wait longer and longer, and are counted as if they had never been ready."""
    with supervised(workers=1) as world:
        world.start()
        for _ in range(9):
            world.comes_to("ready", _ends_and_is_replaced(world, world.hands[-1]))
            assert world.supervisor.state == "running"
        world.ends(world.hands[-1], 1)
        assert world.supervisor.phase is Phase.STOPPING


def test_one_that_never_becomes_ready_is_ended_and_counts() -> None:
    """A replacement has the start timeout, like any worker."""
    with supervised(workers=1) as world:
        world.start()
        world.pass_time(10)
        world.ends(world.hands[0], 1)
        world.pass_time(65)
        assert world.platform.sent == [(102, signal.SIGABRT)]
        world.ends(world.hands[1], -signal.SIGABRT)
        assert len(world.hands) == 2
        world.pass_time(STEP)
        assert len(world.hands) == 3


def test_the_manager_hears_how_it_stands(world: Supervised) -> None:
    """The manager is notified of each changed state, with the last error."""
    world.start()
    world.notifier.look()
    world.ends(world.hands[0], 1)
    world.notifier.look()
    world.notifier.look()
    world.pass_time(STEP)
    world.comes_to("ready", world.hands[-1])
    world.notifier.look()
    error = "degraded: 1 of 2 workers ready; last error: worker 101 ended with status 1"
    told = [each for each in world.platform.events if each[0] == "status"]
    assert told == [("status", error), ("status", "running: 2 workers ready")]


def test_a_replacement_that_finds_no_room_is_tried_again(world: Supervised) -> None:
    """The daemon goes on with its other workers."""
    world.start()
    world.platform.no_room = OSError(errno.ENOMEM, "Cannot allocate memory")
    world.ends(world.hands[0], 1)
    world.pass_time(0.25)
    assert world.supervisor.recovery.last_error == "a worker cannot be started: Cannot allocate memory"
    world.platform.no_room = None
    world.pass_time(0.5)
    assert len(world.hands) == 3
    assert world.supervisor.phase is Phase.RUNNING


# Stopping.


def test_term_lets_workers_finish(world: Supervised) -> None:
    """Each worker gets one TERM; when the last has ended, the daemon ends with status 0."""
    world.start()
    world.supervisor.ending.signalled(signal.SIGTERM)
    world.supervisor.ending.signalled(signal.SIGTERM)
    assert world.platform.sent == [(101, signal.SIGTERM), (102, signal.SIGTERM)]
    assert world.platform.logged == [("INFO", "SIGTERM: stopping")]
    assert world.platform.events[-1] == ("stopping", "draining: 2 workers left")
    world.ends(world.hands[0], 0)
    assert not world.reactor.stopped
    world.ends(world.hands[1], -signal.SIGTERM)
    assert world.reactor.stopped
    assert world.supervisor.ending.status == ExitStatus.OK
    assert world.platform.read_out == [101, 102]


@pytest.fixture
def delayed() -> Iterator[Supervised]:
    """A supervisor of two workers, started, whose stop is delayed."""
    with supervised(stop_delay=5.0) as made:
        made.start()
        yield made


def test_a_stop_is_announced_and_begins_after_its_delay(delayed: Supervised) -> None:
    """The manager hears of it at once; until then workers are replaced, and no operation begins."""
    delayed.platform.events.clear()
    delayed.supervisor.ending.signalled(signal.SIGTERM)
    announced = "stopping: clients are served for 5 s, and then drained"
    assert delayed.platform.events == [("stopping", announced)]
    assert (delayed.supervisor.state, delayed.supervisor.phase) == ("stopping", Phase.RUNNING)
    assert delayed.supervisor.is_draining
    delayed.notifier.look()
    assert "progress" in delayed.platform.events
    delayed.supervisor.operations.reload()
    assert delayed.platform.logged[-1] == ("WARNING", "poetry is stopping")
    with pytest.raises(Unavailable, match="poetry is stopping"):
        delayed.supervisor.export(lambda descriptor: descriptor)
    delayed.ends(delayed.hands[0], 1)
    delayed.pass_time(STEP)
    assert len(delayed.hands) == 3
    assert not delayed.platform.sent
    delayed.pass_time(5)
    assert [number for _, number in delayed.platform.sent] == [signal.SIGTERM] * 2


@pytest.mark.parametrize("again", [signal.SIGTERM, signal.SIGINT])
def test_a_second_request_ends_the_delay_of_a_stop(delayed: Supervised, again: signal.Signals) -> None:
    """The workers drain at once; an interrupt after that ends the daemon."""
    delayed.supervisor.ending.signalled(signal.SIGINT)
    delayed.supervisor.ending.signalled(again)
    assert delayed.platform.sent == [(101, signal.SIGTERM), (102, signal.SIGTERM)]
    assert delayed.platform.logged[-1] == ("INFO", f"{again.name}: stopping without further delay")
    delayed.supervisor.ending.signalled(signal.SIGINT)
    assert delayed.supervisor.ending.status == -signal.SIGINT


def test_a_stop_has_no_delay_while_nobody_is_served(delayed: Supervised) -> None:
    """Without listening workers, no client could be lost."""
    for hand in delayed.hands:
        delayed.ends(hand, 1)
    delayed.supervisor.ending.signalled(signal.SIGTERM)
    assert delayed.supervisor.phase is Phase.STOPPING


def test_only_the_first_stop_counts(world: Supervised) -> None:
    """The status of the first stop counts."""
    world.start()
    world.supervisor.ending.stop(3)
    world.supervisor.ending.stop(4)
    assert world.supervisor.ending.status == 3


def test_a_worker_that_is_waited_for_is_not_started_while_it_stops(world: Supervised) -> None:
    """A stop cancels a due replacement."""
    world.start()
    world.ends(world.hands[0], 1)
    world.supervisor.ending.stop()
    world.pass_time(1)
    assert len(world.hands) == 2


def test_a_stop_while_it_starts_has_status_0(world: Supervised) -> None:
    """A stopped start has not failed, and no failure is reported."""
    world.supervisor.start()
    world.reactor.turn(0)
    world.supervisor.ending.signalled(signal.SIGINT)
    for hand in list(world.hands):
        world.ends(hand, -signal.SIGTERM)
    assert world.reactor.stopped
    assert world.supervisor.ending.status == ExitStatus.OK
    assert world.platform.events == [("stopping", "draining: 2 workers left")]


def test_a_worker_that_fails_while_it_stops_gives_its_status(world: Supervised) -> None:
    """The first worker that fails sets the status."""
    world.start()
    world.supervisor.ending.stop()
    world.says(world.hands[0], {"fault": {"lines": ["tamed: it broke"], "status": 71}})
    world.ends(world.hands[0], 71)
    world.ends(world.hands[1], 3)
    assert world.supervisor.ending.status == 71
    assert world.platform.logged == [("ERROR", "worker 101 failed: it broke")]


def test_an_application_that_ends_itself_ends_the_daemon(world: Supervised) -> None:
    """The daemon ends with the status that the application chose, also 0; the other workers finish."""
    world.start()
    world.says(world.hands[0], {"leaving": 4})
    world.ends(world.hands[0], 4)
    assert world.platform.logged == [("INFO", "the application ends, with status 4: stopping")]
    assert world.platform.sent == [(102, signal.SIGTERM)]
    world.ends(world.hands[1], 0)
    assert world.reactor.stopped
    assert world.supervisor.ending.status == 4


def test_a_replacement_that_ends_itself_before_it_is_ready_is_a_failed_attempt(world: Supervised) -> None:
    """Its application never served, so it has not chosen the end of those that do: another one is started."""
    world.start()
    world.ends(world.hands[0], -signal.SIGKILL)
    coming = world.hands[-1]
    world.says(coming, {"leaving": 3})
    world.ends(coming, 3)
    assert world.supervisor.phase is Phase.RUNNING
    assert world.supervisor.state == "degraded"
    told = "the application ended before it was ready, with status 3"
    assert told in world.supervisor.recovery.last_error
    assert not world.platform.sent


def test_workers_that_do_not_stop_are_ended(world: Supervised) -> None:
    """After the stop timeout they write their stacks and are killed."""
    world.start()
    world.supervisor.ending.stop()
    world.pass_time(39.75)
    assert len(world.platform.sent) == 2
    world.pass_time(0.25)
    assert world.platform.sent[2:] == [(101, signal.SIGABRT), (102, signal.SIGABRT)]
    assert world.platform.logged[-1][1] == "worker 102 does not stop: its stacks follow, then it is killed"
    world.ends(world.hands[0], -signal.SIGABRT)
    world.pass_time(5)
    assert world.platform.sent[4:] == [(102, "kill")]
    world.ends(world.hands[1], -signal.SIGKILL)
    assert world.reactor.stopped
    assert world.supervisor.ending.status == ExitStatus.SOFTWARE


@pytest.mark.parametrize(
    "numbers", [[signal.SIGQUIT], [signal.SIGINT, signal.SIGINT], [signal.SIGTERM, signal.SIGINT]], ids=str
)
def test_it_can_be_ended_at_once(world: Supervised, numbers: list[signal.Signals]) -> None:
    """QUIT, and INT while it stops, end it at once, by that signal itself."""
    world.start()
    for number in numbers:
        world.supervisor.ending.signalled(number)
    assert world.platform.sent[-2:] == [(101, "kill"), (102, "kill")]
    assert world.platform.logged[-1] == ("WARNING", f"{numbers[-1].name}: ending at once")
    for hand in list(world.hands):
        world.ends(hand, -signal.SIGKILL)
    assert world.reactor.stopped
    assert world.supervisor.ending.status == -numbers[-1]


def test_it_does_not_wait_for_what_cannot_be_killed(world: Supervised) -> None:
    """A process in an uninterruptible sleep delays the end by some seconds only."""
    world.start()
    world.supervisor.ending.signalled(signal.SIGQUIT)
    world.pass_time(9.75)
    assert not world.reactor.stopped
    world.pass_time(0.25)
    assert world.reactor.stopped


# What else it does.


def test_usr1_opens_the_log_anew(world: Supervised) -> None:
    """The new file has a line about it."""
    world.start()
    world.supervisor.ending.signalled(signal.SIGUSR1)
    assert world.platform.events[-1] == "reopened"
    assert world.platform.logged == [("INFO", "SIGUSR1: the log was reopened")]


def test_the_manager_hears_that_the_supervisor_works(world: Supervised) -> None:
    """It is notified at its interval, also while a worker is silent: the daemon itself replaces that one."""
    world.platform.notifier.alive_interval = 10.0
    world.start()
    world.pass_time(20)
    assert world.platform.events.count("alive") == 3
    world.reactor.advance(40)  # in which the workers give no sign of life
    assert world.platform.events.count("alive") == 7


@pytest.mark.parametrize("others", [0, 1])
def test_a_worker_that_cannot_be_killed_is_a_case_for_the_manager_if_nobody_serves(others: int) -> None:
    """The manager is asked once; while another worker serves, it is not."""
    with supervised(workers=1 + others) as world:
        world.start()
        served = world.hands[1:]
        for _ in range(60):
            for hand in served:
                hand.say({"heartbeat": True})
            world.reactor.advance(1)
            world.notifier.look()
        assert (101, "kill") in world.platform.sent
        asked = [event for event in world.platform.events if event[0] == "stuck"]
        assert len(asked) == 1 - others


def test_the_manager_hears_that_a_start_a_reload_or_a_stop_goes_on(world: Supervised) -> None:
    """It gets a status text and more time, but not while the daemon serves."""
    world.supervisor.start()
    world.notifier.look()
    assert world.platform.events == ["progress", ("status", "starting (Tamed is loaded)")]
    for state in ("prepared", "starting", "ready"):
        world.comes_to(state, *world.hands)
    world.platform.events.clear()
    world.notifier.look()
    assert world.platform.events == []
    world.supervisor.operations.reload()
    world.notifier.look()
    told = ["reloading", "progress", ("status", "reloading (the files are read)")]
    assert world.platform.events == told
    world.platform.events.clear()
    world.supervisor.ending.stop()
    world.notifier.look()
    assert world.platform.events[0] == ("stopping", "draining: 2 workers left")
    assert "progress" in world.platform.events
    world.platform.events.clear()
    world.reactor.advance(world.plan.stop_timeout + 11)
    world.notifier.look()
    assert "progress" not in world.platform.events


def test_a_child_that_is_no_worker_is_of_no_matter(world: Supervised) -> None:
    """Process 1 also reaps orphans, which have no effect."""
    world.start()
    world.platform.dead.append((77, 1))
    world.supervisor.ending.signalled(signal.SIGCHLD)
    assert world.platform.logged == []
    assert world.supervisor.phase is Phase.RUNNING
