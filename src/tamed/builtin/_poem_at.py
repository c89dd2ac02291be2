"""An option type: a poem, and where to listen for those who want it."""

from pathlib import Path
from typing import NamedTuple, Self

from tamed.net.endpoint import Endpoint

__all__ = ["PoemAt"]


class PoemAt(NamedTuple):
    """A file and an endpoint, written ``ecstasy.txt=localhost:10000``; the file's name has no ``=`` in it."""

    poem: Path
    endpoint: Endpoint

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``POEM=ENDPOINT``. Raises ValueError, which says what was expected."""
        poem, _, endpoint = text.partition("=")
        if not poem or not endpoint or "\0" in poem:
            raise ValueError(f"expected POEM=ENDPOINT, such as ecstasy.txt=localhost:10000, got {text!r}")
        return cls(Path(poem), Endpoint.parse(endpoint))

    def relative_to(self, folder: Path) -> Self:
        """Return the same with its relative paths starting at a folder."""
        return type(self)(folder / self.poem, self.endpoint.relative_to(folder))

    def __str__(self) -> str:
        return f"{self.poem}={self.endpoint}"
