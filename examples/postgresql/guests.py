"""A guest book in PostgreSQL: a client sends its name, and gets those of the last guests.

It takes a library: pip install asyncpg. The database is the one that ``DATABASE_URL`` names. Its tables are
made by the files in the folder ``migrations``, in the order of their names, each once.
"""

import asyncio
import logging
import os
from pathlib import Path

import asyncpg

from tamed import Application, Service, StreamServer

log = logging.getLogger("guests")

LOCK = 20_261_129  # any number that no other program uses in this database


class Migrations(Service):
    """Applies the new files of a folder. Workers do it one after the other, so the first does the work."""

    def __init__(self, url: str, folder: Path) -> None:
        super().__init__(name="migrations")
        self.url = url
        self.folder = folder

    async def start(self) -> None:
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute("SELECT pg_advisory_lock($1)", LOCK)
            await connection.execute("CREATE TABLE IF NOT EXISTS migrations (name text PRIMARY KEY)")
            applied = {row["name"] for row in await connection.fetch("SELECT name FROM migrations")}
            for name, statements in self.files():
                if name not in applied:
                    await self.apply(connection, name, statements)
        finally:
            await connection.close()  # which also gives the lock back

    def files(self) -> list[tuple[str, str]]:
        """Return the names and the statements, in order."""
        return sorted((file.name, file.read_text("utf-8")) for file in self.folder.glob("*.sql"))

    async def apply(self, connection: asyncpg.Connection, name: str, statements: str) -> None:
        """Apply a file wholly or not at all."""
        async with connection.transaction():
            await connection.execute(statements)
            await connection.execute("INSERT INTO migrations VALUES ($1)", name)
        log.info("applied %s", name)


class Database(Service):
    """Holds the pool of connections of this worker."""

    check_interval = 5.0

    def __init__(self, url: str) -> None:
        super().__init__(name="database")
        self.url = url

    async def start(self) -> None:
        self.pool = await asyncpg.create_pool(self.url, min_size=1, max_size=5)

    async def stop(self) -> None:
        await self.pool.close()

    async def check(self) -> None:
        await self.pool.execute("SELECT 1")


URL = os.environ.get("DATABASE_URL", "postgres:///guests")
database = Database(URL)


async def sign(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Enter a guest, and show the last ones."""
    name = (await reader.readline()).decode().strip()
    async with database.pool.acquire() as connection, connection.transaction():
        await connection.execute("INSERT INTO guests (name) VALUES ($1)", name)
        rows = await connection.fetch("SELECT name FROM guests ORDER BY number DESC LIMIT 3")
    writer.write("".join(f"{row['name']}\n" for row in rows).encode())


application = Application(
    "guests",
    Migrations(URL, Path(__file__).parent / "migrations"),
    database,
    StreamServer("localhost:10000", sign, name="server"),
)
