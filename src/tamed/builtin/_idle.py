"""Telling when nothing has moved for too long."""

import asyncio

__all__ = ["IdleWatch"]


class IdleWatch:
    """Raises TimeoutError in the block that it is around, when it was not told of a move for ``seconds``.

    A timer that is set anew for each chunk would cost as much as the chunk: this one looks, when it rings,
    how long the last move is ago.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def moved(self) -> None:
        """Begin to count from here."""
        self._last = self._loop.time()

    def now_within(self, seconds: float) -> None:
        """Begin to count from here, with another limit."""
        self.seconds = seconds
        self._timer.cancel()
        self.moved()
        self._look()

    async def __aenter__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._deadline = asyncio.timeout(None)
        await self._deadline.__aenter__()
        self.moved()
        self._look()

    async def __aexit__(self, *exception: object) -> None:
        self._timer.cancel()
        await self._deadline.__aexit__(*exception)  # type: ignore[arg-type]

    def _look(self) -> None:
        due = self._last + self.seconds
        self._timer = self._loop.call_at(due, self._look)
        if due <= self._loop.time():
            self._timer.cancel()
            self._deadline.reschedule(due)
