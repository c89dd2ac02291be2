"""The pages are followed as readers follow them: from an empty folder, block by block."""

import ast
import os
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tamed.builtin.exec import Options as ExecOptions
from tamed.builtin.web import Options as WebOptions
from tamed.cli.commands import COMMANDS
from tamed.plugins.describe import describe
from tests.docs.reader import Block, Reader, blocks_of
from tests.examples.test_examples import GUIDES as EXAMPLES
from tests.structure.source import ROOT
from tests.supervised.daemon import needs_root
from tests.supervised.forked import forking

PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))]
MOVES = [page for page in PAGES if page.startswith("docs/moving/")]
SESSION = "docs/_pictures/session.txt"  # what the picture on the first page shows

# Each is followed beside the files of those before it.
TUTORIAL = [
    f"docs/tutorial/{name}.md"
    for name in ("server", "application", "composing", "daemon", "plugin", "deployment", "workers", "inside")
]
PACKAGE = "docs/tutorial/package.md"  # it installs what it needs, and tests itself

# They show a program and nothing typed, because it needs a server of others: see tests/examples.
OF_OTHERS = {"docs/guides/postgresql.md", "docs/guides/sentry.md"}

# Terminals that are not typed: a page, or a page and the first line of a block, and the reason.
NOT_TYPED: dict[str, str | dict[str, str]] = {
    "README.md": {
        "$ make run     # serves a poem; read it from another terminal: nc localhost 10000": (
            "below, and .ci/run"
        ),
        "$ tamed export systemd --user verse.toml --install": "needs systemd: tests/system",
    },
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
    "docs/reference/services.md": "needs etcd: tests/fleet",
    "docs/reloading.md": {
        "$ pip install 'tamed[reload]'": "installs: tests/supervised/test_watching.py",
    },
    "docs/twistd-options.md": "the page on moving from twistd is followed",
    "docs/twisted.md": "tests/twisted runs the same files",
}


def blocks(page: str) -> list[Block]:
    """Return the files and the terminals of a page. What is neither is a part of something, or its output."""
    return [block for block in blocks_of(ROOT / page) if block.name or block.language == "console"]


def terminals(page: str) -> list[Block]:
    """Return the terminals of a page."""
    return [block for block in blocks(page) if not block.name]


def first_line(block: Block) -> str:
    """Return the line by which a block is named in the table."""
    return block.text.split("\n")[0]


def not_typed(page: str) -> set[str]:
    """Return the first lines of the blocks of a page that are not typed."""
    left = NOT_TYPED.get(page, {})
    return {first_line(block) for block in terminals(page)} if isinstance(left, str) else {*left}


FOLLOWED = [page for page in PAGES if {first_line(block) for block in terminals(page)} - not_typed(page)]


def follow(page: str, reader: Reader) -> None:
    """Do what a page shows: it is compared with what comes."""
    for earlier in TUTORIAL[: TUTORIAL.index(page)] if page in TUTORIAL else []:
        for block in blocks(earlier):
            if block.name:
                reader.save(block.name, block.text)
    reader.follow([block for block in blocks(page) if first_line(block) not in not_typed(page)])


@pytest.mark.unmeasured
@needs_root
@pytest.mark.parametrize("page", sorted({SESSION, *FOLLOWED} - {PACKAGE}))
def test_a_page_can_be_followed(
    folder: Path, environment: dict[str, str], network: list[str], page: str
) -> None:
    """From an empty folder, where nothing else uses a port."""
    with Reader(folder, environment, network, forking(tuple(network))) as reader:
        follow(page, reader)


@pytest.mark.long
@needs_root
def test_the_readme_names_all_that_it_needs(
    folder: Path, environment: dict[str, str], network: list[str]
) -> None:
    """In an environment that has nothing but what it installs."""
    install = next(block.text for block in blocks_of(ROOT / "README.md") if block.language == "sh")
    subprocess.run(["bash", "-ec", install], cwd=ROOT, env=environment, check=True)
    environment["PATH"] = f"{environment['HOME']}/poems/bin:{os.environ['PATH']}"
    with Reader(folder, environment, network) as reader:
        reader.follow([Block("console", "", "$ which tamed\n.../poems/bin/tamed\n")])
        follow("README.md", reader)


@pytest.mark.unmeasured
@needs_root
def test_a_checkout_serves_the_poem(folder: Path, environment: dict[str, str], network: list[str]) -> None:
    """By the first command of the README, in an environment that is there already."""
    make = f"make -s -C '{ROOT}' -o .venv/.tamed BIN='{Path(sys.executable).parent}' run"
    shown = [f"$ {make}\n...\n20:45:24 INFO     tamed: fastpoetry is ready\n"]
    shown += [
        "$ nc localhost 10000 < /dev/null\nThe Ecstasy\n...\n",
        "...\n^C\n...\n20:45:24 INFO     tamed: stopped\n",
    ]
    with Reader(folder, environment, network) as reader:
        reader.follow([Block("console", "", text) for text in shown])


@pytest.mark.long
def test_the_page_of_a_package_can_be_followed(folder: Path, environment: dict[str, str]) -> None:
    """The package installs what it needs, and tests itself."""
    with Reader(folder, environment) as reader:
        follow(PACKAGE, reader)


def test_there_is_a_reason_for_each_terminal_that_is_not_typed() -> None:
    """None is left over; every guide, every page of the tutorial and every page on moving is followed."""
    shown = {page: {first_line(block) for block in terminals(page)} for page in PAGES}
    assert [(page, line) for page in NOT_TYPED for line in not_typed(page) if line not in shown[page]] == []
    assert [page for page, left in NOT_TYPED.items() if isinstance(left, str) and not shown[page]] == []
    guides = {page for page in PAGES if page.startswith(("docs/guides/", "docs/moving/"))}
    assert {*guides, *TUTORIAL, PACKAGE} - {*FOLLOWED} == OF_OTHERS


def test_each_block_says_what_it_is_in() -> None:
    """So a terminal is never taken for plain text."""
    for page in PAGES:
        fences = re.findall(r"^ *```(.*)$", (ROOT / page).read_text("utf-8"), re.MULTILINE)
        assert "" not in fences[::2], page


def test_parts_of_programs_and_of_deployments_can_be_read() -> None:
    """Those that are only a part are Python and TOML; the page on bad input has some that are not."""
    for page in {*PAGES} - {"docs/reference/bad-input.md"}:
        for block in blocks_of(ROOT / page):
            if block.language == "python":
                ast.parse(block.text)
            elif block.language == "toml":
                tomllib.loads(block.text)


def test_every_page_of_the_tutorial_is_followed() -> None:
    """In the order of the table of contents; the last page has nothing to copy."""
    contents = re.findall(r"^(tutorial/\w+)$", (ROOT / "docs/index.md").read_text("utf-8"), re.MULTILINE)
    assert [f"docs/{name}.md" for name in contents] == [*TUTORIAL, PACKAGE, "docs/tutorial/exercises.md"]
    assert [*blocks_of(ROOT / "docs/tutorial/exercises.md")] == []


@pytest.mark.parametrize("page", [*TUTORIAL, PACKAGE])
def test_every_block_of_a_page_is_a_file_or_a_terminal(page: str) -> None:
    """So none is left out."""
    assert [*blocks_of(ROOT / page)] == blocks(page)


def test_the_picture_shows_the_session() -> None:
    """It was drawn when the session was changed."""
    program = runpy.run_path(str(ROOT / "docs/_pictures/terminal.py"))
    drawn = program["drawn"]((ROOT / SESSION).read_text("utf-8"))
    picture = (ROOT / "docs/_pictures/session.svg").read_text("utf-8")
    assert picture == drawn, "python docs/_pictures/terminal.py"


def test_the_files_of_a_guide_are_all_on_its_page() -> None:
    """So each example that is run by its page is followed, and none is left over."""
    followed = {block.text for page in FOLLOWED for block in blocks(page) if block.name}
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
