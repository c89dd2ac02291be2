"""Finding Twisted's plugins, and what the bridge costs those who do not use it."""

import re
from pathlib import Path

import pytest

pytest.importorskip("twisted")

from tamed.config.job import Job, Target, TargetKind
from tamed.errors import ApplicationFailed, UsageError
from tamed.twisted.kind import TwistedKind
from tests.fresh import loaded_by
from tests.supervised.daemon import Tamed
from tests.twisted.example import write_plugin

_LEAVING = "def makeService(self, options):\n        raise SystemExit(7)"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A plugin folder with the poetry plugin."""
    return write_plugin(tmp_path)


def test_a_process_that_uses_no_twisted_loads_none() -> None:
    """Neither claiming the reactor nor a run of a plugin of ours does."""
    loaded = loaded_by("from tamed.twisted.kind import claim_reactor; claim_reactor()")
    loaded |= loaded_by(
        "from tamed.config.job import Job, Reading; from tamed.config.load import load\n"
        "from tamed.config.kinds import resolve\n"
        "load(Reading.of(Job(resolve('fastpoetry'))))"
    )
    assert "tamed.twisted.kind" in loaded
    assert {name for name in loaded if name.partition(".")[0] == "twisted"} == set()


def test_plugins_in_a_folder_are_found_without_a_cache(folder: Path) -> None:
    """In its `twisted/plugins`; and nothing is written."""
    before = {path for path in folder.rglob("*") if "__pycache__" not in str(path)}
    found = {plugin.name: plugin for plugin in TwistedKind().found([folder])}
    assert found["fastpoetry"].description == "A fast poetry service."
    assert found["fastpoetry"].package == "twisted.plugins.fastpoetry_plugin"
    assert TwistedKind().has("fastpoetry", [folder])
    assert not TwistedKind().has("slowpoetry", [folder])
    assert {path for path in folder.rglob("*") if "__pycache__" not in str(path)} == before


def test_a_module_that_cannot_be_imported_hides_no_other(tamed: Tamed) -> None:
    """It is in the table with its reason."""
    write_plugin(tamed.folder)
    broken = tamed.folder / "twisted" / "plugins" / "broken_verse.py"
    broken.write_text("1 / 0\n")
    out = tamed("plugins", "--plugin-dir", tamed.folder).out
    assert re.search(r"broken_verse +\(cannot be run\)", out)
    assert "ZeroDivisionError: division by zero" in out
    assert "A fast poetry service." in out.partition("Twisted plugins, which")[2]
    done = tamed("run", "--plugin-dir", tamed.folder, "twisted:broken_verse")
    assert done.status == 70
    assert "twisted.plugins.broken_verse cannot be imported: ZeroDivisionError" in done.err


def test_a_plugin_that_exits_while_it_is_made_is_named(tamed: Tamed) -> None:
    """In the log of a run, and as an error of a check."""
    write_plugin(tamed.folder)
    file = tamed.folder / "twisted" / "plugins" / "fastpoetry_plugin.py"
    file.write_text(file.read_text().replace("def makeService(self, options):", _LEAVING))
    words = ("--plugin-dir", tamed.folder, "twisted:fastpoetry", "--poem", "poem.txt")
    done = tamed("run", *words)
    assert done.status == 7
    assert done.err.endswith("INFO tamed: fastpoetry, while it was loaded, asked to exit with status 7\n")
    done = tamed("check", *words)
    assert (done.status, done.err) == (70, "tamed: fastpoetry ended while it was loaded, with status 7\n")


def test_an_unknown_plugin_has_a_suggestion() -> None:
    """The nearest name."""
    with pytest.raises(UsageError, match="did you mean 'ftp'"):
        TwistedKind().check(Job(Target(TargetKind.FOREIGN, "ftpp", "twisted")))


def test_what_a_plugin_raises_is_its_fault() -> None:
    """In its options too."""
    with pytest.raises(ApplicationFailed, match="words raised while parsing its options"):
        TwistedKind().check(Job(Target(TargetKind.FOREIGN, "words", "twisted"), words=("--group", "poets")))


def test_the_reactor_is_ours_whoever_imports_it() -> None:
    """An import of the reactor returns Tamed's once it is installed."""
    statement = (
        "from tamed.twisted.kind import claim_reactor; claim_reactor(); import twisted.internet.reactor"
    )
    loaded = loaded_by(statement)
    assert "tamed.twisted.reactor" in loaded
    assert "twisted.internet.epollreactor" not in loaded
