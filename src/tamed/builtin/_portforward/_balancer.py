"""Which upstream a connection goes to."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from tamed.builtin._portforward._upstream import Upstream
from tamed.builtin._relay import Stream
from tamed.errors import Unavailable, reason
from tamed.log.logger import own_logger

__all__ = ["Balancer"]

log = own_logger("tamed.builtin")


class Balancer:
    """Gives each connection to the upstream with the fewest, and to the next one if that fails.

    Of several with as few, the one that was chosen longest ago comes first. Those that are down come last,
    the one that is worth a try soonest before the others: when all are down, a try is better than none.
    """

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        self.upstreams = list(upstreams)  # the one that was chosen longest ago first

    @asynccontextmanager
    async def connection(self, header: bytes) -> AsyncIterator[tuple[Upstream, Stream]]:
        """Connect to the best upstream that can be, which counts this connection until the end of the block.

        The header is sent first. Raises Unavailable if there is none.
        """
        why = ""
        for upstream in self._order():
            with self._counted(upstream):
                try:
                    stream = await upstream.open(header)
                except OSError as error:
                    why = f"{upstream.endpoint}: {reason(error)}"
                    log.info("upstream %s", why)
                    continue
                yield upstream, stream
                return
        raise Unavailable("no upstream can be reached", why)

    def _order(self) -> list[Upstream]:
        return sorted(self.upstreams, key=lambda upstream: (upstream.down_for, upstream.connections))

    @contextmanager
    def _counted(self, upstream: Upstream) -> Iterator[None]:
        upstream.connections += 1
        self.upstreams.remove(upstream)
        self.upstreams.append(upstream)
        try:
            yield
        finally:
            upstream.connections -= 1
