"""Logging in to the services in the box: guesses that are not verified, and connections that make room."""

import asyncio
import logging
import shutil
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from ftplib import FTP, all_errors, error_perm
from pathlib import Path

import pytest

from tamed.builtin._login import LoginGate, PendingLogins, TooManyFailures
from tamed.net.address_limit import client_network
from tamed.passwords import PasswordFile
from tests.passwords import cheap_hash
from tests.patience import PATIENCE
from tests.supervised.forked import service

FILTER = Path(__file__).parents[2] / "docs/builtin/fail2ban-tamed.conf"
RIGHT = "busy old fool"


@pytest.fixture(scope="module")
def hashed() -> str:
    """Return a line of a password file."""
    return f"john:{cheap_hash(RIGHT)}\n"


@pytest.fixture
def users(tmp_path: Path, hashed: str) -> Path:
    """Return a password file with one user."""
    path = tmp_path / "users"
    path.write_text(hashed)
    path.chmod(0o600)
    return path


class Clock:
    """A clock that stands still until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Return a clock."""
    return Clock()


@pytest.fixture
def gate(users: Path, clock: Clock) -> LoginGate:
    """Return a gate that tells failures at once."""
    file = PasswordFile(users)
    file.load()
    return LoginGate(file, logging.getLogger("gate"), hold=0.0, now=clock)


@pytest.mark.anyio
async def test_failures_double_the_wait(gate: LoginGate, clock: Clock) -> None:
    """Each failure of a network closes the gate to it for twice as long, up to a limit; others are free."""
    for wait in (0.5, 1, 2, 4, 8, 16, 30, 30):
        assert not await gate.verify("john", "unruly sun", "192.0.2.1")
        clock.now += wait - 0.01
        with pytest.raises(TooManyFailures):
            await gate.verify("john", RIGHT, "192.0.2.1")
        clock.now += 0.02
    assert await gate.verify("john", RIGHT, "192.0.2.2")
    assert await gate.verify("john", RIGHT, "192.0.2.1")


@pytest.mark.anyio
async def test_a_success_and_a_long_while_begin_anew(gate: LoginGate, clock: Clock) -> None:
    """After a success, or ten minutes without a failure, the gate closes for the first wait again."""
    for step in (lambda: gate.verify("john", RIGHT, "h"), None):
        await gate.verify("john", "a", "h")
        clock.now += 0.6
        await gate.verify("john", "b", "h")
        clock.now += 1.1 if step else 601
        if step:
            assert await step()
        await gate.verify("john", "c", "h")
        clock.now += 0.6
        assert not await gate.verify("john", "d", "h")
        clock.now += 601


@pytest.mark.anyio
async def test_guesses_at_once_are_one_guess(gate: LoginGate, caplog: pytest.LogCaptureFixture) -> None:
    """Of many guesses that one network makes at once, one is verified, and the log counts the others."""
    told = await asyncio.gather(
        *(gate.verify("john", f"guess {n}", f"2001:db8::{n:x}") for n in range(20)), return_exceptions=True
    )
    assert [each for each in told if not isinstance(each, TooManyFailures)] == [False]
    assert caplog.messages == ["login failed from 2001:db8::0 for 'john'"]


@pytest.mark.anyio
async def test_whoever_hangs_up_has_failed(
    gate: LoginGate, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A guess whose client is gone before it is verified counts, closes the gate, and is in the log."""
    guess = asyncio.ensure_future(gate.verify("john", "unruly sun", "192.0.2.1"))
    await asyncio.sleep(0)
    guess.cancel()
    with pytest.raises(asyncio.CancelledError):
        await guess
    with pytest.raises(TooManyFailures, match="try again in"):
        await gate.verify("john", RIGHT, "192.0.2.1")
    clock.now += 1
    assert not await gate.verify("x\r\nWARNING ftp: y", "unruly sun", "192.0.2.1")
    assert caplog.messages == [
        "login failed from 192.0.2.1 for 'john'",
        r"login failed from 192.0.2.1 for 'x\r\nWARNING ftp: y' (2 in a row, 1 not verified)",
    ]


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("unix", "unix"),
        ("a:b", "a:b"),
    ],
)
def test_what_counts_as_one_client(host: str, network: str) -> None:
    """A client is an IPv4 address, an IPv6 network of 64 bits, or what is no address."""
    assert client_network(host) == network


def test_the_oldest_makes_room() -> None:
    """Beyond the limits the oldest connection is dropped: of its network, or of all."""
    dropped: list[str] = []

    def enter(pending: PendingLogins, name: str, host: str) -> None:
        pending.enter(name, host, lambda: dropped.append(name))

    pending = PendingLogins(most=3, per_network=2)
    enter(pending, "a", "192.0.2.1")
    enter(pending, "b", "192.0.2.2")
    enter(pending, "c", "192.0.2.2")
    enter(pending, "d", "192.0.2.2")
    assert dropped == ["b"]
    enter(pending, "e", "192.0.2.3")
    assert dropped == ["b", "a"]
    pending.leave("c")
    pending.leave("c")
    enter(pending, "f", "192.0.2.2")
    assert dropped == ["b", "a"]
    assert len(pending) == 3


def telnet_guess(port: int, password: str) -> bytes:
    """Log in, and return what is said to it."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        sock.sendall(f"john\r\n{password}\r\nexit()\r\n".encode())
        sock.shutdown(socket.SHUT_WR)
        return sock.makefile("rb").read()


def ftp_guess(port: int, password: str) -> bytes:
    """Log in, and return the answer."""
    with FTP(timeout=PATIENCE) as client:
        client.connect("127.0.0.1", port)
        try:
            return client.login("john", password).encode()
        except all_errors as error:
            return str(error).encode()


GATED = """
name = "gated"
[services.telnet]
plugin = "telnet"
port = 0
password-file = "{users}"
[services.ftp]
plugin = "ftp"
port = 0
iface = "127.0.0.1"
root = "."
passwords = "{users}"
"""


def test_guessing_by_hanging_up(users: Path, tmp_path: Path) -> None:
    """After wrong guesses, the last on a connection that hangs up at once, the right one is not accepted."""
    file = tmp_path / "gated.toml"
    file.write_text(GATED.format(users=users))
    with service(file) as process, ThreadPoolExecutor() as pool:
        telnet, ftp = (int(process.expect(r"listening on 127\.0\.0\.1:(\d+)")[1]) for _ in range(2))
        process.expect("is ready")

        def guess(password: str) -> list[bool]:
            """Guess at both at once, as the answers take their time."""
            answers = [pool.submit(telnet_guess, telnet, password), pool.submit(ftp_guess, ftp, password)]
            return [word in answer.result() for word, answer in zip((b">>> ", b"230"), answers, strict=True)]

        assert guess(RIGHT) == [True, True]
        for _ in range(4):
            assert guess("unruly sun") == [False, False]
        for port, words in ((telnet, b"john\r\nx\r\n"), (ftp, b"USER john\r\nPASS x\r\n")):
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
                sock.sendall(words)
                process.expect(r"login failed from 127\.0\.0\.1 for 'john' \(5 in a row\)$")
        assert guess(RIGHT) == [False, False]  # the gate is closed for eight seconds


@pytest.mark.parametrize("plugin", ["telnet", "console"])
def test_silent_connections_keep_nobody_out(plugin: str, users: Path, tmp_path: Path) -> None:
    """A hundred connections that never log in, from one address, do not keep another client out."""
    arguments: list[str | Path] = [plugin, "--iface", "127.0.0.1", "--port", "0", "--password-file", users]
    if plugin == "console":
        arguments += ["--host-key", tmp_path / "host_key"]
    with service(*arguments) as process, ExitStack() as idle:
        port = int(process.expect(r"listening on 127\.0\.0\.1:(\d+)")[1])
        process.expect("is ready")
        for _ in range(100):
            idle.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE))
        if plugin == "telnet":
            assert b">>> " in telnet_guess(port, RIGHT)
        else:
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
                assert sock.recv(8) == b"SSH-2.0-"


def test_ftp_logs_what_was_done_and_only_that(tmp_path: Path, users: Path) -> None:
    """An anonymous login is in the log; a DELE that was refused is not there as done."""
    (tmp_path / "public").mkdir()
    (tmp_path / "public" / "poem").write_text("poem")
    arguments: list[str | Path] = ["--iface", "127.0.0.1", "--port", "0", "--root", tmp_path / "public"]
    with service("ftp", *arguments, "--passwords", users, "--write") as process:
        port = int(process.expect(r"listening on 127\.0\.0\.1:(\d+)")[1])
        process.expect("is ready")
        with FTP(timeout=PATIENCE) as client:
            client.connect("127.0.0.1", port)
            client.login()
            with pytest.raises(error_perm):
                client.delete("poem")
            client.login("john", RIGHT)
            with pytest.raises(error_perm):
                client.delete("no such poem")
            client.delete("poem")
        process.expect(r"logged in from 127\.0\.0\.1 as 'anonymous', without a password")
        process.expect(r"logged in from 127\.0\.0\.1 as 'john'")
        process.expect(r"DELE poem$")
        assert len([line for line in process.lines if "DELE" in line]) == 1


@pytest.mark.skipif(shutil.which("fail2ban-regex") is None, reason="needs fail2ban")
def test_fail2ban_reads_failures(tmp_path: Path) -> None:
    """The filter of the docs finds each failure, in plain lines and in the journal's, and is not misled."""
    log = tmp_path / "log"
    when = "2026-11-28T06:10:23.167+00:00"
    failed = [
        f"{when} WARNING telnet: login failed from 192.0.2.1 for 'john'",
        f"{when} WARNING ftp: login failed from 2001:db8::1 for 'john' (2 in a row, 1 not verified)",
        f"{when} [2] WARNING socks: login failed from 192.0.2.3 for 'john'",
    ]
    others = [
        f"{when} INFO telnet: logged in from 192.0.2.4 as 'john'",
        f"{when} INFO app: WARNING ftp: login failed from 192.0.2.5 for 'john'",
    ]
    log.write_text("\n".join([*failed, *others]) + "\n")
    done = subprocess.run(
        ["fail2ban-regex", "--print-all-matched", str(log), str(FILTER)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert "3 matched, 2 missed" in done.stdout, done.stdout
