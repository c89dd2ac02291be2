"""A worker's end of its channel, and the sockets that it receives."""

import asyncio
import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest
import trustme

from tamed.errors import ConfigurationError, SystemRefused
from tamed.ipc.channel import Channel
from tamed.ipc.fault import fault_data
from tamed.ipc.message import Message
from tamed.net.endpoint import Endpoint, TlsEndpoint
from tamed.net.listen import Gate
from tamed.worker.link import Link, SupervisedSource
from tests.patience import PATIENCE

pytestmark = pytest.mark.anyio

HERE = "127.0.0.1:0"


class Linked:
    """A link, and the supervisor's end of its channel, played by the test."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.supervisor = Channel(ours)
        self.channel = Channel(theirs, takes_descriptors=True)
        self.gate = Gate(is_open=False)
        self.link = Link(self.channel, lambda: {"connections": 3}, heartbeat_interval=3600.0, gate=self.gate)
        self.told_to_stop = asyncio.Event()
        self.source = SupervisedSource(self.link)

    def heard(self) -> list[Message]:
        """Return the worker's messages since the last call, without heartbeats."""
        return [message for message, _ in self.supervisor.receive() if message != {"heartbeat": True}]

    async def asked(self) -> Message:
        """Wait for a question of the worker."""
        while True:
            for message in self.heard():
                return message
            await asyncio.sleep(0)

    async def hands_out(self, count: int = 1) -> Message:
        """Answer a question with so many bound sockets; return the question."""
        question = await self.asked()
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
        self.supervisor.send({"answer": question["number"]}, [sock.fileno() for sock in sockets])
        for sock in sockets:
            sock.close()
        return question

    def open(self) -> AbstractContextManager[None]:
        """Open the link, and record when the worker must stop."""
        return self.link.open(self.told_to_stop.set)

    def close(self) -> None:
        self.supervisor.close()
        self.channel.close()


@pytest.fixture
def linked() -> Iterator[Linked]:
    """A link that is not open yet."""
    with closing(Linked()) as made:
        yield made


@contextmanager
def _keeping_output() -> Iterator[None]:
    """Restore the output of this process at the end."""
    kept = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
    try:
        yield
    finally:
        for descriptor, copy in kept.items():
            os.dup2(copy, descriptor)
            os.close(copy)


async def _has_room(linked: Linked) -> None:
    """Run the loop until the queue for the supervisor is empty."""
    for _ in iter(lambda: linked.link._waits_for_room, False):
        await asyncio.sleep(0)


# The link.


async def test_its_heartbeats_come_from_the_loop(linked: Linked) -> None:
    """The loop sends a heartbeat at once, and then regularly."""
    link = Link(linked.channel, dict, heartbeat_interval=0.001, gate=Gate())
    heartbeats = 0
    with link.open(lambda: None):
        while heartbeats < 3:
            heartbeats += sum(message == {"heartbeat": True} for message, _ in linked.supervisor.receive())
            await asyncio.sleep(0)


async def test_when_it_is_prepared_it_waits_for_the_others(linked: Linked) -> None:
    """It waits until the supervisor lets it go on."""
    with linked.open():
        waiting = asyncio.create_task(linked.link.prepared())
        assert await linked.asked() == {"state": "prepared"}
        await asyncio.sleep(0)
        assert not waiting.done()
        linked.supervisor.send({"go": True})
        await asyncio.wait_for(waiting, PATIENCE)


async def test_it_tells_what_it_is_asked(linked: Linked) -> None:
    """It answers with its current report; an unknown order is ignored."""
    with linked.open():
        linked.supervisor.send({"of a later": "version"})
        linked.supervisor.send({"report": True})
        assert await linked.asked() == {"report": {"connections": 3}}


async def test_descriptors_that_nobody_waits_for_are_closed(linked: Linked) -> None:
    """The answer to a cancelled question leaves no descriptor open."""
    reading, writing = os.pipe()
    with linked.open():
        asking = asyncio.create_task(linked.link.ask({"listen": HERE}))
        question = await linked.asked()
        asking.cancel()
        await asyncio.wait([asking])
        linked.supervisor.send({"answer": question["number"]}, [writing])
        linked.supervisor.send({"answer": 99}, [writing])
        linked.supervisor.send({"report": True})
        os.close(writing)
        await linked.asked()
    assert os.read(reading, 1) == b""
    os.close(reading)


async def test_it_waits_for_a_supervisor_that_is_busy(linked: Linked) -> None:
    """Queued messages are sent later, in order, and the loop goes on meanwhile."""
    messages = [{"text": str(number) + "x" * 100_000} for number in range(20)]
    got: list[Message] = []
    with linked.open():
        for message in messages:
            linked.link.send(message)
        assert linked.link._waits_for_room
        while len(got) < len(messages):
            got += linked.heard()
            await asyncio.sleep(0)
        assert got == messages
        await _has_room(linked)


async def test_a_busy_supervisor_may_go_away(linked: Linked) -> None:
    """The queue is dropped then."""
    with _keeping_output(), linked.open():
        for _ in range(20):
            linked.link.send({"text": "x" * 100_000})
        linked.supervisor.close()
        await asyncio.wait_for(linked.told_to_stop.wait(), PATIENCE)
        await _has_room(linked)


async def test_without_a_supervisor_a_worker_stops(linked: Linked) -> None:
    """It stops as after an order; callers that wait for an answer get an error."""
    with _keeping_output(), linked.open():
        asking, given_up = (asyncio.create_task(linked.link.ask({"listen": HERE})) for _ in range(2))
        await linked.asked()
        given_up.cancel()
        await asyncio.wait([given_up])
        linked.supervisor.close()
        await asyncio.wait_for(linked.told_to_stop.wait(), PATIENCE)
        with pytest.raises(SystemRefused, match="cannot ask the supervisor: it has ended"):
            await asking
        with pytest.raises(SystemRefused, match="cannot ask the supervisor: it has ended"):
            await linked.link.ask({"listen": HERE})
        linked.link.send({"state": "ready"})
        os.write(1, b"nobody reads this, and nothing is raised")


# The socket source.


async def test_a_listener_has_the_supervisors_sockets(linked: Linked) -> None:
    """The listener has all sockets; other workers accept from them, too."""
    with linked.open():
        listening = asyncio.create_task(linked.source.listen(Endpoint.parse(HERE)))
        question = await linked.hands_out(2)
        listener = await asyncio.wait_for(listening, PATIENCE)
    assert {**question, "number": 0} == {"listen": HERE, "kind": 1, "index": 0, "number": 0}
    assert len(listener.sockets) == 2
    assert not listener.shared  # else a worker that stops would leave clients in the queue
    assert listener.tls is None
    listener.close()


async def test_a_fault_of_the_supervisors_is_raised_here(linked: Linked) -> None:
    """The error is the same; the same sockets may be requested again."""
    with linked.open():
        for _ in range(2):
            listening = asyncio.create_task(linked.source.listen(Endpoint.parse("systemd://web")))
            question = await linked.asked()
            assert question["index"] == 0
            fault = fault_data(ConfigurationError("cannot listen on systemd://web", "no sockets"))
            linked.supervisor.send({"answer": question["number"], "fault": fault})
            with pytest.raises(ConfigurationError, match="no sockets"):
                await asyncio.wait_for(listening, PATIENCE)


async def test_servers_with_the_same_endpoint_have_sockets_of_their_own(linked: Linked) -> None:
    """They differ by an index; the key of a closed one may be requested again."""
    endpoint = Endpoint.parse(HERE)
    with linked.open():
        both = [asyncio.create_task(linked.source.listen(endpoint)) for _ in range(2)]
        questions: list[Message] = []
        while len(questions) < 2:
            questions += linked.heard()
            await asyncio.sleep(0)
        indexes = [question["index"] for question in questions]
        for question in questions:
            with socket.create_server(("127.0.0.1", 0)) as sock:
                linked.supervisor.send({"answer": question["number"]}, [sock.fileno()])
        first, second = await asyncio.wait_for(asyncio.gather(*both), PATIENCE)
        assert indexes == [0, 1]
        first.close()
        again = asyncio.create_task(linked.source.listen(endpoint))
        assert (await linked.hands_out())["index"] == 0
        (await asyncio.wait_for(again, PATIENCE)).close()
        second.close()


async def test_certificates_are_read_in_the_worker(linked: Linked, tmp_path: Path) -> None:
    """The supervisor hands out plain sockets."""
    path = tmp_path / "cert.pem"
    certificate = trustme.CA().issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(path))
    with linked.open():
        endpoint = TlsEndpoint("127.0.0.1", 0, path)
        listening = asyncio.create_task(linked.source.listen(endpoint))
        await linked.hands_out()
        with closing(await asyncio.wait_for(listening, PATIENCE)) as listener:
            assert listener.tls is not None


# Asking without waiting in the loop.


@contextmanager
def _supervisor_answers(linked: Linked, answer: Message, count: int = 0) -> Iterator[list[Message]]:
    """Play the supervisor in a thread: send another message, answer one question, and record it."""
    heard: list[Message] = []

    def play() -> None:
        while not heard:
            select.select([linked.supervisor], [], [])
            heard.extend(linked.heard())
        linked.supervisor.send({"go": True})
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
        linked.supervisor.send({"answer": heard[-1]["number"], **answer}, [sock.fileno() for sock in sockets])
        for sock in sockets:
            sock.close()

    thread = threading.Thread(target=play)
    thread.start()
    try:
        yield heard
    finally:
        thread.join()


def test_a_listener_can_be_had_before_the_link_is_open(linked: Linked) -> None:
    """Code that is loading may request one; its key is free again when its sockets are closed."""
    for _ in range(2):
        with _supervisor_answers(linked, {}, count=1) as heard:
            listener = linked.source.listen_now(Endpoint.parse(HERE))
        assert heard == [
            {"listen": HERE, "kind": socket.SOCK_STREAM, "index": 0, "number": heard[0]["number"]}
        ]
        listener.close()


async def test_orders_that_come_while_it_blocks_are_obeyed_afterwards(linked: Linked) -> None:
    """None of them is lost."""
    with linked.open():
        with _supervisor_answers(linked, {}, count=1):
            linked.source.listen_now(Endpoint.parse(HERE)).close()
        await asyncio.wait_for(linked.link.prepared(), PATIENCE)


def test_a_refusal_is_raised_to_who_cannot_wait(linked: Linked) -> None:
    """The supervisor's error is raised, and the key is free again."""
    fault = fault_data(ConfigurationError("cannot", "for a reason"))
    with (
        _supervisor_answers(linked, {"fault": fault}),
        pytest.raises(ConfigurationError, match="for a reason"),
    ):
        linked.source.listen_now(Endpoint.parse(HERE))
    with _supervisor_answers(linked, {}, count=1) as heard:
        linked.source.listen_now(Endpoint.parse(HERE)).close()
    assert heard[0]["index"] == 0


def test_a_caller_that_cannot_wait_is_notified_that_the_supervisor_is_gone(linked: Linked) -> None:
    """It gets an error, and does not block forever."""
    linked.supervisor.close()
    with pytest.raises(SystemRefused, match="it has ended"):
        linked.source.listen_now(Endpoint.parse(HERE))
