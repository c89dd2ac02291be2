"""The guides, followed as those of the tutorial are: the files that they include, and what they type."""

import re
from pathlib import Path

import pytest

from tamed.builtin.exec import Options as ExecOptions
from tamed.builtin.web import Options as WebOptions
from tamed.cli.commands import COMMANDS
from tamed.plugins.describe import describe
from tests.docs.reader import Reader, blocks_of
from tests.examples.test_examples import GUIDES as EXAMPLES
from tests.structure.source import ROOT
from tests.supervised.daemon import needs_root

ELSEWHERE = {"postgresql", "sentry"}  # that need a server of others: see tests/examples
GUIDES = sorted(
    page.relative_to(ROOT).as_posix()
    for page in (ROOT / "docs" / "guides").glob("*.md")
    if page.stem not in ELSEWHERE
)
MOVES = sorted(page.relative_to(ROOT).as_posix() for page in (ROOT / "docs" / "moving").glob("*.md"))


@pytest.mark.unmeasured
@needs_root
@pytest.mark.parametrize("page", [*GUIDES, *MOVES])
def test_a_guide_can_be_followed(
    folder: Path, environment: dict[str, str], network: list[str], page: str
) -> None:
    """From an empty folder. What is neither a file nor a terminal is what readers have already."""
    blocks = [block for block in blocks_of(ROOT / page) if block.name or block.language == "console"]
    assert any(not block.name for block in blocks)
    with Reader(folder, environment, network) as reader:
        reader.follow(blocks)


@pytest.mark.unmeasured
@needs_root
def test_the_readme_can_be_followed(folder: Path, environment: dict[str, str], network: list[str]) -> None:
    """What it saves and types in an empty folder; the part before that is for a checkout."""
    text = (ROOT / "README.md").read_text("utf-8")
    page = folder.parent / "README.md"
    named = re.sub(
        r"^```(\w+)\n# (\S+\.\w+)\n", r"```{code-block} \1\n:caption: \2\n\n", text, flags=re.MULTILINE
    )
    page.write_text(named[named.index("## An application file") :])
    with Reader(folder, environment, network) as reader:
        reader.follow([block for block in blocks_of(page) if block.name or block.language == "console"])


def test_the_files_of_a_guide_are_all_on_its_page() -> None:
    """So each example that is run by its page is followed, and none is left over."""
    followed = {block.text for page in GUIDES for block in blocks_of(ROOT / page) if block.name}
    missing = [name for name in EXAMPLES if (ROOT / "examples" / name).read_text("utf-8") not in followed]
    assert missing == []


@pytest.mark.parametrize("page", MOVES)
def test_a_page_for_those_who_move_names_what_is_there(page: str) -> None:
    """The options in the last column of its table are ours."""
    rows = re.findall(r"^\|.*\|(.*)\|$", (ROOT / page).read_text("utf-8"), re.MULTILINE)
    named = {flag for row in rows for flag in re.findall(r"--[a-z][a-z-]+", row)}
    options = [option for command in COMMANDS for option in command.all_options()]
    there = {flag for option in options for flag in (*option.flags, *option.off_flags)}
    for plugin in (WebOptions, ExecOptions):
        there |= {flag for option in describe(plugin) for flag in (option.flag, option.off_flag)}
    assert named - there == set()
