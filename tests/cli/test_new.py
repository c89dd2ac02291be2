import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tomllib
from importlib.metadata import PathDistribution
from importlib.resources import files
from pathlib import Path

import pytest

from tamed.cli.new import requirement_of, write_package
from tamed.errors import CannotCreate, PermissionRefused, UsageError
from tests.cli.conftest import Tamed
from tests.patience import PATIENCE
from tests.process.conftest import without_capabilities

FILES = {
    ".dockerignore",
    ".gitignore",
    "Containerfile",
    "Makefile",
    "README.md",
    "poem-hour.toml",
    "pyproject.toml",
    "src/poem_hour/__init__.py",
    "src/poem_hour/plugin.py",
    "src/poem_hour/py.typed",
    "src/poem_hour/verses.py",
    "tests/test_poem_hour.py",
}


def written(folder: Path) -> set[str]:
    """Return the files below a folder."""
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def outside() -> dict[str, str]:
    """Return this environment without the variables of the test run."""
    inherited = ("ARGS", "PYTEST", "COVERAGE", "COV_", "MAKE", "MFLAGS", "PYTHON", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if not name.startswith(inherited)}


def run(command: str, folder: Path, **more: str) -> str:
    """Run a line of the shell, which must succeed; return what it printed."""
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=folder,
        env={**outside(), **more},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def install(tmp_path: Path) -> dict[str, str]:
    """Create a package and install it as `make` would; return the environment for it."""
    told = run(f"{sys.executable} -m tamed new poem-hour", tmp_path)
    assert told == "wrote 12 files; next: cd poem-hour && make test\n"
    project = tomllib.loads((tmp_path / "poem-hour/pyproject.toml").read_text())["project"]
    (target,) = project["entry-points"]["tamed.plugins"].values()
    installed = tmp_path / "site/poem_hour-0.1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: poem-hour\nVersion: 0.1.0\n")
    (installed / "entry_points.txt").write_text(f"[tamed.plugins]\npoem-hour = {target}\n")
    commands = tmp_path / "poem-hour/.venv/bin"
    commands.mkdir(parents=True)
    for name in ("tamed", "pytest"):
        (commands / name).write_text(f'#!/bin/sh\nexec {sys.executable} -P -m {name} "$@"\n')
        (commands / name).chmod(0o755)
    (commands.parent / "installed").touch()
    return {"PYTHONPATH": f"{tmp_path}/site:{tmp_path}/poem-hour/src", "TAMED_RUNDIR": f"{tmp_path}/run"}


def test_a_new_package_tests_itself(tmp_path: Path) -> None:
    """`make test` in the new package runs its unchanged tests."""
    variables = install(tmp_path)
    assert " 4 passed in " in run("make test", tmp_path / "poem-hour", **variables)


def serve(folder: Path, **more: str) -> None:
    """Start `make run`, connect to it, and stop it with Ctrl-C."""
    with subprocess.Popen(
        ["make", "run", "ARGS=--poem-hour.listen localhost:0"],
        cwd=folder,
        env={**outside(), **more},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        ready = next(line for line in process.stdout if "is ready" in line)
        port = int(ready.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
            assert client.makefile("rb").read() == b"The rest is silence.\n"
        os.killpg(process.pid, signal.SIGINT)
        assert "stopped" in process.stdout.read()


def test_a_new_package_runs(tmp_path: Path) -> None:
    """`make run` serves its deployment, and Ctrl-C stops it."""
    variables = install(tmp_path)
    serve(tmp_path / "poem-hour", **variables)


def test_a_new_package_makes_its_unit(tmp_path: Path) -> None:
    """`make unit` writes the unit of `tamed export`, with the paths of an installation."""
    variables = install(tmp_path)
    run("make unit", tmp_path / "poem-hour", **variables)
    unit = (tmp_path / "poem-hour/deploy/poem-hour.service").read_text()
    assert re.search(
        "^ExecStart=/opt/poem-hour/bin/tamed run .* /opt/poem-hour/poem-hour.toml$", unit, re.MULTILINE
    )


def test_the_image_has_what_it_names(tmp_path: Path) -> None:
    """The files of the Containerfile exist, and the deployment accepts its command."""
    variables = install(tmp_path)
    folder = tmp_path / "poem-hour"
    text = (folder / "Containerfile").read_text()
    copied = [source for source, _ in re.findall(r"(?m)^COPY (?!--from)(\S+) (\S+)$", text)]
    assert copied == [".", "poem-hour.toml"]
    words = json.loads(re.findall("(?m)^CMD (.*)$", text)[0])
    assert words[:2] == ["tamed", "run"]
    run(shlex.join([".venv/bin/tamed", "check", *words[2:]]), folder, **variables)


@pytest.mark.long
def test_a_new_package_installs_itself_tests_itself_and_runs(tmp_path: Path) -> None:
    """It works in the environment that its Makefile makes, with the command line that the help shows."""
    command = f"{sys.executable} -m tamed new poem-hour && cd poem-hour && make PYTHON={sys.executable} test"
    assert " 4 passed in " in run(command, tmp_path)
    serve(tmp_path / "poem-hour", TAMED_RUNDIR=f"{tmp_path}/run")


def test_everything_is_filled_in(tmp_path: Path) -> None:
    """No placeholder is left, and the files have the user's default permissions."""
    assert write_package("poem-hour", tmp_path, "tamed>=1") == len(FILES)
    folder = tmp_path / "poem-hour"
    assert written(folder) == FILES
    assert not [name for name in FILES if re.search("@[A-Z]+@", (folder / name).read_text("utf-8"))]
    (tmp_path / "usual").mkdir()
    assert folder.stat().st_mode == (tmp_path / "usual").stat().st_mode
    assert {entry.name for entry in tmp_path.iterdir()} == {"poem-hour", "usual"}


def test_an_empty_folder_may_be_there(tmp_path: Path) -> None:
    """An existing empty folder becomes that of the package."""
    (tmp_path / "poem-hour").mkdir()
    write_package("poem-hour", tmp_path, "tamed")
    assert written(tmp_path / "poem-hour") == FILES


def test_a_folder_with_something_in_it_is_left_alone(tamed: Tamed, tmp_path: Path) -> None:
    """The message names the problem, and no partial package is left."""
    (tmp_path / "poem-hour").mkdir()
    (tmp_path / "poem-hour" / "mine").write_text("precious")
    with pytest.raises(CannotCreate, match=r"cannot write .*/poem-hour: the folder is not empty; choose"):
        write_package("poem-hour", tmp_path, "tamed")
    assert written(tmp_path) == {"poem-hour/mine"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["poem-hour"]


def test_a_file_in_its_place_is_left_alone(tmp_path: Path) -> None:
    """An existing file of that name is refused like a folder."""
    (tmp_path / "poem-hour").write_text("precious")
    with pytest.raises(CannotCreate, match=r"cannot write .*/poem-hour: there is a file of this name"):
        write_package("poem-hour", tmp_path, "tamed")
    assert [entry.name for entry in tmp_path.iterdir()] == ["poem-hour"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Poem_Hour", "expected lower-case letters, digits and single dashes; try 'poem-hour'"),
        ("../poem", "expected lower-case letters, digits and single dashes; try 'poem'"),
        ("", "expected lower-case letters, digits and single dashes; try 'poemhour'"),
        ("1st", "expected lower-case letters, digits and single dashes; try 'poemhour'"),
        ("poem\n", "expected lower-case letters, digits and single dashes; try 'poem'"),
        ("http", "'http' is reserved by Python or Tamed; choose another name"),
        ("class", "'class' is reserved"),
        ("tests", "'tests' is reserved"),
        ("tamed", "'tamed' is reserved"),
        ("ode", "there is a plugin of this name already; choose another name"),
    ],
)
def test_a_name_must_do_for_all_that_it_names(tmp_path: Path, name: str, says: str) -> None:
    """The name is used for a folder, a package, a module and a plugin."""
    with pytest.raises(UsageError) as refused:
        write_package(name, tmp_path, "tamed", taken=["ode"])
    assert str(refused.value).startswith(" ".join(f"package name {name!r}: {says}".split()))


def test_the_command_refuses_the_name_of_a_plugin(tamed: Tamed) -> None:
    """The name of a plugin is refused with the status for usage, before anything is written."""
    status, out, err = tamed("new", "fastpoetry")
    assert (status, out) == (64, "")
    assert err == (
        "tamed: package name 'fastpoetry': there is a plugin of this name already; choose another name\n"
    )


def test_a_folder_that_may_not_be_written_to_is_reported(tmp_path: Path) -> None:
    """A system error is reported with its reason."""
    (tmp_path / "closed").mkdir(mode=0o500)
    done = subprocess.run(
        [*without_capabilities(), sys.executable, "-m", "tamed", "new", "poemhour"],
        cwd=tmp_path / "closed",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (
        PermissionRefused.status,
        "tamed: cannot write poemhour: Permission denied\n",
    )


@pytest.mark.parametrize(
    ("origin", "requirement"),
    [
        (None, "tamed>=1.2"),
        ({"url": "file:///src/tamed", "dir_info": {"editable": True}}, "tamed @ file:///src/tamed"),
        ({"url": "file:///tamed.whl", "archive_info": {}}, "tamed @ file:///tamed.whl"),
        (
            {"url": "https://host/tamed.git", "vcs_info": {"vcs": "git", "commit_id": "4ac9"}},
            "tamed @ git+https://host/tamed.git@4ac9",
        ),
    ],
)
def test_what_was_not_installed_from_an_index_is_taken_from_where_it_was(
    tmp_path: Path, origin: object, requirement: str
) -> None:
    """A package created by a checkout is tested with that checkout."""
    (tmp_path / "METADATA").write_text("Metadata-Version: 2.1\nName: tamed\nVersion: 1.2\n")
    if origin is not None:
        (tmp_path / "direct_url.json").write_text(json.dumps(origin))
    assert requirement_of(PathDistribution(tmp_path)) == requirement


def test_the_templates_are_part_of_the_package() -> None:
    """The templates are package data, which the wheel must contain, and not modules."""
    template = files("tamed.cli") / "_template"
    assert {entry.name for entry in template.iterdir()} >= {"pyproject.toml.txt", ".gitignore.txt"}
