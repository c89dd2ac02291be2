"""The reference in docs/ against the code: nothing that a user can say, or be told, is missing there."""

import re
import signal

import pytest

from tamed import errors
from tamed.cli.commands import COMMANDS as ALL
from tamed.cli.commands import TAMED
from tamed.cli.grammar import Command
from tamed.config.settings import Daemon, Log
from tamed.errors import ExitStatus, TamedError
from tamed.net import endpoint
from tamed.net.endpoint import Endpoint
from tamed.plugins.describe import describe
from tamed.supervisor.ending import SIGNALS
from tamed.worker.life import STOP_SIGNALS
from tests.structure.source import ROOT

REFERENCE = ROOT / "docs" / "reference"
HEADINGS = ["Interface", "Options", "Exit status", "Signals", "Notes"]


def page(name: str) -> str:
    """Return the text of a page of the reference."""
    return (REFERENCE / f"{name}.md").read_text("utf-8")


def sections(text: str, level: int) -> dict[str, str]:
    """Return the text below each heading of a level, by the heading."""
    mark = "#" * level
    parts = re.split(rf"^{mark} (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def table(text: str) -> list[list[str]]:
    """Return the rows of the first table in a text, without its head."""
    rows = re.findall(r"^\|(.*)\|$", text, re.MULTILINE)
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)] for row in rows[2:]]


def flags(command: Command) -> set[str]:
    """Return the flags of a command, the help's among them."""
    return {flag for one in command.all_options() for flag in (*one.flags, *one.off_flags)}


STATUSES = {name: status for name, status in vars(ExitStatus).items() if name.isupper()}
COMMANDS = {"tamed": TAMED} | {f"tamed {command.name}": command for command in ALL}


def test_every_command_has_a_section() -> None:
    """The page of the command has a section for each command, and for no other."""
    assert set(sections(page("command"), 2)) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_sections_have_the_same_headings(name: str) -> None:
    """Each command is described under the same five headings, in the same order."""
    assert list(sections(sections(page("command"), 2)[name], 3)) == HEADINGS


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_described(name: str) -> None:
    """The options of a command are those of its section, or of the page that it leaves them to."""
    text = sections(sections(page("command"), 2)[name], 3)["Options"]
    if "(daemon-options.md)" in text:
        text += page("daemon-options")
    terms = re.findall(r"^`.*`$", text, re.MULTILINE)
    described = {flag for term in terms for flag in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", term)}
    assert described == flags(COMMANDS[name])


def test_every_key_is_described() -> None:
    """The keys of a deployment file's tables are those of the settings, each with its default."""
    text = sections(page("deployment-file"), 2)["[daemon] and [log]"]
    described = {key.strip("`"): default for key, _, default in table(text)}
    settings = {
        f"{name}.{option.key}": option
        for name, kind in (("daemon", Daemon), ("log", Log))
        for option in describe(kind)
    }
    assert described.keys() == settings.keys()
    wrong = {key: described[key] for key, one in settings.items() if one.default_text not in described[key]}
    assert wrong == {}


def test_every_endpoint_kind_is_described() -> None:
    """The table of endpoints names the kinds that exist, and each text is of the kind it stands beside."""
    described = set()
    kind = ""
    for named, texts, _ in table(page("endpoints")):
        kind = named.strip("`") or kind
        described.add(kind)
        for text in re.findall("`(.+?)`", texts):
            parsed = Endpoint.parse(text)
            assert type(parsed).__name__ == kind
            assert Endpoint.parse(str(parsed)) == parsed
    public = [getattr(endpoint, name) for name in endpoint.__all__]
    kinds = {one.__name__ for one in public if isinstance(one, type) and issubclass(one, Endpoint)}
    assert described == kinds - {"Endpoint"}


def test_every_exit_status_is_described() -> None:
    """The table of exit statuses has each number with its name, and no other."""
    rows = {name.strip("`"): int(number) for number, name, *_ in table(page("exit-status"))}
    assert rows == STATUSES


def test_every_error_is_described_beside_its_status() -> None:
    """Each public error stands in the row of the status that it ends a process with."""
    rows = {int(row[0]): set(re.findall("`(.+?)`", row[3])) for row in table(page("exit-status"))}
    public = [getattr(errors, name) for name in errors.__all__]
    kinds = [one for one in public if isinstance(one, type) and issubclass(one, TamedError)]
    expected: dict[int, set[str]] = {status: set() for status in STATUSES.values()}
    for kind in kinds:
        if kind is not TamedError:
            expected[kind.status].add(kind.__name__)
    assert rows == expected


def test_every_signal_is_described() -> None:
    """The table of signals has those that we see to."""
    rows = {
        signal.Signals[name]: cells
        for names, *cells in table(page("signals"))
        for name in re.findall("`(.+?)`", names)
    }
    assert {*SIGNALS, *STOP_SIGNALS} <= rows.keys()


def test_bad_input_has_statuses_that_exist() -> None:
    """Every row of the table of bad input ends in a status of the table of statuses."""
    statuses = {int(status) for *_, status in table(page("bad-input"))}
    assert statuses <= set(STATUSES.values())
