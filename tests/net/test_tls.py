import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from tamed.errors import ConfigurationError, MissingInput, PermissionRefused
from tamed.net.endpoint import TlsEndpoint
from tamed.net.tls import ServerTls
from tests.net.certificates import Files, Handshake, client_of, make_files, serial_of
from tests.net.unprivileged import run_unprivileged


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Give the files of a certificate that its client trusts."""
    return make_files(tmp_path / "tls", trustme.CA(), trustme.KeyType.ECDSA)


def test_a_certificate_and_its_key_in_two_files(files: Files) -> None:
    """A client that trusts the authority accepts the server."""
    handshake = Handshake(ServerTls(files.endpoint), client_of(files))
    assert handshake.shown == serial_of(files)
    assert handshake.client.version() == "TLSv1.3"


def test_a_certificate_and_its_key_in_one_file(files: Files) -> None:
    """The key may stand in the certificate's file."""
    Handshake(ServerTls(TlsEndpoint("localhost", 0, files.both)), client_of(files))


def test_old_versions_are_refused(files: Files) -> None:
    """TLS 1.2 is the oldest that is spoken, and nobody may renegotiate."""
    context = ServerTls(files.endpoint).context
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.options & ssl.OP_NO_COMPRESSION
    assert context.verify_mode == ssl.CERT_NONE


@pytest.mark.parametrize(
    ("cipher", "taken"),
    [
        ("ECDHE-ECDSA-AES128-GCM-SHA256", True),
        ("ECDHE-RSA-CHACHA20-POLY1305", True),
        ("AES128-GCM-SHA256", False),  # static RSA
        ("ECDHE-RSA-AES128-SHA", False),  # CBC, with a MAC before encryption
        ("DHE-RSA-AES128-GCM-SHA256", False),
    ],
)
def test_only_ciphers_with_forward_secrecy(tmp_path: Path, cipher: str, taken: bool) -> None:
    """With TLS 1.2 a client gets no cipher without forward secrecy or without authenticated encryption."""
    kind = trustme.KeyType.ECDSA if "ECDSA" in cipher else trustme.KeyType.RSA
    files = make_files(tmp_path / "tls", trustme.CA(), kind)
    client = client_of(files)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers(f"{cipher}:@SECLEVEL=0")
    if taken:
        shown = Handshake(ServerTls(files.endpoint), client).client.cipher()
        assert shown is not None
        assert shown[0] == cipher
    else:
        with pytest.raises(ssl.SSLError):
            Handshake(ServerTls(files.endpoint), client)


def test_a_client_certificate_is_required(files: Files, tmp_path: Path) -> None:
    """With ``client_ca``, only clients with a certificate of that authority get through."""
    strangers = make_files(tmp_path / "strangers", trustme.CA(), trustme.KeyType.ECDSA)
    tls = ServerTls(files.endpoint.replace(client_ca=files.ca))
    friend, stranger = client_of(files), client_of(files)
    files.authority.issue_cert("client@example.org").configure_cert(friend)
    strangers.authority.issue_cert("client@example.org").configure_cert(stranger)
    Handshake(tls, friend)
    for unwelcome in (stranger, client_of(files)):
        with pytest.raises(ssl.SSLError):
            Handshake(tls, unwelcome)


@pytest.mark.parametrize("name", ["localhost", None])
@pytest.mark.parametrize("key_type", list(trustme.KeyType), ids=lambda kind: kind.name)
def test_renewed_files_are_taken(files: Files, key_type: trustme.KeyType, name: str | None) -> None:
    """New handshakes get the new certificate, whatever its key is; old connections go on."""
    tls = ServerTls(files.endpoint)
    client = client_of(files)
    client.check_hostname = False
    before = Handshake(tls, client, name)
    make_files(files.folder, files.authority, key_type)
    tls.renew()
    after = Handshake(tls, client, name)
    assert after.shown == serial_of(files) != before.shown
    before.server.write(b"the end")
    assert before.client.read() == b"the end"


def test_renewing_may_change_who_is_trusted(files: Files, tmp_path: Path) -> None:
    """After a renewal, the new client authority counts and the old one does not."""
    others = make_files(tmp_path / "others", trustme.CA(), trustme.KeyType.ECDSA)
    endpoint = files.endpoint.replace(client_ca=tmp_path / "clients.pem")
    assert endpoint.client_ca is not None
    endpoint.client_ca.write_bytes(files.ca.read_bytes())
    tls = ServerTls(endpoint)
    ours, theirs = client_of(files), client_of(files)
    files.authority.issue_cert("client@example.org").configure_cert(ours)
    others.authority.issue_cert("client@example.org").configure_cert(theirs)
    session = Handshake(tls, ours).client.session
    endpoint.client_ca.write_bytes(others.ca.read_bytes())
    tls.renew()
    Handshake(tls, theirs)
    for resumed in (None, session):
        with pytest.raises(ssl.SSLError):
            Handshake(tls, ours, session=resumed)


def test_a_bad_renewal_changes_nothing(files: Files) -> None:
    """If a renewed file is bad, that is raised and the old certificate is shown on."""
    tls, before = ServerTls(files.endpoint), serial_of(files)
    files.cert.write_text("half a certif")
    with pytest.raises(ConfigurationError):
        tls.renew()
    assert Handshake(tls, client_of(files)).shown == before


def key_of(files: Files) -> bytes:
    """Return the key as it is."""
    return files.key.read_bytes()


def encrypted(files: Files) -> bytes:
    """Return the key with a passphrase."""
    key = load_pem_private_key(key_of(files), None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))


def encrypted_of_old(files: Files) -> bytes:
    """Return the key with a passphrase, in the form of before PKCS #8."""
    key = load_pem_private_key(key_of(files), None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"x"))


def der_key(files: Files) -> bytes:
    """Return the key without PEM's armour."""
    key = load_pem_private_key(key_of(files), None)
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def der_certificate(files: Files) -> bytes:
    """Return the certificate without PEM's armour."""
    return x509.load_pem_x509_certificate(files.cert.read_bytes()).public_bytes(Encoding.DER)


def damaged(pem: bytes) -> bytes:
    """Return a PEM file with something in it that does not belong there."""
    first, *lines = pem.splitlines(keepends=True)
    return b"".join([first, b"AAAA" + lines[0], *lines[1:]])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "cert",
            lambda _: b"",
            "TLS certificate {}: it is not a PEM file; if it is DER, convert it: openssl x509",
        ),
        ("cert", der_certificate, "TLS certificate {}: it is not a PEM file"),
        ("cert", key_of, "TLS certificate {}: it contains a private key, but no certificate"),
        ("cert", lambda files: damaged(files.cert.read_bytes()), "TLS certificate {}: OpenSSL refuses it: "),
        ("cert", lambda files: files.ca.read_bytes(), "TLS certificate {}: the key "),
        (
            "key",
            lambda _: b"",
            "TLS key {}: it is not a PEM file; if it is DER, convert it: openssl pkey",
        ),
        ("key", der_key, "TLS key {}: it is not a PEM file"),
        (
            "key",
            lambda files: files.cert.read_bytes(),
            "TLS key {}: it contains a certificate, but no private key",
        ),
        ("key", lambda files: damaged(key_of(files)), "TLS key {}: OpenSSL refuses it: "),
        (
            "key",
            encrypted,
            "TLS key {}: it has a passphrase, and a server cannot prompt for it; remove the passphrase: ",
        ),
        ("key", encrypted_of_old, "TLS key {}: it has a passphrase"),
        ("ca", lambda _: b"no", "TLS client CA file {}: it is not a PEM file"),
        ("ca", lambda files: damaged(files.ca.read_bytes()), "TLS client CA file {}: OpenSSL refuses it: "),
    ],
    ids=[
        "empty certificate",
        "DER certificate",
        "a key for a certificate",
        "damaged certificate",
        "another key's certificate",
        "empty key",
        "DER key",
        "a certificate for a key",
        "damaged key",
        "encrypted key",
        "encrypted key, old style",
        "no authority",
        "damaged authority",
    ],
)
def test_a_bad_file_is_named(files: Files, name: str, content: Callable[[Files], bytes], said: str) -> None:
    """What is wrong with a file is told in one line that names it; nobody is asked for a passphrase."""
    file: Path = getattr(files, name)
    file.write_bytes(content(files))
    with pytest.raises(ConfigurationError) as caught:
        ServerTls(files.endpoint.replace(client_ca=files.ca))
    assert str(caught.value).startswith(said.format(file))


def test_a_key_of_another_certificate(files: Files, tmp_path: Path) -> None:
    """Both files of a pair that does not fit are named."""
    other = make_files(tmp_path / "other", trustme.CA(), trustme.KeyType.ECDSA)
    with pytest.raises(ConfigurationError) as caught:
        ServerTls(files.endpoint.replace(key=other.key))
    assert str(caught.value) == (
        f"TLS certificate {files.cert}: the key {other.key} belongs to another certificate; "
        "give the key that it was issued for"
    )


def test_a_key_of_another_kind(files: Files, tmp_path: Path) -> None:
    """A key of another type than the certificate's does not fit either."""
    other = make_files(tmp_path / "other", trustme.CA(), trustme.KeyType.RSA)
    with pytest.raises(ConfigurationError, match="belongs to another certificate"):
        ServerTls(files.endpoint.replace(key=other.key))


def test_a_certificate_without_a_key(files: Files) -> None:
    """A certificate's file without the key, and no other file named, is told with the remedy."""
    with pytest.raises(ConfigurationError) as caught:
        ServerTls(TlsEndpoint("localhost", 0, files.cert))
    assert str(caught.value) == (
        f"TLS certificate {files.cert}: it contains no private key; name the key's file too: &key=FILE"
    )


def test_a_certificate_that_is_too_weak(files: Files) -> None:
    """What OpenSSL refuses for its strength is the certificate's fault, with OpenSSL's reason."""
    key = rsa.generate_private_key(65537, key_size=1024)  # Python asks OpenSSL for more: its level 2
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "weak")])
    now = datetime.now(UTC)
    weak = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    files.cert.write_bytes(weak.sign(key, SHA256()).public_bytes(Encoding.PEM))
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(ConfigurationError) as caught:
        ServerTls(files.endpoint)
    assert str(caught.value) == (
        f"TLS certificate {files.cert}: OpenSSL refuses it: ee key too small; replace it"
    )


@pytest.mark.parametrize("role", ["certificate", "key", "client CA file"])
@pytest.mark.parametrize("there", ["nothing", "a directory"])
def test_a_missing_file(files: Files, tmp_path: Path, role: str, there: str) -> None:
    """A file that is not there, or is a directory, is named."""
    file = tmp_path / there
    if there == "a directory":
        file.mkdir()
    endpoint = {
        "certificate": files.endpoint.replace(cert=file),
        "key": files.endpoint.replace(key=file),
        "client CA file": files.endpoint.replace(client_ca=file),
    }[role]
    with pytest.raises(MissingInput, match=f"^TLS {role} {file}: .*; "):
        ServerTls(endpoint)


def test_a_file_that_may_not_be_read(files: Files) -> None:
    """A key that belongs to somebody else is refused by the system, and told so."""
    files.folder.chmod(0)  # for the tests' own user; where root runs them nobody else may look anyway
    try:
        said = run_unprivileged(
            "from tamed.net.endpoint import Endpoint; from tamed.net.tls import ServerTls",
            f"ServerTls(Endpoint.parse('tls://:0?cert={files.both}'))",
        )
    finally:
        files.folder.chmod(0o700)
    assert said == (
        f"{PermissionRefused.__name__}: TLS certificate {files.both}: Permission denied; "
        "let the user that starts this program read it"
    )
