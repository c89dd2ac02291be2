"""Files of certificates, and handshakes with them."""

import ssl
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography import x509

from tamed.net.endpoint import TlsEndpoint
from tamed.net.tls import ServerTls


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


def make_files(
    folder: Path, authority: trustme.CA, key_type: trustme.KeyType = trustme.KeyType.ECDSA, *names: str
) -> Files:
    """Write a new certificate of an authority, over an older one if there is one."""
    folder.mkdir(exist_ok=True)
    files = Files(folder, authority, *(folder / f"{name}.pem" for name in ("cert", "key", "both", "ca")))
    issued = authority.issue_cert(*names or ("localhost",), key_type=key_type)
    files.cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(files.key)
    issued.private_key_and_cert_chain_pem.write_to_path(files.both)
    authority.cert_pem.write_to_path(files.ca)
    return files


class Handshake:
    """A client and a server that speak TLS through memory."""

    def __init__(
        self,
        server: ServerTls,
        client: ssl.SSLContext,
        name: str | None = "localhost",
        session: ssl.SSLSession | None = None,
    ) -> None:
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(back, there, server_hostname=name, session=session)
        self.server = server.context.wrap_bio(there, back, server_side=True)
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
