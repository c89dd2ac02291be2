"""The checks of services, in real daemons."""

import json
import signal
from pathlib import Path

from tests.supervised.daemon import Tamed, wait_for
from tests.supervised.service_manager import service_manager
from tests.supervised.test_ops import get, scrape

APPLICATION = """
from pathlib import Path

from tamed import Application, Service


class Checked(Service):
    check_interval = 0.05

    async def check(self):
        if Path(self.name).exists():
            raise ConnectionError(f"{self.name} is down")


class Vital(Checked):
    check_gates_readiness = True


application = Application("verse", Checked("database"), Vital("disk"))
"""


def test_check_that_fails_degrades_the_daemon_and_one_that_gates_makes_it_unready(tamed: Tamed) -> None:
    """Probes, status, metrics, events and the exit status of the command show it, until it passes again."""
    tamed.write("verse.py", APPLICATION)
    ops = tamed.folder / "ops.sock"
    daemon = tamed.start("--workers", "2", "--ops", "unix:ops.sock", "verse.py")
    wait_for("the checks", lambda: get(ops, "/readyz")[0] == 200)
    assert "[+]check/database ok\n[+]check/disk ok\n" in get(ops, "/readyz?verbose")[1]
    assert scrape(ops)['tamed_check_passing{service="disk"}'] == 1

    tamed.write("database", "")
    wait_for("the check", lambda: daemon.status()["state"] == "degraded")
    status, text = get(ops, "/readyz?verbose")
    assert status == 200
    assert "[!]check/database degraded: ConnectionError: database is down" in text
    done = tamed("status", daemon.name)
    assert done.status == 4
    assert "the check of database fails" in done.out
    assert "the check of database fails" in tamed("why", daemon.name).out
    assert scrape(ops)['tamed_check_passing{service="database"}'] == 0

    tamed.write("disk", "")
    wait_for("the readiness", lambda: get(ops, "/readyz")[0] == 503)
    assert "[-]check/disk failed: ConnectionError: disk is down" in get(ops, "/readyz")[1]
    assert get(ops, "/livez") == (200, "ok")
    assert "the check of disk fails: " in get(ops, "/status?format=text")[1]

    assert tamed("upgrade", daemon.name).status == 0
    (tamed.folder / "database").unlink()
    (tamed.folder / "disk").unlink()
    wait_for("the recovery", lambda: daemon.status()["state"] == "running")
    assert get(ops, "/readyz") == (200, "ok")
    events = [json.loads(line) for line in Path(f"{daemon.log_file}.events").read_text().splitlines()]
    checks = [(each["service"], each["outcome"]) for each in events if each["event"] == "check"]
    assert sorted(checks) == [
        (name, outcome) for name in ("database", "disk") for outcome in ("failed", "passed")
    ]
    daemon.stop()


def test_process_on_its_own_tells_its_manager_what_fails(tamed: Tamed) -> None:
    """Its log and the status line of the service manager have the reason."""
    tamed.write("verse.py", APPLICATION)
    tamed.write("disk", "")
    with (
        service_manager(tamed.folder) as manager,
        tamed.foreground("run", "verse.py", env=manager.env) as process,
    ):
        process.expect("WARNING tamed.service: the check of disk fails: ConnectionError: disk is down")
        while "the check of disk fails" not in manager.expect("STATUS")["STATUS"]:
            continue
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
