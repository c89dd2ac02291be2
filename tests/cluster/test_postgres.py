"""What is particular to the engine on PostgreSQL."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from tamed.cluster.engine import open_engine
from tamed.errors import ConfigurationError
from tests.cluster.opened import LONG, engines, failure
from tests.cluster.servers import PASSWORD, Serving, old_postgres, postgres
from tests.patience import PATIENCE, ROUNDS
from tests.structure.source import ROOT

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def served() -> Iterator[Serving]:
    """Run a server."""
    with postgres() as serving:
        yield serving


@asynccontextmanager
async def administrator(served: Serving) -> AsyncIterator[asyncpg.Connection]:
    """Connect as somebody who may do everything."""
    connection = await asyncpg.connect(
        host="127.0.0.1", port=served.port, user="tamed", password=PASSWORD, database="postgres"
    )
    try:
        yield connection
    finally:
        await connection.close()


async def test_session_that_is_lost_holds_nothing(served: Serving) -> None:
    """A holder whose session has ended is none any more, and no other gets the role before its time."""
    async with engines(served.url, 2) as (holder, other):
        first = (await holder.acquire("lost", "holder", LONG)).token
        async with administrator(served) as connection:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
            )
            assert await connection.fetchval("SELECT token FROM tamed_roles WHERE role = 'lost'") == first
        async with asyncio.timeout(PATIENCE):
            await holder.wait("lost", LONG)
        assert not await holder.renew("lost")
        assert await other.acquire("lost", "other", LONG) == (None, "holder")
        await holder.release("lost")
        assert (await other.acquire("lost", "other", LONG)).token == (first or 0) + 1


async def test_session_of_an_ended_process_ends(served: Serving) -> None:
    """A lock that the server still has for an ended process blocks no other."""
    async with engines(served.url, 2) as (ended, successor):
        first = (await ended.acquire("ended", "ended", LONG)).token
        await successor.release_ended("ended", "another")
        assert await ended.renew("ended")
        await successor.release_ended("ended", "ended")
        assert (await successor.acquire("ended", "successor", LONG)).token == (first or 0) + 1
        assert not await ended.renew("ended")


async def test_a_connection_is_kept_if_its_attempt_is_cancelled_when_it_is_there(served: Serving) -> None:
    """The next attempt has it; otherwise nobody would close it."""
    async with engines(served.url, 1) as (hasty,), administrator(served) as connection:
        before = asyncio.all_tasks()
        attempt = asyncio.create_task(hasty.acquire("hasty", "hasty", LONG))
        await asyncio.sleep(0)
        (connecting,) = asyncio.all_tasks() - before - {attempt}
        connecting.add_done_callback(lambda _: attempt.cancel())
        await asyncio.wait([attempt])
        assert attempt.cancelled()
        assert (await hasty.acquire("hasty", "hasty", LONG)).token is not None
        count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tamed'"
        assert await connection.fetchval(count) == 1


async def test_clock_of_the_server_ends_no_living_session(served: Serving) -> None:
    """A step of the server's clock does not end the role of a living session."""
    async with engines(served.url, 2) as (holder, other):
        assert (await holder.acquire("clock", "holder", LONG)).token
        async with administrator(served) as connection:
            await connection.execute("UPDATE tamed_roles SET until = '-infinity' WHERE role = 'clock'")
        assert await other.acquire("clock", "other", LONG) == (None, "holder")
        assert await holder.renew("clock")


async def test_wrong_password_is_one_line(served: Serving, tmp_path: Path) -> None:
    """A server that refuses the password is quoted, without it."""
    (tmp_path / "password").write_text("not this one\n")
    url = f"postgres://tamed@127.0.0.1:{served.port}/postgres?password-file={tmp_path}/password"
    assert (
        await failure(url)
        == f'--cluster {url}: InvalidPasswordError: password authentication failed for user "tamed"'
    )


async def test_table_that_may_not_be_made_is_shown(served: Serving, tmp_path: Path) -> None:
    """The error shows a user without the right to create the table what its owner must run."""
    (tmp_path / "password").write_text("small\n")
    async with administrator(served) as connection:
        await connection.execute("CREATE ROLE small LOGIN PASSWORD 'small'; CREATE SCHEMA closed")
        await connection.execute("GRANT USAGE ON SCHEMA closed TO small")
        options = f"password-file={tmp_path}/password&schema=closed"
        url = f"postgres://small@127.0.0.1:{served.port}/postgres?{options}"
        told = await failure(url)
        statement = told.partition("let its owner do: ")[2]
        assert statement.startswith('CREATE TABLE "closed".tamed_roles (')
        await connection.execute(statement)
        await connection.execute("GRANT SELECT, INSERT, UPDATE ON closed.tamed_roles TO small")
    async with engines(url, 1) as (engine,):
        assert (await engine.acquire("a role", "holder", LONG)).token == 1
        await engine.release("a role")


async def test_hosts_that_begin_at_once_make_one_table(served: Serving) -> None:
    """Of hosts that all find no table, each gets its role."""
    for number in range(3 * ROUNDS):
        async with administrator(served) as connection:
            await connection.execute(f"CREATE SCHEMA fresh{number}")
        async with engines(f"{served.url}&schema=fresh{number}", 20) as hosts:
            attempts = await asyncio.gather(
                *(host.acquire(f"role {n}", "holder", LONG) for n, host in enumerate(hosts))
            )
        assert [each.token for each in attempts] == [1] * len(hosts)


async def test_documented_fence_refuses_an_older_token(served: Serving) -> None:
    """The statement of the documentation lets a holder write until a later one has."""
    page = (ROOT / "docs" / "scale-out.md").read_text("utf-8")
    (statement,) = re.findall("```sql\n(.*?)```", page, re.DOTALL)
    statement = statement.replace(":role", "$1").replace(":token", "$2")
    (table,) = re.findall("`(CREATE TABLE fences.*?)`", page)
    async with administrator(served) as connection:
        await connection.execute(table)
        answers = [await connection.fetchval(statement, "cron", token) for token in (7, 7, 9, 7, 8, 9, 10)]
    assert answers == [7, 7, 9, None, None, 9, 10]


async def test_old_server_is_refused() -> None:
    """A server that cannot end a silent session could not pass a role on, and is refused."""
    with old_postgres() as serving:
        told = await failure(serving.url)
    assert told.endswith("PostgreSQL 13 is too old: it cannot end a silent session; 14 or later is needed")


def test_unknown_option_is_refused() -> None:
    """An option that is none is refused when the daemon starts."""
    with pytest.raises(ConfigurationError, match="unknown option 'shema'; did you mean 'schema'"):
        open_engine("postgres://host/database?shema=other")
