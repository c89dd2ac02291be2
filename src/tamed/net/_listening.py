"""What every service that listens has in common: its endpoints, and the sockets that it has for them."""

import socket
from collections.abc import Sequence
from typing import ClassVar

from tamed.errors import ServiceMisuse
from tamed.net._endpoint import Endpoint, as_endpoint
from tamed.net._source import Listener, current
from tamed.service.service import Service

__all__ = ["Endpoints", "ListeningService"]

Endpoints = str | Endpoint | Sequence[str | Endpoint]
"""One endpoint or several; a text is parsed at once."""


class ListeningService(Service):
    """A service that binds its endpoints in ``prepare`` and closes what it bound in ``release``.

    Its sockets come from the source of the current `Surroundings`. Raises ConfigurationError for a text
    that is no endpoint, when it is made.
    """

    socket_kind: ClassVar[socket.SocketKind] = socket.SOCK_STREAM

    def __init__(self, endpoint: Endpoints, *, name: str | None = None) -> None:
        super().__init__(name)
        several = [endpoint] if isinstance(endpoint, str | Endpoint) else endpoint
        self.endpoints: tuple[Endpoint, ...] = tuple(as_endpoint(one) for one in several)
        self.listeners: tuple[Listener, ...] = ()
        if not self.endpoints:
            raise ServiceMisuse(f"{type(self).__name__} without an endpoint", remedy="give it one or more")

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses it is bound to, with the ports that the kernel chose; empty while it is not."""
        return tuple(address for listener in self.listeners for address in listener.addresses)

    @property
    def summary(self) -> str:
        """Its addresses, or its endpoints while it has none."""
        return ", ".join(self.addresses or map(str, self.endpoints))

    async def prepare(self) -> None:
        """Bind every endpoint, or none."""
        source = current().source
        try:
            for endpoint in self.endpoints:
                self.listeners += (await source.listen(endpoint, self.socket_kind),)
        except BaseException:
            self._close_listeners()
            raise

    async def release(self) -> None:
        """Close what was bound, if `stop` has not done so."""
        self._close_listeners()

    def _close_listeners(self) -> None:
        listeners, self.listeners = self.listeners, ()
        for listener in listeners:
            listener.close()
