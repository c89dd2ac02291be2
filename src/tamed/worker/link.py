"""A worker's end of its channel to the supervisor, and the socket source that uses it."""

import asyncio
import itertools
import os
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tamed._os.descriptors import replace_with_null
from tamed.errors import SystemRefused
from tamed.ipc.channel import Channel
from tamed.ipc.fault import fault_of
from tamed.ipc.message import InvalidMessage, Message, read_number, read_object, read_truth
from tamed.net.endpoint import Endpoint, FdEndpoint, SystemdEndpoint, TlsEndpoint
from tamed.net.listen import Gate, Listener
from tamed.net.tls import ServerTls
from tamed.service.events import hub
from tamed.worker.report import stacks_of_process
from tamed.worker.roles import SupervisedRoles

__all__ = ["Link", "SupervisedSource"]

_Answer = tuple[Message, list[int]]
_Key = tuple[str, int, int]


class Link:
    """Exchanges messages with the supervisor in the event loop.

    The supervisor sends orders: to continue when all workers are prepared, to open its gate, to shut the
    gate and stop, and to report. ``report`` returns the report, ``hooks`` the running hooks. The end of the
    stream means that the supervisor has ended: the worker then stops. ``heartbeat_interval`` is in seconds.
    ``roles`` are granted and revoked by the supervisor. ``is_upgrading`` is whether another program is about
    to replace the supervisor; only the operations process receives that.
    """

    def __init__(
        self,
        channel: Channel,
        report: Callable[[], Message],
        heartbeat_interval: float,
        gate: Gate,
        hooks: Callable[[], list[Message]] = list,
    ) -> None:
        self.roles = SupervisedRoles(self.send)
        self.is_upgrading = False
        self._hooks = hooks
        self._channel = channel
        self._gate = gate
        self._report = report
        self._heartbeat_interval = heartbeat_interval
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[_Answer]] = {}
        self._postponed: list[_Answer] = []
        self._go = asyncio.Event()
        self._is_open = False
        self._is_draining = False
        self._is_orphan = False
        self._waits_for_room = False

    @contextmanager
    def open(self, stop: Callable[[], object]) -> Iterator[None]:
        """Receive orders and send heartbeats in the running loop; call ``stop`` when the worker must stop.

        The loop itself sends the heartbeats: a blocked loop sends none.
        """
        self._loop = asyncio.get_running_loop()
        self._stop = stop
        self._loop.add_reader(self._channel.fileno(), self._receive)
        self._is_open = True
        self._loop.call_soon(self._catch_up)
        self._send_heartbeat()
        try:
            yield
        finally:
            self._is_open = False
            self._loop.remove_reader(self._channel.fileno())
            self._loop.remove_writer(self._channel.fileno())
            self._next_heartbeat.cancel()

    async def prepared(self) -> None:
        """Report that all endpoints are bound, and wait until they are bound in every worker."""
        self.send({"state": "prepared"})
        await self._go.wait()

    def send(self, message: Message) -> None:
        """Send a message. A supervisor that has ended is noticed where messages are received."""
        try:
            self._channel.send(message)
        except OSError:
            return
        self._push()

    async def ask(self, message: Message) -> _Answer:
        """Send a question and wait for the answer. Raises SystemRefused if the supervisor has ended."""
        number = next(self._numbers)
        answer: asyncio.Future[_Answer] = self._loop.create_future()
        self._answers[number] = answer
        self.send({**message, "number": number})
        if self._is_orphan:
            self._give_up_asking()
        return await answer

    def ask_now(self, message: Message) -> _Answer:
        """Send a question and block until the answer arrives; also before the link is open.

        Orders that arrive in the meantime are executed later, in the loop. Raises SystemRefused if the
        supervisor has ended.
        """
        number = next(self._numbers)
        self._send_all({**message, "number": number})
        while not self._channel.closed:
            select.select([self._channel], [], [])
            if (found := self._find_answer(number)) is not None:
                return found
        raise SystemRefused("cannot ask the supervisor", "it has ended")

    def _find_answer(self, number: int) -> _Answer | None:
        found = None
        try:
            for message, descriptors in self._channel.receive():
                if message.get("answer") == number:
                    found = message, descriptors
                else:
                    self._postpone(message, descriptors)
        except InvalidMessage as error:
            raise SystemRefused("cannot ask the supervisor", str(error)) from error
        return found

    def _send_all(self, message: Message) -> None:
        try:
            self._channel.send(message)
            while not self._channel.flush():
                select.select([], [self._channel], [])
        except OSError as error:
            raise SystemRefused("cannot ask the supervisor", "it has ended") from error

    def _postpone(self, message: Message, descriptors: list[int]) -> None:
        self._postponed.append((message, descriptors))
        if self._is_open:
            self._loop.call_soon(self._catch_up)

    def _catch_up(self) -> None:
        """Execute the orders that arrived while `ask_now` blocked."""
        while self._postponed:
            self._obey(*self._postponed.pop(0))

    def _push(self) -> None:
        """Send the queued messages; send the rest when the socket is writable."""
        try:
            is_done = self._channel.flush()
        except OSError:
            is_done = True
        if is_done == self._waits_for_room:
            self._waits_for_room = not is_done
            if is_done:
                self._loop.remove_writer(self._channel.fileno())
            else:
                self._loop.add_writer(self._channel.fileno(), self._push)

    def _receive(self) -> None:
        try:
            for message, descriptors in self._channel.receive():
                self._obey(message, descriptors)
        except InvalidMessage as error:
            self._become_orphan(f"it sent an invalid message: {error}")
        if self._channel.closed and not self._is_orphan:
            replace_with_null((1, 2))  # the pipe is broken, so `print` would raise
            self._become_orphan("it has ended")

    def _become_orphan(self, why: str) -> None:
        """Stop the worker, which has lost its supervisor."""
        self._is_orphan = True
        self._loop.remove_reader(self._channel.fileno())
        self._give_up_asking(why)
        self.roles.lose_all()
        if self._is_draining:  # those that have replaced this worker end, too
            self._gate.open()
        self._stop()

    def _give_up_asking(self, why: str = "it has ended") -> None:
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(SystemRefused("cannot ask the supervisor", why))
        self._answers.clear()

    def _obey(self, message: Message, descriptors: list[int]) -> None:
        if "answer" in message:
            answer = self._answers.pop(read_number(message, "answer"), None)
            if answer is not None and not answer.done():
                answer.set_result((message, descriptors))
                return
        else:
            self._execute(message)
        for descriptor in descriptors:  # of a cancelled request
            os.close(descriptor)

    def _execute(self, message: Message) -> None:
        match message:
            case {"go": True}:
                self._go.set()
            case {"open": True}:
                self._gate.open()
            case {"drain": True}:
                self._is_draining = True
                self._gate.shut()
                self.send({"shut": True})
                self._stop()
            case {"role": _}:
                self.roles.obey(message)
            case {"upgrading": _}:
                self.is_upgrading = read_truth(message, "upgrading")
            case {"event": _}:
                hub.deliver(read_object(message, "event"), is_chosen=read_truth(message, "chosen"))
            case {"report": True} | {"stacks": True}:
                self._report_on(message)

    def _report_on(self, message: Message) -> None:
        if "report" in message:
            self.send({"report": self._report()})
        else:
            self.send({"stacks": {**stacks_of_process(), "hooks": self._hooks()}})

    def _send_heartbeat(self) -> None:
        self.send({"heartbeat": True})
        self._next_heartbeat = self._loop.call_later(self._heartbeat_interval, self._send_heartbeat)


class SupervisedSource:
    """The socket source of a worker: the supervisor binds, and every worker gets the same sockets."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._open: dict[_Key, Listener | None] = {}  # None: requested, and not answered yet

    async def listen(self, endpoint: Endpoint, kind: socket.SocketKind = socket.SOCK_STREAM) -> Listener:
        """Request the sockets of an endpoint.

        See `SocketSource`. Certificates are read here, in the worker.
        """
        tls = ServerTls(endpoint) if isinstance(endpoint, TlsEndpoint) else None
        with self._asking(endpoint, kind) as question:
            answer = await self._link.ask(question)
            return self._opened(endpoint, question, answer, tls)

    def listen_now(self, endpoint: Endpoint, kind: socket.SocketKind = socket.SOCK_STREAM) -> Listener:
        """Do the same as `listen`, but block until the supervisor has answered."""
        tls = ServerTls(endpoint) if isinstance(endpoint, TlsEndpoint) else None
        with self._asking(endpoint, kind) as question:
            answer = self._link.ask_now(question)
            return self._opened(endpoint, question, answer, tls)

    @contextmanager
    def _asking(self, endpoint: Endpoint, kind: socket.SocketKind) -> Iterator[Message]:
        """Reserve a key for a request; free it if the request fails."""
        text, number = str(endpoint), int(kind)
        key = next(key for index in itertools.count() if self._is_free(key := (text, number, index)))
        self._open[key] = None
        try:
            yield {"listen": text, "kind": number, "index": key[2]}
        except BaseException:
            del self._open[key]
            raise

    def _opened(
        self, endpoint: Endpoint, question: Message, answer: _Answer, tls: ServerTls | None
    ) -> Listener:
        message, descriptors = answer
        if "fault" in message:
            raise fault_of(read_object(message, "fault"))
        sockets = tuple(socket.socket(fileno=descriptor) for descriptor in descriptors)
        # When this worker's server stops, it accepts all clients in the queue: they would be lost if no other
        # worker continued. The process that passed sockets to the daemon keeps them, and their queue.
        inherited = isinstance(endpoint, FdEndpoint | SystemdEndpoint)
        listener = Listener(endpoint, sockets, shared=inherited, tls=tls)
        self._open[question["listen"], question["kind"], question["index"]] = listener
        return listener

    def _is_free(self, key: _Key) -> bool:
        """Return whether no server of this process uses the sockets of this key."""
        if key not in self._open:
            return True
        listener = self._open[key]
        return listener is not None and all(sock.fileno() == -1 for sock in listener.sockets)
