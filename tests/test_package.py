"""What is built of the project: a wheel and a source distribution. The same source makes the same bytes."""

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tamed._version import __version__
from tamed.cli.manual import pages
from tests.patience import PATIENCE
from tests.structure.source import ROOT


def build(source: Path, target: Path, umask: int = 0o022) -> dict[str, str]:
    """Build both; return the digest of each file by its name."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--directory", target],
        cwd=source,
        check=True,
        capture_output=True,
        timeout=PATIENCE,
        umask=umask,
        env={**os.environ, "PYTHONHASHSEED": str(umask)},
    )
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in target.iterdir()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel and a source distribution."""
    folder = tmp_path_factory.mktemp("built")
    build(ROOT, folder)
    return folder


def test_the_same_source_makes_the_same_bytes(built: Path, tmp_path: Path) -> None:
    """Also in another folder, at another time, with other permissions; the source distribution is enough."""
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    for path in source.rglob("*.py"):
        os.utime(path, (10**9, 10**9))
    again = build(source, tmp_path / "again", umask=0o077)
    assert again == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in built.iterdir()}


def test_the_wheel_says_what_it_needs(built: Path) -> None:
    """A bill of materials is where PEP 770 has it; what only an extra needs is optional there."""
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        (place,) = (name for name in opened.namelist() if ".dist-info/sboms/" in name)
        bill = json.loads(opened.read(place))
    scopes = {each["name"]: each["scope"] for each in bill["components"]}
    assert (bill["bomFormat"], bill["metadata"]["component"]["name"]) == ("CycloneDX", "tamed")
    assert [name for name, scope in scopes.items() if scope == "required"] == ["uvloop"]
    assert {"httptools", "twisted", "aioftp"} <= set(scopes)


def test_the_wheel_has_the_manual_pages(built: Path) -> None:
    """They are where man(1) looks in an environment: ``share/man`` beside ``bin``."""
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        names = {name.partition(".data/data/")[2] for name in opened.namelist()}
    assert {f"share/man/man{name[-1]}/{name}" for name in pages()} <= names


def test_debian_has_the_same_version() -> None:
    """The first line of its changelog names it."""
    first = (ROOT / "debian" / "changelog").read_text("utf-8").partition("\n")[0]
    assert first.startswith(f"tamed ({__version__}) ")
