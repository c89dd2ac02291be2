"""The manual pages: complete, and what groff and mandb can read."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tamed.cli.commands import COMMANDS
from tamed.cli.manual import pages, write_pages
from tamed.config.settings import Daemon, Log
from tamed.plugins.describe import describe
from tests.structure.source import ROOT


def plain(page: str) -> str:
    """Return a page without the marks of roff."""
    text = re.sub(r"\\f[BR]|\\&", "", page)
    return text.replace(r"\-", "-").replace(r"\(aq", "'").replace(r"\e", "\\")


def test_each_command_has_a_page_with_all_its_options() -> None:
    """Its paragraphs and examples are there too, and the page of the command itself lists it."""
    made = pages()
    assert set(made) == {"tamed.1", "tamed.toml.5", *(f"tamed-{each.name}.1" for each in COMMANDS)}
    for command in COMMANDS:
        text = plain(made[f"tamed-{command.name}.1"])
        for option in command.all_options():
            assert all(flag in text for flag in (*option.flags, *option.off_flags)), (command.name, option)
            assert option.help in text
        for line, _ in command.examples:
            assert line in text
        assert f"tamed-{command.name}(1)" in plain(made["tamed.1"])


def test_the_page_of_the_deployment_file_has_every_key() -> None:
    """With its help and its default."""
    text = plain(pages()["tamed.toml.5"])
    for option in (*describe(Daemon), *describe(Log)):
        facts = f" [default: {option.default_text}]" if option.default_text else ""
        assert f".TP\n{option.key}\n{option.help}{facts}\n" in text


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_groff_has_no_warning(tmp_path: Path) -> None:
    """All of its warnings are on."""
    for path in write_pages(tmp_path):
        command = ["groff", "-man", "-Tutf8", "-Kutf8", "-ww", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), path
        assert done.stdout.count("\n") > 20


@pytest.mark.unmeasured  # else the copy would be measured too
def test_the_wheel_has_them(tmp_path: Path) -> None:
    """They are where man(1) looks in an environment: ``share/man`` beside ``bin``."""
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = {name.partition(".data/data/")[2] for name in zipfile.ZipFile(wheel).namelist()}
    assert {f"share/man/man{name[-1]}/{name}" for name in pages()} <= names
