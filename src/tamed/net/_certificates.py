"""Certificates that are renewed on disk while a server runs."""

import asyncio
import ssl
from pathlib import Path

from tamed._logger import own_logger
from tamed.errors import TamedError
from tamed.net._endpoint import TlsEndpoint
from tamed.net._tls import renew

__all__ = ["CertificateWatch"]

log = own_logger("tamed.net")

_INTERVAL = 20.0  # seconds

_Stamp = tuple[tuple[int, int, int] | None, ...]


class CertificateWatch:
    """Takes new certificates, keys and authorities of an endpoint for the handshakes that come after.

    It looks every ``interval`` seconds, from when it is made until it is closed. Files that cannot be used,
    because only one of them was replaced so far for example, are told of once, and the server goes on with
    what it had.
    """

    def __init__(self, endpoint: TlsEndpoint, context: ssl.SSLContext, interval: float = _INTERVAL) -> None:
        self._endpoint = endpoint
        self._context = context
        self._interval = interval
        self._stamp = self._read_stamp()
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(interval, self._tick)

    def close(self) -> None:
        """Look no more. May be called again."""
        self._timer.cancel()

    def look(self) -> None:
        """Look whether the files have changed, and take them if they have."""
        stamp = self._read_stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            renew(self._context, self._endpoint)
        except TamedError as error:
            log.error("%s keeps its certificate: %s", self._endpoint, error)  # noqa: TRY400 - it says all
        else:
            log.info("%s has a new certificate", self._endpoint)

    def _tick(self) -> None:
        self.look()
        self._timer = self._loop.call_later(self._interval, self._tick)

    def _read_stamp(self) -> _Stamp:
        """Return what changes whenever a file is written or replaced."""
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
