"""Engines that a test opens, and closes again, and the servers of all kinds of them."""

import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import Final

import pytest

from tamed.cluster.engine import Engine, EngineError, open_engine
from tests.cluster.api_server import kubernetes
from tests.cluster.etcd_server import etcd
from tests.cluster.servers import Serving, nats, own_folder, postgres
from tests.patience import PATIENCE

__all__ = ["LONG", "SERVERS", "engines", "failure"]

LONG = 10 * PATIENCE
"""A lease that does not end while a test runs."""


@contextmanager
def _one_etcd() -> Iterator[Serving]:
    if shutil.which("etcd") is None:
        pytest.skip("etcd is not installed: etcd-server")
    with own_folder() as folder, etcd(folder) as server:
        yield Serving(int(server.place.rpartition(":")[2]), lambda at: f"etcd://127.0.0.1:{at}")


SERVERS: Final[Mapping[str, Callable[[], AbstractContextManager[Serving]]]] = {
    "etcd": _one_etcd,
    "kubernetes": kubernetes,
    "nats": nats,
    "postgres": postgres,
}
"""What runs the server of each kind of engine."""


@asynccontextmanager
async def engines(url: str, number: int) -> AsyncIterator[list[Engine]]:
    """Open engines, as so many hosts would."""
    opened = [open_engine(url) for _ in range(number)]
    try:
        yield opened
    finally:
        for engine in opened:
            await engine.close()


async def failure(url: str) -> str:
    """Return why no role can be had from an engine."""
    async with engines(url, 1) as (engine,):
        with pytest.raises(EngineError) as caught:
            await engine.acquire("a role", "holder", LONG)
    return str(caught.value)
