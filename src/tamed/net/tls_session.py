"""The TLS session of a connection: its version and cipher, and the certificates of both sides."""

import asyncio
import ssl
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from tamed.net._certificates import CertificateContext

__all__ = ["TlsSession", "tls_session"]

_VERSIONS: Final = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}

_ATTRIBUTES: Final = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}
"""The short names of RFC 4514, 3. Other attributes have OpenSSL's name."""


class TlsSession(NamedTuple):
    """The TLS of a connection that a server has accepted. Certificates are PEM texts."""

    version: int
    """0x0304 for TLS 1.3, 0x0303 for TLS 1.2."""
    cipher_suite: int
    """The number of the cipher suite (RFC 8446, B.4)."""
    server_certificate: str
    """The certificate that the client was shown."""
    client_certificates: tuple[str, ...]
    """The client's certificate and then those that lead to its authority; none if it sent none.

    Before Python 3.13, the client's own alone.
    """
    client_name: str
    """The subject of the client's certificate, such as ``CN=alice,O=Poets`` (RFC 4514); empty without one."""
    client_alt_names: tuple[tuple[str, str], ...]
    """Its other names, by their kind: ``("DNS", "host.example.com")``, ``("email", "alice@example.com")``."""


def tls_session(connection: asyncio.StreamWriter | asyncio.BaseTransport) -> TlsSession | None:
    """Return the TLS session of an accepted connection; None if it has no TLS.

    A client's certificate was verified in the handshake: with ``client_ca`` each client has one, with
    ``verify_client=optional`` some have.
    """
    tls: ssl.SSLObject | None = connection.get_extra_info("ssl_object")
    if tls is None:
        return None
    name, *_ = tls.cipher() or ("",)
    shown: Mapping[str, Any] = tls.getpeercert() or {}
    context = tls.context
    ours = context if isinstance(context, CertificateContext) else None
    return TlsSession(
        _VERSIONS.get(tls.version() or "", 0),
        ours.cipher_suites.get(name, 0) if ours else 0,
        ours.pem if ours else "",
        _chain_of(tls),
        _name(shown.get("subject", ())),
        tuple(shown.get("subjectAltName", ())),
    )


def _chain_of(tls: ssl.SSLObject) -> tuple[str, ...]:
    verified = getattr(tls, "get_verified_chain", None)  # Python 3.13 brought it
    own = tls.getpeercert(binary_form=True)
    chain: Iterable[bytes] = verified() if own and verified else [own] if own else ()
    return tuple(map(ssl.DER_cert_to_PEM_cert, chain))


def _name(subject: Iterable[Iterable[tuple[str, str]]]) -> str:
    """Write a distinguished name: the last part comes first (RFC 4514, 2.1)."""
    parts = [
        "+".join(f"{_ATTRIBUTES.get(kind, kind)}={_escaped(value)}" for kind, value in part)
        for part in subject
    ]
    return ",".join(reversed(parts))


def _escaped(value: str) -> str:
    """Escape a value, so that it cannot be read as several (RFC 4514, 2.4)."""
    text = "".join(
        f"\\{letter}" if letter in '"+,;<>\\' else "\\00" if letter == "\0" else letter for letter in value
    )
    if text.endswith(" "):
        text = f"{text[:-1]}\\ "
    return f"\\{text}" if text[:1] in {" ", "#"} else text
