"""The twelve plugins that Twisted ships: each starts, serves one real client, and stops clean."""

import contextlib
import ftplib
import getpass
import poplib
import re
import shutil
import signal
import smtplib
import socket
import struct
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("twisted")

from tamed.testing.process import TamedProcess
from tamed.twisted.kind import TwistedKind
from tests.patience import PATIENCE
from tests.supervised.daemon import Tamed, wait_for

HERE = "127.0.0.1"


@pytest.fixture
def free_ports() -> Callable[[], int]:
    """Return a function that finds a free port: these plugins have no other way to be told one."""

    def find() -> int:
        with contextlib.closing(socket.create_server((HERE, 0))) as sock:
            port: int = sock.getsockname()[1]
            return port

    return find


@contextlib.contextmanager
def running(
    tamed: Tamed, name: str, *words: str | Path, may_complain: bool = False
) -> Iterator[TamedProcess]:
    """Run a plugin of Twisted's until the ``with`` is left; it must end with status 0, and not complain."""
    with tamed.foreground("run", "--drain-timeout", "2s", f"twisted:{name}", *words) as process:
        process.expect(f"tamed: {name} is ready$")
        yield process
        process.signal(signal.SIGTERM)
        assert process.wait() == 0, process.output
    assert may_complain or "Traceback" not in process.output, process.output
    assert tamed.left() == {}


def port_of(process: TamedProcess, what: str) -> int:
    """Return the port in the line that Twisted logs of a listening factory, which has come already."""
    found = re.search(rf"{what} (?:\([^)]*\) )?starting on (\d+)", process.output)
    assert found is not None, process.output
    return int(found[1])


def talk(port: int, say: bytes = b"", until: bytes = b"\n") -> bytes:
    """Connect, say something, and read until something is heard."""
    with socket.create_connection((HERE, port), timeout=PATIENCE) as sock:
        sock.sendall(say)
        heard = b""
        while until not in heard and (more := sock.recv(1000)):
            heard += more
        return heard


def test_there_are_twelve() -> None:
    """No more and no fewer are found; a new one needs a test here."""
    found = TwistedKind().found([])
    shipped = [each.name for each in found if re.fullmatch(r"twisted\.plugins\.twisted_\w+", each.package)]
    assert shipped == [
        *("conch", "dns", "ftp", "inetd", "mail", "manhole"),
        *("portforward", "procmon", "socks", "web", "words", "xmpp-router"),
    ]


def test_web(tamed: Tamed) -> None:
    """Serves a folder."""
    with running(tamed, "web", "--listen", f"tcp:0:interface={HERE}", "--path", ".") as process:
        port = port_of(process, "Site")
        with urllib.request.urlopen(f"http://{HERE}:{port}/poem.txt", timeout=PATIENCE) as answer:
            assert answer.read() == tamed.poem.read_bytes()


def test_ftp(tamed: Tamed) -> None:
    """Serves a folder, over a data port that belongs to one client."""
    with running(tamed, "ftp", "--port", "0", "--root", ".") as process, ftplib.FTP() as ftp:
        ftp.connect(HERE, port_of(process, "FTPFactory"), timeout=PATIENCE)
        ftp.login()
        heard: list[bytes] = []
        ftp.retrbinary("RETR poem.txt", heard.append)
        assert b"".join(heard) == tamed.poem.read_bytes()


def test_portforward(tamed: Tamed) -> None:
    """Passes connections on."""
    with contextlib.closing(socket.create_server((HERE, 0))) as behind:
        host, port = behind.getsockname()
        with running(
            tamed, "portforward", "-p", f"tcp:0:interface={HERE}", "-h", host, "-d", str(port)
        ) as process:
            front = port_of(process, "ProxyFactory")
            with socket.create_connection((HERE, front), timeout=PATIENCE) as client:
                there, _ = behind.accept()
                with there:
                    client.sendall(b"verse")
                    assert there.recv(10) == b"verse"


def test_socks(tamed: Tamed) -> None:
    """Connects on behalf of a SOCKS 4 client."""
    with contextlib.closing(socket.create_server((HERE, 0))) as behind:
        port = behind.getsockname()[1]
        with running(tamed, "socks", "--port", "0", "--interface", HERE) as process:
            request = struct.pack("!BBH", 4, 1, port) + socket.inet_aton(HERE) + b"\0"
            granted = talk(port_of(process, "SOCKSv4Factory"), request, until=b"\0\x5a")
            assert granted[:2] == b"\0\x5a"


def test_words(tamed: Tamed) -> None:
    """Speaks IRC."""
    passwords = tamed.write("passwd", "donne:ecstasy\n")
    with running(tamed, "words", "--irc-port", "tcp:0", "--auth", f"file:{passwords}") as process:
        heard = talk(
            port_of(process, "IRCFactory"), b"PASS ecstasy\r\nNICK donne\r\nUSER donne 0 * :J\r\n", b" 001 "
        )
        assert b"donne" in heard


def test_xmpp_router(tamed: Tamed) -> None:
    """Opens a stream to a component."""
    with running(tamed, "xmpp-router", "--port", f"tcp:0:interface={HERE}", "--secret", "x") as process:
        stream = (
            b"<stream:stream xmlns='jabber:component:accept' "
            b"xmlns:stream='http://etherx.jabber.org/streams' to='verse.example'>"
        )
        assert b"<stream:stream" in talk(port_of(process, "XMPPComponentServerFactory"), stream, b"id=")


def test_dns(tamed: Tamed, free_ports: Callable[[], int]) -> None:
    """Answers a question from a zone, over UDP."""
    zone = tamed.write(
        "verse.py",
        "zone = [SOA('verse.example', mname='ns.verse.example', rname='donne.verse.example'),\n"
        "        A('verse.example', '192.0.2.7', 60)]\n",
    )
    port = free_ports()
    with running(tamed, "dns", "--port", str(port), "--interface", HERE, "--pyzone", zone):
        name = b"\5verse\7example\0"
        question = struct.pack("!HHHHHH", 1, 0x0100, 1, 0, 0, 0) + name + struct.pack("!HH", 1, 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(PATIENCE)
            sock.sendto(question, (HERE, port))
            answer = sock.recv(512)
    assert socket.inet_aton("192.0.2.7") in answer


def test_mail(tamed: Tamed) -> None:
    """Speaks SMTP and POP3.

    It has no users: Twisted 26's own way to add some fails, under twistd too.
    """
    listen = f"tcp:0:interface={HERE}"
    words = (
        "--smtp",
        listen,
        "--pop3",
        listen,
        "--maildirdbmdomain",
        f"verse.example={tamed.folder / 'mail'}",
    )
    with running(tamed, "mail", *words) as process:
        with smtplib.SMTP(HERE, port_of(process, "SMTPFactory"), timeout=PATIENCE) as smtp:
            assert smtp.helo()[0] == 250
            assert smtp.mail("a@verse.example")[0] == 250
            assert smtp.rcpt("nobody@verse.example")[0] == 550
        pop = poplib.POP3(HERE, port_of(process, "POP3Factory"), timeout=PATIENCE)
        assert pop.getwelcome().startswith(b"+OK")
        pop.quit()


def test_conch(tamed: Tamed) -> None:
    """The plugin runs a command for an SSH client."""
    pytest.importorskip("twisted.conch.ssh.keys")
    if shutil.which("ssh-keyscan") is None or shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keyscan and ssh-keygen are not installed")
    keys = tamed.folder / "keys"
    keys.mkdir()
    key = keys / "ssh_host_ed25519_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True, timeout=PATIENCE)
    tamed.write("passwd", "donne:ecstasy\n")
    words = ("--port", f"tcp:0:interface={HERE}", "--data", keys, "--moduli", keys, "--auth", "file:passwd")
    with running(tamed, "conch", *words) as process:
        port = port_of(process, "OpenSSHFactory")
        scan = ["ssh-keyscan", "-T", "20", "-t", "ed25519", "-p", str(port), HERE]
        done = subprocess.run(scan, capture_output=True, text=True, timeout=PATIENCE, check=True)
        assert done.stdout.split()[1:] == key.with_suffix(".pub").read_text().split()[:2]


def test_manhole(tamed: Tamed) -> None:
    """Asks a telnet client who it is."""
    tamed.write("passwd", "donne:ecstasy\n")
    words = ("--telnetPort", f"tcp:0:interface={HERE}", "--passwd", "passwd")
    with running(tamed, "manhole", *words, may_complain=True) as process:  # of what the client refuses
        port = port_of(process, "ServerFactory")
        with socket.create_connection((HERE, port), timeout=PATIENCE) as sock:
            hear_telnet(sock, b"Username: ")
            sock.sendall(b"donne\r\n")
            hear_telnet(sock, b"Password: ")
            sock.sendall(b"ecstasy\r\n")
            hear_telnet(sock, b">>> ")


def hear_telnet(sock: socket.socket, until: bytes) -> None:
    """Read until something is heard, and agree to what the server wants to do itself, as clients must."""
    agreed = {0xFB: 0xFD, 0xFC: 0xFE, 0xFD: 0xFC, 0xFE: 0xFC}  # WILL, WONT, DO, DONT and their answers
    heard = b""
    while until not in heard:
        more = sock.recv(1000)
        assert more, heard
        heard += more
        for command in re.findall(rb"\xff([\xfb-\xfe].)", more, re.DOTALL):
            sock.sendall(bytes([0xFF, agreed[command[0]], command[1]]))


def test_procmon(tamed: Tamed) -> None:
    """Runs a program, again when it has ended, and ends it when it stops."""
    file = tamed.folder / "lives"
    program = f"import time; open({str(file)!r}, 'a').write('x'); time.sleep(1.5)"
    with running(
        tamed, "procmon", "--minrestartdelay", "0", "--threshold", "0", sys.executable, "-c", program
    ):
        wait_for("a second life", lambda: file.exists() and len(file.read_text()) > 1)


def test_inetd(tamed: Tamed, free_ports: Callable[[], int]) -> None:
    """Runs a program for each connection."""
    port = free_ports()
    tamed.write("inetd.conf", f"{port} stream tcp nowait {getpass.getuser()} /bin/echo echo verse\n")
    with running(tamed, "inetd", "--nointernal", "--file", "inetd.conf"):
        assert talk(port) == b"verse\n"
