"""Free ports in place of those that a service was configured with."""

import socket

from tamed.net import Endpoint, Listener, LocalSource, SocketSource, TcpEndpoint, TlsEndpoint

__all__ = ["FreePorts"]


class FreePorts(SocketSource):
    """A socket source that binds a free port wherever an endpoint names one; all else is as it says.

    So a service can be tested as it is configured, beside itself in production and beside other tests.
    """

    def __init__(self, source: SocketSource | None = None) -> None:
        self._source = source or LocalSource()

    async def listen(self, endpoint: Endpoint, kind: socket.SocketKind = socket.SOCK_STREAM) -> Listener:
        """Bind, on a port of the kernel's choice; see `tamed.net.SocketSource`."""
        return await self._source.listen(_with_free_port(endpoint), kind)

    def listen_now(self, endpoint: Endpoint, kind: socket.SocketKind = socket.SOCK_STREAM) -> Listener:
        """Do the same before it returns."""
        return self._source.listen_now(_with_free_port(endpoint), kind)


def _with_free_port(endpoint: Endpoint) -> Endpoint:
    return endpoint.replace(port=0) if isinstance(endpoint, TcpEndpoint | TlsEndpoint) else endpoint
