import re
from pathlib import Path

import pytest

from tamed import __version__
from tests.cli.conftest import Tamed

ODE = '''
from tamed import Service, plugin

@plugin
def ode() -> Service:
    """An ode."""
    return Service("ode")
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a plugin folder with a plugin, and one that cannot be imported."""
    (tmp_path / "ode.py").write_text(ODE)
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found\n")
    return tmp_path


def test_the_plugins_are_a_table(tamed: Tamed) -> None:
    """The table has the name, description and package of each installed plugin."""
    status, out, err = tamed("plugins")
    assert (status, err) == (0, "")
    head, *rows = [re.split("  +", line) for line in out.splitlines()]
    assert head == ["NAME", "DESCRIPTION", "PACKAGE"]
    assert ["fastpoetry", "A fast poetry service.", f"tamed {__version__}"] in rows


def test_a_broken_plugin_is_listed_with_its_reason_and_hides_no_other(tamed: Tamed, folder: Path) -> None:
    """A broken plugin does not change the exit status 0."""
    status, out, err = tamed("plugins", "--plugin-dir", folder)
    assert (status, err) == (0, "")
    lines = {line.split()[0]: line for line in out.partition("\n\n")[0].splitlines()}
    assert lines["ode"].split("  ")[0] == "ode"
    assert "An ode." in lines["ode"]
    assert lines["ode"].endswith(str(folder))
    assert "fastpoetry" in lines
    assert f"{folder}/broken.py, line 1" in out
    assert "No module named 'nowhere_to_be_found'" in out


def test_plugin_folders_come_from_the_environment_too(
    tamed: Tamed, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``TAMED_PLUGIN_PATH`` applies to every command."""
    monkeypatch.setenv("TAMED_PLUGIN_PATH", str(folder))
    assert "An ode." in tamed("plugins").out
    assert tamed("check", "ode").out == "ode      Application\n└── ode  Service\n"


def test_a_plugin_folder_that_does_not_exist_is_named(tamed: Tamed, tmp_path: Path) -> None:
    """A missing plugin folder is an error."""
    status, out, err = tamed("plugins", "--plugin-dir", tmp_path / "none")
    assert (status, out) == (66, "")
    assert err.startswith(f"tamed: plugin folder {tmp_path}/none: No such file or directory; ")


def test_a_broken_plugin_says_what_it_raised(tamed: Tamed, folder: Path) -> None:
    """The traceback of a broken plugin has only the user's lines."""
    status, out, err = tamed("check", "--plugin-dir", folder, "broken")
    assert (status, out) == (70, "")
    assert err.splitlines()[:3] == [
        "Traceback (most recent call last):",
        f'  File "{folder}/broken.py", line 1, in <module>',
        "    import nowhere_to_be_found",
    ]
    assert err.count("File ") == 1
    assert err.splitlines()[-1].startswith(
        f"tamed: plugin broken of {folder} cannot be imported: ModuleNotFound"
    )
