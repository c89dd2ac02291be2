"""Roles in PostgreSQL: an advisory lock of a session, and a row with the term and its end.

Two mechanisms exclude others, and each covers what the other cannot. While the holder's session lives, it has
the **advisory lock**, whatever the server's clock does. After the session is lost, the **row** excludes
others until the end of the holder's lease, by the server's clock. A host that vanishes cannot keep the lock:
the server ends a session that is silent for longer than the lease (``idle_session_timeout``, since PostgreSQL
14).

Each role has its own session, and is lost with it.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlencode

import asyncpg

from tamed.cluster.engine import Attempt, Engine, EngineError, EngineUrl
from tamed.errors import reason

__all__ = ["PostgresEngine"]

_OLDEST: Final = 14
_PORT: Final = 5432
_SECONDS: Final = 10
"""Timeout for a server that does not answer, unless the caller gives up first."""

_CHANNEL: Final = "tamed_roles"
_OF_LIBPQ: Final = ("sslmode", "sslrootcert", "sslcert", "sslkey")
_FAILURES: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the server ended the session while a statement was being sent
    OSError,
    TimeoutError,
)


@dataclass
class _Session:
    """A connection for one role. ``token`` is that of the role, None while it is not held here."""

    connection: Any
    token: int | None = None
    ttl: float = 0
    silence: int = 0  # milliseconds after which the server ends the session; 0: never
    news: asyncio.Event = field(default_factory=asyncio.Event)


class PostgresEngine(Engine):
    """The engine ``postgres://[USER@]HOST[:PORT],…/DATABASE``.

    Of several hosts, the writable one is used. Options: ``password-file``, ``schema`` (of the
    table ``tamed_roles``, by default ``public``), and libpq's ``sslmode``, ``sslrootcert``, ``sslcert`` and
    ``sslkey``.
    """

    def __init__(self, url: EngineUrl) -> None:
        url.check("password-file", "schema", *_OF_LIBPQ)
        self._url = url
        self._table = f"{_quoted(url.options.get('schema', 'public'))}.tamed_roles"
        self._sessions: dict[str, _Session] = {}
        self._connecting: dict[str, asyncio.Task[_Session]] = {}
        self._claims: dict[str, str] = {}  # by role: the claims of this object's attempts

    async def acquire(self, role: str, holder: str, ttl: float) -> Attempt:
        """Try to get a role; see `Engine`."""
        async with self._session(role) as session:
            session.news.clear()
            row = await session.connection.fetchrow(
                f"SELECT holder, until > clock_timestamp() AS is_held FROM {self._table} WHERE role = $1",  # noqa: S608
                role,
            )
            if row is not None and row["is_held"] and row["holder"] != holder:
                await self._unlock(session, role)
                return Attempt(None, row["holder"])
            await self._end_if_silent(session, max(1, round(ttl * 1000)))
            if session.token is None and not await self._lock(session, role):
                await self._end_if_silent(session, 0)
                return Attempt(None, row["holder"] if row is not None else "")
            self._claims[role] = holder
            session.ttl = ttl
            session.token = await session.connection.fetchval(
                f"INSERT INTO {self._table} AS r VALUES ($1, 1, $2, clock_timestamp() + $3 * interval '1 s') "  # noqa: S608
                "ON CONFLICT (role) DO UPDATE "
                "SET token = r.token + 1, holder = excluded.holder, until = excluded.until "
                "WHERE r.until <= clock_timestamp() OR r.holder = excluded.holder RETURNING token",
                role,
                holder,
                ttl,
            )
            if session.token is None:  # another process had it in the meantime, and lost its session
                await self._unlock(session, role, is_locked=True)
            return Attempt(session.token, holder if session.token is not None else "")

    async def renew(self, role: str) -> bool:
        """Extend a role; False if it or its session is lost. See `Engine`."""
        session = self._sessions.get(role)
        if session is None or session.token is None or session.connection.is_closed():
            return False
        async with self._session(role) as session:
            done = await session.connection.fetchval(
                f"UPDATE {self._table} SET until = clock_timestamp() + $3 * interval '1 s' "  # noqa: S608
                "WHERE role = $1 AND token = $2 AND holder = $4 RETURNING true",
                role,
                session.token,
                session.ttl,
                self._claims[role],
            )
            if not done:
                await self._unlock(session, role)
            return bool(done)

    async def release(self, role: str) -> None:
        """Release a role, even one whose session is lost; see `Engine`."""
        if role not in self._claims:
            return
        async with self._session(role) as session:
            await self._vacate(session, role, self._claims[role])
            await self._unlock(session, role)
            await session.connection.execute("SELECT pg_notify($1, $2)", _CHANNEL, role)
            del self._claims[role]

    async def release_ended(self, role: str, holder: str) -> None:
        """End the holder's lease, and its session, which may still exist on the server."""
        async with self._session(role) as session:
            await session.connection.fetch(
                "SELECT pg_terminate_backend(pid, 1000) FROM pg_locks JOIN pg_stat_activity USING (pid) "  # noqa: S608
                "WHERE locktype = 'advisory' AND objsubid = 1 AND datname = current_database() "
                "AND (classid::bigint << 32) | objid::bigint = $1 AND usename = current_user "
                f"AND EXISTS (SELECT FROM {self._table} WHERE role = $2 AND holder = $3)",
                _key(role),
                role,
                holder,
            )
            await self._vacate(session, role, holder)

    async def wait(self, role: str, seconds: float) -> None:
        """Return when a holder has released the role, when the session is lost, or after ``seconds``."""
        async with self._session(role) as session:
            news = session.news
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await news.wait()

    async def close(self) -> None:
        """Close the connections; see `Engine`."""
        tasks = list(self._connecting.values())
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        late = [each for each in ended if isinstance(each, _Session)]
        sessions = [*self._sessions.values(), *late]
        self._sessions.clear()
        for session in sessions:
            try:
                await session.connection.close(timeout=_SECONDS)
            except _FAILURES:
                session.connection.terminate()

    @asynccontextmanager
    async def _session(self, role: str) -> AsyncIterator[_Session]:
        """Return the session of a role for a few statements. If one fails, the session and its lock end.

        The same applies to a cancelled statement: whether the lock is held would be unknown.
        """
        try:
            session = self._sessions.get(role)
            if session is None or session.connection.is_closed():
                session = self._sessions[role] = await self._connected(role)
            yield session
        except BaseException as error:
            if (lost := self._sessions.pop(role, None)) is not None:
                lost.connection.terminate()
            if isinstance(error, _FAILURES):
                raise EngineError(self._url.what, reason(error)) from error
            raise

    async def _connected(self, role: str) -> _Session:
        """Connect.

        A cancelled attempt is continued by the next one: the library cannot stop it cleanly.
        """
        task = self._connecting.get(role)
        if task is None:
            task = self._connecting[role] = asyncio.create_task(self._connect(role))
        await asyncio.wait([task])  # here it may be cancelled, also when the task has just ended
        self._connecting.pop(role, None)
        return task.result()

    async def _connect(self, role: str) -> _Session:
        hosts = ",".join(self._url.places(_PORT))
        libpq = {name: value for name, value in self._url.options.items() if name in _OF_LIBPQ}
        connection = await asyncpg.connect(
            f"postgres://{hosts}/{quote(self._url.path)}?{urlencode(libpq)}",
            user=self._url.user or None,
            password=self._url.password() or None,
            timeout=_SECONDS,
            command_timeout=_SECONDS,
            target_session_attrs="read-write",
            server_settings={"application_name": "tamed"},
        )
        try:
            session = _Session(connection)
            await self._set_up(session, role)
        except BaseException:
            connection.terminate()
            raise
        return session

    async def _set_up(self, session: _Session, role: str) -> None:
        connection = session.connection
        version = connection.get_server_version().major
        if version < _OLDEST:
            why = f"PostgreSQL {version} is too old: it cannot end a silent session"
            raise EngineError(self._url.what, why, f"{_OLDEST} or later is needed")
        if not await self._has_table(connection):
            await self._create_table(connection)
        session.news.set()  # for changes while there was no session
        connection.add_termination_listener(lambda *_: session.news.set())
        await connection.add_listener(_CHANNEL, _listener(role, session.news.set))

    async def _has_table(self, connection: Any) -> bool:
        return await connection.fetchval("SELECT to_regclass($1)", self._table) is not None

    async def _create_table(self, connection: Any) -> None:
        columns = (
            "role text PRIMARY KEY, token bigint NOT NULL, holder text NOT NULL, until timestamptz NOT NULL"
        )
        try:
            await connection.execute(f"CREATE TABLE IF NOT EXISTS {self._table} ({columns})")
        except asyncpg.InsufficientPrivilegeError as error:
            remedy = f"let its owner do: CREATE TABLE {self._table} ({columns})"
            raise EngineError(self._url.what, reason(error), remedy) from error
        except asyncpg.PostgresError:
            # IF NOT EXISTS does not lock: of two concurrent statements one fails, with one of several errors.
            if not await self._has_table(connection):
                raise

    async def _vacate(self, session: _Session, role: str, holder: str) -> None:
        await session.connection.execute(
            f"UPDATE {self._table} SET holder = '', until = '-infinity' WHERE role = $1 AND holder = $2",  # noqa: S608
            role,
            holder,
        )

    @staticmethod
    async def _lock(session: _Session, role: str) -> bool:
        return bool(await session.connection.fetchval("SELECT pg_try_advisory_lock($1)", _key(role)))

    async def _unlock(self, session: _Session, role: str, *, is_locked: bool = False) -> None:
        """Free the lock of a role, if the session has it."""
        if is_locked or session.token is not None:
            session.token = None
            await session.connection.execute("SELECT pg_advisory_unlock($1)", _key(role))
            await self._end_if_silent(session, 0)

    @staticmethod
    async def _end_if_silent(session: _Session, milliseconds: int) -> None:
        """Make the server end the session after this time of silence; 0: never."""
        if session.silence != milliseconds:
            await session.connection.execute(
                "SELECT set_config('idle_session_timeout', $1, false)", str(milliseconds)
            )
            session.silence = milliseconds


def _key(role: str) -> int:
    """Return the number of a role's advisory lock."""
    return int.from_bytes(hashlib.sha256(f"tamed/{role}".encode()).digest()[:8], signed=True)


def _quoted(name: str) -> str:
    """Return a name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _listener(role: str, heard: Callable[[], object]) -> Callable[..., None]:
    def listener(_connection: object, _pid: int, _channel: str, payload: str) -> None:
        if payload == role:
            heard()

    return listener
