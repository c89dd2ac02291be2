"""The manual pages are complete, and groff and mandb can read them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tamed.cli.commands import COMMANDS
from tamed.cli.manual import pages, write_pages
from tamed.config.settings import Daemon, Log
from tamed.plugins.describe import describe


def plain(page: str) -> str:
    """Return a page without the marks of roff."""
    text = re.sub(r"\\f[BR]|\\&", "", page)
    return text.replace(r"\-", "-").replace(r"\(aq", "'").replace(r"\e", "\\")


def test_each_command_has_a_page_with_all_its_options() -> None:
    """Its paragraphs and examples are included, and the page of ``tamed`` lists it."""
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
    """Each option is listed with its help and default."""
    text = plain(pages()["tamed.toml.5"])
    for option in (*describe(Daemon), *describe(Log)):
        facts = f" [default: {option.default_text}]" if option.default_text else ""
        assert f".TP\n{option.key}\n{option.help}{facts}\n" in text


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_groff_has_no_warning(tmp_path: Path) -> None:
    """With all warnings enabled, groff prints none."""
    for path in write_pages(tmp_path):
        command = ["groff", "-man", "-Tutf8", "-Kutf8", "-ww", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), path
        assert done.stdout.count("\n") > 20
