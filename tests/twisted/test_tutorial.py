"""The poetry service of Twisted's tutorial, unchanged: as an application file and as a plugin."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("twisted")

from tamed.config.job import Job, Target, TargetKind
from tamed.config.kinds import resolve
from tamed.errors import UsageError
from tamed.testing.process import TamedProcess
from tamed.twisted.kind import TwistedKind
from tests.patience import PATIENCE
from tests.supervised.daemon import POEM, Tamed, is_there, read_poem, wait_for
from tests.twisted.example import write_application, write_plugin


def listening_port(process: TamedProcess, pattern: str = r"starting on (\d+)") -> int:
    """Wait until a process in the foreground has said where it listens."""
    return int(process.expect(pattern)[1])


def test_the_application_file_runs_in_the_foreground(tamed: Tamed) -> None:
    """It serves, logs through Tamed's log, and ends with status 0 at a signal."""
    file = write_application(tamed.folder)
    with tamed.foreground("run", file) as process:
        port = listening_port(process, r"INFO twisted: PoetryFactory starting on (\d+)")
        process.expect("fastpoetry is ready$")
        assert read_poem(port) == POEM
        process.expect(r"INFO twisted: .* sending \d+ bytes of poetry to IPv4Address")
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
    assert "loaded a poem from:" in process.output


def test_the_application_file_runs_as_a_daemon(tamed: Tamed) -> None:
    """With a status, a log of its own, and nothing left behind."""
    daemon = tamed.start(write_application(tamed.folder))
    assert read_poem(daemon.port) == POEM
    assert re.search(r"fastpoetry +running", tamed("status", "fastpoetry").out)
    assert "INFO twisted: loaded a poem from:" in daemon.log
    daemon.stop()


def test_the_plugin_runs_by_its_name(tamed: Tamed) -> None:
    """From a plugin folder, with its own options; the folder gets no cache."""
    folder = write_plugin(tamed.folder)
    options = ("--port", "0", "--poem", tamed.poem)
    with tamed.foreground("run", "--plugin-dir", folder, "twisted:fastpoetry", *options) as process:
        port = listening_port(process)
        process.expect("is ready$")
        assert read_poem(port) == POEM
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
    assert list(folder.rglob("dropin.cache")) == []


def test_a_native_plugin_goes_first(tamed: Tamed) -> None:
    """A prefix says which is meant; the usage tells which it is."""
    folder = write_plugin(tamed.folder)
    assert resolve("fastpoetry", [folder]).kind is TargetKind.PLUGIN
    assert resolve("tamed:fastpoetry", [folder]).kind is TargetKind.PLUGIN
    usage = tamed("run", "--plugin-dir", folder, "twisted:fastpoetry", "--help").out
    assert usage.startswith("Usage: tamed run [daemon options] fastpoetry [options]")


def test_a_name_that_only_twisted_knows(tamed: Tamed) -> None:
    """Needs no prefix, and `tamed:` never means it."""
    assert tamed("run", "words", "--help").status == 0
    done = tamed("run", "tamed:words", "--help")
    assert (done.status, done.err) == (64, "tamed: unknown plugin 'words'; `tamed plugins` lists them\n")


def test_a_mistake_in_a_plugin_s_options_is_one_line(tamed: Tamed) -> None:
    """With Twisted's words; so is one that only the plugin knows."""
    folder = write_plugin(tamed.folder)
    remedy = "`tamed run fastpoetry --help` lists the options"
    done = tamed("run", "--plugin-dir", folder, "twisted:fastpoetry", "--prot", "1")
    assert (done.status, done.err) == (64, f"tamed: fastpoetry: option --prot not recognized; {remedy}\n")
    target = Target(TargetKind.FOREIGN, "fastpoetry", "twisted")
    for words, message in (
        (("--port", "0"), "fastpoetry: --poem is missing; "),
        (("--port", "x", "--poem", "y"), "fastpoetry: Parameter type enforcement failed: invalid literal"),
    ):
        with pytest.raises(UsageError, match=message) as caught:
            TwistedKind().check(Job(target, words=words, plugin_dirs=(folder,)))
        assert caught.value.remedy == remedy


def test_a_module_s_variable(tamed: Tamed) -> None:
    """A Twisted application in a module, or a bare service, is a target too."""
    write_application(tamed.folder).rename(tamed.folder / "poetry_app.py")
    assert "TwistedService PoetryService, TCPServer" in tamed("check", "poetry_app:application").out
    with tamed.foreground("run", "poetry_app:top_service") as process:
        port = listening_port(process)
        process.expect("is ready$")
        assert read_poem(port) == POEM
        process.signal(signal.SIGTERM)
        assert process.wait() == 0


def test_an_application_file_is_checked(tamed: Tamed) -> None:
    """Its services are shown, and nothing is bound."""
    done = tamed("check", write_application(tamed.folder))
    assert done.out == (
        "fastpoetry      Application\n└── fastpoetry  TwistedService PoetryService, TCPServer\n"
    )


def test_saved_applications_are_refused(tamed: Tamed) -> None:
    """They are pickles, which can run any code."""
    done = tamed("run", "poetry.tap")
    assert done.status == 64
    assert done.err.startswith("tamed: poetry.tap is a saved application: Tamed does not run pickled")


def test_a_program_that_installs_a_reactor_is_reported(tamed: Tamed) -> None:
    """Before and after the reactor was imported."""
    install = "from twisted.internet import selectreactor\nselectreactor.install()\n"
    service = "from twisted.application.service import Application\napplication = Application('a')\n"
    first = tamed("run", tamed.write("first.tac", install + service))
    assert first.status == 70
    assert "Twisted's reactor is already SelectReactor: Tamed runs Twisted on its own event loop" in first.err
    second = "from twisted.internet import reactor\n" + install + service
    done = tamed("run", tamed.write("second.tac", second))
    assert done.status == 70
    assert "it installs its own reactor, but Tamed runs Twisted on its own event loop" in done.err


def test_reactor_stop_ends_the_process(tamed: Tamed) -> None:
    """With status 0, as under twistd."""
    tamed.write(
        "stop.tac",
        "from twisted.application.service import Application\n"
        "from twisted.internet import reactor\n"
        "reactor.callWhenRunning(reactor.callLater, 0, reactor.stop)\n"
        "reactor.addSystemEventTrigger('before', 'shutdown', print, 'before shutdown')\n"
        "application = Application('a')\n",
    )
    done = tamed("run", "stop.tac")
    assert (done.status, done.out) == (0, "before shutdown\n"), done
    assert "reactor.stop() was called: stopping" in done.err


# twistd's own command lines.


def pid_in(file: Path) -> int:
    """Return the number in a pid file."""
    return int(file.read_text())


def port_in_log(tamed: Tamed) -> int:
    """Return the port that twistd.log tells."""
    log = (tamed.folder / "twistd.log").read_text()
    found = re.search(r"ready: pid \d+, listening on \S+:(\d+)", log)
    assert found is not None, log
    return int(found[1])


def test_twistd_runs_an_application_file_in_the_foreground(tamed: Tamed) -> None:
    """`--nodaemon --python FILE`."""
    write_application(tamed.folder)
    with tamed.foreground("twistd", "--nodaemon", "--python", "fastpoetry.tac") as process:
        port = listening_port(process)
        process.expect("fastpoetry is ready$")
        assert read_poem(port) == POEM
        assert pid_in(tamed.folder / "twistd.pid") == process.pid
        process.signal(signal.SIGINT)
        assert process.wait() == -signal.SIGINT  # as twistd does
    assert not (tamed.folder / "twistd.pid").exists()


def test_twistd_runs_an_application_file_as_a_daemon(tamed: Tamed) -> None:
    """`--python FILE`, and ``kill `cat twistd.pid` ``."""
    write_application(tamed.folder)
    assert tamed("twistd", "--python", "fastpoetry.tac") == (0, "", "")
    pid = pid_in(tamed.folder / "twistd.pid")
    assert read_poem(port_in_log(tamed)) == POEM
    os.kill(pid, signal.SIGTERM)
    wait_for("its end", lambda: not is_there(pid))
    assert not (tamed.folder / "twistd.pid").exists()
    assert tamed.left() == {}


def test_twistd_runs_a_plugin_of_the_folder(tamed: Tamed) -> None:
    """`fastpoetry --port 10000 --poem FILE`: the one in the working directory, as under twistd."""
    write_plugin(tamed.folder)
    assert tamed("twistd", "fastpoetry", "--port", "0", "--poem", "poem.txt") == (0, "", "")
    pid = pid_in(tamed.folder / "twistd.pid")
    assert read_poem(port_in_log(tamed)) == POEM
    again = tamed("twistd", "fastpoetry", "--port", "0", "--poem", "poem.txt")
    assert again.status == 75, again
    os.kill(pid, signal.SIGTERM)
    wait_for("its end", lambda: not is_there(pid))
    assert tamed.left() == {}


def test_twistd_shows_the_options_of_a_plugin(tamed: Tamed) -> None:
    """`ftp --help`."""
    done = tamed("twistd", "ftp", "--help")
    assert done.status == 0
    assert done.out.startswith("Usage: tamed twistd [options] ftp [options]")
    assert "--userAnonymous=" in done.out


@pytest.mark.parametrize(
    ("words", "status", "out", "err"),
    [
        ([], 0, "Usage: tamed twistd", ""),
        (["-n", "nothing"], 64, "", "tamed: twistd: Unknown command: nothing; "),
    ],
)
def test_twistd_ends_with_a_status(tamed: Tamed, words: list[str], status: int, out: str, err: str) -> None:
    """And with what was asked for on its standard output, or one line on the other."""
    done = tamed("twistd", *words)
    assert (done.status, done.out[: len(out)], done.err[: len(err)]) == (status, out, err)
    assert done.err.count("\n") == (status != 0)


def test_twistd_has_a_profile_and_a_logger(tamed: Tamed) -> None:
    """The profile is written at the end; the logger takes the place of the log."""
    tamed.write(
        "own_log.py",
        "from twisted.logger import FileLogObserver, formatEvent\n"
        "def make():\n"
        "    out = open('own.log', 'a', buffering=1)\n"
        "    return FileLogObserver(out, lambda event: 'own: ' + formatEvent(event) + '\\n')\n",
    )
    write_application(tamed.folder)
    words = ("-n", "--profile", "prof.txt", "--logger", "own_log.make", "-y", "fastpoetry.tac")
    with tamed.foreground("twistd", *words) as process:
        process.expect("fastpoetry is ready$")
        process.signal(signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM
    assert "own: loaded a poem from:" in (tamed.folder / "own.log").read_text()
    assert "loaded a poem" not in process.output
    assert "function calls" in (tamed.folder / "prof.txt").read_text()


def test_twistd_changes_the_folder_and_the_umask(tamed: Tamed) -> None:
    """`--rundir` and `--umask`; the pid file and the log stay where it was called."""
    folder = tamed.folder / "elsewhere"
    folder.mkdir()
    tamed.write(
        "where.tac",
        "import os\nfrom twisted.application.service import Application\n"
        "told = os.path.join(os.path.dirname(__file__), 'told')\n"
        "open(told, 'w').write('%s %o' % (os.getcwd(), os.umask(0o22)))\n"
        "application = Application('a')\n",
    )
    done = tamed(
        "twistd", "-d", "elsewhere", "--umask", "012", "-y", "where.tac", "-l", "my.log", "--no_save"
    )
    assert done == (0, "", "")
    assert (tamed.folder / "told").read_text() == f"{folder} 12"
    os.kill(pid_in(tamed.folder / "twistd.pid"), signal.SIGTERM)
    wait_for("the end", lambda: tamed.left() == {})
    assert (tamed.folder / "my.log").exists()


def test_a_tamed_service_runs_under_twistd_itself(tamed: Tamed) -> None:
    """On its asyncio reactor, and is stopped with it."""
    tamed.write(
        "under.tac",
        "from twisted.application import service\n"
        "from tamed import Service, StreamServer\n"
        "from tamed.twisted.services import TamedServiceForTwisted\n"
        "async def recite(reader, writer):\n    writer.write(open('poem.txt', 'rb').read())\n"
        "server = StreamServer('127.0.0.1:0', recite)\n"
        "class Told(Service):\n"
        "    async def start(self):\n        open('port', 'w').write(server.addresses[0])\n"
        "    async def stop(self):\n        open('stopped', 'w').close()\n"
        "application = service.Application('verse')\n"
        "for each in (server, Told()):\n    TamedServiceForTwisted(each).setServiceParent(application)\n",
    )
    twistd = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
    options = ["-n", "--pidfile=", "--reactor", "asyncio", "-y", "under.tac"]
    with subprocess.Popen([*twistd, *options], cwd=tamed.folder, stdout=subprocess.DEVNULL) as process:
        told = tamed.folder / "port"
        address = wait_for("the port", lambda: told.exists() and told.read_text())
        assert isinstance(address, str)
        assert read_poem(int(address.rpartition(":")[2])) == POEM
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)
    assert (tamed.folder / "stopped").exists()
