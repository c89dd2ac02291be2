"""Fast poetry: a poem for whoever connects. The reference service, in the form of a plugin."""

import logging
from dataclasses import dataclass
from pathlib import Path

from tamed.errors import from_os_error
from tamed.net import Endpoint, ReplyServer, TcpEndpoint
from tamed.plugins import option, plugin
from tamed.service import MultiService, Service

__all__ = ["Options", "Poetry", "fastpoetry"]

log = logging.getLogger("fastpoetry")

_ECSTASY = Path(__file__).parent / "poetry" / "ecstasy.txt"


class Poetry(Service):
    """Holds a poem. Knows nothing of protocols, so that any protocol can serve it.

    ``text`` is the poem, as the bytes of its file, while the service runs. A file that cannot be read fails
    the start.
    """

    text: bytes

    def __init__(self, file: Path, name: str = "poetry") -> None:
        super().__init__(name)
        self.file = file

    async def start(self) -> None:
        """Read the poem."""
        try:
            self.text = self.file.read_bytes()
        except OSError as error:
            raise from_os_error(f"cannot read the poem {self.file}", error, "name a readable file") from error
        log.info("loaded a poem of %d bytes from %s", len(self.text), self.file)

    def recite(self, peer: str) -> bytes:
        """Return the whole poem, and log that it goes to this peer."""
        log.info("sending %d bytes of poetry to %s", len(self.text), peer)
        return self.text


@dataclass
class Options:
    """The options of ``fastpoetry``."""

    port: int = option(10000, "The port number to listen on.", short="p")
    poem: Path | None = option(None, "The file containing the poem; without it, John Donne's The Ecstasy.")
    iface: str = option("localhost", "The interface to listen on.")
    listen: list[Endpoint] = option([], "An endpoint to listen on, instead of the interface and port.")

    def __post_init__(self) -> None:
        TcpEndpoint(self.iface, self.port)  # raises ValueError: a mistake in the options


@plugin
def fastpoetry(options: Options) -> Service:
    """A fast poetry service."""
    poetry = Poetry(options.poem or _ECSTASY)
    endpoints = options.listen or [TcpEndpoint(options.iface, options.port)]
    return MultiService("fastpoetry", poetry, ReplyServer(endpoints, poetry.recite, name="server"))
