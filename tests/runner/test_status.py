"""The status of the supervisor and its workers."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tamed.log.layout import rfc3339
from tamed.supervisor.control import ControlApi
from tamed.supervisor.records import EventLog
from tamed.supervisor.status import StatusRequests
from tests.runner.world import Supervised, supervised


class Client:
    """Sends requests to the control API, and records the answers."""

    def __init__(self, world: Supervised) -> None:
        status = StatusRequests(
            world.supervisor, world.reactor, world.sockets, EventLog(), world.reactor.clock()
        )
        self.api = ControlApi(world.supervisor, status, world.platform)
        self.answers: list[dict[str, Any]] = []

    def ask(self, command: str = "status") -> None:
        self.api.serve({"command": command}, self.answers.append)


@pytest.fixture
def world() -> Iterator[Supervised]:
    """A supervisor of two workers that serve."""
    with supervised() as made:
        yield made


def test_the_answer_has_what_the_workers_report(world: Supervised) -> None:
    """The answer is sent when the last worker has reported."""
    client = Client(world)
    world.start()
    world.reactor.advance(3)
    client.ask()
    for number, hand in enumerate(world.hands):
        assert hand.heard()[-1] == {"report": True}
        assert client.answers == []
        certificates = [
            {"endpoint": "127.0.0.1:443", "file": "a.pem", "ends": 2e9 - number},
            {"endpoint": "127.0.0.1:444", "file": "b.pem", "ends": None},
        ]
        world.says(hand, {"report": {"connections": number, "certificates": certificates}})
    (answer,) = client.answers
    workers = answer.pop("workers")
    assert answer == {
        "name": "poetry",
        "state": "running",
        "pid": os.getpid(),
        "uptime": 3.0,
        "generation": 1,
        "reloading": False,
        "endpoints": [],
        "certificates": [
            {"endpoint": "127.0.0.1:443", "file": "a.pem", "ends": rfc3339(2e9 - 1)},
            {"endpoint": "127.0.0.1:444", "file": "b.pem", "ends": None},
        ],
        "ready": 2,
        "wanted": 2,
        "restarts": 0,
        "checks": [],
        "roles": [],
        "last_error": "",
        "last_error_at": None,
        "log": "",
        "events_file": "",
        "events": [],
    }
    assert [(each["pid"], each["number"], each["state"], each["connections"]) for each in workers] == [
        (101, 1, "ready", 0),
        (102, 2, "ready", 1),
    ]


def test_several_may_ask_at_once(world: Supervised) -> None:
    """Each request gets an answer; a report without a request is ignored."""
    client = Client(world)
    world.start()
    client.ask()
    client.ask()
    for hand in world.hands:
        world.says(hand, {"report": {}})
        world.says(hand, {"report": {}})
    assert len(client.answers) == 2


def test_a_worker_that_does_not_report_is_shown_all_the_same(world: Supervised) -> None:
    """The answer comes after five seconds."""
    client = Client(world)
    world.start()
    client.ask()
    world.says(world.hands[0], {"report": {"connections": 5}})
    world.reactor.advance(4.75)
    assert client.answers == []
    world.reactor.advance(0.25)
    first, second = client.answers[0]["workers"]
    assert first["connections"] == 5
    assert "connections" not in second


def test_nobody_waits_for_a_worker_that_ends(world: Supervised) -> None:
    """A worker that ends before its report is left out of the answer."""
    client = Client(world)
    world.start()
    client.ask()
    world.says(world.hands[0], {"report": {"connections": 5}})
    assert client.answers == []
    world.ends(world.hands[1], 0)
    (answer,) = client.answers
    assert answer["workers"][0]["connections"] == 5


def test_one_that_starts_has_nobody_to_ask(world: Supervised) -> None:
    """Without workers that can report, the answer comes at once."""
    client = Client(world)
    world.supervisor.start()
    world.reactor.turn(0)
    client.ask()
    assert client.answers[0]["state"] == "starting"
    assert [each["state"] for each in client.answers[0]["workers"]] == ["loading", "loading"]


def test_the_last_error_is_reported(world: Supervised) -> None:
    """The last error is that of the worker that failed last, and that is not in the list any more."""
    client = Client(world)
    world.start()
    world.ends(world.hands[0], -signal.SIGKILL)
    client.ask()
    world.says(world.hands[1], {"report": {}})
    assert client.answers[0]["last_error"] == "worker 101 was ended by SIGKILL"
    assert [each["pid"] for each in client.answers[0]["workers"]] == [102, 103]


def test_what_a_process_uses_is_reported() -> None:
    """Memory is in bytes and CPU in seconds, as far as the system provides them."""
    with supervised(workers=1) as world:
        client = Client(world)
        world.supervisor.start()
        world.reactor.turn(0)
        (worker,) = world.supervisor.pool.workers.values()
        for pid, is_known in ((os.getpid(), True), (2**22 + 1, False)):
            worker.pid = pid
            client.ask()
            (told,) = client.answers.pop()["workers"]
            assert (told["memory"] is not None and told["memory"] > 1_000_000) is is_known
            assert (told["cpu"] is not None and told["cpu"] >= 0) is is_known


def test_an_unknown_command_is_an_error(world: Supervised) -> None:
    """For example, a command of another version."""
    client = Client(world)
    client.ask("dance")
    assert client.answers == [{"error": "unknown command 'dance'"}]
