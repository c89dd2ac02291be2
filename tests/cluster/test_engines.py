"""What all engines promise, each with its real server."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest

from tamed.cluster.engine import Attempt, Engine, EngineError
from tests.cluster.opened import LONG, SERVERS, engines, failure
from tests.cluster.relay import Relay
from tests.cluster.servers import Serving, free_port
from tests.patience import PATIENCE

pytestmark = [pytest.mark.anyio, pytest.mark.both_loops]


SHORT = 1.0
"""The shortest lease that all engines can grant."""


@pytest.fixture(scope="module", params=sorted(SERVERS))
def served(request: pytest.FixtureRequest) -> Iterator[Serving]:
    """Run the server of an engine."""
    with SERVERS[str(request.param)]() as serving:
        yield serving


@pytest.fixture
def role(request: pytest.FixtureRequest) -> str:
    """Return a role that no other test has, with characters that not every engine's names may have."""
    return f"{request.node.name} ~ Ä.*>/$"


async def until(attempt: Callable[[], Awaitable[Attempt]]) -> int:
    """Try again and again until there is a token; return it."""
    async with asyncio.timeout(PATIENCE):
        while (token := (await attempt()).token) is None:  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.05)
    return token


async def can_renew(engine: Engine, role: str) -> bool:
    """Return whether an engine says that a role is still held."""
    try:
        return await engine.renew(role)
    except EngineError:
        return False


async def test_one_of_many_gets_the_role(served: Serving, role: str) -> None:
    """Of hosts that try at once, one gets the role; the others hear by whom it is held."""
    async with engines(served.url, 5) as hosts:
        attempts = await asyncio.gather(
            *(host.acquire(role, f"host {number}", LONG) for number, host in enumerate(hosts))
        )
        winners = [number for number, attempt in enumerate(attempts) if attempt.token is not None]
        assert len(winners) == 1
        for number, host in enumerate(hosts):
            if number not in winners:
                assert await host.acquire(role, f"host {number}", LONG) == (None, f"host {winners[0]}")
        assert await hosts[winners[0]].renew(role)


async def test_token_grows_with_each_holder(served: Serving, role: str) -> None:
    """A role that is given back is free at once, and each holder's token is larger than all before."""
    async with engines(served.url, 2) as hosts:
        tokens = []
        for number in range(6):
            host = hosts[number % 2]
            token = (await host.acquire(role, f"campaign {number}", LONG)).token
            assert token is not None
            tokens.append(token)
            await host.release(role)
        assert tokens == sorted(set(tokens))
        assert all(0 < token < 2**63 for token in tokens)


async def test_lease_that_ends_passes_on(served: Serving, role: str) -> None:
    """A holder that does not renew loses the role, cannot renew it later, and cannot take it from another."""
    async with engines(served.url, 2) as (silent, other):
        first = (await silent.acquire(role, "silent", SHORT)).token
        assert first is not None
        second = await until(lambda: other.acquire(role, "other", LONG))
        assert second > first
        assert not await can_renew(silent, role)
        await silent.release(role)
        assert await silent.acquire(role, "silent", SHORT) == (None, "other")
        assert await other.renew(role)


async def test_renewal_holds_the_role(served: Serving, role: str) -> None:
    """A role that is renewed is kept for as long again, however often."""
    async with engines(served.url, 2) as (holder, other):
        await holder.acquire(role, "holder", LONG)
        for _ in range(3):
            assert await holder.renew(role)
            assert await other.acquire(role, "other", LONG) == (None, "holder")


async def test_same_campaign_may_have_the_role_again(served: Serving, role: str) -> None:
    """An attempt whose answer was lost does not keep its own campaign away."""
    async with engines(served.url, 2) as (holder, other):
        first = await holder.acquire(role, "holder", LONG)
        second = await holder.acquire(role, "holder", LONG)
        assert first.token is not None
        assert second.token is not None
        assert second.token >= first.token
        assert await holder.renew(role)
        assert await other.acquire(role, "other", LONG) == (None, "holder")


async def test_role_of_an_ended_process_is_free_at_once(served: Serving, role: str) -> None:
    """The role of a process known to have ended can be released; that of another holder stays."""
    async with engines(served.url, 2) as (successor, other):
        async with engines(served.url, 1) as (ended,):
            first = (await ended.acquire(role, "ended", LONG)).token
            await successor.release_ended(role, "somebody else")
            assert await other.acquire(role, "other", LONG) == (None, "ended")
        await successor.release_ended(role, "ended")
        second = await until(lambda: successor.acquire(role, "successor", LONG))
        assert second > (first or 0)
        await other.release_ended(role, "ended")
        assert await successor.renew(role)


async def test_roles_are_apart(served: Serving, role: str) -> None:
    """A host may hold several roles, which are acquired and given back one by one."""
    async with engines(served.url, 2) as (one, two):
        attempts = await asyncio.gather(*(one.acquire(f"{role} {part}", "one", LONG) for part in "abc"))
        assert all(attempt.token is not None for attempt in attempts)
        await one.release(f"{role} a")
        assert (await two.acquire(f"{role} a", "two", LONG)).token is not None
        assert (await two.acquire(f"{role} b", "two", LONG)).token is None
        assert not await one.renew(f"{role} a")
        assert await one.renew(f"{role} b")
        assert await one.renew(f"{role} c")


async def test_role_that_was_never_held_can_be_released(served: Serving, role: str) -> None:
    """A release without a role does nothing, and neither does one by another than the holder."""
    async with engines(served.url, 2) as (holder, other):
        await other.release(role)
        await holder.acquire(role, "holder", LONG)
        await other.acquire(role, "other", LONG)
        await other.release(role)
        await other.release(role)
        assert await holder.renew(role)
        assert not await other.renew(role)


async def test_wait_ends_with_a_release(served: Serving, role: str) -> None:
    """A standby that waits for long hears that the role was given back."""
    async with engines(served.url, 2) as (holder, standby):
        if type(standby).wait is Engine.wait:
            pytest.skip("this engine is asked again and again")
        await holder.acquire(role, "holder", LONG)
        assert (await standby.acquire(role, "standby", LONG)).token is None
        waiting = asyncio.create_task(standby.wait(role, LONG))
        while not waiting.done():  # whether it listens already cannot be seen
            await holder.release(role)
            await asyncio.wait([waiting], timeout=0.1)
            if not waiting.done():
                assert (await holder.acquire(role, "holder", LONG)).token is not None
        await waiting
        assert (await standby.acquire(role, "standby", LONG)).token is not None


async def test_wait_ends_with_its_time(served: Serving, role: str) -> None:
    """Without news, a wait takes its time."""
    async with engines(served.url, 2) as (holder, standby):
        await holder.acquire(role, "holder", LONG)
        await standby.acquire(role, "standby", LONG)
        await standby.wait(role, 0.01)
        assert await holder.renew(role)


async def test_cut_off_holder_is_reported_and_replaced(served: Serving, role: str) -> None:
    """A holder that is cut off does not hear that it holds the role; when its lease ends, another has it."""
    async with (
        Relay(served.port) as relay,
        engines(served.url_at(relay.port), 1) as (cut_off,),
        engines(served.url, 1) as (other,),
    ):
        first = (await cut_off.acquire(role, "cut off", SHORT)).token
        assert first is not None
        await relay.cut()
        assert not await can_renew(cut_off, role)
        with pytest.raises(EngineError):
            await cut_off.acquire(role, "cut off", SHORT)
        assert await until(lambda: other.acquire(role, "other", LONG)) > first
        await relay.mend()
        assert await cut_off.acquire(role, "cut off", SHORT) == (None, "other")


async def test_cancelled_attempt_leaves_no_trace(served: Serving, role: str) -> None:
    """An attempt that is cancelled, at any moment, may or may not succeed, and the next one is as ever."""
    async with engines(served.url, 2) as (hasty, other):
        for delay in (0, 0.001, 0.002, 0.004, 0.008):
            attempt = asyncio.create_task(hasty.acquire(role, "hasty", LONG))
            await asyncio.sleep(delay)
            attempt.cancel()
            await asyncio.wait([attempt])
        await until(lambda: hasty.acquire(role, "hasty", LONG))
        assert await other.acquire(role, "other", LONG) == (None, "hasty")
        await hasty.release(role)
        assert (await other.acquire(role, "other", LONG)).token is not None


async def test_unreachable_server_is_one_line(served: Serving) -> None:
    """A server that is not there is an EngineError of one line."""
    url = served.url_at(free_port())
    told = await failure(url)
    assert told
    assert "\n" not in told
