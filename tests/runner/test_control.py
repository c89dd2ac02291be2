"""The control socket and its clients."""

import json
import os
import resource
import socket
import stat
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tamed.control.instances import ask
from tamed.errors import MissingInput, SystemRefused, TamedError, Unavailable
from tamed.supervisor.control import ControlServer
from tamed.supervisor.operations import Answer
from tests.patience import PATIENCE
from tests.runner.world import HandReactor


class ControlApi:
    """Records the requests, so that the test can answer them."""

    def __init__(self) -> None:
        self.asked: list[tuple[dict[str, Any], Answer]] = []

    def __call__(self, request: dict[str, Any], answer: Answer) -> None:
        self.asked.append((request, answer))


class Served:
    """A server whose loop the test runs step by step, and its clients."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reactor = HandReactor()
        self.api = ControlApi()
        self.server = ControlServer(path, self.reactor, self.api, warnings=lambda: ["odd"])

    @contextmanager
    def client(self, data: bytes = b"") -> Iterator[socket.socket]:
        """Connect a client, send data, and let the server read it."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(str(self.path))
            self.reactor.turn(0)
            if data:
                sock.sendall(data)
                self.reactor.turn(0)
            yield sock


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A control server."""
    made = Served(tmp_path / "control.sock")
    with closing(made.reactor), closing(made.server):
        yield made


def test_only_the_owner_may_ask(served: Served) -> None:
    """No other user can connect, and closing the server removes the file."""
    assert stat.S_IMODE(served.path.stat().st_mode) == 0o600


def test_its_file_goes_with_it(tmp_path: Path) -> None:
    """Closing works also if the file was removed before."""
    for is_gone in (False, True):
        made = Served(tmp_path / "control.sock")
        if is_gone:
            made.path.unlink()
        with made.client() if not is_gone else closing(made.reactor):
            made.server.close()
        made.reactor.close()
        assert not made.path.exists()


def test_a_request_is_answered_and_the_connection_closed(served: Served) -> None:
    """The answer is one line, and includes the warnings for any request."""
    with served.client(b'{"command": "status"}\n') as client:
        ((request, answer),) = served.api.asked
        assert request == {"command": "status"}
        answer({"state": "running"})
        assert client.makefile("rb").read() == b'{"state": "running", "warnings": ["odd"]}\n'


def test_a_request_may_come_in_pieces(served: Served) -> None:
    """A request is served when its line is complete."""
    with served.client(b'{"command":') as client:
        assert served.api.asked == []
        client.sendall(b' "status"}\n')
        served.reactor.turn(0)
        assert served.api.asked[0][0] == {"command": "status"}


@pytest.mark.parametrize(
    "line",
    [
        b"status\n",
        b"[1]\n",
        b"\xff\n",
        b"[" * 3000 + b"\n",
        b'{"command": NaN}\n',
        b'{"command": ' + b"9" * 401 + b"}\n",
        b"{" + b" " * 65536,
    ],
    ids=["text", "array", "bytes", "deep", "nan", "number", "long"],
)
def test_what_is_no_request_is_answered_with_an_error(served: Served, line: bytes) -> None:
    """The invalid request is not passed on."""
    with served.client(line) as client:
        while served.server._clients:
            served.reactor.turn(0)
        (told,) = json.loads(client.makefile("rb").read()).items()
        assert told[0] == "error"
        assert told[1].startswith("not a request: ")
    assert served.api.asked == []


def test_a_client_that_goes_away_is_forgotten(served: Served) -> None:
    """A later answer to a disconnected client is dropped."""
    with served.client(b'{"command": "status"}\n'):
        pass
    served.reactor.turn(0)
    served.api.asked[0][1]({"state": "running"})
    assert served.server._clients == {}


def test_a_client_that_is_not_there_for_its_answer_is_dropped(served: Served) -> None:
    """The answer is dropped also if the disconnection was not noticed yet."""
    with served.client(b'{"command": "status"}\n'):
        pass
    served.api.asked[0][1]({"state": "running"})
    assert served.server._clients == {}


def test_a_client_that_says_nothing_is_dropped(served: Served) -> None:
    """A client without a request is dropped after a timeout."""
    with served.client() as client:
        served.reactor.advance(9.75)
        assert len(served.server._clients) == 1
        served.reactor.advance(0.25)
        assert client.recv(1) == b""


def test_there_are_not_too_many_clients(served: Served) -> None:
    """A client beyond the limit gets an error."""
    clients = []
    for _ in range(65):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(PATIENCE)
        client.connect(str(served.path))
        clients.append(client)
        served.reactor.turn(0)
    assert clients[-1].makefile("rb").read() == b'{"error": "too many clients at once"}\n'
    assert len(served.server._clients) == 64
    for client in clients:
        client.close()


def test_a_connection_that_is_gone_before_it_is_taken_is_no_matter(served: Served) -> None:
    """Accepting a connection that was aborted has no effect."""
    served.server._accept()
    assert served.server._clients == {}


def test_what_was_left_behind_is_replaced(tmp_path: Path) -> None:
    """A new supervisor replaces the socket of one that was killed."""
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
    made = Served(path)
    with made.client(b"{}\n"):
        assert made.api.asked
        made.server.close()
    made.reactor.close()


def test_a_path_that_cannot_be_had_is_an_error(tmp_path: Path) -> None:
    """The error names the path."""
    with closing(HandReactor()) as reactor, pytest.raises(TamedError, match=r"^cannot listen on .*none/a: "):
        ControlServer(tmp_path / "none" / "a", reactor, ControlApi())


def test_a_path_that_is_none_is_a_mistake(tmp_path: Path) -> None:
    """An invalid path is an error of the program, not of the system; no socket is left open."""
    with closing(HandReactor()) as reactor, pytest.raises(ValueError, match="null"):
        ControlServer(tmp_path / "a\0b", reactor, ControlApi())


# Asking.


@contextmanager
def answering(path: Path, answer: bytes) -> Iterator[list[bytes]]:
    """Answer the first client with these bytes, in a thread; yield its request."""
    asked: list[bytes] = []

    def serve() -> None:
        client, _ = listening.accept()
        with client, client.makefile("rb") as stream:
            asked.append(stream.readline())
            client.sendall(answer)

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        yield asked
        thread.join()


def test_a_question_is_answered(tmp_path: Path) -> None:
    """The answer is an object on a line, as the request is."""
    path = tmp_path / "control.sock"
    with answering(path, b'{"state": "running"}\n') as asked:
        assert ask(path, {"command": "status"}) == {"state": "running"}
    assert json.loads(asked[0]) == {"command": "status"}


def test_an_answer_may_be_an_error(tmp_path: Path) -> None:
    """An error answer is raised with its text."""
    path = tmp_path / "control.sock"
    with (
        answering(path, b'{"error": "unknown command"}\n'),
        pytest.raises(SystemRefused, match="unknown command"),
    ):
        ask(path, {"command": "dance"})


def test_there_may_be_no_answer(tmp_path: Path) -> None:
    """There is no answer if the supervisor ends meanwhile."""
    path = tmp_path / "control.sock"
    with answering(path, b""), pytest.raises(Unavailable, match="closed the connection without an answer"):
        ask(path, {"command": "status"})


def test_the_supervisor_may_end_with_the_request_unread(tmp_path: Path) -> None:
    """The connection is reset then; that is no other case."""
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        with ThreadPoolExecutor() as pool:
            asked = pool.submit(ask, path, {"command": "status"}, PATIENCE)
            taken, _ = listening.accept()
            with taken:
                taken.recv(1, socket.MSG_PEEK)
            with pytest.raises(Unavailable, match="closed the connection without an answer"):
                asked.result(PATIENCE)


def test_an_answer_is_not_waited_for_for_ever(served: Served) -> None:
    """A suspended supervisor does not block its clients."""
    with pytest.raises(SystemRefused, match=r"no answer within 0\.01 seconds"):
        ask(served.path, {"command": "status"}, timeout=0.01)


def test_without_a_socket_there_is_nobody_to_ask(tmp_path: Path) -> None:
    """The error names the path."""
    with pytest.raises(MissingInput, match=r"control\.sock"):
        ask(tmp_path / "control.sock", {"command": "status"})


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Leave this process no descriptor inside the ``with``, beside those that it has."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_without_descriptors_one_client_is_served_at_a_time_and_nothing_spins(served: Served) -> None:
    """Other clients wait in the kernel's queue until the reserved descriptor is free again."""
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(3)]
        for client in clients:
            client.settimeout(PATIENCE)
            client.connect(str(served.path))
            client.sendall(b'{"command": "status"}\n')
        with no_descriptors():
            for number, client in enumerate(clients, 1):
                for _ in range(4):
                    served.reactor.turn(0)
                begun = time.monotonic()
                served.reactor.turn(0.2)
                assert time.monotonic() - begun > 0.15
                assert len(served.api.asked) == number
                served.api.asked[-1][1]({"state": "running"})
                assert json.loads(client.recv(100))["state"] == "running"


def test_accepting_is_tried_again_after_a_while(served: Served) -> None:
    """Accepting is tried again although no client has disconnected."""
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2)]
        for client in clients:
            client.connect(str(served.path))
        with no_descriptors():
            for _ in range(4):
                served.reactor.turn(0)
            assert len(served.server._clients) == 1
        served.reactor.turn(0)
        assert len(served.server._clients) == 1
        served.reactor.advance(1.25)
        assert len(served.server._clients) == 2
