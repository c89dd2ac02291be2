"""What the agent check of HAProxy is answered."""

import asyncio
from typing import Any

import pytest

from tamed.net.stream import StreamServer
from tamed.ops.health import AgentCheck, agent_line, readyz
from tamed.testing.running import running
from tests.ops.test_application import Known
from tests.ops.test_health import SOUND
from tests.patience import PATIENCE

pytestmark = pytest.mark.anyio

BROKEN = {"name": "db", "gates": False, "asked": 1, "failing": 1, "why": "no answer"}


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        ({}, "ready up\n"),
        ({"is_draining": True}, "drain\n"),
        ({"phase": "starting", "ready": 0}, "down#the daemon is starting\n"),
        ({"ready": 0, "last_error": "no\npoem"}, "down#none of 2 is ready; last error: no poem\n"),
        ({"checks": [BROKEN]}, "ready up\n"),
        ({"checks": [BROKEN | {"gates": True}]}, "down#no answer\n"),
    ],
    ids=["sound", "stopping", "starting", "failing", "degraded", "unready"],
)
async def test_answer_follows_readiness(facts: dict[str, Any], line: str) -> None:
    """It is one line, and a daemon that stops is drained."""
    found: dict[str, Any] = SOUND | facts
    assert agent_line(readyz(found), is_draining=found["is_draining"]) == line


@pytest.mark.parametrize("sends", [b"", b"hello\n"], ids=["silent", "with agent-send"])
async def test_balancer_gets_a_line_and_the_end(sends: bytes) -> None:
    """Whether it sends something or not; nothing but the end if the supervisor does not answer."""
    for source, line in ((Known(), b"ready up\n"), (Known("it is busy"), b"")):
        async with running(StreamServer("127.0.0.1:0", AgentCheck(source))) as agent:
            reader, writer = await agent.connect()
            writer.write(sends)
            async with asyncio.timeout(PATIENCE):
                assert await reader.read() == line
            writer.close()
