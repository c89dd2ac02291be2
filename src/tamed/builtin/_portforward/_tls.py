"""TLS towards the upstreams: how they are verified, and what is shown to them."""

import ssl as tls
from dataclasses import dataclass, replace
from pathlib import Path

from tamed.errors import ConfigurationError, from_os_error, reason
from tamed.net.endpoint import TlsEndpoint

__all__ = ["ClientTls"]


@dataclass(frozen=True, slots=True)
class ClientTls:
    """What is asked of upstreams, and shown to them; all files are PEM.

    Certificates are verified against ``ca`` (None: the system's authorities) and must be for ``name`` (empty:
    the host that is connected to), unless ``verify`` is false. ``cert``, with its ``key`` (None: it is in the
    same file), is shown to upstreams that ask for one.
    """

    ca: Path | None = None
    name: str = ""
    verify: bool = True
    cert: Path | None = None
    key: Path | None = None

    def showing(self, endpoint: TlsEndpoint) -> "ClientTls":
        """Return the same, with the certificate of an endpoint."""
        return replace(self, cert=endpoint.cert, key=endpoint.key)

    def context(self) -> tls.SSLContext:
        """Read the files. Raises ConfigurationError, MissingInput and PermissionRefused."""
        context = tls.create_default_context()
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = tls.CERT_NONE
        elif self.ca is not None:
            context = tls.create_default_context(cafile=_readable(self.ca))
        if self.cert is not None:
            _show(context, self.cert, self.key)
        return context


def _show(context: tls.SSLContext, cert: Path, key: Path | None) -> None:
    try:
        context.load_cert_chain(_readable(cert), key and _readable(key))
    except tls.SSLError as error:
        raise ConfigurationError(f"TLS certificate {cert}", reason(error)) from error


def _readable(file: Path) -> Path:
    try:
        file.open("rb").close()
    except OSError as error:
        raise from_os_error(f"TLS file {file}", error, "name a readable file") from error
    return file
