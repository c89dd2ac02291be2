import subprocess
import sys
from pathlib import Path

import pytest

from tamed import __version__, errors
from tamed.errors import ApplicationFailed, MissingInput, UsageError
from tamed.plugins.discovery import Found, available, find, names
from tests.plugins._site import Site, source

RAISES = "raise RuntimeError('imported')\n"


def found(name: str, folders: list[Path]) -> list[Found]:
    """Return the plugins of this name in the list of all."""
    return [each for each in available(folders) if each.name == name]


def test_a_plugin_is_found_in_our_own_distribution() -> None:
    """The plugins of Tamed are found by name."""
    assert find("fastpoetry").description == "A fast poetry service."
    assert find("fastpoetry").describe()[0].flag == "--port"


def test_a_plugin_is_found_in_any_installed_distribution(site: Site) -> None:
    """Another distribution needs only the entry-point group."""
    site.plugin("poem", distribution="verse")
    assert find("poem").description == "A poem of verse."
    assert "poem" in names()


def test_a_plugin_is_found_in_a_folder(folder: Path) -> None:
    """A plugin is found in the file of its name."""
    (folder / "poem.py").write_text(source("poem", "a folder"))
    assert find("poem", [folder]).description == "A poem of a folder."
    with pytest.raises(UsageError, match="unknown plugin 'poem'"):
        find("poem")


def test_dashes_and_underscores_are_the_same(folder: Path, site: Site) -> None:
    """A plugin with a dash is in a file with an underscore, or with the dash."""
    (folder / "two_poems.py").write_text(source("two-poems"))
    (folder / "three-poems.py").write_text(source("three-poems"))
    site.module("verse", source("four-poems"))
    site.distribution("verse", "four_poems = verse:make")
    assert find("two-poems", [folder]).name == find("two_poems", [folder]).name == "two-poems"
    assert find("three_poems", [folder]).name == "three-poems"
    assert find("four-poems").name == "four-poems"


def test_running_one_plugin_imports_that_one_only(folder: Path, site: Site) -> None:
    """Broken plugins elsewhere do not matter."""
    (folder / "poem.py").write_text(source("poem"))
    (folder / "broken.py").write_text(RAISES)
    site.module("verse_broken", RAISES)
    site.distribution("verse", "worse = verse_broken:make")
    assert find("poem", [folder]).name == "poem"
    assert find("fastpoetry", [folder]).name == "fastpoetry"
    assert "verse_broken" not in sys.modules
    assert {"broken", "worse"} <= set(names([folder]))


def test_a_folder_comes_before_us_and_we_come_before_others(folder: Path, site: Site) -> None:
    """The list shows which plugin hides which."""
    site.plugin("fastpoetry", distribution="verse")
    assert find("fastpoetry").description == "A fast poetry service."
    (folder / "fastpoetry.py").write_text(source("fastpoetry", "a folder"))
    assert find("fastpoetry", [folder]).description == "A fastpoetry of a folder."
    hidden = f"hidden by that of {folder}"
    assert found("fastpoetry", [folder]) == [
        Found("fastpoetry", "A fastpoetry of a folder.", str(folder), None),
        Found("fastpoetry", "", f"tamed {__version__}", hidden),
        Found("fastpoetry", "", "verse 1.0", hidden),
    ]


def test_the_first_folder_comes_first(tmp_path: Path) -> None:
    """Folders are searched in the given order, packages before files."""
    for each in ("a", "b"):
        (tmp_path / each).mkdir()
        (tmp_path / each / "poem.py").write_text(source("poem", each))
    assert find("poem", [tmp_path / "b", tmp_path / "a"]).description == "A poem of b."
    assert find("poem", [tmp_path / "a", tmp_path / "b"]).description == "A poem of a."
    (tmp_path / "a" / "poem").mkdir()
    (tmp_path / "a" / "poem" / "__init__.py").write_text(source("poem", "a package"))
    assert find("poem", [tmp_path / "a"]).description == "A poem of a package."
    assert [each.error for each in found("poem", [tmp_path / "a", tmp_path / "b"])] == [
        None,
        f"hidden by that of {tmp_path / 'a'}",
        f"hidden by that of {tmp_path / 'a'}",
    ]


def test_two_distributions_with_one_name_are_an_error(site: Site, folder: Path) -> None:
    """Both are named and neither is used; a folder decides."""
    site.plugin("poem", distribution="verse")
    site.plugin("poem", distribution="rhyme", version="2.5")
    with pytest.raises(
        UsageError, match=r"^plugin poem: it is in .* and in .*; uninstall all but one$"
    ) as caught:
        find("poem")
    assert "verse 1.0" in str(caught.value)
    assert "rhyme 2.5" in str(caught.value)
    assert all("rhyme 2.5" in (each.error or "") for each in found("poem", []))
    (folder / "poem.py").write_text(source("poem"))
    assert find("poem", [folder])


def test_a_distribution_that_is_installed_twice_counts_once(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first installation on the path counts, as for imports."""
    site.plugin("poem", distribution="verse-book")
    monkeypatch.syspath_prepend(tmp_path / "nearer")
    Site(tmp_path / "nearer").plugin("poem", distribution="Verse_Book", version="2.0")
    assert [each.package for each in found("poem", [])] == ["Verse_Book 2.0"]
    assert find("poem").description == "A poem of Verse_Book."


def test_an_unknown_plugin_is_reported_with_the_nearest() -> None:
    """The remedy is the nearest name, and the command that lists all."""
    with pytest.raises(UsageError) as caught:
        find("fastpoetri")
    assert str(caught.value) == (
        "unknown plugin 'fastpoetri'; did you mean 'fastpoetry'? `tamed plugins` lists them"
    )
    with pytest.raises(UsageError, match=r"^unknown plugin 'qqqqqq'; `tamed plugins` lists them$"):
        find("qqqqqq")


def test_a_plugin_that_raises_on_import_says_where(folder: Path) -> None:
    """The message has the reason and the line in the plugin's file; the cause is kept."""
    (folder / "poem.py").write_text("import json\n\njson.loads('{')\n")
    with pytest.raises(ApplicationFailed) as caught:
        find("poem", [folder])
    why = "JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
    assert str(caught.value) == (
        f"plugin poem of {folder} cannot be imported: {why} ({folder / 'poem.py'}, line 3)"
    )
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("def", "SyntaxError: invalid syntax (poem.py, line 1)"),
        ("\nimport no_such_module", "ModuleNotFoundError: No module named 'no_such_module' ({file}, line 2)"),
        ("raise SystemExit(3)", "SystemExit: 3 ({file}, line 1)"),
        ("import os\nos.stat('/no/such')", "/no/such: No such file or directory ({file}, line 2)"),
    ],
)
def test_the_reason_is_reported_on_one_line(folder: Path, text: str, why: str) -> None:
    """Any exception of an import is a reason, even SystemExit."""
    file = folder / "poem.py"
    file.write_text(text)
    expected = f"plugin poem of {folder} cannot be imported: {why.format(file=file)}"
    with pytest.raises(ApplicationFailed) as caught:
        find("poem", [folder])
    assert str(caught.value) == expected
    assert [each.error for each in found("poem", [folder])] == [expected]


def test_the_line_is_in_the_plugins_own_package(site: Site) -> None:
    """The innermost frame of the package is named, and none of a library."""
    package = site.folder / "versebook"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "core.py").write_text("import json\njson.loads('')\n")
    (package / "plugins.py").write_text("import versebook.core\n")
    site.distribution("verse", "poem = versebook.plugins:poem\nroot = versebook.core:poem")
    with pytest.raises(ApplicationFailed, match=r"plugins\.py, line 1\)$"):
        find("poem")
    with pytest.raises(ApplicationFailed, match=r"core\.py, line 2\)$"):
        find("root")


def test_a_missing_library_is_reported_with_its_extra(site: Site) -> None:
    """If the entry point has an extra, the remedy installs it, and there is no traceback."""
    site.module("verse_ftp", "\nimport aioftpd_missing.server\n")
    site.module("verse_own", "import verse_own.missing\n")
    site.distribution(
        "Verse-Book",
        "verse-ftp = verse_ftp:make [ftp,tls]\nbare = verse_ftp:make\nown = verse_own:make [ftp]",
    )
    with pytest.raises(ApplicationFailed) as caught:
        find("verse-ftp")
    assert str(caught.value) == (
        "plugin verse-ftp of Verse-Book 1.0: it needs aioftpd_missing, which is not installed;"
        " pip install 'Verse-Book[ftp,tls]'"
    )
    assert caught.value.__cause__ is None
    with pytest.raises(
        ApplicationFailed, match=r"No module named 'aioftpd_missing' \(.*verse_ftp.py, line 2\)$"
    ):
        find("bare")
    with pytest.raises(
        ApplicationFailed, match=r"cannot be imported: ModuleNotFoundError: No module named 'verse_own"
    ):
        find("own")


def test_an_entry_point_that_is_no_plugin_is_refused(site: Site) -> None:
    """The error names the type of the object, or the missing one."""
    site.module("verse", "def poem(): ...\n")
    site.distribution("verse", "poem = verse:poem\nnowhere = verse:nothing\nempty = :\nmodule = verse")
    with pytest.raises(ApplicationFailed) as caught:
        find("poem")
    assert str(caught.value) == (
        "plugin poem of verse 1.0: verse:poem is a function, not a plugin; decorate a function with @plugin"
    )
    with pytest.raises(ApplicationFailed, match="module 'verse' has no attribute 'nothing'"):
        find("nowhere")
    with pytest.raises(ApplicationFailed, match=r"plugin empty of verse 1.0 cannot be imported"):
        find("empty")
    with pytest.raises(ApplicationFailed, match="verse is a module, not a plugin"):
        find("module")


def test_a_file_without_the_plugin_of_its_name_is_refused(folder: Path) -> None:
    """The error lists the plugins in the file."""
    (folder / "poem.py").write_text(source("verse"))
    (folder / "empty.py").write_text("")
    with pytest.raises(ApplicationFailed) as caught:
        find("poem", [folder])
    assert str(caught.value) == (
        f"plugin poem: there is no plugin of this name in {folder / 'poem.py'}; it has: verse"
    )
    with pytest.raises(ApplicationFailed, match="decorate a function with @plugin"):
        find("empty", [folder])


def test_the_name_of_the_entry_point_is_the_plugins(site: Site) -> None:
    """The name of a plugin is that of its entry point."""
    site.module("verse", source("poem"))
    site.distribution("verse", "ode = verse:make")
    assert find("ode").name == "ode"


def test_the_list_survives_anything_that_a_plugin_does(folder: Path) -> None:
    """Errors in describing options are reported, too."""
    broken = source("bad").replace(
        "port: int = option(1", "port: list[int] = field(default_factory=lambda: 1 / 0"
    )
    (folder / "bad.py").write_text(
        broken.replace(', "The port."', "").replace("import dataclass", "import *")
    )
    (folder / "good.py").write_text(source("good"))
    listed = {each.name: each.error for each in available([folder])}
    assert listed["bad"] == "ZeroDivisionError: division by zero"
    assert listed["good"] is None


def test_the_list_has_every_plugin_with_its_reason(site: Site, folder: Path) -> None:
    """A broken plugin does not hide the others."""
    site.plugin("aaa", distribution="verse")
    (folder / "bbb.py").write_text(RAISES)
    (folder / "ccc.py").write_text(source("ccc").replace("port: int", "port: complex"))
    (folder / "ddd.py").write_text(source("ddd", "a folder"))
    listed = {each.name: each for each in available([folder])}
    assert listed["aaa"] == Found("aaa", "A aaa of verse.", "verse 1.0", None)
    assert "RuntimeError: imported" in (listed["bbb"].error or "")
    assert "option Options.port: complex is not an option type" in (listed["ccc"].error or "")
    assert listed["ddd"].error is None
    assert list(listed) == sorted(listed)


@pytest.mark.parametrize(
    "entry_points",
    [
        b"[tamed.plugins]\n\xff\xfe\x00",
        b"[tamed.plugins]\nno equals sign\n",
        b"no section = tamed.plugins\n",
        b"",
    ],
)
def test_broken_metadata_of_another_distribution_breaks_nothing(site: Site, entry_points: bytes) -> None:
    """A distribution with invalid files has no plugins."""
    site.plugin("poem", distribution="verse")
    site.distribution("broken", entry_points)
    assert find("poem").description == "A poem of verse."
    assert [each.error for each in found("poem", [])] == [None]


@pytest.mark.filterwarnings("ignore:Implicit None on return values:DeprecationWarning")
def test_a_distribution_without_a_name_is_listed_as_such(site: Site) -> None:
    """A missing METADATA file does not prevent a plugin from running."""
    site.module("verse", source("poem"))
    (site.distribution("verse", "poem = verse:make") / "METADATA").write_text("")
    assert [each.package for each in found("poem", [])] == ["unnamed"]


def test_a_folder_that_is_not_there_is_reported(tmp_path: Path) -> None:
    """A named plugin folder must exist."""
    for search in (lambda folders: find("poem", folders), available, names):
        with pytest.raises(MissingInput) as caught:
            search([tmp_path / "nowhere"])
        assert str(caught.value) == (
            f"plugin folder {tmp_path / 'nowhere'}: No such file or directory; use another with --plugin-dir"
        )


def test_nothing_is_found_in_the_current_folder(tmp_path: Path) -> None:
    """The current folder is not searched: root often starts daemons in a folder of another user."""
    (tmp_path / "poem.py").write_text(source("poem"))
    script = "from tamed.plugins.discovery import names, plugin_folders; print(names(plugin_folders([], {})))"
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert "poem" not in run.stdout


def test_nothing_needs_to_be_installed(folder: Path) -> None:
    """Without installed distributions, folders and Tamed's plugins still work."""
    (folder / "poem.py").write_text("")
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from tamed.plugins.discovery import names; print(names([Path(sys.argv[2])]))"
    )
    sources = Path(errors.__file__).parents[1]
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, sources, folder],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "'fastpoetry'" in run.stdout
    assert "'poem'" in run.stdout
