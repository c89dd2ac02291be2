"""Certificates of servers, from PEM files: contexts with secure defaults, and a message for a bad file."""

import errno
import re
import ssl
import time
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NoReturn, Self

from tamed._os.trust import require_trusted
from tamed.errors import ConfigurationError, from_os_error
from tamed.net.endpoint import KeyPair, TlsEndpoint

__all__ = ["CertificateContext", "load_certificates"]

_CERTIFICATE: Final = rb"-----BEGIN (?:(?:TRUSTED|X509) )?CERTIFICATE-----"
_KEY: Final = rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----"
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: forward secrecy and authenticated encryption. Some builds of Python allow static RSA too."""

_MISMATCH: Final = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
"""The reasons of OpenSSL if key and certificate do not match; the last one if their types differ."""

_READ_REMEDY: Final = {
    errno.ENOENT: "check the path in the endpoint",
    errno.EISDIR: "name the file in it",
    errno.EACCES: "let the user that starts this program read it",
}

_NO_CHECK_TIME: Final = ssl.VerifyFlags(0x200000)
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, for which `ssl` has no name."""


class CertificateContext(ssl.SSLContext):
    """The context for one certificate, with the facts that the certificate states."""

    file: Path
    pem = ""
    """The certificate, without its chain."""
    names: frozenset[str] = frozenset()
    """The host names that it is for, in lower case; one may begin with ``*.``."""
    valid: tuple[float, float] = (0.0, float("inf"))
    """The begin and end of its validity, in seconds since 1970."""

    @classmethod
    def of(cls, pair: KeyPair) -> Self:
        """Load a certificate and its key: TLS 1.3 and 1.2."""
        context = cls(ssl.PROTOCOL_TLS_SERVER)
        context.verify_flags = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).verify_flags
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_CIPHERS)
        # A renegotiation costs the server far more than the client; TLS 1.3 has none.
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.file = pair.cert
        _load_certificate(context, pair.cert, pair.key or pair.cert)
        context._read_facts()
        return context

    @cached_property
    def cipher_suites(self) -> dict[str, int]:
        """The numbers of the cipher suites by their names (RFC 8446, B.4); OpenSSL adds a prefix to them."""
        return {cipher["name"]: cipher["id"] & 0xFFFF for cipher in self.get_ciphers()}

    def fault_at(self, now: float) -> str:
        """Return why clients refuse the certificate at a time, or an empty text."""
        begins, ends = self.valid
        if now < begins:
            return f"it is not valid before {_moment(begins)}: check the clock of this machine"
        return f"it expired on {_moment(ends)}: renew it" if now >= ends else ""

    def _read_facts(self) -> None:
        """Read the certificate's facts, in a handshake with a client in this process.

        `ssl` decodes only verified certificates. If no client would accept this one, whatever authorities it
        trusts, its facts stay unknown.
        """
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname = False
        client.load_verify_locations(self.file)
        client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        shown = client.wrap_bio(back, there)
        try:
            for side in (shown, self.wrap_bio(there, back, server_side=True), shown):
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    continue
            facts: dict[str, Any] = shown.getpeercert() or {}
        except (ssl.SSLError, ValueError):  # ValueError: the handshake failed before the certificate
            return
        self.pem = ssl.DER_cert_to_PEM_cert(shown.getpeercert(binary_form=True) or b"")
        self.names = frozenset(
            name.lower() for kind, name in facts.get("subjectAltName", ()) if kind == "DNS"
        )
        self.valid = ssl.cert_time_to_seconds(facts["notBefore"]), ssl.cert_time_to_seconds(facts["notAfter"])


def load_certificates(endpoint: TlsEndpoint) -> tuple[CertificateContext, ...]:
    """Load all certificates of an endpoint, and the authorities of its clients into the context of each.

    Raises ``MissingInput`` and ``PermissionRefused`` for a file that cannot be read, and
    ``ConfigurationError`` for an invalid one and for a name in two certificates. Never prompts for a
    passphrase.
    """
    loaded = tuple(_load(pair) for pair in endpoint.pairs)
    _require_distinct(loaded)
    if endpoint.client_ca is not None:
        _require(endpoint.client_ca, "client CA file", _CERTIFICATE)
        for context in loaded:
            _load_client_ca(context, endpoint.client_ca)
            if endpoint.verify_client == "optional":
                context.verify_mode = ssl.CERT_OPTIONAL
    return loaded


def _load(pair: KeyPair) -> CertificateContext:
    _require(pair.cert, "certificate", _CERTIFICATE)
    if pair.key is None:
        _require_key_inside(pair.cert)
    else:
        _require(pair.key, "key", _KEY)
    return CertificateContext.of(pair)


def _require_distinct(loaded: tuple[CertificateContext, ...]) -> None:
    """Raise unless each of several certificates has names, which no other one has."""
    owners: dict[str, Path] = {}
    for number, context in enumerate(loaded):
        what = f"TLS certificate {context.file}"
        if number and not context.names:
            raise ConfigurationError(what, "it has no host name, so no client would get it", "leave it out")
        for name in sorted(context.names):
            if name in owners:
                why = f"{owners[name]} has the name {name}, too"
                raise ConfigurationError(what, why, "give one certificate for each name")
            owners[name] = context.file


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def _load_certificate(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    def no_passphrase() -> NoReturn:
        remedy = f"remove the passphrase: openssl pkey -in {key} -out NEWFILE"
        raise ConfigurationError(
            f"TLS key {key}", "it has a passphrase, and a server cannot prompt for it", remedy
        )

    try:
        context.load_cert_chain(cert, key, password=no_passphrase)
    except ssl.SSLError as error:
        raise _diagnosis(cert, key, error) from error


def _load_client_ca(context: ssl.SSLContext, client_ca: Path) -> None:
    try:
        context.load_verify_locations(client_ca)
    except ssl.SSLError as error:
        raise _damaged("client CA file", client_ca, error) from error
    context.verify_mode = ssl.CERT_REQUIRED


def _require(file: Path, role: str, expected: bytes) -> None:
    """Raise unless the file can be read and contains the expected PEM block."""
    require_trusted(file, f"TLS {role}")
    content = _read(file, role)
    if re.search(expected, content):
        return
    if role == "key" and re.search(_CERTIFICATE, content):
        raise ConfigurationError(f"TLS key {file}", "it contains a certificate, but no private key")
    if role != "key" and re.search(_KEY, content):
        raise ConfigurationError(f"TLS {role} {file}", "it contains a private key, but no certificate")
    tool = "pkey" if role == "key" else "x509"
    remedy = f"if it is DER, convert it: openssl {tool} -inform der -in {file} -out NEWFILE"
    raise ConfigurationError(f"TLS {role} {file}", "it is not a PEM file", remedy)


def _require_key_inside(cert: Path) -> None:
    if not re.search(_KEY, _read(cert, "certificate")):
        why = "it contains no private key"
        raise ConfigurationError(f"TLS certificate {cert}", why, "name the key's file too: &key=FILE")


def _read(file: Path, role: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise from_os_error(f"TLS {role} {file}", error, _READ_REMEDY.get(error.errno or 0, "")) from error


def _diagnosis(cert: Path, key: Path, error: ssl.SSLError) -> ConfigurationError:
    """Return the error for the one of the two files that OpenSSL refused."""
    if error.reason in _MISMATCH:
        why = f"the key {key} belongs to another certificate"
        return ConfigurationError(f"TLS certificate {cert}", why, "give the key that it was issued for")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cert)
    except ssl.SSLError:
        return _damaged("certificate", cert, error)
    # The certificate can be read. With a reason OpenSSL refuses it: its key is too small, or too weak.
    return _damaged("certificate", cert, error) if error.reason else _damaged("key", key, error)


def _damaged(role: str, file: Path, error: ssl.SSLError) -> ConfigurationError:
    why = error.reason.replace("_", " ").lower() if error.reason else "not valid PEM"
    return ConfigurationError(f"TLS {role} {file}", f"OpenSSL refuses it: {why}", "replace it")
