"""Fast poetry: sends a poem to every client. The reference service, as a plugin.

`tamed start` imports this for the options alone. The service is imported when it is made, so that the command
loads no event loop.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from tamed.net.endpoint import Endpoint, TcpEndpoint
from tamed.plugins.option import option
from tamed.plugins.plugin import plugin
from tamed.plugins.values import Duration

if TYPE_CHECKING:
    from tamed.service.service import Service

__all__ = ["Options", "PoemAt", "fastpoetry"]

_ECSTASY = Path(__file__).parent / "poetry" / "ecstasy.txt"


class PoemAt(NamedTuple):
    """A file and an endpoint, written ``ecstasy.txt=localhost:10000``; the file's name contains no ``=``."""

    poem: Path
    endpoint: Endpoint

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``POEM=ENDPOINT``. Raises ValueError, which names the expected form."""
        poem, _, endpoint = text.partition("=")
        if not poem or not endpoint or "\0" in poem:
            raise ValueError(f"expected POEM=ENDPOINT, such as ecstasy.txt=localhost:10000, got {text!r}")
        return cls(Path(poem), Endpoint.parse(endpoint))

    def relative_to(self, folder: Path) -> Self:
        """Return a copy with relative paths resolved from a folder."""
        return type(self)(folder / self.poem, self.endpoint.relative_to(folder))

    def __str__(self) -> str:
        return f"{self.poem}={self.endpoint}"


@dataclass
class Options:
    """The options of ``fastpoetry``."""

    port: int = option(10000, "The port number to listen on.", short="p")
    poem: Path | None = option(None, "The file containing the poem; without it, John Donne's The Ecstasy.")
    iface: str = option("localhost", "The interface to listen on.")
    listen: list[Endpoint] = option([], "An endpoint to listen on, instead of the interface and port.")
    port2: int | None = option(None, "The port number of a second poem.")
    poem2: Path | None = option(None, "The file containing a second poem.")
    serve: list[PoemAt] = option(
        [], "A poem and the endpoint to serve it on, instead of the options above.", metavar="POEM=ENDPOINT"
    )
    send_timeout: Duration = option(
        Duration("1m"), "Longest time in which a client may read nothing of its poem."
    )
    max_connections: int = option(10000, "Maximum number of slow clients; further clients wait.", ge=1)
    max_connections_per_address: int | None = option(
        None, "The same for one address; its further clients are refused.", ge=1
    )

    def __post_init__(self) -> None:
        TcpEndpoint(self.iface, self.port)  # raises ValueError for invalid options
        TcpEndpoint(self.iface, self.port2 or 0)
        if (self.poem2 is None) != (self.port2 is None):
            raise ValueError("poem2 and port2 go together: use both or neither")
        for field in fields(self)[: _OWN.index("serve")] if self.serve else ():
            if getattr(self, field.name) not in (field.default, []):
                raise ValueError(f"serve and {field.name} exclude each other")

    def poems(self) -> Iterator[tuple[Path, list[Endpoint]]]:
        """Yield each poem with its endpoints."""
        if self.serve:
            yield from ((each.poem, [each.endpoint]) for each in self.serve)
            return
        yield self.poem or _ECSTASY, self.listen or [TcpEndpoint(self.iface, self.port)]
        if self.poem2 is not None and self.port2 is not None:
            yield self.poem2, [TcpEndpoint(self.iface, self.port2)]


_OWN = [field.name for field in fields(Options)]


@plugin
def fastpoetry(options: Options) -> "Service":
    """A fast poetry service."""
    from tamed.builtin._poetry import Poetry
    from tamed.net.reply import ReplyServer
    from tamed.service.service import MultiService

    def recital(name: str, file: Path, endpoints: list[Endpoint]) -> MultiService:
        poetry = Poetry(file)
        server = ReplyServer(
            endpoints,
            poetry.recite,
            name="server",
            send_timeout=options.send_timeout,
            max_connections=options.max_connections,
            max_connections_per_address=options.max_connections_per_address,
        )
        return MultiService(name, poetry, server)

    poems = list(options.poems())
    if len(poems) == 1:
        return recital("fastpoetry", *poems[0])
    names = _unique([file.stem for file, _ in poems])
    recitals = (recital(name, *poem) for name, poem in zip(names, poems, strict=True))
    return MultiService("fastpoetry", *recitals)


def _unique(names: list[str]) -> Iterator[str]:
    """Yield each name, with a number if it is a duplicate."""
    seen: Counter[str] = Counter()
    for name in names:
        seen[name] += 1
        yield name if seen[name] == 1 else f"{name}-{seen[name]}"
