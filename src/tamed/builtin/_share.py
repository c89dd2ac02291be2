"""A directory that is served."""

import asyncio

from tamed.builtin._beneath import Beneath
from tamed.errors import from_os_error
from tamed.service.service import Service

__all__ = ["Share"]


class Share(Service):
    """Fails the start if the directory is not there, or may not be listed, instead of every request later."""

    def __init__(self, root: Beneath) -> None:
        super().__init__("files")
        self._root = root

    @property
    def summary(self) -> str:
        """The directory."""
        return str(self._root.folder)

    async def start(self) -> None:
        """Look whether it is there."""
        try:
            await asyncio.to_thread(self._root.check)
        except OSError as error:
            what = f"cannot serve {self._root.folder}"
            raise from_os_error(what, error, "name a directory that can be read") from error
