"""Every file under examples/ is run for real, with free ports in place of its own."""

import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from xmlrpc.client import Fault, ServerProxy

import pytest
from websockets.sync.client import ClientConnection, connect

from tamed.testing.process import TamedProcess
from tests.patience import PATIENCE
from tests.process.clients import fetch
from tests.process.conftest import LISTENING
from tests.supervised.forked import service

EXAMPLES = Path(__file__).parents[2] / "examples"
POEMS = {file.stem: file.read_bytes() for file in (EXAMPLES / "poetry").iterdir()}
ECSTASY, SCIENCE = POEMS["ecstasy"], POEMS["science"]

PROGRAMS = {
    "chat/chat.py",
    "fastpoetry/fastpoetry.py",
    "getpoetry/getpoetry.py",
    "opentelemetry/traced.py",
    "poetryproxy/poetryproxy.py",
    "protocols/protocols.py",
    "twopoems/twopoems.py",
    "twoservices/twoservices.py",
    "verse/verse.toml",
}
ELSEWHERE = ("exec/", "hooks/", "postgresql/", "sentry/", "twisted/")  # run by the tests of what they show
GUIDES = {  # run by the tests that follow their pages
    *("certificates/members.py", "logs/recital.py"),
    *("store/client.py", "store/store.py", "udp/count.py", "udp/counter.py"),
}
MODULES = {"protocols/poetry_http.py", "protocols/poetry_xmlrpc.py"}  # of a program


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """Copy the examples, with port 0 for every fixed one, on one address only."""
    folder = tmp_path / "examples"
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in PROGRAMS:
        file = folder / name
        text, count = re.subn(r"(localhost:|port = )1\d{4}", r"\g<1>0", file.read_text("utf-8"))
        assert count, f"{file} has no port"
        file.write_text(text, "utf-8")
    return folder


@contextmanager
def run(target: Path, servers: int) -> Iterator[list[str]]:
    """Run an example, and give the addresses of its servers in the order of the log."""
    with service(target, cwd=target.parent) as process:
        addresses: list[str] = []
        while len(addresses) < servers:
            address = process.expect(LISTENING)[1]
            if not address.startswith("[::1]"):  # localhost has that one too, on some machines
                addresses.append(address)
        yield addresses


def get_poems(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run the client."""
    command = [sys.executable, str(EXAMPLES / "getpoetry" / "getpoetry.py"), *arguments]
    return subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False)


def test_fast_poetry_is_an_application_file(examples: Path) -> None:
    """It serves the poem of the folder beside its own."""
    with run(examples / "fastpoetry" / "fastpoetry.py", 1) as (address,):
        assert fetch(address) == ECSTASY


def test_verse_serves_two_poems(examples: Path) -> None:
    """Each on a port of its own."""
    with run(examples / "verse" / "verse.toml", 2) as addresses:
        assert [fetch(address) for address in addresses] == [ECSTASY, SCIENCE]


def test_two_poems_are_an_application_file(examples: Path) -> None:
    """As the deployment file is; the client gets both at once."""
    with run(examples / "twopoems" / "twopoems.py", 2) as addresses:
        done = get_poems(*addresses)
    assert (done.returncode, done.stdout) == (0, ECSTASY + SCIENCE)


def test_the_proxy_keeps_the_poem(examples: Path) -> None:
    """It has it still when the upstream is gone; without one it serves nothing, and goes on."""
    file = examples / "poetryproxy" / "poetryproxy.py"
    with ExitStack() as life:
        (upstream,) = life.enter_context(run(examples / "fastpoetry" / "fastpoetry.py", 1))
        port = upstream.rpartition(":")[2]
        file.write_text(file.read_text("utf-8").replace("port=10000", f"port={port}"), "utf-8")
        with run(file, 1) as (proxy,):
            assert fetch(proxy) == ECSTASY
            life.close()
            assert fetch(proxy) == ECSTASY
    with run(file, 1) as (proxy,):
        assert [fetch(proxy) for _ in range(2)] == [b"", b""]


def test_each_worker_is_an_instance_whose_spans_are_sent(examples: Path) -> None:
    """The provider is made after the fork, so no span is lost, of a preloaded application either."""
    file = examples / "opentelemetry" / "traced.py"
    with TamedProcess("run", "--workers", "2", "--preload", file, cwd=file.parent) as process:
        address = process.expect(LISTENING)[1]
        process.expect("traced is ready")
        assert fetch(address) == ECSTASY
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
    assert len(set(re.findall(r'"service.instance.id": "(\S+)"', process.output))) == 2
    assert sorted(re.findall(r'"name": "(\w+)"', process.output)) == ["recite", "start", "start"]


def test_a_chat_shares_its_room_with_a_background_job(examples: Path) -> None:
    """What one client says all hear, and the job says how many there are."""
    with run(examples / "chat" / "chat.py", 1) as (address,), ExitStack() as opened:
        assert b"<title>Chat</title>" in by_hand(address, b"GET / HTTP/1.0\r\n\r\n")
        ann, bob = (opened.enter_context(connect(f"ws://{address}/room", proxy=None)) for _ in range(2))
        hear(ann, "* 2 in the room")
        bob.send("busy old fool")
        for client in (ann, bob):
            hear(client, "busy old fool")
        bob.close()
        hear(ann, "* 1 in the room")


def hear(client: ClientConnection, wanted: str) -> None:
    """Read what is said in the chat, until it is this."""
    while client.recv(PATIENCE) != wanted:
        pass


def test_one_service_calls_another(examples: Path) -> None:
    """What one has heard of is what the other has done."""
    with run(examples / "twoservices" / "twoservices.py", 2) as (recital, reviews):
        assert fetch(reviews) == b"The Ecstasy: nobody has heard it yet.\n"
        assert fetch(recital) == ECSTASY
        assert fetch(reviews) == b"The Ecstasy: heard 1 times, and still good.\n"


def test_a_poem_is_served_by_four_protocols(examples: Path) -> None:
    """Each with a client of its own."""
    with run(examples / "protocols" / "protocols.py", 3) as (tcp, udp, http):
        assert fetch(tcp) == SCIENCE
        assert by_udp(udp) == SCIENCE
        with ServerProxy(f"http://{http}/RPC2") as proxy:
            assert proxy.poem() == SCIENCE.decode()
            with pytest.raises(Fault, match="there is no method 'novel'"):
                proxy.novel()
        for request, status in (
            (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"200"),
            (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", b"405"),
            (b"GET /novel HTTP/1.0\r\n\r\n", b"404"),
            (b"POST /RPC2 HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"x" * 70000, b"413"),
            (b"rubbish\r\n\r\n", b"400"),
        ):
            assert by_hand(http, request).startswith(b"HTTP/1.1 " + status)


def test_a_client_may_leave_at_every_byte_of_its_request(examples: Path) -> None:
    """The next one is answered all the same."""
    request = b"POST /RPC2 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"
    with run(examples / "protocols" / "protocols.py", 3) as (_, _, http):
        for length in range(len(request)):
            host, _, port = http.rpartition(":")
            with socket.create_connection((host, int(port)), PATIENCE) as client:
                client.sendall(request[:length])
        assert by_hand(http, b"GET / HTTP/1.0\r\n\r\n").endswith(SCIENCE)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_reads_the_poem_over_http(examples: Path) -> None:
    """Twice over one connection, and the head of it alone."""
    with run(examples / "protocols" / "protocols.py", 3) as (_, _, http):
        url = f"http://{http}/"
        command = ["curl", "--silent", "--show-error", "--fail", "--max-time", "20"]
        twice = subprocess.run([*command, url, url, "-w", "%{num_connects}"], capture_output=True, check=True)
        assert twice.stdout == SCIENCE + b"1" + SCIENCE + b"0"
        head = subprocess.run([*command, "--head", url], capture_output=True, check=True).stdout
        assert f"content-length: {len(SCIENCE)}" in head.decode().lower()


@pytest.mark.skipif(shutil.which("nc") is None, reason="nc is not installed")
def test_nc_reads_the_poem_over_tcp_and_udp(examples: Path) -> None:
    """As the head of the example says."""
    with run(examples / "protocols" / "protocols.py", 3) as (tcp, udp, _):
        for options, address in (([], tcp), (["-u", "-w1"], udp)):
            host, _, port = address.rpartition(":")
            done = subprocess.run(
                ["nc", *options, host, port], input=b"\n", capture_output=True, timeout=PATIENCE, check=True
            )
            assert done.stdout == SCIENCE


def test_the_client_says_what_it_could_not_get(examples: Path) -> None:
    """On a line of its own for each server; the poems that there are go to stdout all the same."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = f"127.0.0.1:{taken.getsockname()[1]}"
    with run(examples / "fastpoetry" / "fastpoetry.py", 1) as (address,):
        done = get_poems(closed, address)
    assert (done.returncode, done.stdout) == (1, ECSTASY)
    lines = dict(line.split("  ", 1) for line in done.stderr.decode().splitlines())
    assert {server.strip(): state.strip() for server, state in lines.items()} == {
        address: f"{len(ECSTASY)} bytes, done",
        closed: "failed after 0 bytes: Connection refused",
    }


def test_the_client_refuses_what_is_no_address() -> None:
    """Before it connects anywhere."""
    done = get_poems("localhost")
    assert done.returncode == 2
    assert "expected HOST:PORT or unix:PATH, got 'localhost'" in done.stderr.decode()


def test_every_example_is_run_here() -> None:
    """A new example needs a test above."""
    files = {file.relative_to(EXAMPLES).as_posix() for file in EXAMPLES.rglob("*.*") if file.is_file()}
    others = {name for name in files if name.startswith(ELSEWHERE)}
    assert {name for name in files - others if name.endswith((".py", ".toml"))} == PROGRAMS | MODULES | GUIDES


def by_udp(address: str) -> bytes:
    """Send a packet, and return the one that comes back."""
    host, _, port = address.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE)
        client.sendto(b"\n", (host, int(port)))
        return client.recv(65536)


def by_hand(address: str, request: bytes) -> bytes:
    """Send a request, and return all that comes."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), PATIENCE) as client, client.makefile("rb") as answer:
        client.sendall(request)
        return answer.read()
