"""The pages that a newcomer follows, as they follow them: from an empty folder, block by block."""

import re
import runpy
from pathlib import Path

import pytest

from tests.docs.reader import Block, Reader, blocks_of
from tests.structure.source import ROOT
from tests.supervised.daemon import needs_root

PAGES = [
    f"docs/tutorial/{name}.md"
    for name in ("server", "application", "composing", "daemon", "plugin", "deployment", "workers", "inside")
]


PICTURES = ROOT / "docs/_pictures"
PACKAGE = "docs/tutorial/package.md"


@pytest.mark.unmeasured
@needs_root
@pytest.mark.parametrize("page", PAGES)
def test_a_page_can_be_followed(
    folder: Path, environment: dict[str, str], network: list[str], page: str
) -> None:
    """Beside the files of the pages before it, where nothing else uses a port."""
    with Reader(folder, environment, network) as reader:
        for earlier in PAGES[: PAGES.index(page)]:
            for block in blocks_of(ROOT / earlier):
                if block.name:
                    reader.save(block.name, block.text)
        reader.follow([*blocks_of(ROOT / page)])


@pytest.mark.long
def test_the_page_of_a_package_can_be_followed(folder: Path, environment: dict[str, str]) -> None:
    """The package installs what it needs, and tests itself."""
    with Reader(folder, environment) as reader:
        reader.follow([*blocks_of(ROOT / PACKAGE)])


@pytest.mark.unmeasured
@needs_root
def test_the_session_of_the_picture_can_be_followed(
    folder: Path, environment: dict[str, str], network: list[str]
) -> None:
    """The commands give what it shows; the numbers of processes differ."""
    session = (PICTURES / "session.txt").read_text("utf-8")
    with Reader(folder, environment, network) as reader:
        reader.follow([Block("console", "", session)])


def test_the_picture_shows_the_session() -> None:
    """It was drawn when the session was changed."""
    program = runpy.run_path(str(PICTURES / "terminal.py"))
    drawn = program["drawn"]((PICTURES / "session.txt").read_text("utf-8"))
    assert (PICTURES / "session.svg").read_text("utf-8") == drawn, "python docs/_pictures/terminal.py"


def test_every_page_of_the_tutorial_is_followed() -> None:
    """In the order of the table of contents; the last page has nothing to copy."""
    contents = re.findall(r"^(tutorial/\w+)$", (ROOT / "docs/index.md").read_text("utf-8"), re.MULTILINE)
    assert [f"docs/{name}.md" for name in contents] == [*PAGES, PACKAGE, "docs/tutorial/exercises.md"]
    assert [*blocks_of(ROOT / "docs/tutorial/exercises.md")] == []


@pytest.mark.parametrize("page", [*PAGES, PACKAGE])
def test_every_block_of_a_page_is_a_file_or_a_terminal(page: str) -> None:
    """So none is left out."""
    assert [block for block in blocks_of(ROOT / page) if not block.name and block.language != "console"] == []
