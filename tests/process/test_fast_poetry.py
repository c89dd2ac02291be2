"""Fast poetry in every form: what runs it, where it listens, and what a client gets."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trustme

from tamed.testing.process import TamedProcess
from tests.patience import PATIENCE
from tests.process.clients import SHIPPED, dial, fetch, fetch_tls, read_all
from tests.process.conftest import LISTENING, READY, serving

APPLICATION = """
import logging
from pathlib import Path
from tamed import Application, Service, StreamServer

class Poetry(Service):
    async def start(self):
        self.poem = Path("poem.txt").read_bytes()

poetry = Poetry("poetry")

async def recite(reader, writer):
    writer.write(poetry.poem)

application = Application("fastpoetry", poetry, StreamServer("127.0.0.1:0", recite))
"""


def has_ipv6() -> bool:
    """Whether this machine has an IPv6 loopback."""
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
    return True


def test_the_plugin_serves_a_poem(poem: Path) -> None:
    """The log shows the port chosen for port 0, and a line for each connection with byte count and peer."""
    with TamedProcess("run", "fastpoetry", "--port", "0", "--poem", poem) as process:
        address = serving(process)
        with dial(address) as client:
            host, port = client.getsockname()
            assert read_all(client) == poem.read_bytes()
        process.expect(rf"fastpoetry: sending {len(poem.read_bytes())} bytes of poetry to {host}:{port}$")
        process.signal(signal.SIGINT)
        assert process.wait() == 0
    assert process.output.count("sending") == 1


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_without_a_poem_it_serves_the_one_that_ships_with_it(loop: str) -> None:
    """On either event loop; a thousand clients get the same."""
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    arguments = ["run", "--loop", loop, "--log-level", "fastpoetry=warning", "fastpoetry", "-p", "0"]
    with TamedProcess(*arguments, env={"TAMED_LOG_FORMAT": "plain"}) as process:
        address = process.expect(LISTENING)[1]
        assert {fetch(address) for _ in range(100)} == {SHIPPED}
        process.signal(signal.SIGINT)
        assert process.wait() == 0
    assert "sending" not in process.output


def test_an_application_file_is_served(tmp_path: Path, poem: Path) -> None:
    """It runs in the folder that the command was called in."""
    (tmp_path / "fastpoetry.py").write_text(APPLICATION)
    with TamedProcess("run", "fastpoetry.py", cwd=tmp_path) as process:
        assert fetch(serving(process)) == poem.read_bytes()


def test_a_variable_in_a_package_is_served(tmp_path: Path, poem: Path) -> None:
    """The package is found in the current folder, or where it is installed."""
    package = tmp_path / "verse"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "server.py").write_text(APPLICATION)
    with TamedProcess("run", "verse.server:application", cwd=tmp_path) as process:
        assert fetch(serving(process)) == poem.read_bytes()


def test_a_deployment_serves_two_poems_on_two_ports(tmp_path: Path, poem: Path) -> None:
    """Relative paths in it start beside it, also those in endpoints, wherever it is called from."""
    (tmp_path / "verse.toml").write_text(
        '[log]\nlevel = "info"\n'
        '[services.ecstasy]\nplugin = "fastpoetry"\nport = 0\n'
        '[services.other]\nplugin = "fastpoetry"\npoem = "poem.txt"\nlisten = "unix:verse.sock?mode=600"\n'
    )
    with TamedProcess("run", tmp_path / "verse.toml", cwd=Path("/")) as process:
        ecstasy = process.expect(LISTENING)[1]
        other = process.expect(LISTENING)[1]
        process.expect("tamed: verse is ready$")
        assert other == f"unix:{tmp_path}/verse.sock"
        assert fetch(ecstasy) == SHIPPED
        assert fetch(other) == poem.read_bytes()
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
    assert not (tmp_path / "verse.sock").exists()


def test_a_poem_is_served_over_a_unix_socket(tmp_path: Path, poem: Path) -> None:
    """The peer is named by its process; the socket has its mode, and is gone afterwards."""
    file = tmp_path / "poem.sock"
    endpoint = f"unix:{file}?mode=660"
    with TamedProcess("run", "fastpoetry", "--poem", poem, "--listen", endpoint) as process:
        assert fetch(serving(process)) == poem.read_bytes()
        assert file.stat().st_mode & 0o777 == 0o660
        process.expect(rf"sending \d+ bytes of poetry to unix.*{os.getpid()}")
        process.signal(signal.SIGINT)
        assert process.wait() == 0
    assert not file.exists()


def test_a_poem_is_served_over_tls(tmp_path: Path, long_poem: Path) -> None:
    """To its last byte, also one of 16 MB."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    endpoint = f"tls://127.0.0.1:0?cert={tmp_path}/server.pem"
    with TamedProcess("run", "fastpoetry", "--poem", long_poem, "--listen", endpoint) as process:
        assert fetch_tls(serving(process), tmp_path / "ca.pem") == long_poem.read_bytes()


@pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6 here")
def test_a_poem_is_served_over_ipv6() -> None:
    """By ``--iface``, and by an endpoint; several of them at once."""
    listen = ["--listen", "[::1]:0", "--listen", "127.0.0.1:0"]
    with TamedProcess("run", "fastpoetry", *listen) as process:
        addresses = [process.expect(LISTENING)[1] for _ in range(2)]
        assert [fetch(address) for address in addresses] == [SHIPPED, SHIPPED]
        assert addresses[0].startswith("[::1]:")
    with TamedProcess("run", "fastpoetry", "--iface", "::1", "--port", "0") as process:
        assert fetch(serving(process)) == SHIPPED


@pytest.fixture
def activated(tmp_path: Path, poem: Path) -> Iterator[tuple[Path, "subprocess.Popen[str]"]]:
    """Start fast poetry as systemd would: when somebody connects to a socket that systemd has bound."""
    program = shutil.which("systemd-socket-activate")
    if program is None:
        pytest.skip("systemd-socket-activate is not installed")
    file = tmp_path / "activated.sock"
    passed = [f"-E{name}" for name in os.environ if name.startswith(("PYTHON", "COV"))]
    command = ["run", "fastpoetry", "--poem", str(poem), "--listen", "systemd://verse"]
    with subprocess.Popen(
        [program, "-l", str(file), "--fdname=verse", *passed, sys.executable, "-m", "tamed", *command],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert "Listening on" in process.stderr.readline()
        yield file, process
        process.kill()


def test_a_poem_is_served_on_a_socket_of_systemd(
    activated: tuple[Path, "subprocess.Popen[str]"], poem: Path
) -> None:
    """The client that made systemd start it gets the poem too, and the socket file stays systemd's."""
    file, process = activated
    with closing(dial(f"unix:{file}")) as first:
        assert read_all(first) == poem.read_bytes()
    assert fetch(f"unix:{file}") == poem.read_bytes()
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0
    assert file.exists()
    assert process.stderr is not None
    told = process.stderr.read()
    assert f"listening on unix:{file}" in told
    assert READY.rstrip("$") in told
