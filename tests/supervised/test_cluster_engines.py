"""Daemons of a fleet with each kind of engine: what they do for each other, and how they bear a bad one."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

import pytest

from tests.cluster.api_server import kubernetes
from tests.cluster.opened import SERVERS
from tests.cluster.servers import Serving, free_port, nats, old_nats, old_postgres, postgres
from tests.supervised.daemon import Daemon, Tamed, wait_for

PROGRAM = """
from tamed import Application, Only, Service

application = Application("app", Only(Service("cron"), scope="cluster"))
"""

LEASE = "4m"
"""Longer than a test waits; a sixth of it, after which an engine that was too slow is asked again, is not."""


def start(tamed: Tamed, engine: str, lease: str, *options: str) -> Daemon:
    """Start a daemon of the fleet."""
    return tamed.start(
        "--cluster", engine, "--cluster-lease", lease, *options, tamed.write("app.py", PROGRAM)
    )


def holder(daemon: Daemon) -> tuple[int, int] | None:
    """Return the pid of the worker that holds the role, and its token."""
    (role,) = daemon.status()["roles"]
    return (role["pid"], role["token"]) if role["state"] == "held" else None


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind == "etcd" else pytest.mark.long) for kind in sorted(SERVERS)]
)
def test_worker_follows_one_that_has_died(tamed: Tamed, kind: str) -> None:
    """Another worker of the same daemon takes the role over long before the lease ends; a misfit does not."""
    with SERVERS[kind]() as served:
        daemon = start(tamed, served.url, LEASE, "--workers", "2", "--name", "one")
        pid, token = wait_for("a holder", lambda: holder(daemon))
        os.kill(pid, signal.SIGKILL)

        def follower() -> tuple[int, int] | None:
            found = holder(daemon)
            return found if found is not None and found[0] != pid else None

        assert wait_for("the next holder", follower)[1] > token
        other = start(tamed, served.url, "5m", "--name", "two")
        trouble = f"it is held on {os.uname().nodename} with another lease: '240.0', and here '300.0'"
        wait_for("the misfit", lambda: trouble in tamed("status", "two").out)
        assert other.status()["state"] == "degraded"
        for name in ("one", "two"):
            assert tamed("stop", name).status == 0


@contextmanager
def unreachable(served: AbstractContextManager[Serving]) -> Iterator[str]:
    """Return the URL of an engine, at a port where nobody listens."""
    with served as one:
        yield one.url_at(free_port())


@contextmanager
def with_options(served: AbstractContextManager[Serving], **options: str) -> Iterator[str]:
    """Return the URL of an engine with other options."""
    with served as one:
        url, _, query = one.url.partition("?")
        yield f"{url}?{urlencode({**dict(parse_qsl(query)), **options})}"


@contextmanager
def one_of(served: AbstractContextManager[Serving]) -> Iterator[str]:
    """Return the URL of an engine."""
    with served as one:
        yield one.url


BAD: Mapping[str, tuple[Callable[[str], AbstractContextManager[str]], str]] = {
    "no nats": (lambda _: unreachable(nats()), "Connection refused"),
    "no postgres": (lambda _: unreachable(postgres()), "Connect"),
    "no kubernetes": (lambda _: unreachable(kubernetes()), "Connection refused"),
    "password of nats": (
        lambda wrong: with_options(nats("--user", "ops", "--pass", "right"), **{"password-file": wrong}),
        "Authorization Violation",
    ),
    "password of postgres": (
        lambda wrong: with_options(postgres(), **{"password-file": wrong}),
        'password authentication failed for user "tamed"',
    ),
    "token of kubernetes": (
        lambda wrong: with_options(kubernetes(), **{"token-file": wrong}),
        "Unauthorized",
    ),
    "old nats": (lambda _: one_of(old_nats()), "nats-server 2.8 is too old; 2.9 or later is needed"),
    "old kubernetes": (lambda _: one_of(kubernetes(is_old=True)), "Kubernetes 1.14 or later"),
    "old postgres": (lambda _: one_of(old_postgres()), "PostgreSQL 13 is too old"),
}
"""Engines that grant nothing, by what is wrong: how to run one, given a wrong password, and what is said."""

QUICK = ("no kubernetes", "old postgres", "password of nats")
"""Each engine and each fault once: what each client says of each fault is tested with the client."""


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in QUICK else pytest.mark.long) for case in sorted(BAD)]
)
def test_engine_that_grants_nothing_degrades_the_daemon(tamed: Tamed, tmp_path: Path, case: str) -> None:
    """The daemon stands by, serves, and says what is wrong with its engine, in one line, once."""
    (tmp_path / "wrong").write_text("wrong\n")
    make, why = BAD[case]
    with make(str(tmp_path / "wrong")) as url:
        daemon = start(tamed, url, "1m")
        wait_for("the trouble", lambda: why in tamed("status", "app").out)
        status = daemon.status()
        assert (status["state"], status["roles"][0]["state"]) == ("degraded", "vacant")
        daemon.expect_log("WARNING tamed: cron: ")
        assert daemon.log.count("WARNING tamed: cron: ") == 1
        daemon.stop()
