"""``tamed cert``: a local authority, and certificates that clients of that authority accept."""

import ssl
import sys
from pathlib import Path

import pytest
from cryptography import x509

from tamed.cli.cert import cert
from tamed.errors import CannotCreate, ConfigurationError, UsageError
from tamed.testing.process import TamedProcess
from tests.builtin.real_clients import needs, run
from tests.cli.conftest import Tamed


def make(folder: Path, *names: str, days: int = 10, force: bool = False) -> None:
    """Run the command in this process."""
    cert(names, to=str(folder), days=days, force=force)


def read(file: Path) -> x509.Certificate:
    """Return the certificate in a file."""
    return x509.load_pem_x509_certificate(file.read_bytes())


@needs("curl")
def test_a_client_that_trusts_the_authority_accepts_the_server(tmp_path: Path, tamed: Tamed) -> None:
    """A client accepts the certificate with the printed command, and with its own certificate if required."""
    for names in (("localhost",), ("alice@example.com",)):
        done = tamed("cert", "--to", str(tmp_path), *names)
        assert done.status == 0, done.err
    pem = tmp_path / "localhost.pem"
    (tmp_path / "index.html").write_text("verse")
    listen = (
        f"tls://localhost:0?cert={pem}&key={tmp_path}/localhost-key.pem&client_ca={tmp_path}/authority.pem"
    )
    with TamedProcess("run", "web", "--root", str(tmp_path), "--listen", listen) as process:
        port = process.expect(r"listening on \S+:(\d+)")[1]
        process.expect("is ready(:|$)")
        ours = "--cert", tmp_path / "alice@example.com.pem", "--key", tmp_path / "alice@example.com-key.pem"
        url = f"https://localhost:{port}/"
        trusting = "--cacert", tmp_path / "authority.pem"
        assert run("curl", "-sSf", *trusting, *ours, url).stdout == "verse"
        assert run("curl", "-sSf", *ours, url).returncode == 60  # not trusted
        assert run("curl", "-sSf", *trusting, url).returncode != 0  # the server demands one


def test_what_is_written_fits_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By default the certificate is for this machine; only the owner can ever read the key."""
    folder = tmp_path / "new" / "tls"
    make(folder)
    modes = {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}
    assert modes == {
        "authority.pem": 0o644,
        "authority-key.pem": 0o600,
        "localhost.pem": 0o644,
        "localhost-key.pem": 0o600,
    }
    made = read(folder / "localhost.pem")
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert {str(each) for each in names.get_values_for_type(x509.IPAddress)} == {"127.0.0.1", "::1"}
    assert (made.not_valid_after_utc - made.not_valid_before_utc).days >= 10
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
        folder / "localhost.pem", folder / "localhost-key.pem"
    )
    told = capsys.readouterr().out
    for line in (
        f"tls://localhost:8443?cert={folder}/localhost.pem&key={folder}/localhost-key.pem",
        f"curl --cacert {folder}/authority.pem https://localhost:8443/",
        "update-ca-certificates",
        f"keep {folder}/authority-key.pem secret",
    ):
        assert line in told


def test_the_authority_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The authority signs later certificates, too; ``--force`` keeps it and replaces the other files."""
    make(tmp_path, "*.shop.test")
    assert "'tls://www.shop.test:8443?" in capsys.readouterr().out
    authority, first = read(tmp_path / "authority.pem"), read(tmp_path / "_wildcard.shop.test.pem")
    with pytest.raises(CannotCreate, match="there is a file of this name; --force replaces it"):
        make(tmp_path, "*.shop.test")
    assert read(tmp_path / "_wildcard.shop.test.pem") == first
    make(tmp_path, "*.shop.test", force=True)
    make(tmp_path, "::1")
    assert "https://[::1]:8443/" in capsys.readouterr().out
    assert read(tmp_path / "authority.pem") == authority
    for file in ("_wildcard.shop.test.pem", "::1.pem"):
        assert read(tmp_path / file) != first
        read(tmp_path / file).verify_directly_issued_by(authority)


@pytest.mark.parametrize("name", ["", "..", "a b", "10.0.0.0/8", "../x@y", "-", "authority", "authority-key"])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    """An error leaves no file behind."""
    with pytest.raises(UsageError, match=r"^name "):
        make(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_an_authority_that_does_not_fit_is_not_used(tmp_path: Path) -> None:
    """An incomplete, foreign or damaged authority is refused with the remedy."""
    make(tmp_path / "one")
    make(tmp_path / "other")
    key = tmp_path / "one" / "authority-key.pem"
    for content in ((tmp_path / "other" / key.name).read_bytes(), b"no"):
        key.write_bytes(content)
        with pytest.raises(ConfigurationError, match=r"does not belong to the certificate.*; remove "):
            make(tmp_path / "one", "a")
    key.unlink()
    with pytest.raises(ConfigurationError, match=rf"there is no {key}; remove .*/authority\.pem to make"):
        make(tmp_path / "one", "a")


def test_what_is_missing_is_named(tmp_path: Path, tamed: Tamed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing extra and an unwritable folder are reported."""
    (tmp_path / "file").touch()
    done = tamed("cert", "--to", tmp_path / "file" / "tls")
    assert f"cannot write into {tmp_path}/file/tls: Not a directory" in done.err
    assert done.status == 73
    monkeypatch.setitem(sys.modules, "trustme", None)
    with pytest.raises(ConfigurationError, match=r"trustme is not installed; pip install 'tamed\[cert\]'"):
        make(tmp_path)
