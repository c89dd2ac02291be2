import signal
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from tamed.testing.process import TamedProcess
from tests.builtin.clients import needs, run, target
from tests.passwords import cheap_hash
from tests.supervised.forked import service

LOOPBACK = ("--allow", "127.0.0.0/8")
POEM = b"Busy old fool, unruly sun\n"


def socks(*options: str | Path) -> TamedProcess:
    """Return a process that serves SOCKS on a free port."""
    return service("socks", "--port", "0", "--iface", "127.0.0.1", *options)


def address_of(process: TamedProcess) -> str:
    """Wait until it is ready; return where it listens."""
    address = process.expect(r"listening on (\S+)")[1]
    process.expect("is ready$")
    return address


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Run a web server that the clients want to reach."""
    with target() as port:
        yield port


VERSIONS = ["--socks4", "--socks4a", "--socks5", "--socks5-hostname"]


@needs("curl")
def test_curl(port: int) -> None:
    """Every version that curl speaks, and a line in the log with the bytes."""
    with socks(*LOOPBACK) as process:
        address = address_of(process)
        for flag in VERSIONS:
            done = run("curl", "-sS", flag, address, f"http://localhost:{port}/")
            assert (done.returncode, done.stdout) == (0, POEM), (flag, done)
            process.expect(rf"to \S+:{port}: \d+ bytes sent, {len(POEM) + 19} received")
        process.signal(signal.SIGTERM)
        assert process.wait() == 0


@needs("curl")
def test_curl_does_not_reach_the_machine_itself(port: int) -> None:
    """Nor the cloud's metadata, whatever the version, when nothing is said."""
    with socks() as process:
        address = address_of(process)
        for flag, host in product(VERSIONS, ["localhost", "127.0.0.1", "169.254.169.254"]):
            done = run("curl", "-sS", "-4", flag, address, f"http://{host}:{port}/")
            assert (done.returncode, done.stdout) == (97, b""), (flag, host, done)
            process.expect(r"cannot reach \S+: (this machine itself|link-local)")


@needs("curl")
def test_curl_with_a_password(port: int, tmp_path: Path) -> None:
    """The right one is let in, a wrong one and none are not."""
    users = tmp_path / "users"
    users.touch(0o600)
    users.write_text(f"john:{cheap_hash('busy old fool')}\n")
    with socks("--users", users, *LOOPBACK) as process:
        proxy = address_of(process)
        for login, status in (("john:busy%20old%20fool@", 0), ("john:unruly@", 97), ("", 97)):
            done = run("curl", "-sS", "--proxy", f"socks5h://{login}{proxy}", f"http://localhost:{port}/")
            assert done.returncode == status, done
        process.expect("wrong password for 'john'")


@needs("nc")
@pytest.mark.parametrize("version", ["4", "5"])
def test_nc(version: str, port: int) -> None:
    """It ends its own direction, and still gets the whole answer."""
    sent = b"a line\n" * 10_000
    with socks(*LOOPBACK) as process:
        proxy = address_of(process)
        done = run("nc", "-N", "-X", version, "-x", proxy, "127.0.0.1", str(port), given=sent)
        assert done.stdout == sent, done
        process.expect(f"{len(sent)} bytes sent, {len(sent)} received, .* closed$")


@needs("curl")
def test_rules_of_a_deployment_file(port: int, tmp_path: Path) -> None:
    """Patterns are written as on the command line; one is not told from the others by its place."""
    file = tmp_path / "proxy.toml"
    file.write_text(
        f"""
        [services.proxy]
        plugin = "socks"
        listen = "127.0.0.1:0"
        allow = ["*.example.org:443", "127.0.0.1:{port}"]
        deny = ["*:25"]
        """
    )
    with service(file) as process:
        done = run("curl", "-sS", "--socks5", address_of(process), f"http://127.0.0.1:{port}/")
        assert done.stdout == POEM, done


def test_mistakes_are_found_at_once(tmp_path: Path) -> None:
    """A bad pattern, and a file of users that is none, are one line each."""
    with socks("--allow", "*example.org") as process:
        assert process.wait() == 64
        assert "is not a host pattern" in process.output
    bad = tmp_path / "users"
    bad.touch(0o600)
    bad.write_text("john:secret\n")
    with socks("--users", bad) as process:
        assert process.wait() == 78
        assert "users, line 1: expected a hash such as $scrypt$" in process.output
        assert "Traceback" not in process.output
