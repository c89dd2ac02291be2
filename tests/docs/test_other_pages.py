"""The pages on operating and on the services in the box are followed, too, and no page is forgotten."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

from tests.docs.reader import Block, Reader, blocks_of
from tests.docs.test_guides import ELSEWHERE, GUIDES, MOVES
from tests.docs.test_tutorial import PACKAGE, PAGES
from tests.structure.source import ROOT
from tests.supervised.daemon import needs_root

FOLLOWED = [
    *(f"docs/{name}.md" for name in ("deploying", "install", "monitoring", "operating", "reloading")),
    *(
        f"docs/builtin/{name}.md"
        for name in ("exec", "ftp", "inetd", "poetry", "portforward", "socks", "web")
    ),
]

# Terminals that are not typed: a page, or a page and the first line of a block, and the reason.
NOT_TYPED: dict[str, str | dict[str, str]] = {
    "docs/benchmarks.md": "takes hours",
    "docs/deploying.md": {
        "$ sudo tamed export systemd /etc/verse/verse.toml --install": "needs systemd: tests/system",
        "$ sudo tamed export systemd /etc/verse/verse.toml --socket poems=:80 --install": "the same",
        "$ sudo tamed export systemd /etc/verse/verse.toml --split --install": "the same",
        "$ kubectl create secret generic verse --from-file=db=password.txt --from-literal=NAME=value": (
            "needs a cluster"
        ),
    },
    "docs/install.md": {
        "$ python3 -m venv ~/poems": "installs from a checkout, as .ci/run does",
        "$ pip install --require-hashes -r requirements/web.txt": "the same",
    },
    "docs/operating.md": {
        "$ sudo tamed start --user www-data verse.toml": "tests/supervised/test_privileges.py",
    },
    "docs/proofs.md": "takes minutes to hours",
    "docs/reference/command.md": "shows daemons in many states: each command has its own tests",
    "docs/reference/endpoints.md": "needs a program of systemd: tests/process/test_fast_poetry.py",
    "docs/reference/services.md": "needs etcd: tests/fleet",
    "docs/reloading.md": {
        "$ cd /srv/verse/current        # -> releases/41": "tests/supervised/test_generation.py",
        "$ pip install 'tamed[reload]'": "installs: tests/supervised/test_watching.py",
    },
    "docs/twistd-options.md": "the page on moving from twistd is followed",
    "docs/twisted.md": "tests/twisted runs the same files",
}


def terminals(page: str) -> list[Block]:
    """Return the terminals of a page."""
    return [block for block in blocks_of(ROOT / page) if not block.name and block.language == "console"]


def first_line(block: Block) -> str:
    """Return the line by which a block is named in the table."""
    return block.text.split("\n")[0]


def not_typed(page: str) -> dict[str, str]:
    """Return the first lines of the blocks of a page that are not typed."""
    left = NOT_TYPED.get(page, {})
    if isinstance(left, str):
        return {first_line(block): left for block in terminals(page)}
    return left


@pytest.mark.unmeasured
@needs_root
@pytest.mark.parametrize("page", FOLLOWED)
def test_a_page_can_be_followed(
    folder: Path, environment: dict[str, str], network: list[str], page: str
) -> None:
    """From an empty folder. What is neither a file nor a terminal is a part of something, or its output."""
    left = not_typed(page)
    blocks = [block for block in blocks_of(ROOT / page) if block.name or block.language == "console"]
    with Reader(folder, environment, network) as reader:
        reader.follow([block for block in blocks if first_line(block) not in left])


def test_each_page_with_a_terminal_is_followed() -> None:
    """Or it has a reason not to be, of which none is left over."""
    pages = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")}
    elsewhere = {f"docs/guides/{name}.md" for name in ELSEWHERE}
    followed = {*FOLLOWED, *GUIDES, *MOVES, *PAGES, PACKAGE, *elsewhere}
    whole = {page for page, left in NOT_TYPED.items() if isinstance(left, str)}
    assert {page for page in pages - followed if terminals(page)} == whole
    lines = {page: [first_line(block) for block in terminals(page)] for page in NOT_TYPED}
    assert [(page, line) for page in NOT_TYPED for line in not_typed(page) if line not in lines[page]] == []


def test_each_block_says_what_it_is_in() -> None:
    """So a terminal is never taken for plain text."""
    for path in (ROOT / "docs").rglob("*.md"):
        fences = re.findall(r"^ *```(.*)$", path.read_text("utf-8"), re.MULTILINE)
        assert "" not in fences[::2], path


def test_parts_of_programs_and_of_deployments_can_be_read() -> None:
    """Those that are only a part are Python and TOML; the page on bad input has some that are not."""
    for path in {*(ROOT / "docs").rglob("*.md")} - {ROOT / "docs/reference/bad-input.md"}:
        for block in blocks_of(path):
            if block.language == "python":
                ast.parse(block.text)
            elif block.language == "toml":
                tomllib.loads(block.text)
