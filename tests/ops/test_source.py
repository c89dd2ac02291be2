"""How the operations process asks the supervisor, which the test plays at the other end of the channel."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from tamed.ops.source import NoAnswer, Source
from tests.patience import PATIENCE
from tests.worker.test_link import Linked

# The loop of the operations process. Others may run timers before they read.
pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


@pytest.fixture
def linked() -> Iterator[Linked]:
    """Both ends of the channel."""
    with closing(Linked()) as made:
        yield made


async def test_answer_counts_that_came_while_this_process_was_held_up(linked: Linked) -> None:
    """A busy machine lets a process wait for more than a second: that is no fault of the supervisor's."""
    async with asyncio.timeout(PATIENCE):
        with linked.open():
            asking = asyncio.create_task(Source(linked.link).health())
            question = await linked.asked()
            linked.supervisor.send({"answer": question["number"], "state": "running"})
            time.sleep(1.2)  # noqa: ASYNC251 - it is to block the loop
            assert (await asking)["state"] == "running"


async def test_questions_survive_an_upgrade(linked: Linked) -> None:
    """Questions without an answer from the replaced program are asked again."""
    async with asyncio.timeout(PATIENCE):
        with linked.open():
            source = Source(linked.link)
            asking = asyncio.create_task(source.status())
            lost = await linked.asked()
            linked.supervisor.send({"upgrading": True})
            again = await linked.asked()
            assert (again["ask"], lost["ask"]) == ("status", "status")
            linked.supervisor.send({"upgrading": False})
            linked.supervisor.send({"answer": again["number"], "name": "verse"})
            assert (await asking)["name"] == "verse"
            with pytest.raises(NoAnswer, match="the supervisor has not answered within 1 s"):
                await source.health()
