"""An exported Containerfile: its steps make a root directory, in which its program is the first process."""

import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tamed.cli.new import write_package
from tests.cli.conftest import Tamed, tamed
from tests.patience import PATIENCE
from tests.structure.source import ROOT
from tests.supervised.daemon import needs_root, wait_for
from tests.system.pod import Container

__all__ = ["tamed"]

pytestmark = [pytest.mark.system, needs_root]

VERSE = """
name = "verse"
[services.ecstasy]
plugin = "fastpoetry"
listen = ":8000"
poem = "poems/ecstasy"
"""
POEM = b"Where, like a pillow on a bed\n"
BASE = [(sys.base_prefix, sys.base_prefix)]
PATH = f"{sys.base_prefix}/bin:/usr/bin:/bin"


class Image:
    """What the steps of a Containerfile make, on a base with this Python."""

    def __init__(self, folder: Path, context: Path) -> None:
        self._folder = folder
        self._context = context
        self._stages: dict[str, Path] = {}
        self.root = folder
        self.directory = "/"
        self.user = ""
        self.environment: dict[str, str] = {}
        self.command: list[str] = []
        text = (context / "Containerfile").read_text().replace("\\\n", "")
        lines = (line for line in text.splitlines() if line)
        for line in lines:
            if not line.startswith("#"):
                name, _, rest = line.partition(" ")
                self._step(name, rest)

    def _step(self, name: str, rest: str) -> None:
        match name:
            case "FROM":
                stage = rest.partition(" AS ")[2] or "last"
                self.root = self._stages[stage] = self._folder / stage
                self.root.mkdir()
                self.directory, self.environment = "/", {"PATH": PATH}
            case "WORKDIR":
                self.directory = rest
                self._at(rest).mkdir(parents=True, exist_ok=True)
            case "COPY":
                self._copy(shlex.split(rest))
            case "RUN":
                self._run(rest)
            case "ENV":
                self.environment |= dict(word.split("=", 1) for word in shlex.split(rest))
            case "USER":
                self.user = rest
            case "CMD":
                self.command = json.loads(rest)
            case other:
                assert other in ("ARG", "EXPOSE", "STOPSIGNAL")

    def _at(self, path: str) -> Path:
        return (
            self.root / self.directory.lstrip("/") / path.lstrip("/")
            if path[0] != "/"
            else self.root / path[1:]
        )

    def _copy(self, words: list[str]) -> None:
        origin = self._context
        if words[0].startswith("--from="):
            origin = self._stages[words.pop(0).partition("=")[2]]
        *sources, target = words
        found = (
            [path for source in sources for path in origin.glob(source.lstrip("/"))]
            if sources != ["."]
            else [origin]
        )
        assert found, sources
        if target.endswith("/"):
            self._at(target).mkdir(parents=True, exist_ok=True)
        ignored = [] if not (file := origin / ".dockerignore").exists() else file.read_text().splitlines()
        for path in found:
            if path.is_dir():
                shutil.copytree(
                    path,
                    self._at(target),
                    symlinks=True,
                    ignore=shutil.ignore_patterns(*ignored),
                    dirs_exist_ok=True,
                )
            else:
                shutil.copy(path, self._at(target))

    def _run(self, command: str) -> None:
        number = len(list(self._folder.glob("step-*")))
        specification = {
            "is_build": True,
            "root": str(self.root),
            "writable": [],
            "files": BASE,
            "directory": self.directory,
            "environment": {**self.environment, "PIP_NO_INDEX": "1", "HOME": "/"},
            "command": ["/bin/sh", "-ec", command],
        }
        step = Container(self._folder / f"step-{number}", specification)
        assert step.wait_end(PATIENCE) == 0, step.log

    @contextmanager
    def running(self) -> Iterator[Container]:
        """Run its program on a root directory that is read-only but for what the export calls writable."""
        places = [path for path in self.root.iterdir() if path.name in ("app", "opt")]
        specification = {
            "writable": ["/run", "/tmp"],
            "files": [*BASE, *((str(path), f"/{path.name}") for path in places)],
            "directory": self.directory,
            "user": int(self.user.partition(":")[0]),
            "environment": self.environment,
            "command": self.command,
        }
        container = Container(self._folder / "container", specification)
        try:
            yield container
        finally:
            container.kill()


def _pip(*words: str | Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *words], check=True, timeout=PATIENCE)


def _make_wheel(folder: Path) -> Path:
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    (wheel,) = folder.glob("tamed-*.whl")
    return wheel


def _fill(context: Path) -> None:
    """Put packages with their hashes into the folder of a build, as the project locks them."""
    lock = ROOT / "requirements" / "ops.txt"
    _pip("download", "--require-hashes", "--only-binary", ":all:", "--dest", context, "--requirement", lock)
    wheel = _make_wheel(context)
    version = wheel.name.split("-")[1]
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    own = f"tamed[ops]=={version} --hash=sha256:{digest}\n"
    (context / "requirements.txt").write_text(own + lock.read_text())


def test_the_image_runs_the_deployment(tamed: Tamed, tmp_path: Path) -> None:
    """The program is the first process, serves and tells so, and ends in time with status 0."""
    context = tmp_path / "context"
    (context / "poems").mkdir(parents=True)
    (context / "poems" / "ecstasy").write_bytes(POEM)
    (context / "secrets").mkdir()
    (context / "secrets" / "db").write_text("secret")
    (context / "verse.toml").write_text(VERSE)
    done = tamed("export", "container", context / "verse.toml", "--to", context)
    assert done.status == 0, done
    _fill(context)
    (tmp_path / "image").mkdir()
    image = Image(tmp_path / "image", context)
    assert not (image.root / "app" / "secrets").exists()
    assert not (image.root / "build").exists()
    with image.running() as container:
        wait_for("readiness", lambda: container.get(9321, "/readyz") == 200)
        with container.connect(8000) as client:
            assert client.makefile("rb").read() == POEM
        status = Path(f"/proc/{container.pid}/status").read_text()
        assert re.search(r"^NSpid:\t\d+\t1$", status, re.MULTILINE)
        container.terminate()
        assert container.wait_end(PATIENCE) == 0, container.log


def test_the_image_of_a_new_package_runs_it(tmp_path: Path) -> None:
    """Its Containerfile installs what is in no index from wheels beside it."""
    write_package("poem-hour", tmp_path, "tamed")
    context = tmp_path / "poem-hour"
    wheel = _make_wheel(context / "wheels")
    _pip("download", "--only-binary", ":all:", "--dest", wheel.parent, "hatchling", wheel)
    (tmp_path / "image").mkdir()
    image = Image(tmp_path / "image", context)
    assert not (image.root / "build").exists()
    with image.running() as container:
        wait_for("readiness", lambda: "poem-hour is ready" in container.log)
        with container.connect(10000) as client:
            assert client.makefile("rb").read() == b"The rest is silence.\n"
        container.terminate()
        assert container.wait_end(PATIENCE) == 0, container.log
