"""TLS for servers: contexts with secure defaults, and renewal of certificates while a server runs."""

import asyncio
import errno
import re
import ssl
from pathlib import Path
from typing import Final, NoReturn

from tamed._os.trust import require_trusted
from tamed.errors import ConfigurationError, TamedError, from_os_error
from tamed.log.logger import own_logger
from tamed.net.endpoint import TlsEndpoint

__all__ = ["CertificateWatch", "renew", "server_context"]


log = own_logger("tamed.net")

_INTERVAL = 20.0  # seconds

_Stamp = tuple[tuple[int, int, int] | None, ...]


class CertificateWatch:
    """Loads new certificates, keys and authorities of an endpoint, for later handshakes.

    It checks the files every ``interval`` seconds, until it is closed. If the new files are invalid, for
    example because only one of them was replaced so far, it logs one error and keeps the old ones.
    """

    def __init__(self, endpoint: TlsEndpoint, context: ssl.SSLContext, interval: float = _INTERVAL) -> None:
        self._endpoint = endpoint
        self._context = context
        self._interval = interval
        self._stamp = self._read_stamp()
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(interval, self._tick)

    def close(self) -> None:
        """Stop checking. May be called again."""
        self._timer.cancel()

    def check(self) -> None:
        """Check whether the files have changed, and load them if they have."""
        stamp = self._read_stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            renew(self._context, self._endpoint)
        except TamedError as error:
            log.error("%s keeps its certificate: %s", self._endpoint, error)  # noqa: TRY400 - no traceback needed
        else:
            log.info("%s has a new certificate", self._endpoint)

    def _tick(self) -> None:
        self.check()
        self._timer = self._loop.call_later(self._interval, self._tick)

    def _read_stamp(self) -> _Stamp:
        """Return values that change when a file is written or replaced."""
        return tuple(
            _stamp_of(path)
            for path in (self._endpoint.cert, self._endpoint.key, self._endpoint.client_ca)
            if path is not None
        )


def _stamp_of(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


_CERTIFICATE: Final = rb"-----BEGIN (?:(?:TRUSTED|X509) )?CERTIFICATE-----"
_KEY: Final = rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----"
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: forward secrecy and authenticated encryption. Some builds of Python allow static RSA too."""

_MISMATCH: Final = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
"""The reasons of OpenSSL if key and certificate do not match; the last one if their types differ."""

_READ_REMEDY: Final = {
    errno.ENOENT: "check the path in the endpoint",
    errno.EISDIR: "name the file in it",
    errno.EACCES: "let the user who starts this read it",
}


def server_context(endpoint: TlsEndpoint) -> ssl.SSLContext:
    """Return a new context with an endpoint's certificate and key: TLS 1.3 and 1.2.

    For TLS 1.2 it allows the ciphers with forward secrecy and authenticated encryption (RFC 9325, 4.2).

    With ``client_ca``, a client must send a certificate signed by one of those; the system's authorities do
    not count. Raises ``MissingInput`` and ``PermissionRefused`` for a file that cannot be read and
    ``ConfigurationError`` for an invalid one. Never prompts for a passphrase.
    """
    _require(endpoint.cert, "certificate", _CERTIFICATE)
    if endpoint.key is None:
        _require_key_inside(endpoint.cert)
    else:
        _require(endpoint.key, "key", _KEY)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    # A renegotiation costs the server far more than the client; TLS 1.3 has none.
    context.options |= ssl.OP_NO_RENEGOTIATION
    _load_certificate(context, endpoint.cert, endpoint.key or endpoint.cert)
    if endpoint.client_ca is not None:
        _load_client_ca(context, endpoint.client_ca)
    return context


def renew(context: ssl.SSLContext, endpoint: TlsEndpoint) -> None:
    """Read an endpoint's files again, for handshakes that begin from now on.

    ``context`` is that of the running server; existing connections are not affected. If a file is invalid
    this raises as ``server_context`` does, and the context keeps the old ones.
    """
    latest = server_context(endpoint)

    # Loading into the context itself would load half if the second file is invalid, would keep the old
    # certificate beside a new one with another type of key, and could not remove an authority.
    def use_latest(connection: ssl.SSLObject, _server_name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = latest

    context.sni_callback = use_latest


def _load_certificate(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    def no_passphrase() -> NoReturn:
        remedy = f"store it without: openssl pkey -in {key} -out NEWFILE"
        raise ConfigurationError(
            f"TLS key {key}", "it needs a passphrase, and a server cannot prompt for it", remedy
        )

    try:
        context.load_cert_chain(cert, key, password=no_passphrase)
    except ssl.SSLError as error:
        raise _diagnosis(cert, key, error) from error


def _load_client_ca(context: ssl.SSLContext, client_ca: Path) -> None:
    _require(client_ca, "client CA file", _CERTIFICATE)
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
        raise ConfigurationError(f"TLS key {file}", "it holds a certificate and no private key")
    if role != "key" and re.search(_KEY, content):
        raise ConfigurationError(f"TLS {role} {file}", "it holds a private key and no certificate")
    tool = "pkey" if role == "key" else "x509"
    remedy = f"if it is DER, convert it: openssl {tool} -inform der -in {file} -out NEWFILE"
    raise ConfigurationError(f"TLS {role} {file}", "it is not a PEM file", remedy)


def _require_key_inside(cert: Path) -> None:
    if not re.search(_KEY, _read(cert, "certificate")):
        why = "it holds no private key"
        raise ConfigurationError(f"TLS certificate {cert}", why, "name the key's file too: &key=FILE")


def _read(file: Path, role: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise from_os_error(f"TLS {role} {file}", error, _READ_REMEDY.get(error.errno or 0, "")) from error


def _diagnosis(cert: Path, key: Path, error: ssl.SSLError) -> ConfigurationError:
    """Return the error for the file, of the two, that OpenSSL has refused."""
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
