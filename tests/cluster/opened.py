"""Engines that a test opens, and closes again."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tamed.cluster.engine import Engine, EngineError, open_engine
from tests.patience import PATIENCE

__all__ = ["LONG", "engines", "failure"]

LONG = 10 * PATIENCE
"""A lease that does not end while a test runs."""


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
