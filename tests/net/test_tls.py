import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
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
from tamed.net.tls import renew, server_context
from tests.net.unprivileged import run_unprivileged


@dataclass
class Files:
    """An authority, and the files of a certificate of its own for localhost."""

    folder: Path
    authority: trustme.CA
    cert: Path
    key: Path
    both: Path
    ca: Path

    @property
    def endpoint(self) -> TlsEndpoint:
        return TlsEndpoint("localhost", 0, self.cert, self.key)


def make_files(folder: Path, authority: trustme.CA, key_type: trustme.KeyType) -> Files:
    """Write a new certificate of an authority, over an older one if there is one."""
    folder.mkdir(exist_ok=True)
    files = Files(folder, authority, *(folder / f"{name}.pem" for name in ("cert", "key", "both", "ca")))
    issued = authority.issue_cert("localhost", key_type=key_type)
    files.cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(files.key)
    issued.private_key_and_cert_chain_pem.write_to_path(files.both)
    authority.cert_pem.write_to_path(files.ca)
    return files


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Give the files of a certificate that its client trusts."""
    return make_files(tmp_path / "tls", trustme.CA(), trustme.KeyType.ECDSA)


class Handshake:
    """A client and a server that speak TLS through memory."""

    def __init__(
        self, server: ssl.SSLContext, client: ssl.SSLContext, name: str | None = "localhost"
    ) -> None:
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(back, there, server_hostname=name)
        self.server = server.wrap_bio(there, back, server_side=True)
        for _ in range(4):  # more flights than any handshake has
            for side in (self.client, self.server):
                with suppress(ssl.SSLWantReadError):
                    side.do_handshake()
        # With TLS 1.3 a client learns only when it reads that its certificate was refused.
        self.server.write(b"verse")
        assert self.client.read() == b"verse"

    @property
    def shown(self) -> int:
        """The serial number of the certificate that the server showed."""
        shown = self.client.getpeercert(binary_form=True)
        assert shown is not None
        return x509.load_der_x509_certificate(shown).serial_number


def serial_of(files: Files) -> int:
    """Return the serial number of the certificate in the file."""
    return x509.load_pem_x509_certificate(files.cert.read_bytes()).serial_number


def client_of(files: Files) -> ssl.SSLContext:
    """Return a client's context that trusts the files' authority."""
    context = ssl.create_default_context(cafile=files.ca)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # trustme's authority has no key usage extension
    return context


def test_a_certificate_and_its_key_in_two_files(files: Files) -> None:
    """A client that trusts the authority accepts the server."""
    handshake = Handshake(server_context(files.endpoint), client_of(files))
    assert handshake.shown == serial_of(files)
    assert handshake.client.version() == "TLSv1.3"


def test_a_certificate_and_its_key_in_one_file(files: Files) -> None:
    """The key may stand in the certificate's file."""
    Handshake(server_context(TlsEndpoint("localhost", 0, files.both)), client_of(files))


def test_old_versions_are_refused(files: Files) -> None:
    """TLS 1.2 is the oldest that is spoken, and nobody may renegotiate."""
    context = server_context(files.endpoint)
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
        shown = Handshake(server_context(files.endpoint), client).client.cipher()
        assert shown is not None
        assert shown[0] == cipher
    else:
        with pytest.raises(ssl.SSLError):
            Handshake(server_context(files.endpoint), client)


def test_a_client_certificate_is_required(files: Files, tmp_path: Path) -> None:
    """With ``client_ca``, only clients with a certificate of that authority get through."""
    strangers = make_files(tmp_path / "strangers", trustme.CA(), trustme.KeyType.ECDSA)
    context = server_context(files.endpoint.replace(client_ca=files.ca))
    friend, stranger = client_of(files), client_of(files)
    files.authority.issue_cert("client@example.org").configure_cert(friend)
    strangers.authority.issue_cert("client@example.org").configure_cert(stranger)
    Handshake(context, friend)
    for unwelcome in (stranger, client_of(files)):
        with pytest.raises(ssl.SSLError):
            Handshake(context, unwelcome)


@pytest.mark.parametrize("name", ["localhost", None])
@pytest.mark.parametrize("key_type", list(trustme.KeyType), ids=lambda kind: kind.name)
def test_renewed_files_are_taken(files: Files, key_type: trustme.KeyType, name: str | None) -> None:
    """New handshakes get the new certificate, whatever its key is; old connections go on."""
    context = server_context(files.endpoint)
    client = client_of(files)
    client.check_hostname = False
    before = Handshake(context, client, name)
    make_files(files.folder, files.authority, key_type)
    renew(context, files.endpoint)
    after = Handshake(context, client, name)
    assert after.shown == serial_of(files) != before.shown
    before.server.write(b"the end")
    assert before.client.read() == b"the end"


def test_renewing_may_change_who_is_trusted(files: Files, tmp_path: Path) -> None:
    """After a renewal, the new client authority counts and the old one does not."""
    others = make_files(tmp_path / "others", trustme.CA(), trustme.KeyType.ECDSA)
    endpoint = files.endpoint.replace(client_ca=tmp_path / "clients.pem")
    assert endpoint.client_ca is not None
    endpoint.client_ca.write_bytes(files.ca.read_bytes())
    context = server_context(endpoint)
    ours, theirs = client_of(files), client_of(files)
    files.authority.issue_cert("client@example.org").configure_cert(ours)
    others.authority.issue_cert("client@example.org").configure_cert(theirs)
    Handshake(context, ours)
    endpoint.client_ca.write_bytes(others.ca.read_bytes())
    renew(context, endpoint)
    Handshake(context, theirs)
    with pytest.raises(ssl.SSLError):
        Handshake(context, ours)


def test_a_bad_renewal_changes_nothing(files: Files) -> None:
    """If a renewed file is bad, that is raised and the old certificate is shown on."""
    context, before = server_context(files.endpoint), serial_of(files)
    files.cert.write_text("half a certif")
    with pytest.raises(ConfigurationError):
        renew(context, files.endpoint)
    assert Handshake(context, client_of(files)).shown == before


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
        ("cert", key_of, "TLS certificate {}: it holds a private key and no certificate"),
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
            "TLS key {}: it holds a certificate and no private key",
        ),
        ("key", lambda files: damaged(key_of(files)), "TLS key {}: OpenSSL refuses it: "),
        (
            "key",
            encrypted,
            "TLS key {}: it needs a passphrase, and a server cannot prompt for it; store it without: ",
        ),
        ("key", encrypted_of_old, "TLS key {}: it needs a passphrase"),
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
        server_context(files.endpoint.replace(client_ca=files.ca))
    assert str(caught.value).startswith(said.format(file))


def test_a_key_of_another_certificate(files: Files, tmp_path: Path) -> None:
    """Both files of a pair that does not fit are named."""
    other = make_files(tmp_path / "other", trustme.CA(), trustme.KeyType.ECDSA)
    with pytest.raises(ConfigurationError) as caught:
        server_context(files.endpoint.replace(key=other.key))
    assert str(caught.value) == (
        f"TLS certificate {files.cert}: the key {other.key} belongs to another certificate; "
        "give the key that it was issued for"
    )


def test_a_key_of_another_kind(files: Files, tmp_path: Path) -> None:
    """A key of another type than the certificate's does not fit either."""
    other = make_files(tmp_path / "other", trustme.CA(), trustme.KeyType.RSA)
    with pytest.raises(ConfigurationError, match="belongs to another certificate"):
        server_context(files.endpoint.replace(key=other.key))


def test_a_certificate_without_a_key(files: Files) -> None:
    """A certificate's file without the key, and no other file named, is told with the remedy."""
    with pytest.raises(ConfigurationError) as caught:
        server_context(TlsEndpoint("localhost", 0, files.cert))
    assert str(caught.value) == (
        f"TLS certificate {files.cert}: it holds no private key; name the key's file too: &key=FILE"
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
        server_context(files.endpoint)
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
        server_context(endpoint)


def test_a_file_that_may_not_be_read(files: Files) -> None:
    """A key that belongs to somebody else is refused by the system, and told so."""
    files.folder.chmod(0)  # for the tests' own user; where root runs them nobody else may look anyway
    try:
        said = run_unprivileged(
            "from tamed.net.endpoint import Endpoint; from tamed.net.tls import server_context",
            f"server_context(Endpoint.parse('tls://:0?cert={files.both}'))",
        )
    finally:
        files.folder.chmod(0o700)
    assert said == (
        f"{PermissionRefused.__name__}: TLS certificate {files.both}: Permission denied; "
        "let the user who starts this read it"
    )
