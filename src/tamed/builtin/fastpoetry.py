"""Fast poetry: a poem for whoever connects. The reference service, in the form of a plugin.

What the service is made of is imported when it is made: `tamed start` reads the options, and leaves the event
loop to the workers.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from tamed.builtin._poem_at import PoemAt
from tamed.net.endpoint import Endpoint, TcpEndpoint
from tamed.plugins.option import option
from tamed.plugins.plugin import plugin
from tamed.plugins.values import Duration

if TYPE_CHECKING:
    from tamed.service.service import Service

__all__ = ["Options", "fastpoetry"]

_ECSTASY = Path(__file__).parent / "poetry" / "ecstasy.txt"


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
        [], "A poem and where to listen for it, in place of all the above.", metavar="POEM=ENDPOINT"
    )
    send_timeout: Duration = option(Duration("1m"), "How long a client may take nothing of its poem.")
    max_connections: int = option(10000, "How many clients may be slow at once; more have to wait.", ge=1)
    max_connections_per_address: int | None = option(
        None, "How many slow clients one address may have; others of it are refused.", ge=1
    )

    def __post_init__(self) -> None:
        TcpEndpoint(self.iface, self.port)  # raises ValueError: a mistake in the options
        TcpEndpoint(self.iface, self.port2 or 0)
        if (self.poem2 is None) != (self.port2 is None):
            raise ValueError("poem2 and port2 go together: give both or none")
        for field in fields(self)[: _OWN.index("serve")] if self.serve else ():
            if getattr(self, field.name) not in (field.default, []):
                raise ValueError(f"serve stands in place of {field.name}: leave one of them out")

    def poems(self) -> Iterator[tuple[Path, list[Endpoint]]]:
        """Yield each poem that is to be served, with its endpoints."""
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
    from tamed.service.service import MultiService

    poems = list(options.poems())
    if len(poems) == 1:
        return _recital("fastpoetry", *poems[0], options)
    names = _names([file.stem for file, _ in poems])
    recitals = [_recital(name, *poem, options) for name, poem in zip(names, poems, strict=True)]
    return MultiService("fastpoetry", *recitals)


def _recital(name: str, file: Path, endpoints: list[Endpoint], options: Options) -> "Service":
    """Return a poem, and a server that recites it, as one service."""
    from tamed.builtin._poetry import Poetry
    from tamed.net.reply import ReplyServer
    from tamed.service.service import MultiService

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


def _names(wanted: list[str]) -> Iterator[str]:
    """Yield each name, with a number if it was there before."""
    seen: Counter[str] = Counter()
    for name in wanted:
        seen[name] += 1
        yield name if seen[name] == 1 else f"{name}-{seen[name]}"
