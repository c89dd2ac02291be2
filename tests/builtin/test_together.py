"""All services in the box, in one daemon."""

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.patience import PATIENCE
from tests.supervised.daemon import POEM, Tamed

DEPLOYMENT = """
name = "box"

[daemon]
workers = 2

[services.poem]
plugin = "fastpoetry"
listen = "unix:poem"
poem = "poem.txt"

[services.proxy]
plugin = "poetryproxy"
upstream = "unix:poem"
listen = "unix:proxy"

[services.forward]
plugin = "portforward"
listen = "unix:forward"
to = "unix:proxy"

[services.socks]
plugin = "socks"
listen = "unix:socks"

[services.files]
plugin = "web"
root = "public"
listen = "unix:web"

[services.ftp]
plugin = "ftp"
root = "public"
port = 0

[services.prompt]
plugin = "telnet"
listen = "unix:telnet?mode=600"

[services.ssh]
plugin = "console"
port = 0
host-key = "host-key"
authorized-keys = "authorized-keys"

[services.cat]
plugin = "inetd"
command = "cat"
listen = "unix:cat"

[services.ticker]
plugin = "exec"
command = "sleep 3600"
ready-after = "0s"
"""


@pytest.fixture
def tamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tamed]:
    """The command in a folder of its own, which sockets have short names in."""
    monkeypatch.chdir(tmp_path)
    made = Tamed(tmp_path)
    yield made
    made.close()


def ask(name: str, text: bytes = b"") -> bytes:
    """Connect to a unix socket, say something and nothing more if there is something, and read to the end."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(name)
        if text:
            sock.sendall(text)
            sock.shutdown(socket.SHUT_WR)
        return sock.makefile("rb").read()


def ask_all(ftp: int, ssh: int) -> None:
    """Have each service do its job, which is the same before and after a reload."""
    for name in ("poem", "proxy", "forward"):
        assert ask(name) == POEM
    request = b"GET /page.html HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect("web")
        sock.sendall(request)
        assert sock.makefile("rb").read().endswith(b"<p>a page</p>")
    assert ask("socks", b"\x05\x01\x00")[:2] == b"\x05\x00"
    assert ask("cat", b"meow") == b"meow"
    assert b"<Application box running>" in ask("telnet", b"application\r\n")
    for port, greeting in ((ftp, b"220"), (ssh, b"SSH-2.0")):
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
            assert sock.recv(100).startswith(greeting)


def test_all_of_them_run_reload_and_stop_together(tamed: Tamed) -> None:
    """Started as a daemon with two workers, reloaded while one of each is used, and stopped: clean."""
    (tamed.folder / "public").mkdir()
    (tamed.folder / "public/page.html").write_text("<p>a page</p>")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tamed.folder / "key"], check=True)
    (tamed.folder / "key.pub").rename(tamed.folder / "authorized-keys")
    (tamed.folder / "authorized-keys").chmod(0o600)
    daemon = tamed.start("--drain-timeout", "2s", tamed.write("box.toml", DEPLOYMENT))
    ftp, ssh = (int(each.rpartition(":")[2]) for each in daemon.addresses if not each.startswith("unix:"))
    ask_all(ftp, ssh)
    done = tamed("reload")
    assert done == (0, "box was reloaded: generation 2, 2 workers\n", "")
    ask_all(ftp, ssh)
    daemon.stop()
    sockets = [path.name for path in tamed.folder.iterdir() if path.is_socket()]
    assert sockets == []
    assert " ERROR " not in daemon.log
