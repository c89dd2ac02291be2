"""The example with PostgreSQL, with a real server, as a daemon with two workers."""

import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.cluster.servers import PASSWORD, postgres
from tests.examples.test_examples import EXAMPLES
from tests.patience import PATIENCE
from tests.supervised.conftest import tamed
from tests.supervised.daemon import Daemon, Tamed

__all__ = ["tamed"]  # a fixture


@pytest.fixture
def guests(tamed: Tamed) -> Iterator[Daemon]:
    """Start the example, on a free port and a new database."""
    folder = tamed.folder / "guests"
    shutil.copytree(EXAMPLES / "postgresql", folder, ignore=shutil.ignore_patterns("__pycache__"))
    file = folder / "guests.py"
    file.write_text(file.read_text("utf-8").replace("localhost:10000", "127.0.0.1:0"), "utf-8")
    with postgres() as server:
        url = f"postgres://tamed:{quote(PASSWORD)}@127.0.0.1:{server.port}/postgres"
        yield tamed.start("--workers", "2", file, env={"DATABASE_URL": url})
        tamed.close()  # before the database


def sign(daemon: Daemon, name: str) -> list[str]:
    """Sign the book; return the last guests."""
    with socket.create_connection(("127.0.0.1", daemon.port), PATIENCE) as client:
        client.sendall(f"{name}\n".encode())
        with client.makefile() as answer:
            return answer.read().splitlines()


def test_one_worker_migrates_and_a_migration_that_fails_changes_nothing(tamed: Tamed, guests: Daemon) -> None:
    """Of two workers one applies each file; a reload with a broken file fails, and the old workers serve."""
    assert sign(guests, "Ann") == ["Ann"]
    assert sign(guests, "Bob") == ["Bob", "Ann"]

    third = Path(tamed.folder, "guests", "migrations", "0003-place.sql")
    third.write_text("ALTER TABLE guests ADD COLUMN place text; SELECT nonsense;")
    failed = tamed("reload", "guests")
    assert failed.status == 70
    assert 'column "nonsense" does not exist' in failed.err
    assert sign(guests, "Cyd") == ["Cyd", "Bob", "Ann"]

    third.write_text("ALTER TABLE guests ADD COLUMN place text;")
    assert tamed("reload", "guests").status == 0
    assert sign(guests, "Dee") == ["Dee", "Cyd", "Bob"]
    applied = re.findall(r"applied (\S+)", guests.log)
    assert applied == ["0001-guests.sql", "0002-time.sql", "0003-place.sql"]
