"""Where the interpreters that are root look for code, as they say themselves at each import."""

import json
import os
import site
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from tests.supervised.daemon import NOBODY, Tamed, needs_root

pytestmark = needs_root

# A module that each interpreter of a virtual environment imports before anything of ours.
WITNESS = """
import json, os, sys

seen = set()

def note(event, arguments):
    if event == "import" and (key := (os.getpid(), os.getresuid(), tuple(sys.path))) not in seen:
        seen.add(key)
        told = {"uids": key[1], "path": key[2], "words": sys.orig_argv, "cwd": os.getcwd()}
        flags = ("safe_path", "no_user_site", "ignore_environment")
        line = json.dumps({**told, **{name: bool(getattr(sys.flags, name)) for name in flags}})
        file = os.open(sys.prefix + "/told", os.O_WRONLY | os.O_APPEND)
        os.write(file, line.encode() + b"\\n")
        os.close(file)

sys.addaudithook(note)
"""
EVIL = ("json", "selectors", "signal", "sitecustomize", "tamed", "uvloop")


@pytest.fixture
def told(public_tamed: Tamed) -> Path:
    """Have all interpreters be of an environment with the witness; return what they write into."""
    place = public_tamed.folder / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(place)}))
    (packages / "witness.py").write_text(WITNESS)
    lines = [f"import site; site.addsitedir({each!r})\n" for each in site.getsitepackages()]
    (packages / "witness.pth").write_text("".join(["import witness\n", *lines]))
    # In the place of this interpreter, and without the current folder.
    public_tamed.before = [
        *public_tamed.before,
        *("sh", "-c", 'shift; exec "$0" -P "$@"', str(place / "bin" / "python")),
    ]
    file = place / "told"
    file.touch()
    file.chmod(0o666)
    return file


def is_trusted(path: str) -> bool:
    """Tell whether only root can put code there, as far as it is there."""
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        return True
    return status.st_uid == 0 and not stat.S_IMODE(status.st_mode) & 0o022


@pytest.mark.parametrize(
    ("options", "roles"),
    [
        (["--reload"], {"supervisor", "template", "worker", "planner", "trial", "watcher"}),
        (
            ["--user", "nobody", "--prepare-as-root", "--preload", "--reload"],
            {"supervisor", "template", "worker"},
        ),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)
def test_no_interpreter_of_roots_looks_where_others_can_write(
    public_tamed: Tamed, told: Path, options: list[str], roles: set[str]
) -> None:
    """Neither in the current folder, nor in the user's, through a start, a reload and an upgrade."""
    app = public_tamed.write("app.py", 'from tamed import Application\napplication = Application("app")\n')
    home = public_tamed.folder / "home"
    home.mkdir()
    for name in EVIL:
        (home / f"{name}.py").write_text("raise SystemExit('the code of others')")
    (home / "lib").mkdir()
    for path in (home, *home.iterdir()):
        os.chown(path, NOBODY, -1)
    env = {"HOME": str(home), **({"PYTHONPATH": str(home / "lib")} if "--user" in options else {})}
    daemon = public_tamed.start(*options, app, cwd=home, env=env)
    for command in ("reload", "upgrade"):
        assert public_tamed(command, cwd=home).status == 0
    daemon.stop()
    found = [json.loads(line) for line in told.read_text().splitlines()]
    roots = [each for each in found if 0 in each["uids"] and role(each) != "tamed"]
    assert {role(each) for each in roots} == roles
    for each in roots:
        assert each["safe_path"], each
        if "--user" in options:
            assert (each["no_user_site"], each["ignore_environment"]) == (True, True), each
        for path in each["path"]:
            assert Path(path).is_absolute(), each
            assert Path(path) != home, each
            assert is_trusted(path), (path, each)


def role(told: dict[str, Any]) -> str:
    """Return the module of ours that it runs, without its package."""
    words: list[str] = told["words"]
    module = words[words.index("-m") + 1].rpartition(".")[2]
    return "template" if (module, words[-1]) == ("worker", "template") else module
