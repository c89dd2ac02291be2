"""TLS for servers: the certificate for a client, its renewal without a restart, and the session's facts."""

import asyncio
import math
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from tamed.errors import TamedError
from tamed.log.logger import own_logger
from tamed.net._certificates import CertificateContext, load_certificates
from tamed.net.endpoint import TlsEndpoint

__all__ = ["Certificate", "CertificateWatch", "ServerTls", "TlsSession", "tls_session"]

log = own_logger("tamed.net")

_INTERVAL: Final = 20.0  # seconds

_Stamp = tuple[tuple[int, int, int] | None, ...]

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


class Certificate(NamedTuple):
    """A certificate that a server presents: its address, its file, and its end.

    ``ends`` is in seconds since 1970; None if that is unknown.
    """

    endpoint: str
    file: str
    ends: float | None


class ServerTls:
    """The TLS of a ``tls://`` endpoint: TLS 1.3 and 1.2, with its certificates and keys.

    For TLS 1.2 it allows the ciphers with forward secrecy and authenticated encryption (RFC 9325, 4.2). With
    ``client_ca``, a client must (or may) send a certificate signed by one of those; the system's authorities
    do not count.

    ``context`` is for the next connection. Its handshake takes the certificate for the name that the client
    asks for: that with the name, else that with ``*.`` in place of the first label, else the first.

    Raises ``MissingInput`` and ``PermissionRefused`` for a file that cannot be read, and
    ``ConfigurationError`` for an invalid one and for a name in two certificates. Never prompts for a
    passphrase.
    """

    def __init__(self, endpoint: TlsEndpoint) -> None:
        self.endpoint = endpoint
        self._protocols: tuple[str, ...] = ()
        self._use(load_certificates(endpoint))

    def offer(self, protocols: Sequence[str]) -> None:
        """Offer protocols in later handshakes, the best first (ALPN, RFC 7301)."""
        self._protocols = tuple(protocols)
        for each in self._certificates:
            each.set_alpn_protocols(list(protocols))

    def renew(self) -> None:
        """Read the files again, for handshakes that begin from now on.

        Existing connections are not affected. If a file is invalid this raises as the constructor does, and
        nothing changes.
        """
        # Loading into the existing contexts would load half if the second file is invalid, and would keep the
        # old certificate beside a new one with another type of key. A new context resumes no session of the
        # old one, so a client whose authority was removed cannot resume one.
        self._use(load_certificates(self.endpoint))
        self.offer(self._protocols)

    def certificates_at(self, address: str) -> Iterator[Certificate]:
        """Yield the certificates that are currently presented at an address of the endpoint."""
        for each in self._certificates:
            _, ends = each.valid
            yield Certificate(address, str(each.file), ends if math.isfinite(ends) else None)

    def faults(self) -> Iterator[str]:
        """Yield a text for each certificate that clients refuse now, because it is not valid."""
        now = time.time()
        for each in self._certificates:
            if why := each.fault_at(now):
                yield f"TLS certificate {each.file}: {why}"

    def _use(self, certificates: tuple[CertificateContext, ...]) -> None:
        self._certificates = certificates
        self.context: ssl.SSLContext = certificates[0]
        self.context.sni_callback = self._choose
        self._by_name = {name: each for each in certificates for name in each.names}

    def _choose(self, connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> int | None:
        """Set a connection's certificate when the client has asked for a name, or for none."""
        name = (name or "").lower()
        wildcard = f"*.{name.partition('.')[2]}"
        chosen = self._by_name.get(name) or self._by_name.get(wildcard)
        if chosen is None:
            if self.endpoint.unknown_name == "refuse":
                return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
            chosen = self._certificates[0]
        if connection.context is not chosen:
            connection.context = chosen
        return None


class CertificateWatch:
    """Loads new certificates, keys and authorities of an endpoint, for later handshakes.

    It checks the files every ``interval`` seconds, until it is closed. If the new files are invalid, for
    example because only one of them was replaced so far, it logs one error and keeps the old ones. For a
    certificate that has expired, or expires while the server runs, it logs a warning, once.
    """

    def __init__(self, tls: ServerTls, interval: float = _INTERVAL) -> None:
        self._tls = tls
        self._interval = interval
        self._stamp = self._read_stamp()
        self._known_faults: list[str] = []
        self._warn()
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(interval, self._tick)

    def close(self) -> None:
        """Stop checking. Idempotent."""
        self._timer.cancel()

    def check(self) -> None:
        """Check whether the files have changed, and load them if they have."""
        stamp = self._read_stamp()
        if stamp != self._stamp:
            self._stamp = stamp
            self._renew()
        self._warn()

    def _renew(self) -> None:
        endpoint = self._tls.endpoint
        try:
            self._tls.renew()
        except TamedError as error:
            log.error("%s keeps its certificate: %s", endpoint, error)  # noqa: TRY400 - no traceback needed
        else:
            log.info("%s has a new certificate", endpoint)

    def _warn(self) -> None:
        faults = list(self._tls.faults())
        for fault in faults:
            if fault not in self._known_faults:
                log.warning("%s", fault)
        self._known_faults = faults

    def _tick(self) -> None:
        self.check()
        self._timer = self._loop.call_later(self._interval, self._tick)

    def _read_stamp(self) -> _Stamp:
        """Return values that change when a file is written or replaced."""
        endpoint = self._tls.endpoint
        files = [file for pair in endpoint.pairs for file in pair]
        return tuple(_stamp_of(path) for path in (*files, endpoint.client_ca) if path is not None)


def _stamp_of(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


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
