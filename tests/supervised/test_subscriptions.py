"""Applications that subscribe to the events of their daemon."""

import json
import os
import signal
import socket
from pathlib import Path

import pytest

from tests.patience import PATIENCE
from tests.supervised.daemon import Tamed, wait_for

EXAMPLE = Path(__file__).parents[2] / "examples" / "hooks" / "statsd.py"
APPLICATION = """
import json
import os
from pathlib import Path

from tamed import Application, Service, events


class Hook(Service):
    every_worker = False

    async def run(self):
        async for event in events(every_worker=self.every_worker):
            with Path(f"{self.name}.json").open("a") as file:
                file.write(json.dumps({**event, "by": os.getpid()}) + "\\n")


class Everywhere(Hook):
    every_worker = True


application = Application("verse", Hook("one"), Everywhere("all"))
"""


def seen(tamed: Tamed, name: str) -> list[dict[str, object]]:
    """Return the events that a hook has seen."""
    path = tamed.folder / f"{name}.json"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


@pytest.mark.parametrize(
    "options", [[], pytest.param(["--preload"], marks=pytest.mark.long)], ids=["", "preloaded"]
)
def test_event_is_delivered_once_or_to_every_worker(tamed: Tamed, options: list[str]) -> None:
    """Another worker sees a death, also after a reload and an upgrade, whose workers subscribe anew."""
    tamed.write("verse.py", APPLICATION)
    daemon = tamed.start("--workers", "3", *options, "verse.py")

    def deaths(name: str) -> list[object]:
        return [each["pid"] for each in seen(tamed, name) if each["event"] == "death"]

    victims = []
    for command in ([], ["reload"], ["upgrade"]):
        if command:
            assert tamed(*command, daemon.name).status == 0
        victim = min(daemon.wait_workers(3))
        victims.append(victim)
        os.kill(victim, signal.SIGKILL)
        wait_for("the one report", lambda: deaths("one") == victims)
        wait_for(
            "the reports of both others", lambda: deaths("all") == sorted(victims * 2, key=victims.index)
        )
        daemon.wait_workers(3, without=[victim])
    kinds = {str(each["event"]) for each in seen(tamed, "one")}
    assert {"start", "death", "restart", "reload", "upgrade"} <= kinds
    daemon.stop()


def test_example_counts_events_in_statsd(tamed: Tamed) -> None:
    """It sends a count for each event, the start of the daemon first."""
    text = EXAMPLE.read_text().replace("localhost:10000", "localhost:0")
    tamed.write("statsd.py", text)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(PATIENCE)
        where = f"127.0.0.1:{server.getsockname()[1]}"
        daemon = tamed.start("--workers", "2", "statsd.py", env={"STATSD": where})
        assert server.recv(100) == b"tamed.start.done:1|c"
        os.kill(daemon.workers()[0], signal.SIGKILL)
        assert server.recv(100) == b"tamed.death:1|c"
        assert server.recv(100) == b"tamed.restart:1|c"
        daemon.stop()


def test_process_on_its_own_has_events_of_its_own(tamed: Tamed) -> None:
    """It is ready, and it is asked to stop, which a delay lets it see."""
    tamed.write("verse.py", APPLICATION)
    with tamed.foreground("run", "--stop-delay", "1h", "verse.py") as process:
        process.expect("verse is ready")
        wait_for("the start", lambda: [each["event"] for each in seen(tamed, "one")] == ["start"])
        process.signal(signal.SIGTERM)
        wait_for("the stop", lambda: [each["event"] for each in seen(tamed, "all")] == ["start", "stop"])
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
