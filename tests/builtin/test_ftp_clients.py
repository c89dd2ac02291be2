"""FTP with real clients and real processes."""

import ftplib
import re
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import trustme

from tamed.testing.process import TamedProcess
from tests.builtin.attempts import SECRET, make_tree
from tests.builtin.real_clients import needs, run
from tests.passwords import cheap_hash
from tests.supervised.forked import service

ALLOWED_FILES = ["inside", "inside-dir/deep.txt", "inside-dir/up", "open.txt", "sub/deep.txt", "sub/up"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make a directory with secrets beside it."""
    return make_tree(tmp_path)


@contextmanager
def serving(*arguments: str | Path) -> Iterator[tuple[TamedProcess, str]]:
    """Run ``tamed run ftp``; yield the process and its address."""
    with service("ftp", "--port", "0", *arguments) as process:
        address = process.expect(r"listening on (\S+)")[1]
        process.expect("is ready$")
        yield process, address


@needs("curl")
@pytest.mark.parametrize("passive", ["--ftp-pasv", "--disable-epsv"])
def test_curl_reads_what_it_may(root: Path, passive: str) -> None:
    """Files, parts of them, and listings; nothing outside, and nothing hidden."""
    (root / "long").write_bytes(bytes(range(256)) * 40000)
    with serving("--root", root) as (process, address):
        url = f"ftp://{address}"
        assert run("curl", "-sS", passive, f"{url}/sub/deep.txt").stdout == "deep\n"
        assert run("curl", "-sS", passive, "-r", "1-2", f"{url}/open.txt").stdout == "pe"
        assert run("curl", "-sS", passive, "-l", f"{url}/").stdout.split() == [
            "inside",
            "inside-dir",
            "long",
            "open.txt",
            "sub",
        ]
        copy = root.parent / "copy"
        assert run("curl", "-sS", passive, "-o", copy, f"{url}/long").returncode == 0
        assert copy.read_bytes() == (root / "long").read_bytes()
        for attempt in ("../outside/secret.txt", "out", "out-dir/secret.txt", ".hidden", "//etc/passwd"):
            done = run("curl", "-sS", "--path-as-is", passive, f"{url}/{attempt}")
            assert done.returncode != 0
            assert SECRET not in done.stdout
        assert run("curl", "-sS", passive, "-T", copy, f"{url}/new").returncode != 0
        process.signal(signal.SIGTERM)
        assert process.wait() == 0


@needs("curl")
def test_curl_writes_with_a_password_and_through_tls(root: Path, tmp_path: Path) -> None:
    """The data connections are encrypted as the first one is."""
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "cert.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "passwords").write_text(f"ann:{cheap_hash('apple')}\n")
    arguments: list[str | Path] = ["--root", root, "--passwords", tmp_path / "passwords", "--write"]
    listen = f"tls://localhost:0?cert={tmp_path}/cert.pem"
    with serving(*arguments, "--listen", listen) as (_, address):
        url = f"ftps://localhost:{address.rpartition(':')[2]}"
        curl = ["curl", "-sS", "-4", "--ssl-reqd", "--cacert", str(tmp_path / "ca.pem")]
        assert run(*curl, "-u", "ann:wrong", f"{url}/").returncode != 0
        done = run(*curl, "-u", "ann:apple", "-T", root / "open.txt", f"{url}/new")
        assert (done.returncode, done.stderr) == (0, "")
        assert run(*curl, f"{url}/new").stdout == "open\n"
    assert (root / "new").read_text() == "open\n"


@needs("lftp")
def test_lftp_mirrors_a_tree(root: Path, tmp_path: Path) -> None:
    """All that can be reached arrives, and nothing else."""
    with serving("--root", root, "--passive-ports", "40000-40999") as (process, address):
        commands = f"set net:max-retries 1; mirror --parallel=2 / {tmp_path}/mirror; bye"
        done = run("lftp", "-e", commands, f"ftp://{address}")
        assert (done.returncode, done.stderr) == (0, "")
        found = sorted(
            str(path.relative_to(tmp_path / "mirror")) for path in (tmp_path / "mirror").rglob("*")
        )
        assert found == sorted([*ALLOWED_FILES, "inside-dir", "sub"])
        process.signal(signal.SIGTERM)
        assert process.wait() == 0


def test_a_transfer_in_progress_is_finished_by_a_stop(root: Path) -> None:
    """The transfer ends normally; an idle client gets a message at once."""
    (root / "long").write_bytes(bytes(range(256)) * 65536)
    with serving("--root", root) as (process, address), ftplib.FTP() as busy, ftplib.FTP() as idle:
        host, _, port = address.rpartition(":")
        for client in (busy, idle):
            client.connect(host, int(port))
            client.login()
        with closing(busy.transfercmd("RETR long")) as data:
            process.signal(signal.SIGTERM)
            with pytest.raises(ftplib.error_temp, match="421"):
                idle.getresp()
            with data.makefile("rb") as stream:
                assert stream.read() == (root / "long").read_bytes()
        assert busy.getresp().startswith("226")
        with pytest.raises(ftplib.error_temp, match="421"):
            busy.getresp()
        assert process.wait() == 0
    assert re.search(r"RETR long, 16777216 bytes in", process.output)
    assert "aborts connections that did not end" not in process.output
