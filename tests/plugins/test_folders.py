import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from tamed.errors import ApplicationFailed
from tamed.plugins.discovery import find, names, plugin_folders
from tamed.plugins.plugin import Plugin
from tests.plugins._site import source


def files(folder: Path) -> set[str]:
    """Return the names of all files below a folder."""
    return {str(each.relative_to(folder)) for each in folder.rglob("*")}


def package(folder: Path, text: str = "verse") -> Path:
    """Write a plugin that is a package of three modules, the last of which is imported late."""
    made = folder / "poem"
    (made / "inner").mkdir(parents=True)
    (made / "__init__.py").write_text(
        source("poem").replace("return Service", "from . import late\n    return Service")
        + "from .inner import words\nmake = make.__class__(make.name, words.TEXT, make.maker)\n"
    )
    (made / "inner" / "__init__.py").write_text("")
    (made / "inner" / "words.py").write_text(f"TEXT = {text!r}\n")
    (made / "late.py").write_text("")
    return made


def test_folders_come_from_the_command_line_and_then_from_the_environment() -> None:
    """Folders are absolute, and an empty entry is not the current folder."""
    environ = {"TAMED_PLUGIN_PATH": os.pathsep.join(["/c", "", "d", ""])}
    here = Path.cwd()
    assert plugin_folders(["/a", Path("b")], environ) == (Path("/a"), here / "b", Path("/c"), here / "d")
    assert plugin_folders([], {"TAMED_PLUGIN_PATH": ""}) == plugin_folders([], {}) == ()


def test_a_package_may_have_modules_of_its_own(folder: Path) -> None:
    """Relative imports work during the import of the package and later."""
    package(folder)
    poem = find("poem", [folder])
    assert poem.description == "verse"
    assert poem(poem.options_type()).name == "poem"


def test_no_cache_is_written(folder: Path) -> None:
    """No import leaves bytecode behind."""
    package(folder)
    (folder / "ode.py").write_text(source("ode"))
    before = files(folder)
    script = (
        "import sys; from pathlib import Path; from tamed.plugins.discovery import find\n"
        "sys.dont_write_bytecode = False\n"
        "poem = find('poem', [Path(sys.argv[1])]); print(poem(poem.options_type()).name)\n"
        "print(find('ode', [Path(sys.argv[1])]).name)"
    )
    run = subprocess.run([sys.executable, "-c", script, folder], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["poem", "ode"]
    assert files(folder) == before


def test_a_file_is_imported_once(folder: Path) -> None:
    """Finding a plugin twice gives the same object."""
    (folder / "poem.py").write_text(source("poem"))
    assert find("poem", [folder]) is find("poem", [folder])


def test_another_folders_package_is_not_mixed_up(tmp_path: Path) -> None:
    """Each package has its own modules, even with the same names."""
    package(tmp_path / "a", "verse a")
    package(tmp_path / "b", "verse b")
    assert find("poem", [tmp_path / "a"]).description == "verse a"
    assert find("poem", [tmp_path / "b"]).description == "verse b"


def test_a_failed_import_leaves_no_module(folder: Path) -> None:
    """After the error is fixed, the plugin can be imported in the same process."""
    made = package(folder, "verse")
    words = (made / "inner" / "words.py").read_text()
    (made / "inner" / "words.py").write_text("raise RuntimeError")
    with pytest.raises(ApplicationFailed, match=r"RuntimeError \(.*words.py, line 1\)$"):
        find("poem", [folder])
    (made / "inner" / "words.py").write_text(words)
    assert find("poem", [folder]).description == "verse"


def test_a_folder_does_not_get_on_the_path(folder: Path) -> None:
    """A plugin with the name of a standard module does not replace it."""
    (folder / "json.py").write_text(source("json"))
    before = list(sys.path)
    plugin = find("json", [folder])
    import json

    assert isinstance(plugin, Plugin)
    assert json.loads("1") == 1
    assert sys.path == before


def test_only_what_could_be_a_plugin_is_one(folder: Path) -> None:
    """Hidden files, names with an underscore or a dot, and folders without code are ignored."""
    for name in ("_helper.py", ".hidden.py", "notes.txt", "a.b.py", "two words.py", "__init__.py", "poem.py"):
        (folder / name).write_text("")
    for name in ("empty", "__pycache__", "a.b"):
        (folder / name).mkdir()
    (folder / "a.b" / "__init__.py").write_text("")
    (folder / "folder.py").mkdir()
    assert set(names([folder])) - set(names()) == {"poem"}


def test_objects_of_a_folders_plugin_can_be_pickled(folder: Path) -> None:
    """Their module is found again in the same process."""
    (folder / "poem.py").write_text(source("poem"))
    options_type = find("poem", [folder]).options_type
    assert pickle.loads(pickle.dumps(options_type(port=3))).port == 3
