"""What a template loads, and what the processes that it forks have of it."""

import heapq
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tamed._os.proc import start_time_of
from tests.fresh import loaded_by
from tests.patience import PATIENCE
from tests.plugins._site import source
from tests.security import live
from tests.supervised.conftest import tamed
from tests.supervised.daemon import Daemon, Tamed, is_there, wait_for

__all__ = ["tamed"]

# It shows what an application can see of its process. The same text runs in a fresh interpreter.
PROBE = """
import asyncio, decimal, faulthandler, gc, json, locale, logging, multiprocessing, os, random
import resource, signal, ssl, sys, threading, time, uuid, warnings

NOT_THEIRS = ("LISTEN", "PYTHON", "PYTEST", "PWD", "OLDPWD", "_")
FDS = "/proc/self/fd"
# Nothing can set the flag of -P, which the command's script has not; the path is as if it had.
FLAGS = [name for name in sys.flags.__match_args__ if name != "safe_path"]
LIMITS = [name for name in dir(resource) if name.startswith("RLIMIT_")]
HANDLERS = {number: signal.getsignal(number) for number in signal.valid_signals()}

same = {
    "path": [each for each in sys.path if each != os.getcwd()],
    "flags": {name: getattr(sys.flags, name) for name in FLAGS},
    "prefix": [sys.prefix, sys.exec_prefix, sys.executable],
    "environment": {name: text for name, text in os.environ.items() if not name.startswith(NOT_THEIRS)},
    "directory": os.getcwd(),
    "umask": os.umask(os.umask(0o77)),
    "limits": [resource.getrlimit(getattr(resource, name)) for name in LIMITS],
    "signals": {int(number): getattr(call, "__name__", str(call)) for number, call in HANDLERS.items()},
    "blocked": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
    "wakeup": signal.set_wakeup_fd(-1),
    "threads": [thread.name for thread in threading.enumerate()],
    "tasks": len(os.listdir("/proc/self/task")),
    "thread": threading.main_thread().native_id == threading.current_thread().native_id == os.getpid(),
    "multiprocessing": multiprocessing.get_start_method(),
    "process": [multiprocessing.current_process().name, multiprocessing.current_process().pid == os.getpid()],
    "policy": [type(asyncio.get_event_loop_policy()).__name__, asyncio._get_running_loop()],
    "tls": ssl.create_default_context().verify_mode.name,
    "collector": [gc.isenabled(), gc.get_threshold()],
    "recursion": sys.getrecursionlimit(),
    "switches": sys.getswitchinterval(),
    "locale": locale.setlocale(locale.LC_ALL),
    "zone": time.tzname,
    "decimals": str(decimal.getcontext()),
    "encodings": [sys.stdout.encoding, sys.stdin.encoding, sys.getfilesystemencoding()],
    "tracing": [sys.gettrace(), sys.getprofile(), threading.gettrace()],
    "hooks": [sys.excepthook.__name__, sys.displayhook.__name__, sys.unraisablehook.__name__],
    "groups": [os.getresuid(), os.getresgid(), os.getgroups()],
    "nice": os.nice(0),
    "affinity": sorted(os.sched_getaffinity(0)),
    "main": sys.modules["__main__"].__name__,
    "program": open("/proc/self/comm").read(),
}
own = {
    "session": os.getsid(0),
    "group": os.getpgrp(),
    "parent": os.getppid(),
    "argv": sys.argv,
    "command": sys.orig_argv,
    "main": sys.modules["__main__"].__spec__ and sys.modules["__main__"].__spec__.name,
    "random": random.random(),
    "uuid": str(uuid.uuid4()),
    "bytes": ssl.RAND_bytes(16).hex(),
    "key": multiprocessing.current_process().authkey.hex(),
    "crashes": faulthandler.is_enabled(),
    "descriptors": sorted(int(each) for each in os.listdir(FDS) if os.path.exists(f"{FDS}/{each}")),
    "seconds": time.process_time(),
}
"""

APPLICATION = """
from tamed import Application
import json, os
{probe}
with open(f"seen-{{os.getpid()}}", "w") as file:
    json.dump({{"same": same, "own": own}}, file, default=str)
application = Application("app")
"""


def seen(daemon: Daemon) -> dict[int, dict[str, Any]]:
    """Return what each ready worker has seen."""
    return {pid: json.loads((daemon.tamed.folder / f"seen-{pid}").read_text()) for pid in daemon.workers()}


def templates(tamed: Tamed) -> list[int]:
    """Return the pids of the templates."""
    return [pid for pid in tamed.processes() if live.role(pid) == "template"]


@pytest.mark.unmeasured  # which is seen, by its trace function
def test_a_forked_worker_and_a_fresh_interpreter_look_the_same(tamed: Tamed) -> None:
    """Also from a template of the supervisor: the same of the process, and what is to be a worker's own."""
    tamed.write("app.py", APPLICATION.format(probe=PROBE))
    daemon = tamed.start("--workers", "2", "app.py")
    program = f"{PROBE}\nimport json\nprint(json.dumps(same, default=str))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=tamed.folder,
        env={**tamed.environment(), "PWD": str(tamed.folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        umask=0o27,
        restore_signals=True,
        text=True,
        check=True,
    )
    fresh = json.loads(done.stdout)
    found = seen(daemon)
    (first,) = templates(tamed)
    os.kill(first, signal.SIGKILL)  # the next one is started by the supervisor, this one was by the command
    assert tamed("reload").status == 0
    assert templates(tamed) != [first]
    found |= seen(daemon)
    assert len(found) == 4
    for pid, each in found.items():
        _assert_like(fresh, each["same"])
        own = each["own"]
        assert (own["session"], own["group"], own["parent"]) == (pid, pid, daemon.pid)
        assert own["main"] == "tamed.worker.__main__"
        assert own["crashes"] is True
        assert own["descriptors"] == [0, 1, 2, 3, 4]  # its channel and its log, beside the standard ones
        assert own["seconds"] < 60
        assert own["argv"][1:] == ["start", "--workers", "2", "app.py"]  # as in a run without workers
    for name in ("random", "uuid", "bytes", "key"):
        assert len({each["own"][name] for each in found.values()}) == 4, name
    commands = sorted(each["own"]["command"][-3:] for each in found.values())
    assert commands == [["tamed.worker", "app", number] for number in ("1", "1", "2", "2")]
    daemon.stop()


def _assert_like(fresh: dict[str, Any], same: dict[str, Any]) -> None:
    for key in fresh.keys() - {"path"}:
        assert same[key] == fresh[key], key
    assert set(fresh["path"]) <= set(same["path"])


def test_a_template_begins_before_its_supervisor_and_ends_with_it(tamed: Tamed) -> None:
    """It has one thread, its own descriptors and no event loop; it is there before the pid file is taken."""
    tamed.may_fork = False
    daemon = tamed.start_poetry("--workers", "2", "--max-files", "512")
    (template,) = templates(tamed)
    assert len(live.threads(template)) == 1
    kinds = Counter(each.target.partition(":")[0] for each in live.descriptors(template))
    assert kinds == {"/dev/null": 1, "socket": 1, "pipe": 3}
    assert live.session(template) == template
    ticks = start_time_of(template)
    assert ticks is not None
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    assert time.time() - age < daemon.instance().pid_file.stat().st_mtime
    pids = tamed.processes()
    assert all(resource.prlimit(pid, resource.RLIMIT_NOFILE)[0] == 512 for pid in pids)
    daemon.signal(signal.SIGKILL)
    wait_for("the end of all", lambda: not any(map(is_there, pids)))


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    ("words", "is_forked"),
    [
        (["SCRIPT", "start", "fastpoetry"], True),
        (["SCRIPT", "start", "app.py"], True),
        (["SCRIPT", "start", "ode"], False),
        (["PYTHON", "-m", "tamed", "start", "fastpoetry"], True),
        (["PYTHON", "-Xdev", "SCRIPT", "start", "fastpoetry"], False),
        (["env", "PYTHONPATH=early", "SCRIPT", "start", "fastpoetry"], False),
    ],
    ids=[
        "a plugin of ours",
        "a file",
        "a plugin of others",
        "a module",
        "an option",
        "others in place of ours",
    ],
)
def test_the_first_template_is_a_fork_if_that_is_as_good_as_an_interpreter(
    tamed: Tamed, words: list[str], is_forked: bool
) -> None:
    """It has no code of others: neither a plugin, nor a module in place of one of the standard library."""
    tamed.write("app.py", "from tamed import Application\napplication = Application('app')\n")
    tamed.write("ode.py", source("ode"))
    (tamed.folder / "early").mkdir()
    tamed.write("early/heapq.py", Path(heapq.__file__).read_text())
    places = {"SCRIPT": str(Path(sys.executable).with_name("tamed")), "PYTHON": sys.executable}
    environment = tamed.environment({"TAMED_PLUGIN_PATH": str(tamed.folder)})
    command = [places.get(word, word) for word in words]
    index = words.index("start") + 1
    command[index:index] = ["--workers", "2"]
    if words[-1] == "fastpoetry":
        command += ["--port", "0"]
    subprocess.run(command, cwd=tamed.folder, env=environment, check=True, timeout=PATIENCE)
    (template,) = templates(tamed)
    assert ("-P" not in live.words(template)) is is_forked
    assert tamed("stop", Path(words[-1]).stem).status == 0


def test_a_first_template_that_ends_before_its_supervisor_is_there_fails_the_start(tamed: Tamed) -> None:
    """The supervisor notices it although it was not there; its output is in the log."""
    early = tamed.folder / "early"
    early.mkdir()
    ending = "import os, sys\nif 'tamed.worker' in sys.orig_argv:\n    os.write(2, b'early')\n    os._exit(7)"
    (early / "sitecustomize.py").write_text(ending)
    tamed.write(
        "ode.py", source("ode")
    )  # a plugin of others, so that the command does not become the template
    places = {"PYTHONPATH": str(early), "TAMED_PLUGIN_PATH": str(tamed.folder)}
    done = tamed("start", "ode", env=places)
    assert done.status == 70
    assert "the process that loads Tamed for the workers" in done.err
    assert "early" in (tamed.logs / "ode.log").read_text()


def test_the_framework_starts_nothing_when_it_is_loaded() -> None:
    """No loop, no multiprocessing and no plugin is there before a fork."""
    loaded = loaded_by("import tamed.worker.template")
    assert not {name for name in loaded if name.startswith(("tamed.builtin", "multiprocessing", "random"))}


def test_a_template_whose_files_have_changed_is_replaced(tamed: Tamed) -> None:
    """The next reload notices that a module which the template had loaded was written."""
    early = tamed.folder / "early"
    early.mkdir()
    release = early / "sitecustomize.py"
    release.write_text("import sys\nsys.release = 1\n")
    wait_for("a file older than the command", lambda: time.time() - release.stat().st_ctime > 0.1)
    app = "import sys\nfrom tamed import Application\nprint('release', sys.release, flush=True)\n"
    tamed.write("app.py", app + "application = Application('app')\n")
    daemon = tamed.start("--workers", "2", "app.py", env={"PYTHONPATH": str(early)})
    before = templates(tamed)
    assert tamed("reload").status == 0
    assert templates(tamed) == before
    release.write_text("import sys\nsys.release = 2\n")
    assert tamed("reload").status == 0
    wait_for("the end of the old template", lambda: len(templates(tamed)) == 1)
    assert templates(tamed) != before
    daemon.expect_log("release 2")
    daemon.stop()


def test_a_template_is_outdated_by_what_changed_before_its_fork() -> None:
    """Its modules are as old as the command that loaded them, and not as the process itself."""
    program = """
import tamed, os
from tamed.worker.template import Origin
origin = Origin()
print(origin.has_changed)
origin.loaded_since(os.stat(tamed.__file__).st_ctime)
print(origin.has_changed)
"""
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_one_worker_has_no_template(tamed: Tamed) -> None:
    """The template ends when the only worker serves, and there is one as long as there are two workers."""
    daemon = tamed.start_poetry()
    wait_for("the end of the template", lambda: not templates(tamed))
    assert tamed("scale", "2").status == 0
    assert len(templates(tamed)) == 1
    assert tamed("scale", "1").status == 0
    wait_for("the end of the template", lambda: not templates(tamed))
    daemon.stop()


def test_a_template_that_is_stopped_or_killed_is_replaced(tamed: Tamed) -> None:
    """A worker that is lost meanwhile comes from another one; nothing is left behind."""
    daemon = tamed.start_poetry("--workers", "2")
    (template,) = templates(tamed)
    os.kill(template, signal.SIGSTOP)
    workers = daemon.workers()
    os.kill(workers[0], signal.SIGKILL)
    daemon.expect_log(f"the template of the workers, process {template}, does not answer")
    workers = daemon.wait_workers(2, without=workers[:1])
    (template,) = wait_for(
        "another template", lambda: [each for each in templates(tamed) if each != template]
    )
    for pid in (template, workers[0]):
        os.kill(pid, signal.SIGKILL)
    daemon.wait_workers(2, without=workers[:1])
    daemon.stop()


def lose_the_last_worker(daemon: Daemon) -> int:
    """Stop the template and kill the last worker, so that its request waits; return the template."""
    (template,) = wait_for(
        "one template, and nothing that it has just forked",
        lambda: found if len(found := templates(daemon.tamed)) == 1 else None,
    )
    os.kill(template, signal.SIGSTOP)
    workers = sorted(daemon.status()["workers"], key=lambda each: each["number"])
    os.kill(workers[-1]["pid"], signal.SIGKILL)
    wait_for("the end of the worker", lambda: daemon.status()["ready"] < len(workers))
    return template


def go_on(template: int) -> None:
    """Let a stopped template go on, if it was not killed meanwhile because it did not answer."""
    with suppress(ProcessLookupError):
        os.kill(template, signal.SIGCONT)


def test_what_comes_in_the_middle_of_a_fork_leaves_nothing_of_it(tamed: Tamed) -> None:
    """A smaller number: the process that is forked later ends at once, and the others serve on.

    An upgrade: the template and what it forks later end; the new program has a template of its own.
    """
    daemon = tamed.start_poetry("--workers", "3")
    template = lose_the_last_worker(daemon)
    workers = daemon.workers()
    assert tamed("scale", "2").status == 0
    go_on(template)
    wait_for("supervisor, template and workers alone", lambda: len(tamed.processes()) == 4)
    assert daemon.workers() == workers
    template = lose_the_last_worker(daemon)
    assert tamed("upgrade").status == 0
    go_on(template)
    wait_for("the end of the template", lambda: not is_there(template))
    daemon.wait_workers(2)
    wait_for("supervisor, template and workers alone", lambda: len(tamed.processes()) == 4)
    daemon.stop()


def test_repeated_crashes_get_another_layout_of_memory(tamed: Tamed) -> None:
    """The third worker that crashes ends the template."""
    tamed.may_fork = False
    daemon = tamed.start_poetry("--workers", "2")
    before = templates(tamed)
    for _ in range(3):
        (victim, _) = workers = daemon.workers()
        os.kill(victim, signal.SIGSEGV)
        daemon.wait_workers(2, without=workers[:1])
    daemon.expect_log("workers have crashed repeatedly")
    assert templates(tamed) != before
    layouts = {pid: Path(f"/proc/{pid}/maps").read_text().split("-")[0] for pid in daemon.workers()}
    assert len(set(layouts.values())) == 2
    daemon.stop()
