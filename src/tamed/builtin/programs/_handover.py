"""Listening sockets that are handed to a program, as systemd does."""

import socket
from collections.abc import Mapping

from tamed.net import DEFAULT_BACKLOG, Endpoint, ListeningService, SystemdEndpoint, usable_backlog

__all__ = ["Handover"]


class Handover(ListeningService):
    """Binds endpoints for a program, which gets the sockets as in sd_listen_fds(3).

    They come from the source of the current `Surroundings`, so that they may be those of systemd or of the
    supervisor, and stay while the program is restarted or replaced: clients wait in the kernel's queue.
    """

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The sockets, in the order of the endpoints."""
        return tuple(sock for listener in self.listeners for sock in listener.sockets)

    def listen(self) -> None:
        """Let clients in, who wait until the program accepts them."""
        backlog = usable_backlog(DEFAULT_BACKLOG)
        for listener in self.listeners:
            listener.listen(backlog)

    def variables(self, name: str) -> Mapping[str, str]:
        """Return LISTEN_FDNAMES; ``name`` is that of the sockets which have none from systemd."""
        names = [_name(listener.endpoint) or name for listener in self.listeners for _ in listener.sockets]
        return {"LISTEN_FDNAMES": ":".join(names)}

    def close(self) -> None:
        """Give up the sockets; the program has copies, and may serve those who wait."""
        self._close_listeners()


def _name(endpoint: Endpoint) -> str:
    return endpoint.socket_name if isinstance(endpoint, SystemdEndpoint) else ""
