"""Made files: written, compared, and never overwritten once somebody has edited one."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tamed.errors import CannotCreate
from tamed.export.files import MadeFile, differences, write_files
from tests.cli.conftest import Tamed

VERSE = MadeFile("verse.service", "[Unit]\n", "tamed export systemd verse.toml")
ODE = MadeFile("ode.service", "[Unit]\n", "tamed export systemd ode.toml")


def test_a_file_that_was_made_is_replaced(tmp_path: Path) -> None:
    """The folder is made; what is up to date is not written again."""
    folder = tmp_path / "a" / "b"
    assert write_files([VERSE, ODE], folder, force=False) == [
        folder / "verse.service",
        folder / "ode.service",
    ]
    assert differences([VERSE, ODE], folder) == []
    assert write_files([VERSE], folder, force=False) == []
    newer = VERSE._replace(content="[Unit]\nAfter=x\n")
    assert differences([newer, ODE], folder) == [f"{folder}/verse.service is out of date"]
    assert write_files([newer, ODE], folder, force=False) == [folder / "verse.service"]
    assert (folder / "verse.service").read_text() == newer.text
    assert sorted(path.name for path in folder.iterdir()) == ["ode.service", "verse.service"]


@pytest.mark.parametrize("edited", ["# mine\n{0}", "{0}LimitNOFILE=1\n", "[Unit]\n", ""])
def test_a_file_that_was_edited_is_not_overwritten(tmp_path: Path, edited: str) -> None:
    """Nothing is written then, not even other files; with force, all are."""
    path = tmp_path / "verse.service"
    path.write_text(edited.format(VERSE.text))
    with pytest.raises(CannotCreate, match=r"edited by hand, or not made by Tamed; .* --force"):
        write_files([ODE, VERSE], tmp_path, force=False)
    assert not (tmp_path / "ode.service").exists()
    assert path.read_text() == edited.format(VERSE.text)
    assert differences([VERSE], tmp_path) == [f"{path} was edited by hand, or not made by Tamed"]
    write_files([ODE, VERSE], tmp_path, force=True)
    assert differences([ODE, VERSE], tmp_path) == []


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    """A link, which may lead nowhere, a pipe, which would be waited for, a folder, or other ends of lines."""
    path, other = tmp_path / "verse.service", tmp_path / "other"
    makers: tuple[Callable[[], object], ...] = (
        lambda: path.symlink_to("nowhere"),
        lambda: path.symlink_to(other),
        lambda: os.mkfifo(path),
        path.mkdir,
        lambda: path.write_text(VERSE.text, newline="\r\n"),
        lambda: path.write_bytes(VERSE.text.encode() + b"# \xff\n"),
    )
    other.write_text(VERSE._replace(content="[Unit]\nAfter=x\n").text)
    before = other.read_text()
    for make in makers:
        make()
        with pytest.raises(CannotCreate, match="edited by hand, or not made by Tamed"):
            write_files([VERSE], tmp_path, force=False)
        if path.is_dir():
            with pytest.raises(CannotCreate, match="Is a directory"):
                write_files([VERSE], tmp_path, force=True)
            path.rmdir()
        else:
            write_files([VERSE], tmp_path, force=True)
            assert path.read_text() == VERSE.text
            path.unlink()
    assert other.read_text() == before


def test_what_is_left_of_an_earlier_export_is_a_difference(tmp_path: Path) -> None:
    """Of the same deployment and kind, with any options; nothing else that is there counts."""
    split = VERSE._replace(name="verse-a.service", command="tamed export systemd --split verse.toml")
    others = (
        ODE,
        VERSE._replace(name="other.service", command="tamed export compose verse.toml"),
        VERSE._replace(name="odd.service", command="tamed export 'systemd verse.toml"),
    )
    write_files([VERSE, split, *others], tmp_path, force=False)
    (tmp_path / "mine").write_text("# Made by: me\n")
    (tmp_path / "empty").write_text(VERSE._replace(command="").text)
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(split.name)
    assert differences([VERSE], tmp_path) == [
        f"{tmp_path}/verse-a.service is left over from an earlier export: remove it"
    ]
    assert differences([VERSE, split], tmp_path) == []


def test_a_file_is_no_folder_to_write_into(tmp_path: Path) -> None:
    """The error says so, and what to name."""
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(CannotCreate, match="File exists; use another folder with --to"):
        write_files([VERSE], file, force=True)
    assert differences([VERSE], file) == [f"{file}/verse.service is missing"]


def test_no_link_is_followed_to_write(tmp_path: Path) -> None:
    """One that another user has put there, in a folder for all, leads to a file that stays as it is."""
    other = tmp_path / "other"
    other.write_text("mine")
    (tmp_path / ".verse.service.new").symlink_to(other)
    write_files([VERSE], tmp_path, force=False)
    assert other.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "verse.service"]


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ('[services.a]\nplugin = "fastpoetry"\nport = "x"\n', ["3: services.a.port: expected"]),
        ('services.a = {plugin = "fastpoetry", port = "x"}\n', ["1: services.a.port: expected"]),
        ('[services.a]\nplugin = "fastpoetry"\nprot = 1\n', ["3: services.a: unknown key 'prot'"]),
        ('name = "a"\nnam = "b"\n', ["2: unknown key 'nam'"]),
        (
            '[services.a]\nplugin = "no"\n[services."b"]\nplugin = "fastpoetry"\nport=true\n',
            ["2: services.a.plugin: unknown plugin 'no'", "5: services.b.port: expected"],
        ),
    ],
    ids=["value", "inline", "unknown", "top", "several"],
)
def test_an_error_has_its_line(tamed: Tamed, tmp_path: Path, text: str, places: list[str]) -> None:
    """However the file is written; all errors are shown."""
    file = tmp_path / "verse.toml"
    file.write_text(text)
    done = tamed("export", "systemd", file)
    lines = done.err.splitlines()
    assert (done.status, len(lines)) == (78, len(places)), done
    for line, place in zip(lines, places, strict=True):
        assert line.startswith(f"tamed: {file}:{place}")


def test_what_an_application_prints_is_not_in_the_files(tamed: Tamed, tmp_path: Path) -> None:
    """They may be the input of another program."""
    (tmp_path / "app.py").write_text(
        'print("loading")\nfrom tamed import Application, Service\n'
        'application = Application("app", Service("one"))\n'
    )
    file = tmp_path / "verse.toml"
    file.write_text('[services.app]\napplication = "app.py"\n')
    done = tamed("export", "systemd", file)
    assert (done.status, done.err) == (0, "loading\n")
    assert done.out.startswith("# Made by: ")


def test_the_command_writes_and_compares(tamed: Tamed, tmp_path: Path) -> None:
    """Its status tells a script whether something differs."""
    file, folder = tmp_path / "verse.toml", tmp_path / "units"
    file.write_text('[services.ecstasy]\nplugin = "fastpoetry"\n')
    export = ("export", "systemd", file, "--to", folder)
    assert tamed(*export, "--check")[:2] == (1, f"{folder}/verse.service is missing\n")
    assert tamed(*export) == (0, f"wrote {folder}/verse.service\n", "")
    assert tamed(*export) == tamed(*export, "--check") == (0, "", "")
    assert (folder / "verse.service").read_text() == tamed(*export[:3]).out
    file.write_text('[services.ecstasy]\nplugin = "fastpoetry"\nport = 80\n')
    assert tamed(*export, "--check")[:2] == (1, f"{folder}/verse.service is out of date\n")
    with (folder / "verse.service").open("a") as unit:
        unit.write("# mine\n")
    assert tamed(*export).status == 73
    assert tamed(*export, "--force").status == 0
    assert tamed("export", "systemd", file, "--check").status == 64
