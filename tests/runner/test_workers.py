"""The workers of a supervisor: their messages and their ends."""

import errno
import os
import signal
import socket
from collections.abc import Iterator

import pytest

from tamed.ipc.message import Message
from tamed.supervisor.generation import Worker, WorkerState
from tamed.supervisor.reports import ReportCollector, Reports
from tamed.supervisor.workers import WorkerPool
from tests.runner.world import HandReactor, World, a_pool

_Made = tuple[World, WorkerPool]


@pytest.fixture
def made() -> Iterator[_Made]:
    """A pool of one worker, which has received its job."""
    with a_pool() as (world, pool):
        pool.spawn(world.generation, 1)
        world.hands[0].heard()
        yield world, pool


def _only(pool: WorkerPool) -> Worker:
    (worker,) = pool.workers.values()
    return worker


def test_a_worker_that_cannot_be_started_leaves_nothing() -> None:
    """No descriptor stays open, and the pool is empty."""
    with a_pool() as (world, pool):
        world.platform.no_room = OSError(errno.EAGAIN, "no room")
        before = len(os.listdir("/dev/fd"))  # noqa: PTH208 - only the number of descriptors matters
        with pytest.raises(OSError, match="no room"):
            pool.spawn(world.generation, 1)
        assert len(os.listdir("/dev/fd")) == before  # noqa: PTH208 - see above
        assert pool.workers == {}


def test_all_workers_get_the_same_socket(made: _Made) -> None:
    """An endpoint is bound at the first request; later ones get copies of the same socket."""
    world, pool = made
    pool.spawn(world.generation, 2)
    world.hands[1].heard()
    ports = []
    for hand in world.hands:
        world.says(hand, {"listen": "127.0.0.1:0", "kind": 1, "index": 0, "number": 7})
        ((message, descriptors),) = hand.channel.receive()
        assert message == {"answer": 7}
        with socket.socket(fileno=descriptors[0]) as sock:
            ports.append(sock.getsockname())
    assert ports[0] == ports[1]


def test_a_socket_that_cannot_be_had_is_a_fault_of_the_asking_worker(made: _Made) -> None:
    """The answer has the error, and the supervisor goes on."""
    world, _ = made
    world.says(world.hands[0], {"listen": "systemd://web", "kind": 1, "index": 0, "number": 1})
    (answer,) = world.hands[0].heard()
    assert answer["answer"] == 1
    assert answer["fault"]["kind"] == "ConfigurationError"
    assert answer["fault"]["what"] == "cannot listen on systemd://web"


def test_a_worker_without_orders_may_change_its_state(made: _Made) -> None:
    """The receiver of the events is notified."""
    world, _ = made
    world.comes_to("prepared", world.hands[0])
    world.comes_to("ready", world.hands[0])
    assert world.events.states == [WorkerState.PREPARED, WorkerState.READY]


def test_one_that_was_asked_to_stop_stays_so_whatever_it_reports(made: _Made) -> None:
    """A message that crossed the order to stop does not change its state."""
    world, pool = made
    pool.terminate(_only(pool))
    world.comes_to("ready", world.hands[0])
    assert _only(pool).state is WorkerState.STOPPING
    assert world.platform.sent == [(101, signal.SIGTERM)]


def test_every_message_is_a_sign_of_life(made: _Made) -> None:
    """Each message counts as a sign of life; unknown ones are ignored."""
    world, pool = made
    world.reactor.time.now += 3
    world.says(world.hands[0], {"heartbeat": True})
    assert _only(pool).heard == world.reactor.time.now
    world.reactor.time.now += 3
    world.says(world.hands[0], {"of a later": "version"})
    assert _only(pool).heard == world.reactor.time.now
    assert _only(pool).started < _only(pool).heard


def test_only_one_that_serves_can_be_asked(made: _Made) -> None:
    """A loading worker is not asked for a report, a serving one is."""
    world, pool = made
    reports: list[Reports] = []
    pool.request("report", reports.append, 5.0)
    assert reports.pop() == {}
    world.comes_to("ready", world.hands[0])
    pool.request("report", reports.append, 5.0)
    assert world.hands[0].heard() == [{"report": True}]
    world.says(world.hands[0], {"report": {"connections": 3}})
    assert reports == [{101: {"connections": 3}}]


def test_one_that_is_gone_cannot_be_asked(made: _Made) -> None:
    """A request to an ended worker is no error: its end is reported otherwise."""
    world, pool = made
    world.comes_to("ready", world.hands[0])
    world.hands[0].channel.close()
    reports: list[Reports] = []
    pool.request("report", reports.append, 5.0)
    assert reports == [{}]


def test_the_end_of_its_channel_is_not_the_end_of_a_worker(made: _Made) -> None:
    """A worker stays in the pool until it has been reaped."""
    world, pool = made
    world.hands[0].channel.close()
    world.reactor.turn(0)
    world.reactor.turn(0)
    assert _only(pool).peer.channel.closed
    assert world.platform.sent == []


def test_what_it_said_last_is_heard_before_it_is_gone(made: _Made) -> None:
    """Its fault is read although SIGCHLD came first."""
    world, pool = made
    world.hands[0].say({"fault": {"lines": ["tamed: no poems"], "status": 66}})
    world.hands[0].channel.close()
    world.platform.dead = [(101, 66), (999, 0)]
    pool.reap()
    assert world.events.ends == [((["tamed: no poems"], 66), 66)]
    assert pool.workers == {}
    assert world.platform.read_out == [101, 999]


def test_one_that_talks_nonsense_is_ended(made: _Made) -> None:
    """Other code in that process has written to the channel, so its messages cannot be trusted."""
    world, pool = made
    world.hands[0].channel._sock.send(b"hello\n")
    world.reactor.turn(0)
    assert world.platform.sent == [(101, "kill")]
    assert world.platform.logged[0][0] == "ERROR"
    assert "worker 101 sent an invalid message" in world.platform.logged[0][1]
    assert _only(pool).peer.channel.closed


@pytest.mark.parametrize(
    "message",
    [
        {"state": "flying"},
        {"listen": "no endpoint", "kind": 1, "index": 0, "number": 1},
        {"listen": ":0", "kind": 99, "index": 0, "number": 1},
    ],
    ids=["state", "endpoint", "kind"],
)
def test_one_that_says_what_no_worker_says_is_ended(made: _Made, message: Message) -> None:
    """A well-formed but invalid message ends the worker, too."""
    world, _ = made
    world.says(world.hands[0], message)
    assert world.platform.sent == [(101, "kill")]


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 3000,
        b'{"report":' * 3000,
        b'{"leaving": %s}' % (b"9" * 401),
        b'{"leaving": -1}',
        b'{"leaving": true}',
        b'{"state": "stuck"}',
        b'{"state": NaN}',
        b'{"fault": {"lines": [], "status": 1}}',
        b'{"recycle": 5.5}',
        b'{"files": {"a.py": 1e400}}',
        b'{"report": {"connections": -5}}',
        b'{"listen": "127.0.0.1:0", "kind": 1, "index": 100000, "number": 1}',
        b'{"descriptors": 5}',
        b"\xff\xfe",
    ],
    ids=lambda line: f"{line[:24].decode(errors='replace')}-{len(line)}",
)
def test_whatever_is_written_to_its_channel_ends_a_worker_alone(made: _Made, line: bytes) -> None:
    """The log has the reason in one line."""
    world, pool = made
    world.hands[0].channel._sock.sendall(line + b"\n")
    world.reactor.turn(0)
    assert world.platform.sent == [(101, "kill")]
    ((level, text),) = world.platform.logged
    assert (level, "worker 101 sent an invalid message" in text) == ("ERROR", True)
    assert _only(pool).peer.channel.closed


def test_a_job_may_be_longer_than_the_socket_takes_at_once() -> None:
    """The rest is sent as the worker reads and sends heartbeats."""
    job = {"text": "x" * 2_000_000}
    with a_pool(job=job) as (world, pool):
        pool.spawn(world.generation, 1)
        orders: list[Message] = []
        while not orders:
            orders += world.hands[0].heard()
            world.says(world.hands[0], {"heartbeat": True})
        assert orders[0]["job"] == job


def test_one_that_will_not_read_is_talked_to_no_more() -> None:
    """The messages in its queue are dropped."""
    with a_pool(job={"text": "x" * 2_000_000}) as (world, pool):
        pool.spawn(world.generation, 1)
        world.hands[0].channel._sock.shutdown(socket.SHUT_RD)
        world.says(world.hands[0], {"heartbeat": True})
        assert _only(pool).peer.channel.closed


def test_the_end_of_one_request_may_be_that_of_another() -> None:
    """A worker that is lost while one request ends is awaited by no other, and each ends once."""
    reactor = HandReactor()
    collector = ReportCollector(reactor)
    ended: list[str] = []

    def first(_: Reports) -> None:
        ended.append("first")
        collector.will_not_answer(2)

    collector.collect([1], first, 5.0)
    collector.collect([2], lambda _: ended.append("second"), 5.0)
    collector.received(1, {})
    reactor.advance(6.0)
    assert ended == ["first", "second"]
    reactor.close()


def test_a_worker_that_has_ended_is_not_awaited(made: _Made) -> None:
    """Neither one that ends, nor one whose channel is closed already, keeps others from accepting."""
    world, pool = made
    pool.spawn(world.generation, 2)
    hands, workers = world.hands, list(pool.workers.values())
    ended: list[str] = []
    pool.when_shut(workers, lambda: ended.append("first"), 5.0)
    for hand in hands:
        assert ended == []
        hand.channel.close()
        world.reactor.turn(0)
    assert ended == ["first"]
    pool.when_shut(workers, lambda: ended.append("second"), 5.0)
    assert ended == ["first", "second"]
