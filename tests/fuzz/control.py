"""Targets: the control socket, from both ends: a supervisor with many clients, and a command that asks."""

import atexit
import socket
import tempfile
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final, cast

from tamed._os.text import shown
from tamed.cli.status import status_lines
from tamed.control.instances import answer_from
from tamed.ipc.message import InvalidMessage, Message, parse_message, read_fault, read_text
from tamed.supervisor.control import ControlApi, ControlServer
from tamed.supervisor.loop import Reactor
from tamed.supervisor.operations import Answer
from tamed.supervisor.platform import Platform
from tamed.supervisor.reports import read_status
from tamed.supervisor.status import StatusRequests
from tamed.supervisor.supervisor import Supervisor
from tests.fuzz.engine import Target
from tests.fuzz.logs import TERMINAL

__all__ = ["TARGETS"]

_SEPARATOR: Final = b"\0"
"""Between steps. The first byte of one says whose it is, and what is done; the rest is sent."""

_PLACES: Final = 8
_MOST_STEPS: Final = 64
_CROWD: Final = 16
_PATIENCE: Final = 11.0
"""Seconds after which the server has let everybody go who has not asked."""


def _open() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class _Supervisor:
    """Stands for a supervisor: one thing is answered at once, others are when it pleases."""

    def __init__(self) -> None:
        self.waiting: list[Answer] = []
        self.operations = self
        self.pool = self
        self.workers: dict[int, object] = {}

    def serve(self, answer: Answer) -> None:
        answer({"state": "running"})

    def request(self, what: str, done: Callable[[Message], object], patience: float) -> None:
        assert patience > 0, what
        done({})

    def reopen(self) -> Message:
        return {"reopened": "it was"}

    def reload(self, answers: list[Answer], *, asked: str) -> str:
        assert asked.startswith("uid ") or not asked
        self.waiting += answers
        return "a reload"

    upgrade = reload

    def scale(self, workers: int, answers: list[Answer], *, yes: bool, asked: str) -> str | None:
        assert asked.startswith("uid ") or not asked
        assert -(2**31) <= workers < 2**31
        assert isinstance(yes, bool)
        self.waiting += answers
        return None

    def answer(self) -> None:
        """Answer what waits."""
        waiting, self.waiting = self.waiting, []
        for answer in waiting:
            answer({"reloaded": "it was"})


class _Client:
    """Somebody who has connected; ``said`` is what has come back."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.setblocking(False)
        self.sock.connect(path)
        self.sent = b""
        self.said = b""

    def send(self, data: bytes) -> None:
        with suppress(OSError):  # it was answered already, and the connection closed
            self.sent += data[: self.sock.send(data)]

    def read(self) -> bool:
        """Take what has come; tell whether the server has closed the connection."""
        try:
            while data := self.sock.recv(1 << 16):
                self.said += data
        except BlockingIOError:
            return False
        except ConnectionResetError:  # what it has sent after its request was not read
            return True
        return True


class _Server:
    """A server, made when it is first used; each input is a play of its clients."""

    def __init__(self) -> None:
        self._server: ControlServer | None = None
        self._clock = _Clock()
        self._supervisor = _Supervisor()
        self._path = ""

    def __call__(self, data: bytes) -> object:
        """Each who asks gets one answer, each who does not ask is let go, and the next one is served."""
        if self._server is None:
            folder = tempfile.TemporaryDirectory(prefix="tamed-fuzz-")
            atexit.register(folder.cleanup)
            self._path = f"{folder.name}/control.sock"
            self._reactor = Reactor(self._clock)
            supervisor = cast(Supervisor, self._supervisor)
            status = cast(StatusRequests, self._supervisor)
            api = ControlApi(supervisor, status, cast(Platform, self._supervisor))
            self._server = ControlServer(Path(self._path), self._reactor, api.serve)
            self._descriptors = _open()
        clients: list[_Client] = []
        try:
            self._play(data, clients)
            told = self._end(clients)
            clients.append(_Client(self._path))
            self._reactor.turn(0)
            clients[-1].send(b'{"command":"status"}\n')
            self._reactor.turn(0)
            assert clients[-1].read()
            assert b"running" in clients[-1].said
        finally:
            for client in clients:
                client.sock.close()
            self._reactor.turn(0)
        assert _open() == self._descriptors
        return told

    def _play(self, data: bytes, clients: list[_Client]) -> None:
        places: dict[int, _Client] = {}
        for step in data.split(_SEPARATOR)[:_MOST_STEPS]:
            who, sent = (step[0], step[1:]) if step else (0, b"")
            if who >= 0xF0:
                for _ in range(_CROWD):
                    clients.append(_Client(self._path))
                    self._reactor.turn(0)
                clients[-1].send(sent)
            elif who >= 0xE0:
                self._clock.now += who & 0xF
            elif who >= 0xD0:
                self._supervisor.answer()
            else:
                client = places.get(who % _PLACES)
                if client is None or client.sock.fileno() < 0:
                    client = places[who % _PLACES] = _Client(self._path)
                    clients.append(client)
                client.send(sent)
                if who & 0x80:
                    client.read()
                    client.sock.close()
            self._reactor.turn(0)

    def _end(self, clients: list[_Client]) -> object:
        for _ in range(len(clients) + 2):  # one is accepted a turn
            self._reactor.turn(0)
        self._supervisor.answer()
        self._clock.now += _PATIENCE
        self._reactor.turn(0)
        self._supervisor.answer()
        self._reactor.turn(0)
        told = []
        for client in clients:
            if client.sock.fileno() < 0:
                continue
            assert client.read(), "a client is kept"
            *lines, rest = client.said.split(b"\n")
            assert rest == b""
            answers = [parse_message(line) for line in lines]
            assert all("waiting" in answer for answer in answers[:-1])
            told.append(tuple(answers[-1]) if answers else ())
        assert self._server is not None
        assert not self._server._clients
        return tuple(told[:4])


def _answered(data: bytes) -> object:
    """Whatever a daemon says, a command shows it as lines of which none acts on a terminal, or refuses it."""
    ours, theirs = socket.socketpair()
    told: list[str] = []
    with closing(ours), closing(theirs):
        theirs.setblocking(False)
        theirs.send(data[: 1 << 16])
        theirs.shutdown(socket.SHUT_WR)
        answer = answer_from(ours, None, told.append)
    if answer is None:
        return "nothing"
    for read in (read_fault, lambda message: read_text(message, "reloaded")):
        with suppress(InvalidMessage):
            cast(Any, read)(answer)
    status = read_status(answer)
    text = shown("\n".join(status_lines(status)))
    assert TERMINAL.isdisjoint(text)
    return status["state"][:9]


_STATUS: Final = (
    b'{"name":"app","state":"running","pid":7,"uptime":12.5,"generation":1,"reloading":false,'
    b'"endpoints":["localhost:80"],"ready":1,"wanted":1,"restarts":0,"last_error":"","last_error_at":null,'
    b'"checks":[{"name":"db","gates":true,"asked":2,"failing":1,"why":"down"}],'
    b'"log":"/var/log/app.log","warnings":[],"workers":[{"pid":8,"number":1,"generation":1,"state":"ready",'
    b'"uptime":3.5,"memory":1000000,"cpu":0.5,"connections":3,"accepted":7,"tree":{"name":"app",'
    b'"state":"running","restarts":0,"summary":"","children":[{"name":"server","state":"running","restarts":1,'
    b'"summary":"x","children":[]}]}}]}\n'
)
_RELOAD: Final = b'{"command":"reload","progress":true}\n'
_STATUS_ASKED: Final = b'{"command":"status"}\n'

TARGETS: Final = (
    Target(
        "control socket",
        _Server(),
        (
            b"\x01" + _STATUS_ASKED,
            b"\x01" + _STATUS_ASKED[:9] + b"\0\x02" + _RELOAD + b"\0\x01" + _STATUS_ASKED[9:] + b"\0\xd0",
            b"\x01" + _RELOAD + b"\0\x81\0\xd0\0\x02" + _STATUS_ASKED,
            b'\x03{"command":"scale","workers":3,"yes":true}\n\0\xe9\0\xd0',
            b"\xf0\0\xf0\0\xf0\0\xf0\0\xf0\0\x01" + _STATUS_ASKED + b"\0\xeb\0\xeb",
        ),
        (
            _STATUS_ASKED,
            _RELOAD,
            b'{"command":"upgrade"}\n',
            b'{"command":"reopen"}\n',
            b'{"command":"scale","workers":2}\n',
            b'"progress":true',
            b"\0\x01",
            b"\0\x82",
            b"\0\xd0",
            b"\0\xe8",
            b"\0\xf0",
            b"\n",
        ),
        weight=2.0,
    ),
    Target(
        "control answer",
        _answered,
        (
            _STATUS,
            b'{"waiting":"a reload"}\n{"reloaded":"app was reloaded","warnings":[]}\n',
            b'{"error":"too many clients at once"}\n',
            b'{"fault":{"lines":["no"],"status":70}}\n',
        ),
        (
            b'{"waiting":"',
            b'"error":',
            b'"workers":[]',
            b'"tree":{',
            b'"children":[]',
            b'"\\u001b]0;',
            b'"\\n"',
            b"\n",
            b"1e999",
            b"null",
            b"-1",
        ),
        (InvalidMessage,),
    ),
)
