"""The footprint of a supervisor: small, and without the application's code."""

import re
import sys
from pathlib import Path

import pytest

from tests.fresh import loaded_by
from tests.patience import PATIENCE
from tests.supervised.daemon import Tamed

HEAVY = {
    "asyncio",
    "concurrent",
    "logging",
    "multiprocessing",
    "ssl",
    "twisted",
    "uvloop",
}


REPORT = """
import os, signal, sys
from tamed import Application, Service

class Report(Service):
    async def start(self):
        print(*sys.modules, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)

application = Application("report", Report())
"""


def test_the_program_of_the_supervisor_loads_the_standard_library_only() -> None:
    """It loads neither asyncio nor logging, and of Tamed neither the command nor the worker."""
    loaded = loaded_by("import tamed.supervisor.program")
    assert not {name.partition(".")[0] for name in loaded} & HEAVY
    assert {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names == {"tamed"}
    assert not {name for name in loaded if name.startswith(("tamed.cli", "tamed.builtin", "tamed.config"))}


def test_a_supervisor_that_runs_has_no_library_of_the_applications(tamed: Tamed) -> None:
    """Its memory map has no such library, also long after the start; its worker's has uvloop or ssl."""
    tamed.may_fork = False
    daemon = tamed.start_poetry()
    (worker,) = daemon.workers()
    assert not _extensions(daemon.pid) & {"_asyncio", "_ssl", "uvloop"}
    assert "_asyncio" in _extensions(worker)
    daemon.stop()


def _extensions(pid: int) -> set[str]:
    """Return the extension modules and libraries that a process has mapped, by their names."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    names = {Path(path).name.partition(".")[0] for path in re.findall(r"(/\S+\.so\S*)$", maps, re.MULTILINE)}
    return names | {part for part in ("uvloop",) if f"/{part}/" in maps}


@pytest.mark.unmeasured
def test_a_status_and_a_stop_load_what_they_need(tamed: Tamed) -> None:
    """Of Tamed only what finds the instance and talks to it, and none of the heavy modules."""
    tamed.start_poetry()
    for words in (["status"], ["status", "--json"], ["status", "fastpoetry"], ["stop"]):
        done = tamed(*words, env={"PYTHONPROFILEIMPORTTIME": "1"})
        loaded = {line.rpartition("|")[2].strip() for line in done.err.splitlines()}
        assert done.status == 0
        assert not loaded & {*HEAVY, "dataclasses", "inspect", "subprocess", "traceback", "typing"}, words
        assert {name for name in loaded if name.startswith(("tamed.supervisor.", "tamed.control."))} == {
            "tamed.control.instances",
            "tamed.supervisor.plan_file",
            "tamed.supervisor.reports",
        }, words
        assert not {name for name in loaded if name.startswith(("tamed.config", "tamed.plugins"))}, words
        log = {"tamed.log", "tamed.log.reader"} if words == ["status", "fastpoetry"] else set()
        assert {name for name in loaded if name.startswith("tamed.log")} == log, words
    assert tamed.left() == {}


@pytest.mark.unmeasured  # by which a process loads more
def test_a_run_in_the_foreground_loads_nothing_of_the_supervisor(tamed: Tamed) -> None:
    """Nor the destinations of the log that it does not have, or the library of another loop or a server."""
    with tamed.popen("run", tamed.write("report.py", REPORT)) as process:
        loaded = set(process.communicate(timeout=PATIENCE)[0].split())
    assert "tamed.worker.alone" in loaded
    assert not loaded & {"gzip", "json", "termios"}
    unused = {"log.file", "log.journal", "log.syslog", "net.tls", "unix.pidfile", "unix.rundir"}
    assert not loaded & {f"tamed.{name}" for name in unused}
    assert not {
        name for name in loaded if name.startswith(("tamed.supervisor", "tamed.ipc", "tamed.control.l"))
    }
    assert {name.partition(".")[0] for name in loaded} & {"h11", "twisted", "uvicorn", "watchfiles"} == set()
