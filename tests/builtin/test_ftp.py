"""FTP, in process: what is served to whom, and what clients cannot do to it."""

import ftplib
import io
import re
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamed.builtin._ftp.data import PortRange
from tamed.builtin.ftp import Options, ftp
from tamed.errors import MissingInput, ServiceFailed
from tamed.net.endpoint import Endpoint
from tamed.plugins.values import Duration
from tamed.service.service import Service
from tamed.testing.running import Served, serving
from tests.builtin.attempts import ALLOWED, SECRET, every_attempt, make_tree
from tests.builtin.programs import wait_for
from tests.passwords import cheap_hash
from tests.patience import PATIENCE


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make a directory with secrets beside it."""
    return make_tree(tmp_path)


@pytest.fixture(scope="module")
def passwords(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a file with one user."""
    file = tmp_path_factory.mktemp("accounts") / "passwords"
    file.write_text(f"ann:{cheap_hash('apple')}\n")
    file.chmod(0o600)
    return file


@contextmanager
def served(root: Path, **options: Any) -> Iterator[Served[Service]]:
    """Serve a directory."""
    with serving(ftp(Options(root=root, port=0, **options))) as server:
        yield server


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served[Service]]:
    """Serve a directory in which no test changes anything."""
    with served(make_tree(tmp_path_factory.mktemp("reading"))) as server:
        yield server


@contextmanager
def client_of(server: Served[Service], user: str = "", password: str = "") -> Iterator[ftplib.FTP]:
    """Log in."""
    host, _, port = server.address().rpartition(":")
    with ftplib.FTP(timeout=PATIENCE) as client:
        client.connect(host, int(port))
        client.login(user, password)
        yield client


def fetch(client: ftplib.FTP, path: str) -> str:
    """Return what is in a file."""
    content = io.BytesIO()
    client.retrbinary(f"RETR {path}", content.write)
    return content.getvalue().decode()


def say(client: ftplib.FTP, line: str) -> str:
    """Send a line as it is, and return the answer, whatever it is."""
    client.sock.sendall(f"{line}\r\n".encode()) if client.sock else None
    try:
        return str(client.getresp())
    except ftplib.Error as error:
        return str(error)


def test_who_has_not_said_a_name_is_named_all_the_same(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A password comes first, and more in the same packet: the session is served to its end, and logged."""
    caplog.set_level("INFO")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # else 30,000 answers fit into it
        there = Endpoint.parse(f"fd://{listening.fileno()}")
        with served(root, listen=[there], stall=Duration("300ms")) as server:
            with server.connect() as client:
                client.sendall(b"PASS x\r\nDELE a\r\nQUIT\r\n")
                answers = client.makefile("rb").read().splitlines()
            assert [line[:3] for line in answers] == [b"220", b"503", b"503", b"221"]
            with server.connect() as client, suppress(ConnectionError):
                client.sendall(b"PASS x\r\n")
                client.setblocking(False)

                def is_cut_off() -> bool:  # the client may notice much later, if its buffer is full
                    with suppress(BlockingIOError):
                        client.send(b"FEAT\r\n" * 1000)
                    return "disconnected: it does not read the answers" in caplog.text

                wait_for("the end of the session", is_cut_off)
    assert "-@127.0.0.1:" in caplog.text
    assert "disconnected: it does not read the answers" in caplog.text
    assert "failed to serve" not in caplog.text


def test_a_unix_socket_that_was_passed_is_refused(root: Path, tmp_path: Path) -> None:
    """There is no address for data connections, so no client could be served."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "ftp.sock"))
        there = Endpoint.parse(f"fd://{listening.fileno()}")
        wrong = f"cannot listen on {there}: it is a unix socket: FTP needs internet addresses, .*; pass a TCP"
        with pytest.raises(ServiceFailed, match=wrong), served(root, listen=[there]):
            pass


def test_everybody_may_read(root: Path) -> None:
    """Files, also through links, and their sizes; names, listings and facts."""
    with served(root) as server, client_of(server) as client:
        assert {path: fetch(client, path) for path in ALLOWED} == ALLOWED
        assert sorted(client.nlst()) == ["inside", "inside-dir", "open.txt", "sub"]
        assert {name: facts["type"] for name, facts in client.mlsd()}["sub"] == "dir"
        lines: list[str] = []
        client.dir("sub", lines.append)
        assert [line.split()[-1] for line in lines] == ["deep.txt", "up"]
        assert client.size("open.txt") == len("open\n")
        assert re.fullmatch(r"213 \d{14}", client.sendcmd("MDTM open.txt"))
        client.cwd("sub")
        assert client.pwd() == "/sub"
        assert client.nlst("-a") == ["deep.txt", "up"]


def test_a_file_is_sent_from_where_the_client_wants(root: Path) -> None:
    """REST is good for one transfer."""
    with served(root) as server, client_of(server) as client:
        got = io.BytesIO()
        client.retrbinary("RETR open.txt", got.write, rest=2)
        assert got.getvalue() == b"en\n"
        assert fetch(client, "open.txt") == "open\n"


@every_attempt
def test_nobody_gets_out_of_the_root(reading: Served[Service], attempt: str) -> None:
    """No command reaches a file outside, neither by one path nor step by step."""
    attempt = attempt[:500]  # longer ones are no paths to begin with
    with client_of(reading) as client:
        for command in ("SIZE", "MDTM", "MLST", "CWD"):
            assert say(client, f"{command} {attempt}").startswith("5"), command
        client.makepasv()
        assert say(client, f"RETR {attempt}").startswith("5")
        assert say(client, f"NLST {attempt}").startswith("5")
        for part in attempt.split("/")[:-1]:
            say(client, f"CWD {part}")
        name = attempt.rpartition("/")[2] or "."
        assert "secret" not in " ".join(client.nlst())
        with suppress(ftplib.Error):
            assert fetch(client, name) != SECRET


@pytest.mark.parametrize(
    "command", ["STOR new", "APPE open.txt", "DELE open.txt", "MKD new", "RMD sub", "RNFR open.txt"]
)
def test_anonymous_users_change_nothing(root: Path, passwords: Path, command: str) -> None:
    """Not even where others may."""
    with served(root, passwords=passwords, write=True) as server, client_of(server) as client:
        client.makepasv()
        assert say(client, command).startswith("550")
    assert (root / "open.txt").read_text() == "open\n"
    assert not (root / "new").exists()


def test_users_with_a_password_read_unless_they_may_write(root: Path, passwords: Path) -> None:
    """Writing has to be allowed."""
    with served(root, passwords=passwords) as server, client_of(server, "ann", "apple") as client:
        assert fetch(client, "open.txt") == "open\n"
        with pytest.raises(ftplib.error_perm, match="denied"):
            client.storbinary("STOR new", io.BytesIO(b"new"))


def test_users_who_may_write_change_what_is_in_the_root(root: Path, passwords: Path) -> None:
    """They store, append, rename, remove, and make directories."""
    with (
        served(root, passwords=passwords, write=True) as server,
        client_of(server, "ann", "apple") as client,
    ):
        client.mkd("made")
        client.storbinary("STOR made/new", io.BytesIO(b"new"))
        client.storbinary("APPE made/new", io.BytesIO(b"er"))
        client.rename("made/new", "made/newer")
        assert fetch(client, "made/newer") == "newer"
        client.delete("made/newer")
        client.rmd("made")
        client.delete("inside")
    assert not (root / "made").exists()
    assert not (root / "inside").is_symlink()
    assert (root / "sub" / "deep.txt").exists()


@every_attempt
def test_nobody_writes_out_of_the_root(root: Path, passwords: Path, attempt: str, tmp_path: Path) -> None:
    """Neither a store nor a rename reaches a file outside."""
    attempt = attempt[:500]
    with (
        served(root, passwords=passwords, write=True) as server,
        client_of(server, "ann", "apple") as client,
    ):
        for command in ("DELE", "RMD"):
            say(client, f"{command} {attempt}")
        with suppress(ftplib.Error, ConnectionError):
            client.storbinary(f"STOR {attempt}", io.BytesIO(b"mine"))
        say(client, "RNFR open.txt")
        say(client, f"RNTO {attempt}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "root", "root-too"]
    assert [path.read_text() for path in tmp_path.glob("*/secret.txt")] == [SECRET, SECRET]
    assert (root / ".hidden").read_text() == SECRET


def test_a_wrong_password_is_answered_slowly_and_thrice(root: Path, passwords: Path) -> None:
    """For users that exist and for those that do not; then the connection is closed."""
    with served(root, passwords=passwords) as server, client_of(server) as client:
        for user, code in (("ann", "530"), ("nobody", "530"), ("ann", "421")):
            assert say(client, f"USER {user}").startswith("331")
            assert say(client, "PASS wrong").startswith(code)
            if code == "530":
                assert say(client, "PWD").startswith("503")
        with pytest.raises((EOFError, ConnectionResetError)):
            client.voidcmd("NOOP")


def test_nothing_can_be_done_before_logging_in(root: Path, passwords: Path) -> None:
    """Every command on files or data connections is refused."""
    with served(root, passwords=passwords, anonymous=False) as server:
        host, _, port = server.address().rpartition(":")
        with ftplib.FTP(timeout=PATIENCE) as client:
            client.connect(host, int(port))
            assert say(client, "USER anonymous").startswith("331")
            for line in (
                "PWD",
                "PASV",
                "EPSV",
                "SIZE open.txt",
                "LIST",
                "MLST",
                "RETR open.txt",
                "STOR x",
                "CDUP",
            ):
                assert say(client, line)[:3] in {"503", "530"}, line


@pytest.mark.parametrize("passive", ["PASV", "EPSV"])
def test_passive_ports_are_of_the_range(root: Path, passive: str) -> None:
    """One that is used is free again once the client has connected to it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with served(root, passive_ports=PortRange(port, port)) as server, client_of(server) as client:
        client.use_epsv = passive == "EPSV"  # type: ignore[attr-defined]
        for _ in range(3):
            assert fetch(client, "open.txt") == "open\n"
        answer = say(client, passive)
        assert (f"|||{port}|" if passive == "EPSV" else f",{port >> 8},{port & 255})") in answer
        with client_of(server) as other:
            assert say(other, passive).startswith("425")


def test_the_address_behind_nat_is_announced(root: Path) -> None:
    """In the answer to PASV, which is the only one that has an address."""
    with served(root, passive_address="192.0.2.7") as server, client_of(server) as client:
        assert "(192,0,2,7," in say(client, "PASV")


def test_a_data_connection_from_elsewhere_is_sent_away(root: Path) -> None:
    """A connection from another address is closed, and does not replace the client's."""
    with served(root) as server, client_of(server) as client:
        port = int(re.findall(r"\d+", say(client, "EPSV"))[-1])
        with (
            suppress(ConnectionResetError),  # which may come before the call of connect has returned
            socket.create_connection(("127.0.0.1", port), PATIENCE, ("127.0.0.2", 0)) as thief,
        ):
            assert thief.recv(100) == b""
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as data:
            assert say(client, "RETR open.txt").startswith("150")
            assert data.makefile("rb").read() == b"open\n"


def test_one_transfer_at_a_time(root: Path) -> None:
    """A second one is refused, and the first can be aborted."""
    (root / "long").write_bytes(bytes(16 << 20))
    with served(root) as server, client_of(server) as client:
        with closing(client.transfercmd("RETR long")):
            assert say(client, "RETR open.txt").startswith("450")
            assert say(client, "NOOP").startswith("200")
            assert say(client, "ABOR").startswith("426")
            assert client.getresp().startswith("226")
        assert fetch(client, "open.txt") == "open\n"


def test_a_listing_can_be_aborted(root: Path) -> None:
    """Also while it waits for the client to connect."""
    with served(root) as server, client_of(server) as client:
        say(client, "EPSV")
        assert say(client, "LIST").startswith("150")
        assert say(client, "ABOR").startswith("426")
        assert client.getresp().startswith("226")
        assert fetch(client, "open.txt") == "open\n"


def test_a_client_that_leaves_amid_a_transfer_is_forgotten(root: Path) -> None:
    """Whether it closes both connections or the data connection only; the service goes on."""
    (root / "long").write_bytes(bytes(16 << 20))
    with served(root) as server:
        with client_of(server) as client:
            client.transfercmd("RETR long").close()
            assert client.sock is not None
            with pytest.raises(ftplib.error_temp, match="426"):
                client.getresp()
            assert fetch(client, "open.txt") == "open\n"
            data = client.transfercmd("RETR long")
            client.sock.close()
            data.close()
        with client_of(server) as client:
            assert fetch(client, "open.txt") == "open\n"


def test_lines_that_are_too_long_end_the_session(root: Path) -> None:
    """With an answer that says so."""
    with served(root) as server, server.connect() as client, client.makefile("rb") as answers:
        assert answers.readline().startswith(b"220")
        client.sendall(b"USER " + b"x" * 5000)
        assert answers.readline().startswith(b"500")
        with suppress(ConnectionResetError):
            assert answers.read() == b""


@pytest.mark.parametrize(
    "line",
    [
        "",
        " ",
        "RETR",
        "XYZZY",
        "TYPE",
        "REST -1",
        "REST ²",
        "REST 99999999999999999999",
        "EPSV 7",
        "OPTS",
        "MLSD",
        "PORT 1,2",
    ],
)
def test_rubbish_is_answered(root: Path, line: str) -> None:
    """With an answer that means no, or with the one that the command has without an argument."""
    with served(root) as server, client_of(server) as client:
        assert re.match(r"[345]\d\d ", say(client, line))
        assert say(client, "NOOP").startswith("200")


def test_bytes_that_are_no_text_are_answered(root: Path) -> None:
    """Telnet's own bytes before a command are passed over, others refused."""
    with served(root) as server, server.connect() as client, client.makefile("rb") as answers:
        answers.readline()
        client.sendall(b"\xff\xf4\xff\xf2NOOP\r\n\x80\x81\r\n")
        assert answers.readline().startswith(b"200")
        assert answers.readline().startswith(b"501")


def test_an_offset_past_everything_fails_the_transfer_only(root: Path) -> None:
    """The session goes on."""
    with served(root) as server, client_of(server) as client:
        with pytest.raises(ftplib.Error):
            client.retrbinary("RETR open.txt", lambda _: None, rest=10**30)
        assert fetch(client, "open.txt") == "open\n"


def test_silence_is_cut(root: Path) -> None:
    """A silent client gets a message and is disconnected."""
    with served(root, idle=Duration("100ms")) as server:
        greeting, farewell = server.fetch().splitlines()
        assert greeting.startswith(b"220")
        assert farewell.startswith(b"421")


def test_a_stalled_transfer_is_cut(root: Path) -> None:
    """The data connection is reset, so that the client does not mistake a part for the whole file."""
    (root / "long").write_bytes(bytes(32 << 20))
    with (
        served(root, stall=Duration("200ms")) as server,
        client_of(server) as client,
        closing(client.transfercmd("RETR long")) as data,
    ):
        with pytest.raises(ftplib.error_temp, match="426"):
            client.getresp()
        with pytest.raises(ConnectionResetError):
            data.makefile("rb").read()


def test_one_address_has_so_many_connections(root: Path) -> None:
    """More are closed at once; when one is over, another is served."""
    with served(root, max_connections_per_address=2) as server:
        with client_of(server), client_of(server), suppress(ConnectionResetError):
            assert server.fetch() == b""
        with client_of(server) as client:
            assert fetch(client, "open.txt") == "open\n"


CONVERSATION = b"USER ftp\r\nPWD\r\nEPSV\r\nMLST open.txt\r\nREST 2\r\nQUIT\r\n"


def test_clients_may_leave_at_every_byte(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """None of them is more than a connection that is over."""
    with served(root, max_connections_per_address=1000) as server:
        for end in range(len(CONVERSATION)):
            with server.connect() as client:
                client.sendall(CONVERSATION[:end])
        with client_of(server) as client:
            assert fetch(client, "open.txt") == "open\n"
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"anonymous": False}, "no user could log in"),
        ({"write": True}, "no user could write"),
        ({"passive_address": "example.org"}, "example.org"),
        ({"listen": [Endpoint.parse("unix:/run/ftp.sock")]}, "internet"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(tmp_path: Path, options: dict[str, Any], why: str) -> None:
    """With the reason."""
    with pytest.raises(ValueError, match=why):
        Options(root=tmp_path, **options)


def test_a_root_that_is_not_there_fails_the_start(tmp_path: Path) -> None:
    """Instead of every request."""
    with pytest.raises(Exception, match="use a readable directory") as failure, served(tmp_path / "nix"):
        pass
    assert isinstance(getattr(failure.value, "cause", failure.value), MissingInput)


@given(st.integers(1, 65535), st.integers(1, 65535))
def test_a_port_range_is_what_it_was_written_as(one: int, other: int) -> None:
    """Both ways; the lower port is first."""
    ports = PortRange(min(one, other), max(one, other))
    assert PortRange.parse(str(ports)) == ports
    if one != other:
        with pytest.raises(ValueError, match="lower one first"):
            PortRange.parse(f"{ports.last}-{ports.first}")


@given(st.text())
def test_no_other_text_is_a_port_range(text: str) -> None:
    """It is read, or it is a ValueError."""
    with suppress(ValueError):
        assert PortRange.parse(text).last <= 65535
