"""The command `tamed logs`, with the logs of real daemons."""

import gzip
import json
import os
import re
from itertools import islice

from tests.supervised.daemon import Daemon, Tamed, wait_for

VERSE = """
import asyncio, logging, os
from tamed import Application, Service

log = logging.getLogger("verse")

class Verse(Service):
    async def run(self):
        try:
            {}["rhyme"]
        except KeyError:
            log.exception("no rhyme", extra={"user": "john", "time": "mine", "odd": {1: self}})
        log.warning("the last line")
        await asyncio.sleep(3600)

print("printed", flush=True)
application = Application("app", Verse("verse"))
"""


def start(tamed: Tamed, *options: str) -> Daemon:
    """Start a daemon whose workers have logged all that they have to log."""
    tamed.write("app.py", VERSE)
    daemon = tamed.start("--workers", "2", *options, "app.py")
    wait_for("its lines", lambda: daemon.log.count("the last line") == 2)
    return daemon


def test_a_record_is_shown_whole(tamed: Tamed) -> None:
    """With its traceback and its worker, also what a worker prints; the filters apply to records."""
    daemon = start(tamed)
    wait_for("both", lambda: len(re.findall(r"\[[12]\] WARNING output\[\d+\]: printed\n", daemon.log)) == 2)
    done = tamed("logs", "--level", "error")
    assert (done.status, done.err) == (0, "")
    heads = [line for line in done.out.splitlines() if not line.startswith(" ")]
    assert {re.fullmatch(r"\S{29} \[(\d)\] ERROR verse: no rhyme", line)[1] for line in heads} == {"1", "2"}  # type: ignore[index]
    assert done.out.count("    KeyError: 'rhyme'\n") == 2
    one = tamed("logs", "--grep", "KeyError", "--worker", "2", "-n", "5").out
    assert one.count("no rhyme") == 1
    assert "[2] ERROR" in one
    assert tamed("logs", "--since", "1h", "--service", "verse", "-n", "1").out.count("the last line") == 1
    assert "the last line" in tamed("logs", "--since", "1h ago").out
    assert tamed("logs", "--since", "23:59:59.999").out == ""
    for options in (["--since", "soon"], ["--grep", "("], ["--level", "loud"]):
        assert tamed("logs", *options).status == 64
    daemon.stop()


def test_json_has_the_fields_and_the_origin(tamed: Tamed) -> None:
    """Those of ``extra``, but not under a name of ours; and the instance, worker, generation and service."""
    daemon = start(tamed, "--log-format", "json")
    assert tamed("reload").status == 0
    done = tamed("logs", "--json", "--service", "verse", "--level", "error", "--worker", "1")
    first, second = (json.loads(line) for line in done.out.splitlines())
    assert (first["generation"], second["generation"]) == (1, 2)
    assert (first["instance"], first["worker"], first["service"]) == ("app", 1, "verse")
    assert first["user"] == "john"
    assert first["time"] != "mine"
    assert "verse" in str(first["odd"])
    assert "KeyError: 'rhyme'" in first["traceback"]
    raw = json.loads(daemon.log.splitlines()[-1])
    assert raw["instance"] == "app"
    daemon.stop()


def test_old_files_are_searched(tamed: Tamed) -> None:
    """Also compressed ones."""
    daemon = start(tamed)
    log = daemon.log_file
    daemon.stop()
    with gzip.open(f"{log}.1.gz", "wb") as file:
        file.write(b"2026-01-01T00:00:00.000+00:00 ERROR verse: long ago\n    KeyError: 'old'\n")
    done = tamed("logs", "app", "--level", "error", "-n", "100")
    assert done.out.startswith("2026-01-01T00:00:00.000+00:00 ERROR verse: long ago\n    KeyError: 'old'\n")
    assert "no rhyme" in done.out
    assert "long ago" not in tamed("logs", "app", "--since", "1h", "-n", "1000").out


def test_a_log_is_followed_whatever_another_program_does_with_it(tamed: Tamed) -> None:
    """For example logrotate truncates it, or moves it to a name with the date, beside older files."""
    daemon = tamed.start_poetry("--log-rotate", "0")
    log = daemon.log_file
    older = log.with_name(f"{log.name}.1")
    older.write_text("long ago\n")
    os.utime(older, (0, 0))
    with tamed.begin("logs", "-f", "-n", "1", daemon.name) as command:
        assert command.stdout is not None
        assert "is ready" in command.stdout.readline()
        os.truncate(log, 0)
        assert tamed("reopen").status == 0
        assert "the log was reopened" in command.stdout.readline()
        log.rename(f"{log}-20261129")
        assert tamed("reopen").status == 0
        assert "the log was reopened" in command.stdout.readline()
        command.terminate()
    daemon.stop()


def test_all_logs_are_merged_and_followed(tamed: Tamed) -> None:
    """Each record has the name of its instance, and rotation loses none."""
    for name in ("ode", "haiku"):
        tamed.start_poetry("--name", name)
    out = tamed("logs", "--all", "-n", "1000").out
    assert {line.partition(" | ")[0] for line in out.splitlines()} == {"ode", "haiku"}
    times = re.findall(r"^\w+ \| (\S{29}) ", out, re.MULTILINE)
    assert times == sorted(times)
    with tamed.begin("logs", "--all", "-f", "-n", "1", "--grep", "ready|reopened|stopping") as command:
        assert command.stdout is not None
        assert "is ready" in command.stdout.readline()  # it follows from here on
        log = tamed.logs / "ode.log"
        log.rename(f"{log}.1")
        assert tamed("reopen", "ode").status == 0
        assert tamed("stop", "--all").status == 0
        seen = "".join(islice(command.stdout, 3))
    assert "ode | " in seen
    assert tamed("logs", "--all", "ode").status == 64
