"""`tamed twistd` beside twistd itself: what plugins and programs see, and how its daemons are found."""

import grp
import json
import os
import pwd
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("twisted")

from tamed.config.job import Job, Target, TargetKind
from tamed.twisted.kind import TwistedKind
from tests.patience import PATIENCE
from tests.supervised.daemon import Tamed, is_there, needs_root, wait_for

# Notes what it sees, in each process that parses its options. With --carbon it does as Carbon's plugins do.
PLUGIN = """
import json, os, sys
from twisted.application.service import IServiceMaker, Service, ServiceMaker
from twisted.plugin import IPlugin
from twisted.python import usage
from zope.interface import implementer

class Options(usage.Options):
    optFlags = [["carbon", None, "Choose the pid file and the umask."], ["fail", None, "Fail."]]
    optParameters = [["user", None, None, "Choose the user.", int]]

    def postOptions(self):
        with open(os.environ["SEEN"], "a") as file:
            seen = {"options": dict(self.parent), "name": self.parent.subCommand, "argv": sys.argv[1:]}
            file.write(json.dumps(seen) + "\\n")
        if self["fail"]:
            raise KeyError("rhyme")
        if self["user"] is not None:
            self.parent["uid"] = self["user"]
        if self["carbon"]:
            self.parent["umask"] = 0o022
            self.parent["pidfile"] = os.path.abspath("carbon.pid")
            if os.path.exists(self.parent["pidfile"]):
                print("it is already running")
                raise SystemExit(1)

class Running(Service):
    def startService(self):
        open(os.environ["SEEN"] + ".running", "w").close()

@implementer(IServiceMaker, IPlugin)
class Maker:
    tapname, description, options = "ask", "Asks.", Options
    def makeService(self, options):
        return Running()

maker = Maker()
"""

TAC = """
import json, sys
from pathlib import Path
from twisted.application.service import Application
Path(__file__).with_suffix(".argv").write_text(json.dumps(sys.argv))
application = Application("verse")
"""

TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
TAMED = [str(Path(sys.executable).with_name("tamed"))]


ENDS = """
from twisted.application.service import Application
from twisted.internet import reactor
reactor.callWhenRunning(reactor.callLater, 0, print, 'it runs', flush=True)
reactor.addSystemEventTrigger('after', 'shutdown', print, 'it stops', flush=True)
application = Application('ends')
"""

IMPORTS = """
from twisted.application.service import Application
from twisted.internet import reactor
try:
    import poem_helper
except ImportError:
    print("no helper")
reactor.callWhenRunning(reactor.callLater, 0, reactor.stop)
application = Application("imports")
"""


class Programs:
    """A folder with a plugin and application files, where both commands are run."""

    def __init__(self, tamed: Tamed) -> None:
        self.tamed = tamed
        self.folder = tamed.folder
        self.seen_file = tamed.folder / "seen"
        self._places = {"SEEN": str(self.seen_file)}
        plugins = self.folder / "twisted" / "plugins"
        plugins.mkdir(parents=True)
        (plugins / "ask_plugin.py").write_text(PLUGIN)
        tamed.write("verse.tac", TAC)
        tamed.write("ends.tac", ENDS)

    def popen(self, command: list[str], *words: str) -> "subprocess.Popen[str]":
        """Run a command and do not wait for it."""
        environ = self.tamed.environment(self._places)
        if command is TWISTD:
            environ["PYTHONPATH"] = str(self.folder)  # the only way for its own command to find the plugin
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen([*command, *words], cwd=self.folder, env=environ, **pipes)

    def run(self, command: list[str], *words: str) -> tuple[int, str]:
        """Run a command to its end; return its status and what it says."""
        if command is TAMED:
            done = self.tamed(*words, env=self._places)
            return done.status, done.out + done.err
        with self.popen(command, *words) as process:
            out, _ = process.communicate(timeout=PATIENCE)
        return process.returncode, out

    def seen(self) -> list[dict[str, Any]]:
        """Return what the plugin has noted since the last time."""
        lines = self.seen_file.read_text().splitlines()
        self.seen_file.unlink()
        return [json.loads(line) for line in lines]

    def end(self, pid_file: str) -> None:
        """Wait until the plugin's service runs, and end the process of a pid file."""
        running = self.seen_file.with_name("seen.running")
        wait_for("the service", running.exists)
        running.unlink()
        pid = int((self.folder / pid_file).read_text())
        os.kill(pid, signal.SIGTERM)
        wait_for("its end", lambda: not is_there(pid))


@pytest.fixture
def programs(tamed: Tamed) -> Iterator[Programs]:
    """The folder; nothing may be left of what was started in it."""
    made = Programs(tamed)
    yield made
    assert tamed.left() == {}


WORDS = ("--pidfile", "own.pid", "--umask", "027", "--prefix", "poems", "-l", "own.log", "-o", "ask")


def test_a_plugin_sees_twistd_s_options_in_every_process(programs: Programs) -> None:
    """With the operator's values: in the command, in a worker, and in one of a reload; so is sys.argv."""
    assert programs.run(TWISTD, *WORDS)[0] == 0
    programs.end("own.pid")
    (twistd,) = programs.seen()
    assert programs.run(TAMED, "twistd", *WORDS) == (0, "")
    assert programs.run(TAMED, "reload", "poems")[0] == 0
    command, first, second = programs.seen()
    programs.end("own.pid")
    assert command == first == second == twistd


def test_a_plugin_sees_twistd_s_options_in_the_foreground(programs: Programs) -> None:
    """It is told that it is no daemon, and that it has no pid file."""
    words = ("-n", "--pidfile", "own.pid", "--syslog", "ask")
    for command in (TWISTD, [*TAMED, "twistd"]):
        with programs.popen(command, *words) as process:
            programs.end("own.pid")
            assert process.wait(PATIENCE) == -signal.SIGTERM
    twistd, *ours = programs.seen()
    assert twistd["options"]["nodaemon"] == twistd["options"]["syslog"] == 1
    assert ours == [twistd, twistd]


def test_a_plugin_sees_twistd_s_options_without_twistd(programs: Programs) -> None:
    """What is said in Tamed's words has twistd's names, in a template too."""
    words = ("--workers", "2", "--preload")
    said = (
        "--name",
        "poems",
        "--pid-file",
        "own.pid",
        "--umask",
        "027",
        "--log",
        "own.log",
        "--directory",
        "/",
    )
    status, told = programs.run(TAMED, "start", *words, *said, "--plugin-dir", ".", "twisted:ask", "--carbon")
    assert status == 0, told
    seen = programs.seen()
    assert programs.run(TAMED, "stop", "poems")[0] == 0
    assert len(seen) == 2
    for each in seen:
        assert each["argv"] == ["start", *words, *said, "--plugin-dir", ".", "twisted:ask", "--carbon"]
        options = each["options"]
        assert options["pidfile"] == str(programs.folder / "own.pid")
        assert (options["nodaemon"], options["umask"], options["prefix"]) == (False, 0o027, "poems")
        assert (options["logfile"], options["rundir"], options["syslog"]) == ("own.log", "/", False)


def test_a_plugin_sees_by_number_who_it_is_to_run_as(tamed: Tamed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user and the group of the settings, which may be names there."""
    programs = Programs(tamed)
    monkeypatch.setenv("SEEN", str(programs.seen_file))
    target = Target(TargetKind.FOREIGN, "ask", "twisted")
    who = {"user": pwd.getpwuid(0).pw_name, "group": grp.getgrgid(0).gr_name}
    TwistedKind().check(Job(target, who, plugin_dirs=(programs.folder,)))
    (seen,) = programs.seen()
    assert (seen["options"]["uid"], seen["options"]["gid"]) == (0, 0)


def test_a_plugin_that_chooses_the_pid_file_is_obeyed(programs: Programs) -> None:
    """As Carbon's do: no worker takes its own daemon for another one, also after a reload or a death."""
    words = ("twistd", "ask", "--carbon")
    assert programs.run(TAMED, *words) == (0, "")
    pid = int((programs.folder / "carbon.pid").read_text())
    assert programs.run(TAMED, *words) == (1, "it is already running\n")
    assert programs.run(TAMED, "reload", "./carbon.pid")[0] == 0

    def workers() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(programs.run(TAMED, "status", "--json")[1])[0]["workers"]
        return found

    wait_for("the end of the old worker", lambda: len(workers()) == 1)
    (worker,) = workers()
    os.kill(worker["pid"], signal.SIGKILL)
    wait_for(
        "another worker",
        lambda: [each["state"] for each in workers() if each["pid"] != worker["pid"]] == ["ready"],
    )
    assert f"Umask:\t{0o022:04o}\n" in Path(f"/proc/{pid}/status").read_text()
    programs.end("carbon.pid")


@needs_root
def test_a_user_that_a_plugin_chooses_is_not_passed_over(programs: Programs) -> None:
    """`tamed run` says how to become that user, rather than to run the program as root."""
    status, told = programs.run(TAMED, "run", "--plugin-dir", ".", "twisted:ask", "--user", "65534")
    assert status == 78
    assert told.endswith("must run as user 65534: this process is root; use --user 65534\n"), told


def test_a_plugin_that_raises_is_at_fault(programs: Programs) -> None:
    """With the status of a fault of the application, and what it raised."""
    status, told = programs.run(TAMED, "twistd", "ask", "--fail")
    assert status == 70
    assert told.endswith("\ntamed: Twisted plugin ask raised while parsing its options: KeyError: 'rhyme'\n")


# The current folder.


@pytest.mark.parametrize("command", [TAMED, [sys.executable, "-m", "tamed"]])
def test_a_plugin_of_the_current_folder_is_found_by_twistd_alone(
    programs: Programs, command: list[str]
) -> None:
    """However the command is run; `tamed run` imports nothing from there unasked."""
    with programs.popen([*command, "twistd"], "-n", "ask") as process:
        programs.end("twistd.pid")
        process.wait(PATIENCE)
    assert len(programs.seen()) == 2
    status, told = programs.run(command, "run", "twisted:ask")
    assert (status, told) == (64, "tamed: unknown Twisted plugin 'ask'; `tamed plugins` lists them\n")


@needs_root
@pytest.mark.parametrize(
    ("folder", "mode", "owner"),
    [
        (".", 0o755, 65534),
        ("..", 0o777, 0),
        ("twisted/plugins", 0o777, 0),
    ],
)
def test_root_imports_no_plugin_from_where_others_may_write(
    tmp_path: Path, folder: str, mode: int, owner: int
) -> None:
    """A folder of another user, or one inside or below such a folder, is skipped, and the error says so."""
    programs, why = untrusted(tmp_path, folder, mode, owner)
    status, told = programs.run(TAMED, "twistd", "-n", "ask")
    assert status == 64
    assert told.startswith(f"tamed: twistd: Unknown command: ask; {why}")
    assert told.count("\n") == 1
    assert not programs.seen_file.exists()


@needs_root
def test_a_plugin_folder_that_others_may_write_is_refused(tmp_path: Path) -> None:
    """A folder that root was told to use is refused instead of skipped."""
    programs, _ = untrusted(tmp_path, "twisted/plugins", 0o777, 0)
    status, told = programs.run(TAMED, "run", "--plugin-dir", ".", "twisted:ask")
    assert (status, told.startswith("tamed: plugin folder ")) == (77, True)


@needs_root
def test_root_runs_an_application_file_where_others_may_write(tmp_path: Path) -> None:
    """One that is safe itself; a module in the current folder is not imported, and it says so."""
    programs, why = untrusted(tmp_path, ".", 0o755, 65534)
    (programs.folder / "poem_helper.py").touch()
    (tmp_path / "imports.tac").write_text(IMPORTS)
    status, told = programs.run(TAMED, "twistd", "-n", "--pidfile=", "-y", str(tmp_path / "imports.tac"))
    lines = told.splitlines()
    assert (status, "no helper" in lines) == (0, True)
    assert any(line.startswith(f"tamed: {why}") for line in lines), told


def untrusted(tmp_path: Path, folder: str, mode: int, owner: int) -> tuple[Programs, str]:
    """Return programs in a folder, of which one is not root's alone, and the message that says so."""
    (tmp_path / "here").mkdir()
    programs = Programs(Tamed(tmp_path / "here", loaded="twisted"))
    changed = programs.folder / folder
    changed.chmod(mode)
    os.chown(changed, owner, owner)
    return programs, f"nothing is imported from {programs.folder}: folder {programs.folder}"


# Daemons and their ends.


def test_a_daemon_is_found_by_the_other_commands(programs: Programs) -> None:
    """One of each folder, by the name that status tells and by its pid file; its arguments are twistd's."""
    elsewhere = programs.folder / "elsewhere"
    elsewhere.mkdir()
    pid_file = elsewhere / "twistd.pid"
    assert programs.run(TAMED, "twistd", "-y", "verse.tac") == (0, "")
    words = ("-y", "verse.tac", "--pidfile", str(pid_file), "-l", str(elsewhere / "own.log"))
    assert programs.run(TAMED, "twistd", *words) == (0, "")
    status, told = programs.run(TAMED, "status")
    names = re.findall(r"\bverse-[0-9a-f]{8}\b", told)
    assert (status, len(names)) == (0, 2), told
    for file, log in (("./twistd.pid", "twistd.log"), (str(pid_file), "elsewhere/own.log")):
        name = programs.run(TAMED, "status", file)[1].partition(" ")[0]
        assert name in names
        if file == str(pid_file):
            told = programs.run(TAMED, "reload", file)[1]
            assert told == f"{name} was reloaded: generation 2, 1 worker\n"
            assert programs.run(TAMED, "logs", file)[1] == (programs.folder / log).read_text()
        assert programs.run(TAMED, "stop", name) == (0, f"{name} has stopped\n")
        assert (programs.folder / log).read_text().count("SIGTERM: stopping") == 1
    assert not pid_file.exists()
    script, *arguments = json.loads((programs.folder / "verse.argv").read_text())
    assert (script, arguments) == (str(Path(sys.executable).with_name("twistd")), list(words))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_in_the_foreground_as_it_ends_twistd(
    programs: Programs, number: signal.Signals
) -> None:
    """By itself, when all has been stopped, and the profile written."""
    for command in (TWISTD, [*TAMED, "twistd"]):
        with programs.popen(command, "-n", "-p", "profile", "-y", "ends.tac") as process:
            told = ""
            assert process.stdout is not None
            while "it runs" not in told:
                told = process.stdout.readline()
                assert told
            process.send_signal(number)
            rest, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == -number
        if number is not signal.SIGHUP:  # which ends twistd at once
            assert "it stops" in rest
            assert "function calls" in (programs.folder / "profile").read_text()
