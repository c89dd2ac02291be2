"""What is running for requests."""

import asyncio
from typing import Final

from uvicorn.server import ServerState

from tamed.service.service import Service

__all__ = ["Requests"]

_GRACE: Final = 5.0
"""Seconds that an application has for what it does after the answer, or after its client is gone."""


class Requests(Service):
    """Sees to it that nothing is running for a request any more when the application is told to stop.

    ``server_state`` is what uvicorn's protocols keep together.
    """

    def __init__(self) -> None:
        super().__init__("requests")
        self.server_state = ServerState()

    async def stop(self) -> None:
        """Wait for the requests, and cancel what takes too long."""
        if self.server_state.tasks:
            await asyncio.wait(tuple(self.server_state.tasks), timeout=_GRACE)
        for task in tuple(self.server_state.tasks):
            task.cancel()
