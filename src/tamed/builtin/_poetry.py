"""The poem of `fastpoetry`, as a service."""

from pathlib import Path

from tamed.errors import from_os_error
from tamed.log.logger import AccessLog, own_logger
from tamed.service.service import Service

__all__ = ["Poetry"]

log = own_logger("fastpoetry")


class Poetry(Service):
    """Holds a poem. It is independent of protocols, so that any protocol can serve it.

    ``text`` is the poem, as the bytes of its file, while the service runs. A file that cannot be read fails
    the start.
    """

    text: bytes

    def __init__(self, file: Path) -> None:
        super().__init__("poetry")
        self.file = file
        self._access = AccessLog(log)

    async def start(self) -> None:
        """Read the poem."""
        try:
            self.text = self.file.read_bytes()
        except OSError as error:
            raise from_os_error(f"cannot read the poem {self.file}", error, "use a readable file") from error
        log.info("loaded a poem of %d bytes from %s", len(self.text), self.file)

    def recite(self, peer: str) -> bytes:
        """Return the whole poem, and log that it is sent to this peer."""
        self._access.add("sending %d bytes of poetry to %s", len(self.text), peer)
        return self.text
