"""Services that run in one worker at a time, with real processes, and a referee that sees every overlap."""

import json
import os
import signal
import socket
from pathlib import Path

from tests.patience import PATIENCE, ROUNDS
from tests.supervised.daemon import POEM, Daemon, Tamed, is_there, read_poem, wait_for
from tests.supervised.referee import SERVICE, check, notes

HOST = (
    SERVICE
    + """
from tamed import Application, StreamServer

class HostReferee(Referee):
    only = "host"

async def wait(reader, writer):
    writer.write(b"waiting\\n")
    await reader.read()

application = Application("app", HostReferee("cron"), StreamServer("127.0.0.1:0", wait))
"""
)

PROGRAM = """#!/bin/sh
exec 9> lock
flock --nonblock 9 || echo overlap >> referee
echo start $$ >> referee
sleep 1000
"""


def holder(daemon: Daemon, without: int = 0) -> int:
    """Wait until a worker other than ``without`` holds the role and runs the service; return its pid."""

    def look() -> int | None:
        found = [role["pid"] for role in daemon.status()["roles"] if role["state"] == "held"]
        pid = found[0] if found else None
        started = [note.pid for note in notes(daemon.tamed) if note.what == "start"]
        return pid if pid not in (None, without) and started and started[-1] == pid else None

    return wait_for("a holder of the role", look)


def test_one_worker_runs_it_over_kills_reloads_upgrades_and_scaling(tamed: Tamed) -> None:
    """Whatever happens to the workers, one holds the role, and never two; commands show which."""
    daemon = tamed.start("--workers", "3", tamed.write("app.py", HOST))
    for _ in range(ROUNDS):
        pid = holder(daemon)
        os.kill(pid, signal.SIGKILL)
        pid = holder(daemon, without=pid)
        os.kill(pid, signal.SIGTERM)
        pid = holder(daemon, without=pid)
        assert tamed("reload").status == 0
        pid = holder(daemon, without=pid)
        done = tamed("resign", "app", "cron")
        assert (done.status, done.err) == (0, "")
        pid = holder(daemon, without=pid)
        assert f"(pid {pid})" in done.out
        assert tamed("upgrade").status == 0
        pid = holder(daemon, without=pid)
        assert tamed("scale", "1").status == 0
        holder(daemon)
        assert tamed("scale", "3").status == 0
    shown = tamed("roles")
    assert shown.status == 0
    assert shown.out.splitlines()[1].split()[:2] == ["cron", "held"]
    role = json.loads(tamed("roles", "--json").out)[0]
    assert (role["role"], role["pid"], role["standby"]) == ("cron", holder(daemon), 2)
    assert f"role cron: held by worker {role['worker']} (pid {role['pid']})" in tamed("status", "app").out
    wrong = tamed("resign", "app", "corn")
    assert (wrong.status, wrong.err) == (64, "tamed: there is no role 'corn'; did you mean 'cron'?\n")
    assert "cron is now in worker" in tamed("events", "app").out
    daemon.stop()
    check(tamed)
    assert notes(tamed)[-1].what == "stop"


def test_a_holder_that_hangs_is_ended_before_another_one_runs_it(tamed: Tamed) -> None:
    """A stopped process keeps the role until the watchdog has ended it and it was reaped."""
    daemon = tamed.start("--workers", "2", "--watchdog", "1s", tamed.write("app.py", HOST))
    pid = holder(daemon)
    os.kill(pid, signal.SIGSTOP)
    holder(daemon, without=pid)
    daemon.stop()
    check(tamed)


def test_workers_without_a_supervisor_stop_it_before_they_drain(tamed: Tamed) -> None:
    """When the supervisor was killed, the service ends at once, and a client still has its connection."""
    daemon = tamed.start("--workers", "1", tamed.write("app.py", HOST))
    pid = holder(daemon)
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=PATIENCE) as client:
        assert client.recv(8) == b"waiting\n"
        daemon.signal(signal.SIGKILL)
        wait_for("the end of the service", lambda: notes(tamed)[-1].what == "stop")
        assert is_there(pid)
    wait_for("the end of the worker", lambda: not is_there(pid))


def test_a_program_of_a_deployment_runs_once(tamed: Tamed) -> None:
    """With only = "host" one worker of two runs the program, and another one when that worker was killed."""
    program = tamed.write("program", PROGRAM)
    program.chmod(0o755)
    deployment = tamed.write(
        "verse.toml", f'[services.backup]\nplugin = "exec"\nonly = "host"\ncommand = "{program}"\n'
    )
    daemon = tamed.start("--workers", "2", deployment)

    def runs() -> list[str]:
        path = Path(tamed.folder / "referee")
        return path.read_text().splitlines() if path.exists() else []

    wait_for("the program", lambda: len(runs()) == 1)
    assert [role["role"] for role in daemon.status()["roles"]] == ["backup"]
    os.kill(daemon.status()["roles"][0]["pid"], signal.SIGKILL)
    wait_for("the program again", lambda: len(runs()) >= 2)
    assert [line.split()[0] for line in runs()] == ["start", "start"]
    daemon.stop()


def test_one_worker_of_a_proxy_asks_the_upstream(tamed: Tamed) -> None:
    """With --shared the others get the poem from the worker with the role, and from another if that dies.

    The upstream, whose services all run in every worker, says so in one line.
    """
    upstream = tamed.start_poetry("--name", "upstream")
    proxy = tamed.start(
        *("--workers", "3", "poetryproxy", "--port", "0", "--refresh", "1h", "--keep", "1h"),
        *("--upstream", f"127.0.0.1:{upstream.port}", "--shared", "unix:poem.sock"),
    )

    def role() -> int | None:
        found = [each["pid"] for each in proxy.status()["roles"]]
        return found[0] if found else None

    port = next(int(each.rpartition(":")[2]) for each in proxy.addresses if each.startswith("127.0.0.1:"))
    first = wait_for("a holder", role)
    for fetches, gone in enumerate((0, first), start=1):
        if gone:
            os.kill(gone, signal.SIGKILL)
            wait_for("another holder", lambda: role() not in (None, first))
        wait_for("a poem", lambda: read_poem(port) == POEM)
        for _ in range(20):
            assert read_poem(port) == POEM
        assert upstream.status()["workers"][0]["accepted"] <= fetches
    assert upstream.status()["workers"][0]["accepted"] >= 1
    done = tamed("roles", "upstream")
    assert (done.status, done.out) == (0, "no service of upstream runs in one worker only\n")
    for daemon in (proxy, upstream):
        assert tamed("stop", daemon.name).status == 0
    assert tamed.left() == {}
