"""Services that run in one of several daemons, with real processes and a real etcd."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.etcd_server import Etcd, etcd, needs_etcd
from tests.supervised.daemon import Daemon, Tamed, wait_for
from tests.supervised.referee import SERVICE, check, notes

pytestmark = needs_etcd

LEASE = "4s"

FLEET = (
    SERVICE
    + """
import asyncio
from pathlib import Path
from tamed import Application, Only

class FleetReferee(Referee):
    async def run(self):
        while True:
            if Path(f"block {os.getpid()}").exists():
                time.sleep(1000)
            await asyncio.sleep(0.05)

application = Application("app", Only(FleetReferee("cron"), scope="cluster"))
"""
)


def holder(tamed: Tamed, daemons: list[Daemon], without: int = 0) -> tuple[int, int]:
    """Wait until a worker of one of the daemons runs the service; return which daemon, and its pid."""

    def look() -> tuple[int, int] | None:
        started = [note for note in notes(tamed) if note.what == "start"]
        for place, daemon in enumerate(daemons):
            for role in daemon.status()["roles"]:
                is_it = started and role["pid"] == started[-1].pid and role["token"] == started[-1].token
                if role["state"] == "held" and is_it and role["pid"] != without:
                    return place, role["pid"]
        return None

    return wait_for("a holder of the role", look)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """A server for the tests of this file, each of which has a prefix of its own."""
    with etcd(tmp_path_factory.mktemp("etcd")) as one:
        yield one


def start(tamed: Tamed, engine: str, name: str, *options: str) -> Daemon:
    """Start a daemon of the fleet."""
    program = tamed.folder / "app.py"
    if not program.exists():
        tamed.write("app.py", FLEET)
    words = ("--cluster", engine, "--cluster-lease", LEASE, "--name", name, *options)
    return tamed.start(*words, program)


@pytest.mark.unmeasured
def test_one_daemon_runs_it_whatever_happens_to_the_holder(tamed: Tamed, server: Etcd) -> None:
    """A holder that is resigned, killed, stopped or blocked is followed by another, and never overlaps it."""
    engine = f"etcd://{server.place}/whatever"
    daemons = [start(tamed, engine, "one", "--workers", "2"), start(tamed, engine, "two")]
    place, pid = holder(tamed, daemons)
    assert tamed("resign", daemons[place].name, "cron").status == 0
    place, pid = holder(tamed, daemons, without=pid)
    other = daemons[1 - place].name
    wait_for("the other one to know", lambda: tamed("roles", other).status == 0)
    role = json.loads(tamed("roles", "--json", other).out)[0]
    assert (role["scope"], role["state"], role["pid"]) == ("cluster", "standby", None)
    assert f"role cron: on another machine, {role['holder']}, for " in tamed("status", other).out
    assert role["holder"] == os.uname().nodename
    os.kill(pid, signal.SIGKILL)
    _, pid = holder(tamed, daemons, without=pid)
    os.kill(pid, signal.SIGSTOP)
    _, pid = holder(tamed, daemons, without=pid)
    (tamed.folder / f"block {pid}").touch()
    place, pid = holder(tamed, daemons, without=pid)
    killed = [daemon for daemon in daemons if "must have stopped before its lease ends" in daemon.log]
    assert killed
    assert tamed("reload", daemons[place].name).status == 0
    place, pid = holder(tamed, daemons, without=pid)
    assert tamed("upgrade", daemons[place].name).status == 0
    place, pid = holder(tamed, daemons, without=pid)
    assert tamed("stop", daemons[place].name).status == 0
    del daemons[place]
    holder(tamed, daemons, without=pid)
    assert tamed("stop", daemons[0].name).status == 0
    check(tamed)
    assert notes(tamed)[-1].what == "stop"


def test_holder_ends_without_its_supervisor(tamed: Tamed, server: Etcd) -> None:
    """A blocked holder whose supervisor was killed is killed by the kernel's timer before its lease ends."""
    engine = f"etcd://{server.place}/orphan"
    daemons = [start(tamed, engine, "one")]
    _, pid = holder(tamed, daemons)
    (tamed.folder / f"block {pid}").touch()
    daemons[0].signal(signal.SIGKILL)
    following = [start(tamed, engine, "two")]
    holder(tamed, following, without=pid)
    check(tamed)
    assert tamed("stop", "two").status == 0


def test_daemon_without_its_engine_is_degraded(tamed: Tamed, tmp_path: Path) -> None:
    """Without an answer the daemon stands by, and says why; it leads when there is one, and as long."""
    server = Etcd(tmp_path)
    try:
        server.start()
        server.signal(signal.SIGSTOP)
        daemon = start(tamed, f"etcd://{server.place}", "one")
        trouble = "the check of role cron fails: no answer within 0.7 s"
        wait_for("the trouble", lambda: trouble in tamed("status", "one").out)
        assert daemon.status()["state"] == "degraded"
        assert tamed("roles", "one").status == 4
        server.signal(signal.SIGCONT)
        _, pid = holder(tamed, [daemon])
        wait_for("the end of the trouble", lambda: daemon.status()["state"] == "running")
        server.signal(signal.SIGSTOP)
        wait_for("the stop of the service", lambda: notes(tamed)[-1].what == "stop")
        server.signal(signal.SIGCONT)
        wait_for("another start", lambda: notes(tamed)[-1].what == "start")
        assert notes(tamed)[-1].pid == pid
        assert tamed("stop", "one").status == 0
    finally:
        server.stop()
    check(tamed)
