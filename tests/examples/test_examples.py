"""Every file under examples/ is run for real, with free ports in place of its own."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tamed.testing import TamedProcess
from tests.process.clients import fetch
from tests.process.conftest import LISTENING

EXAMPLES = Path(__file__).parents[2] / "examples"
POEMS = {file.stem: file.read_bytes() for file in (EXAMPLES / "poetry").iterdir()}


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """Copy the examples, with port 0 for every fixed one."""
    folder = tmp_path / "examples"
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in folder.rglob("*"):
        if file.suffix in (".py", ".toml"):
            text, count = re.subn(r"(localhost:|port = )1\d{4}", r"\g<1>0", file.read_text("utf-8"))
            assert count, f"{file} has no port"
            file.write_text(text, "utf-8")
    return folder


@contextmanager
def run(target: Path, servers: int) -> Iterator[list[str]]:
    """Run an example, and give the addresses of its servers in the order of the log."""
    with TamedProcess("run", target, cwd=target.parent) as process:
        yield [process.expect(LISTENING)[1] for _ in range(servers)]


def test_fast_poetry_is_an_application_file(examples: Path) -> None:
    """It serves the poem of the folder beside its own."""
    with run(examples / "fastpoetry" / "fastpoetry.py", 1) as (address,):
        assert fetch(address) == POEMS["ecstasy"]


def test_verse_serves_two_poems(examples: Path) -> None:
    """Each on a port of its own."""
    with run(examples / "verse" / "verse.toml", 2) as addresses:
        assert [fetch(address) for address in addresses] == [POEMS["ecstasy"], POEMS["science"]]


def test_every_example_is_run_here() -> None:
    """A new example needs a test above."""
    programs = {file.relative_to(EXAMPLES).as_posix() for file in EXAMPLES.rglob("*.*") if file.is_file()}
    assert {name for name in programs if name.endswith((".py", ".toml"))} == {
        "fastpoetry/fastpoetry.py",
        "verse/verse.toml",
    }
