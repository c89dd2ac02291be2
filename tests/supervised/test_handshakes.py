"""Daemons that speak TLS, and clients that never finish a handshake."""

import re
import resource
import selectors
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trustme

from tests.conftest import WITHOUT_UVLOOP
from tests.patience import PATIENCE
from tests.supervised.daemon import POEM, Daemon, Tamed

pytestmark = pytest.mark.unmeasured

MANY = 3000
MOST_MEMORY = 300 << 20
"""Bytes: more than the 500 unfinished handshakes take that there may be, far less than those of all."""

LOOPS = ("asyncio", pytest.param("uvloop", marks=WITHOUT_UVLOOP))
HALF_A_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


def serve(tamed: Tamed, authority: trustme.CA, *options: str, more: Sequence[str] = ()) -> Daemon:
    """Start a daemon that serves the poem over TLS."""
    pem = tamed.folder / "server.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(pem))
    listen = f"tls://127.0.0.1:0?cert={pem}"
    return tamed.start(*options, "fastpoetry", "--poem", tamed.poem, "--listen", listen, *more)


class Crowd:
    """Clients that send ``words`` and then nothing; a disconnected one connects again at once."""

    def __init__(self, port: int, count: int, words: bytes) -> None:
        self._address = ("127.0.0.1", port)
        self._words = words
        self._selector = selectors.DefaultSelector()
        self._is_over = threading.Event()
        for _ in range(count):
            self._come()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        """Disconnect all of them."""
        self._is_over.set()
        self._thread.join()
        for key in tuple(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    def _come(self) -> None:
        client = socket.socket()
        client.setblocking(False)
        with suppress(BlockingIOError):
            client.connect(self._address)
        self._selector.register(client, selectors.EVENT_WRITE if self._words else selectors.EVENT_READ)

    def _run(self) -> None:
        while not self._is_over.is_set():
            for key, mask in self._selector.select(0.1):
                client = key.fileobj
                assert isinstance(client, socket.socket)
                if mask & selectors.EVENT_WRITE:
                    with suppress(OSError):
                        client.send(self._words)
                    self._selector.modify(client, selectors.EVENT_READ)
                else:
                    self._selector.unregister(client)
                    client.close()
                    self._come()


@contextmanager
def crowd(port: int, count: int, words: bytes = b"") -> Iterator[Crowd]:
    """Connect many clients that never finish a handshake."""
    made = Crowd(port, count, words)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(autouse=True)
def _many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < 2 * MANY:
        pytest.skip(f"at most {hard} descriptors are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2 * MANY, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def read(daemon: Daemon, authority: trustme.CA) -> bytes:
    """Read the poem as a correct client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    authority.configure_trust(context)
    with (
        socket.create_connection(("127.0.0.1", daemon.port), timeout=PATIENCE) as sock,
        context.wrap_socket(sock, server_hostname="localhost") as secure,
    ):
        return secure.makefile("rb").read()


def memory_of(pid: int) -> int:
    """Return the resident memory of a process, in bytes."""
    found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


@pytest.mark.parametrize(
    ("loop", "words"),
    [
        pytest.param("asyncio", b"", id="silent-asyncio", marks=pytest.mark.long),
        pytest.param("uvloop", b"", id="silent-uvloop", marks=WITHOUT_UVLOOP),
        pytest.param("asyncio", HALF_A_HELLO, id="half a hello-asyncio", marks=pytest.mark.long),
        pytest.param(
            "uvloop", HALF_A_HELLO, id="half a hello-uvloop", marks=[WITHOUT_UVLOOP, pytest.mark.long]
        ),
    ],
)
def test_thousands_who_do_not_finish_a_handshake(tamed: Tamed, loop: str, words: bytes) -> None:
    """They need little memory, and other clients are served although each connects again at once."""
    authority = trustme.CA()
    daemon = serve(tamed, authority, "--loop", loop)
    [worker] = daemon.workers()
    with crowd(daemon.port, MANY, words):
        for _ in range(2):
            assert read(daemon, authority) == POEM
            assert memory_of(worker) < MOST_MEMORY
        daemon.expect_log(
            "has aborted the unfinished TLS handshake of 127.0.0.1:[0-9]+ to make room for others"
        )
        daemon.expect_log("has aborted [0-9]+ more unfinished TLS handshakes")
    assert read(daemon, authority) == POEM
    daemon.stop()


@pytest.mark.parametrize("loop", [LOOPS[0], pytest.param("uvloop", marks=[WITHOUT_UVLOOP, pytest.mark.long])])
def test_silent_clients_make_room_at_the_limit_of_connections(tamed: Tamed, loop: str) -> None:
    """Also where fewer connections are allowed than unfinished handshakes."""
    authority = trustme.CA()
    daemon = serve(tamed, authority, "--loop", loop, more=("--max-connections", "20"))
    with crowd(daemon.port, 100):
        assert read(daemon, authority) == POEM
    daemon.stop()


@pytest.mark.parametrize("loop", [pytest.param("asyncio", marks=pytest.mark.long), LOOPS[1]])
def test_silent_clients_make_room_where_descriptors_are_short(tamed: Tamed, loop: str) -> None:
    """Other clients are served although there are fewer descriptors than unfinished handshakes."""
    authority = trustme.CA()
    daemon = serve(tamed, authority, "--loop", loop, "--max-files", "80")
    with crowd(daemon.port, 200):
        assert read(daemon, authority) == POEM
    daemon.stop()
