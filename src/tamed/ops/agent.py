"""HAProxy's agent check: a line for each connection, with the state that the balancer should use.

See ``agent-check`` in HAProxy's configuration manual. The words are those of `/readyz`: ``ready up`` while it
passes, ``drain`` while the daemon stops, ``down#REASON`` otherwise. ``ready`` is needed because a balancer
keeps an instance drained until it receives that: the next instance at this address would get no clients. An
unreachable agent changes nothing for the balancer, so it needs an ordinary check as well.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from tamed.ops.health import Check, is_failed, readyz
from tamed.ops.source import NoAnswer, Source

__all__ = ["AgentCheck", "agent_line"]

_LONGEST: Final = 120  # characters of a reason
_LEAVING: Final = 1.0  # seconds for the balancer to close the connection


class AgentCheck:
    """The handler of a stream server."""

    def __init__(self, source: Source) -> None:
        self._source = source

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer, and wait until the balancer closes: unread data from it (``agent-send``) must not reset it.

        If the supervisor does not answer, there is no answer. The balancer then uses its ordinary check,
        which waits for several failures.
        """
        with suppress(NoAnswer):
            facts = await self._source.health()
            line = agent_line(readyz(facts), is_draining=facts["is_draining"])
            writer.write(line.encode(errors="replace"))
        with suppress(OSError, TimeoutError):
            if writer.can_write_eof():
                writer.write_eof()
            async with asyncio.timeout(_LEAVING):
                while await reader.read(1024):
                    continue


def agent_line(checks: Sequence[Check], *, is_draining: bool) -> str:
    """Return the answer for the checks of readiness."""
    if is_draining:
        return "drain\n"
    failed = [check for check in checks if is_failed(check)]
    return f"down#{' '.join(failed[0].why.split())[:_LONGEST]}\n" if failed else "ready up\n"
