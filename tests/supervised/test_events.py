"""The events of real daemons, and the command that shows them."""

import json
import os
import re
import signal
import time
from typing import Any

from tests.supervised.daemon import Daemon, Tamed, wait_for


def events_of(daemon: Daemon) -> list[dict[str, Any]]:
    """Read the events as the command prints them."""
    done = daemon.tamed("events", daemon.name, "--json", "-n", "1000")
    assert (done.status, done.err) == (0, ""), done
    return [json.loads(line) for line in done.out.splitlines()]


def test_the_events_of_a_life(tamed: Tamed) -> None:
    """Each has its facts, they outlast an upgrade, and they can be read after the end."""
    services = f'[services.fastpoetry]\nplugin = "fastpoetry"\nport = 0\npoem = "{tamed.poem}"\n'
    file = tamed.write("app.toml", services)
    daemon = tamed.start("--workers", "2", file)
    victim = daemon.workers()[0]
    os.kill(victim, signal.SIGKILL)
    daemon.wait_workers(2, without=[victim])
    tamed.write("app.toml", f"{services}lines = true\n")
    assert tamed("reload").status != 0
    tamed.write("app.toml", f"{services}[daemon]\npreload = true\n")
    assert tamed("reload").status == 0
    assert tamed("scale", "1").status == 0
    before = time.monotonic()
    assert tamed("upgrade").status == 0
    now = time.monotonic()
    assert now - daemon.status()["uptime"] < before, "the upgrade has reset the uptime"
    assert tamed("stop").status == 0
    found = events_of(daemon)
    kinds = [each["event"] for each in found if each["event"] not in ("drain", "death")]
    assert kinds == ["start", "restart", "reload", "reload", "scale", "upgrade", "reload", "stop", "end"]
    by_kind = {each["event"]: each for each in reversed(found)}  # the first of each kind
    start, death = by_kind["start"], by_kind["death"]
    assert start["outcome"] == "done"
    assert {each["name"] for each in start["services"]} >= {"fastpoetry/server"}
    assert set(start["stages"]) == {"loading", "preparing", "dropping", "starting", "handing over"}
    assert (death["pid"], death["signal"], death["worker"]) == (victim, "SIGKILL", 1)
    assert death["memory"] > 1_000_000
    assert any("loaded a poem" in line for line in death["lines"])
    failed, reloaded, upgraded = (each for each in found if each["event"] == "reload")
    assert (failed["outcome"], reloaded["outcome"]) == ("failed", "done")
    assert "lines" in failed["text"]
    assert reloaded["changed"] == ["daemon.preload"]
    assert reloaded["asked"].startswith(f"uid {os.geteuid()}, pid ")
    assert upgraded["asked"] == "the upgrade"
    scale = by_kind["scale"]
    assert (scale["from"], scale["to"], scale["outcome"]) == (2, 1, "done")
    assert by_kind["stop"]["asked"] == "SIGTERM"
    assert by_kind["drain"]["took"] >= 0


def test_a_start_that_fails_is_an_event(tamed: Tamed) -> None:
    """It has the reason, the worker's end and what it has printed.

    The instance need not run: `tamed why` and `tamed logs` tell it, too.
    """
    tamed.write("app.py", "print('last words', flush=True)\nraise KeyError('rhyme')\n")
    assert tamed("start", "app.py").status == 70
    lines = (tamed.logs / "app.log.events").read_text().splitlines()
    death, start, end = (json.loads(line) for line in lines)
    assert (death["event"], start["event"], end["event"]) == ("death", "start", "end")
    assert "last words" in death["lines"]
    assert "KeyError: 'rhyme'" in start["reason"]
    assert start["waited_for"] == "workers prepare"
    assert (end["text"], end["status"]) == ("the daemon could not start", 70)
    out = tamed("why", "app").out
    assert out.startswith("app is not running\n")
    assert "the last start, at " in out
    assert "KeyError: 'rhyme'" in out
    done = tamed("logs", "app", "--level", "critical")
    assert done.status == 0
    assert re.search(
        r"CRITICAL tamed: (.*\n)*.*app.py raised while it was loaded: KeyError: 'rhyme'", done.out
    )


def test_events_are_followed(tamed: Tamed) -> None:
    """An event is printed on one line, when it happens, with who asked for it."""
    daemon = tamed.start_poetry()
    with tamed.begin("events", "-f") as command:
        assert command.stdout is not None
        assert "fastpoetry is ready" in command.stdout.readline()
        daemon.signal(signal.SIGHUP)
        line = command.stdout.readline()
    assert "reload" in line
    assert "requested by SIGHUP" in line
    daemon.stop()


def test_a_daemon_without_a_log_file_keeps_its_events_in_the_run_directory(
    tamed: Tamed,
) -> None:
    """They are removed when it ends on request."""
    with tamed.foreground(
        "run", "--workers", "1", "--name", "app", "fastpoetry", "--port", "0", "--poem", tamed.poem
    ) as process:
        process.expect("app is ready")
        done = tamed("events")
        assert (done.status, done.err) == (0, "")
        assert "app is ready" in done.out
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
    wait_for("the end", lambda: tamed.left() == {})
