"""Reloading at each change of a file, for development."""

import os
import signal
from pathlib import Path

import pytest

from tamed.testing.process import TamedProcess
from tests.supervised.daemon import Tamed, command_of, read_poem, wait_for

APPLICATION = """
from tamed import Application, StreamServer
from poem import POEM

async def recite(reader, writer):
    writer.write(POEM)

application = Application("app", StreamServer("127.0.0.1:0", recite))
"""


def _write(tamed: Tamed, poem: str) -> None:
    tamed.write("poem.py", f"POEM = {poem}")


def _start(tamed: Tamed, *target: str | Path) -> TamedProcess:
    return tamed.foreground("run", "--reload", *target, env={"PYTHONPATH": str(tamed.folder)})


@pytest.mark.parametrize("preload", [[], pytest.param(["--preload"], marks=pytest.mark.long)])
def test_a_module_that_changes_is_taken(tamed: Tamed, preload: list[str]) -> None:
    """A broken module is reported, and the last good one serves until it is repaired."""
    tamed.write("app.py", APPLICATION)
    _write(tamed, "b'first'")
    with _start(tamed, *preload, "app.py") as process:
        port = int(process.expect(r"ready: pid \d+, listening on 127.0.0.1:(\d+)")[1])
        assert read_poem(port) == b"first"
        _write(tamed, "b'second'")
        process.expect("generation 2")
        assert read_poem(port) == b"second"
        _write(tamed, "b'broken")
        process.expect("reload failed, generation 2 continues")
        process.expect("SyntaxError")
        assert read_poem(port) == b"second"
        _write(tamed, "b'third'")
        process.expect("generation [45]")
        assert read_poem(port) == b"third"
        process.signal(signal.SIGINT)
        assert process.wait() == 0
    wait_for("the end of all", lambda: tamed.left() == {})


def test_files_that_options_name_are_watched(tamed: Tamed) -> None:
    """Here these are a poem and the deployment file."""
    text = '[services.ode]\nplugin = "fastpoetry"\nport = 0\npoem = "poem.txt"\n'
    file = tamed.write("verse.toml", text)
    with _start(tamed, file) as process:
        port = int(process.expect(r"ready: pid \d+, listening on 127.0.0.1:(\d+)")[1])
        tamed.poem.write_bytes(b"another poem")
        process.expect("poem.txt has changed")
        process.expect("generation 2")
        assert read_poem(port) == b"another poem"
        file.write_text(text + "[daemon]\nworkers = 2\n")
        process.expect("verse.toml has changed")
        process.expect("generation 3, 2 workers")
        process.signal(signal.SIGINT)
        assert process.wait() == 0


@pytest.mark.parametrize("name", ["poem.txt", "verse.toml"])
def test_a_file_that_is_gone_for_a_while_is_watched_on(tamed: Tamed, name: str) -> None:
    """Some editors and deployments remove a file, and write it later."""
    text = '[services.ode]\nplugin = "fastpoetry"\nport = 0\npoem = "poem.txt"\n'
    file = tamed.write("verse.toml", text)
    path = tamed.folder / name
    with _start(tamed, file) as process:
        process.expect("is ready")
        path.rename(f"{path}~")
        process.expect("reload failed, generation 1 continues")
        Path(f"{path}~").rename(path)
        process.expect("was reloaded")
        process.signal(signal.SIGINT)
        assert process.wait() == 0
    wait_for("the end of all", lambda: tamed.left() == {})


def test_a_reload_may_end_and_begin_it(tamed: Tamed) -> None:
    """The watcher obeys the setting of the files that were read last."""
    text = '[services.ode]\nplugin = "fastpoetry"\nport = 0\n[daemon]\nworkers = 1\nreload = {}\n'

    def watchers() -> list[int]:
        return [pid for pid in tamed.processes() if "supervisor.watcher" in command_of(pid)]

    daemon = tamed.start(tamed.write("verse.toml", text.format("true")))
    wait_for("the watcher", watchers)
    tamed.write("verse.toml", text.format("false"))
    daemon.expect_log("was reloaded: generation 2")
    wait_for("the end of the watcher", lambda: not watchers())
    tamed.write("verse.toml", text.format("true"))
    assert tamed("reload").status == 0
    wait_for("the watcher", watchers)
    daemon.stop()


def test_a_reload_replaces_a_watcher_that_has_died(tamed: Tamed) -> None:
    """For example the kernel has killed it; until then changes have no effect."""
    with _start(tamed, "fastpoetry", "--port", "0", "--poem", tamed.poem) as process:
        process.expect("is ready")
        watcher = wait_for(
            "the watcher",
            lambda: [pid for pid in tamed.processes() if "supervisor.watcher" in command_of(pid)],
        )
        os.kill(watcher[0], signal.SIGKILL)
        process.expect("files are not watched until the next reload: the watcher ended with -9")
        process.signal(signal.SIGHUP)
        process.expect("was reloaded: generation 2")
        tamed.poem.write_bytes(b"another poem")
        process.expect("was reloaded: generation 3")
        process.signal(signal.SIGINT)
        assert process.wait() == 0
    wait_for("the end of all", lambda: tamed.left() == {})


def test_it_takes_a_library(tamed: Tamed) -> None:
    """The error names the extra that installs it, before anything starts."""
    tamed.write("watchfiles.py", "raise ImportError")
    hide = "import sys; sys.modules['watchfiles'] = None\n"
    tamed.write(
        "sitecustomize.py",
        hide + "import importlib.util as u; f = u.find_spec\n"
        "u.find_spec = lambda name, package=None: None if name == 'watchfiles' else f(name, package)\n",
    )
    done = tamed("run", "--reload", "fastpoetry", env={"PYTHONPATH": str(tamed.folder)})
    assert done == (78, "", "tamed: --reload: watchfiles is not installed; pip install 'tamed[reload]'\n")
