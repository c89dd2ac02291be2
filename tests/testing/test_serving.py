import asyncio
import threading
from pathlib import Path

import pytest

from tamed.errors import ServiceFailed
from tamed.net.reply import ReplyServer
from tamed.net.stream import StreamServer
from tamed.service.service import Service
from tamed.testing.running import serving
from tests.patience import PATIENCE

POEM = b"The rest is silence.\n"


def reply(peer: str) -> bytes:
    """Recite the poem."""
    return POEM


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a line back."""
    writer.write(await reader.readline())


def test_a_service_runs_beside_a_test_without_async() -> None:
    """It can be reached while the test does something else."""
    with serving(ReplyServer("127.0.0.1:10000", reply)) as poetry:
        assert poetry.fetch() == POEM
        with poetry.connect() as client:
            assert client.recv(100) == POEM
        assert poetry.addresses == (poetry.address(),)


def test_something_can_be_sent(tmp_path: Path) -> None:
    """Here over a unix socket."""
    with serving(StreamServer(f"unix:{tmp_path}/echo.sock", echo)) as server:
        assert server.fetch(send=b"hush\n") == b"hush\n"


def test_an_answer_is_fetched_from_a_server_that_reads_nothing(tmp_path: Path) -> None:
    """It may have closed the connection before the question is sent."""
    with serving(ReplyServer(f"unix:{tmp_path}/verse.sock", lambda _: b"rest")) as server:
        assert {server.fetch() for _ in range(100)} == {b"rest"}


def test_a_coroutine_runs_on_the_loop_of_the_service() -> None:
    """Where the service may be looked at."""

    async def thread() -> int:
        return threading.get_ident()

    with serving(ReplyServer("127.0.0.1:0", reply)) as poetry:
        assert poetry.run(thread()) not in (0, threading.get_ident())
        assert poetry.service.addresses == poetry.addresses


def test_a_failed_start_is_raised() -> None:
    """In the thread of the test."""

    class Broken(Service):
        async def start(self) -> None:
            raise ValueError("no rhyme")

    with pytest.raises(ServiceFailed, match="no rhyme"), serving(Broken("broken")):
        pytest.fail("it is not ready")


def test_a_failure_while_it_runs_is_raised_at_the_end() -> None:
    """The body goes on: it is in another thread."""
    failed = threading.Event()

    class Brittle(Service):
        async def run(self) -> None:
            failed.set()
            raise ValueError("no reason")

    went_on = False
    with pytest.raises(ServiceFailed, match="no reason"), serving(Brittle("brittle")):  # noqa: PT012
        assert failed.wait(PATIENCE)
        went_on = True
    assert went_on


def test_an_error_of_the_test_stops_the_service() -> None:
    """And is raised as it is."""
    with pytest.raises(KeyError), serving(ReplyServer("127.0.0.1:0", reply)) as poetry:
        raise KeyError(poetry.address())
    assert poetry.service.addresses == ()
