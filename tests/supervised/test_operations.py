"""Operations that meet: reloads, upgrades and scaling at once, helpers that hang, workers that die."""

import fcntl
import json
import os
import random
import re
import signal
import socket
import termios
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from tamed._os.limits import most_workers, usable_cpus
from tests.patience import PATIENCE, ROUNDS
from tests.supervised.daemon import Command, Daemon, Done, Tamed, command_of, is_there, wait_for
from tests.supervised.forked import Fork
from tests.supervised.talk import APPLICATION, Load, say

# A module that every interpreter of ours imports first: it holds those up that run a certain module, while a
# file is there, and says so by another.
HOLD = """
import os, subprocess, sys, time
words = open("/proc/self/cmdline").read().split("\\0")
held = "{folder}/hold-" + (words[words.index("-m") + 1] if "-m" in words else "none")
held += ".template" * (words[-2] == "template")
if os.path.exists(held):
    child = subprocess.Popen(["sleep", "3600"]) if os.path.exists(held + ".child") else None
    open(held + ".pid", "w").write(f"{{os.getpid()}} {{child.pid if child else 0}}")
    while os.path.exists(held):
        time.sleep(0.05)
"""


class Holding:
    """Holds processes of Tamed before they begin their work."""

    def __init__(self, tamed: Tamed) -> None:
        self._folder = tamed.folder / "early"
        self._folder.mkdir()
        (self._folder / "sitecustomize.py").write_text(HOLD.format(folder=self._folder))
        self.environ = {"PYTHONPATH": f"{self._folder}:{os.environ.get('PYTHONPATH', '')}"}

    def hold(self, module: str, *, with_child: bool = False) -> None:
        """From now on, hold processes that run this module."""
        self._file(module).write_text("")
        if with_child:
            self._file(module, ".child").write_text("")

    def held(self, module: str) -> list[int]:
        """Wait until a process is held; return its pid and that of its child."""

        def look() -> list[int]:
            file = self._file(module, ".pid")
            return [int(word) for word in file.read_text().split()] if file.exists() else []

        return wait_for(f"a {module} that is held up", look)

    def release(self, module: str) -> None:
        """Let all held processes go on."""
        self._file(module).unlink()
        self._file(module, ".pid").unlink(missing_ok=True)

    def _file(self, module: str, more: str = "") -> Path:
        folder = {"planner": "control.", "template": "worker."}.get(module, "supervisor.")
        return self._folder / f"hold-tamed.{folder}{module}{more}"


@pytest.fixture
def holding(tamed: Tamed) -> Holding:
    """A way to hold processes."""
    return Holding(tamed)


@contextmanager
def begun(tamed: Tamed, *words: str) -> Iterator[Fork | Command]:
    """Run a command, and do not wait for it."""
    with tamed.begin(*words) as command:
        yield command


@contextmanager
def waiting(tamed: Tamed, *words: str) -> Iterator[Fork | Command]:
    """Run a command that must wait for another operation, and wait until it reports that."""
    with begun(tamed, *words) as command:
        assert command.stderr is not None
        assert "waiting for it to finish" in command.stderr.readline()
        yield command


def end_of(command: Fork | Command) -> Done:
    """Wait for the end of a command."""
    out, err = command.communicate(timeout=PATIENCE)
    return Done(command.returncode, out, err)


# Deadlines of helpers.


HELPERS = {
    "trial": ("upgrade", "the new program did not start within 15 s and was killed"),
    "planner": ("reload", "it was not ready after 15 s: the files are read"),
    "template": ("reload", "it was not ready after 15 s: the application is loaded"),
}


@pytest.mark.parametrize(
    "module", ["trial", pytest.param("planner", marks=pytest.mark.long), "template"]
)  # a planner and a template are waited for in the same way
def test_a_helper_that_hangs_is_killed_with_its_group(tamed: Tamed, holding: Holding, module: str) -> None:
    """The operation fails with one line, nothing is left of the helper, and the next one works."""
    command, why = HELPERS[module]
    options = ("--preload",) if module == "template" else ()
    daemon = tamed.start_poetry("--start-timeout", "15s", *options, env=holding.environ)
    workers = daemon.workers()
    holding.hold(module, with_child=True)
    done = tamed(command)
    assert (done.status, done.out) == (70, "")
    assert re.fullmatch(rf"tamed: {re.escape(why)}.*\n", done.err)
    wait_for("the end of the helper and its child", partial(_are_gone, holding.held(module)))
    assert daemon.workers() == workers
    holding.release(module)
    assert tamed(command).status == 0
    daemon.stop()


def test_a_stop_ends_a_helper_that_hangs(tamed: Tamed, holding: Holding) -> None:
    """The callers of this operation and of the next get an answer."""
    tamed.start_poetry(env=holding.environ)
    holding.hold("trial")
    with tamed.begin("upgrade") as upgrade:
        holding.held("trial")
        with waiting(tamed, "reload") as reload:
            assert tamed("stop").status == 0
            assert end_of(reload) == (69, "", "tamed: fastpoetry stops\n")
        assert end_of(upgrade) == (69, "", "tamed: fastpoetry stops\n")
    assert tamed.left() == {}


# One after the other.


def test_requests_wait_for_their_turn(tamed: Tamed, holding: Holding) -> None:
    """An upgrade runs after a reload, and a later number of workers replaces an earlier one.

    Waiting callers are kept over the exec, and each gets the answer to its request; reloads are merged.
    """
    daemon = tamed.start_poetry(env=holding.environ)
    holding.hold("planner")
    with ExitStack() as stack:
        reload = stack.enter_context(begun(tamed, "reload"))
        holding.held("planner")
        holding.hold("trial")
        upgrade = stack.enter_context(waiting(tamed, "upgrade"))
        early = stack.enter_context(waiting(tamed, "scale", "4"))
        late = stack.enter_context(waiting(tamed, "scale", "2"))
        replaced = "tamed: a later request for another number of workers has replaced it\n"
        assert end_of(early) == (69, "", replaced)
        holding.release("planner")
        assert end_of(reload)[:2] == (0, "fastpoetry was reloaded: generation 2, 1 worker\n")
        holding.held("trial")
        reloads = [stack.enter_context(waiting(tamed, "reload")) for _ in range(2)]
        holding.release("trial")
        assert end_of(upgrade)[:2] == (0, "fastpoetry was upgraded: generation 3, 1 worker\n")
        assert end_of(late)[:2] == (0, "fastpoetry has 2 workers\n")
        told = "fastpoetry was reloaded: generation 4, 2 workers\n"
        assert [end_of(each)[:2] for each in reloads] == [(0, told)] * 2
    assert (daemon.status()["generation"], len(daemon.workers())) == (4, 2)
    daemon.stop()


def test_a_status_that_is_asked_for_at_the_exec_is_answered(tamed: Tamed, holding: Holding) -> None:
    """The new program answers, also a request of which only a part was received before."""
    daemon = tamed.start_poetry(env=holding.environ)
    (worker,) = daemon.workers()
    holding.hold("trial")
    with ExitStack() as stack:
        upgrade = stack.enter_context(begun(tamed, "upgrade"))
        holding.held("trial")
        whole, half = (stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
        os.kill(worker, signal.SIGSTOP)  # which makes the supervisor wait for its report
        for sock, request in ((half, b'{"command": '), (whole, b'{"command": "status"}\n')):
            sock.connect(str(daemon.folder / "fastpoetry.sock"))
            sock.sendall(request)
            wait_for("the supervisor to read it", partial(_is_read, sock))
        holding.release("trial")
        daemon.expect_log("takes over")
        os.kill(worker, signal.SIGCONT)
        half.sendall(b'"status"}\n')
        for sock in (whole, half):
            with sock.makefile() as lines:
                assert json.loads(lines.readline())["name"] == "fastpoetry"
        assert end_of(upgrade).status == 0
    daemon.stop()


def _is_read(sock: socket.socket) -> bool:
    """Return whether the other end has read all sent data: unix(7)."""
    return fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)) == bytes(4)


def _is_gone(pid: int) -> bool:
    return not is_there(pid)


def _are_gone(pids: list[int]) -> bool:
    return all(map(_is_gone, pids))


@pytest.mark.long  # the excerpt of the chaos has such operations, too
@pytest.mark.parametrize("seed", range(max(1, ROUNDS // 3)))
def test_operations_at_random_are_all_answered(tamed: Tamed, seed: int) -> None:
    """Six commands and six signals at once: each caller gets a true answer, and no client fails."""
    app = tamed.write("app.py", APPLICATION)
    daemon = tamed.start("--workers", "2", app)
    chance = random.Random(seed)
    requests = [
        chance.choice([["reload"], ["upgrade"], ["scale", str(chance.randint(1, 4))]]) for _ in range(6)
    ]
    with ExitStack() as stack:
        load = stack.enter_context(Load(daemon.port, clients=2))
        commands = []
        for request in requests:
            commands.append(stack.enter_context(begun(tamed, *request)))
            daemon.signal(chance.choice([signal.SIGHUP, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU]))
        for request, command in zip(requests, commands, strict=True):
            done = end_of(command)
            match request[0], done.status:
                case "scale", 69:
                    assert "a later request for another number of workers has replaced it" in done.err
                case "scale", 0:
                    assert done.out == f"app has {request[1]} worker{'s' * (request[1] != '1')}\n"
                case kind, status:
                    assert status == 0, done
                    assert f"app was {kind.removesuffix('e')}" in done.out
        load.wait(10)
    assert load.failed == []
    done = tamed("reload")  # what the signals have asked for comes before it
    assert done.status == 0, done
    stands = daemon.status()
    ready = [each for each in stands["workers"] if each["state"] == "ready"]
    assert {each["generation"] for each in ready} == {stands["generation"]}
    assert f"{len(ready)} worker" in done.out
    daemon.stop()


# What happens while another program takes over.


def test_a_worker_that_dies_at_the_exec_of_an_upgrade_is_replaced(tamed: Tamed, holding: Holding) -> None:
    """It is replaced also if this is due only after the exec, and the following reload fails."""
    app = tamed.write("app.py", APPLICATION)
    daemon = tamed.start(app, env=holding.environ)
    for _ in range(5):  # so that there is a wait before the next
        (worker,) = daemon.wait_workers(1)
        os.kill(worker, signal.SIGKILL)
        wait_for("its end", partial(_is_gone, worker))
    (worker,) = daemon.wait_workers(1)
    holding.hold("trial")
    with tamed.begin("upgrade") as upgrade:
        holding.held("trial")
        holding.hold("planner")
        daemon.signal(signal.SIGSTOP)
        os.kill(worker, signal.SIGKILL)
        holding.release("trial")
        daemon.signal(signal.SIGCONT)
        holding.held("planner")
        app.write_text("syntax error")
        holding.release("planner")
        done = end_of(upgrade)
        assert (done.status, "SyntaxError" in done.err) == (70, True)
    app.write_text(APPLICATION)
    daemon.wait_workers(1, without=[worker])
    assert say(daemon.port, b"recite").rest == b"poem"
    daemon.stop()


def test_a_worker_that_is_put_down_at_the_exec_of_an_upgrade_is_replaced(
    tamed: Tamed, holding: Holding
) -> None:
    """The new program ends the worker that the previous one was about to end."""
    app = tamed.write("app.py", APPLICATION)
    daemon = tamed.start("--watchdog", "2s", app, env=holding.environ)
    (worker,) = daemon.workers()
    holding.hold("trial")
    with tamed.begin("upgrade") as upgrade:
        holding.held("trial")
        os.kill(worker, signal.SIGSTOP)  # so that it does not even end by SIGABRT
        daemon.expect_log(rf"worker {worker} has not answered for 2 s")
        app.write_text("syntax error")
        holding.release("trial")
        assert end_of(upgrade).status == 70
    app.write_text(APPLICATION)
    daemon.wait_workers(1, without=[worker])
    daemon.stop()


def test_a_worker_that_drains_at_an_upgrade_keeps_its_deadline(tamed: Tamed) -> None:
    """A worker with an endless connection is ended at its deadline, which the exec does not extend."""
    app = tamed.write("app.py", APPLICATION)
    daemon = tamed.start("--drain-timeout", "1h", "--stop-timeout", "8s", app)
    (worker,) = daemon.workers()
    with socket.create_connection(("127.0.0.1", daemon.port)) as sock:
        assert int(sock.makefile().readline()) == worker
        assert tamed("reload").status == 0
        began = time.monotonic()
        for _ in range(2):
            assert tamed("upgrade").status == 0
        wait_for("the end of the old worker", lambda: not is_there(worker))
        assert daemon.log.count(f"worker {worker} does not stop") == 1
        assert time.monotonic() - began < 60 + 8
    daemon.stop()


def test_an_upgrade_whose_reload_fails_keeps_the_template_and_the_watcher(tamed: Tamed) -> None:
    """One process watches the files, as before; a replaced worker runs the code of its generation."""
    pytest.importorskip("watchfiles")
    app = tamed.write("app.py", APPLICATION)
    daemon = tamed.start("--preload", "--reload", app)
    (worker,) = daemon.workers()

    def watchers() -> list[int]:
        return [pid for pid in tamed.processes() if "supervisor.watcher" in command_of(pid)]

    wait_for("a watcher", lambda: len(watchers()) == 1)
    app.write_text("syntax error")
    daemon.expect_log("reload failed, generation 1")
    assert tamed("upgrade").status == 70
    wait_for("one watcher", lambda: len(watchers()) == 1)
    os.kill(worker, signal.SIGKILL)
    daemon.wait_workers(1, without=[worker])
    assert say(daemon.port, b"recite").rest == b"poem"
    app.write_text(APPLICATION)
    daemon.expect_log("app was reloaded")
    daemon.stop()


# How many workers.


def test_workers_come_up_a_few_at_a_time_and_a_later_number_is_obeyed_at_once(tamed: Tamed) -> None:
    """As many as CPUs start at once; surplus ones are ended."""
    waits = "import os, time\nwhile os.path.exists('wait'):\n    time.sleep(0.01)\n"
    daemon = tamed.start(tamed.write("app.py", waits + APPLICATION))
    pace = max(2, usable_cpus())
    wait = tamed.write("wait", "")
    with tamed.begin("scale", str(1 + 10 * pace)) as scale:
        wait_for("workers", lambda: len(daemon.status()["workers"]) == 1 + pace)
        assert tamed("scale", "1") == (0, "app has 1 worker\n", "")
        done = end_of(scale)
        assert (done.status, "a later request" in done.err) == (69, True)
    wait.unlink()
    wait_for("the end of the others", lambda: len(daemon.status()["workers"]) == 1)
    daemon.stop()


def test_a_stop_is_obeyed_while_many_workers_come_up(tamed: Tamed) -> None:
    """The stop does not wait for them, and nothing is left."""
    daemon = tamed.start_poetry()
    with tamed.begin("scale", str(most_workers(usable_cpus()))) as scale:
        daemon.expect_log("workers from now on")
        assert tamed("stop").status == 0
        assert end_of(scale) == (69, "", "tamed: fastpoetry stops\n")
    assert tamed.left() == {}


def test_more_workers_than_make_sense_are_refused(tamed: Tamed) -> None:
    """Every way to request them gives one line with the option for a large number."""
    many = str(most_workers(usable_cpus()) + 1)
    file = tamed.write("v.toml", f'[daemon]\nworkers = {many}\n[services.a]\nplugin = "fastpoetry"\n')
    refused = {
        "flag": tamed("start", "--workers", many, "fastpoetry", "--poem", tamed.poem),
        "environment": tamed("start", "fastpoetry", env={"TAMED_WORKERS": many}),
        "file": tamed("start", file),
        "check": tamed("check", file),
    }
    assert tamed.left() == {}
    daemon = tamed.start_poetry()
    refused["scale"] = tamed("scale", many)
    for way, done in refused.items():
        assert (done.status, done.out) == (64, ""), way
        assert done.err.startswith(f"tamed: {many} workers: that is more than "), way
        assert ("--yes" in done.err, done.err.count("\n")) == (True, 1), way
    expect_refusals(daemon)
    daemon.stop()


def expect_refusals(daemon: Daemon) -> None:
    """Check that the supervisor itself refuses any client any number beyond the limit."""
    for number in (str(most_workers(usable_cpus()) + 1), str(10**400)):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(daemon.folder / "fastpoetry.sock"))
            sock.sendall(b'{"command": "scale", "workers": %s}\n' % number.encode())
            with sock.makefile() as lines:
                told = lines.readline()
            assert "cannot scale: " in told or "a whole number of more than 64 bits" in told
    assert len(daemon.status()["workers"]) == 1
