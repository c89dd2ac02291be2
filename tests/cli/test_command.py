import io

import pytest

from tamed import __version__
from tamed.cli.commands import COMMANDS
from tamed.cli.instances import progress_line
from tests.cli.conftest import Tamed


def test_the_version_is_reported(tamed: Tamed) -> None:
    """The name and the version are printed to stdout."""
    assert tamed("--version") == (0, f"tamed {__version__}\n", "")


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_the_help_lists_every_command_with_examples(tamed: Tamed, arguments: list[str]) -> None:
    """Without a command, the help page is shown."""
    status, out, err = tamed(*arguments)
    assert (status, err) == (0, "")
    assert out.startswith("Usage: tamed [OPTIONS] [COMMAND]")
    assert "  tamed run fastpoetry --help " in out
    for command in COMMANDS:
        assert f"\n  {command.name} " in out


@pytest.mark.parametrize("command", [each.name for each in COMMANDS if each.has_help])
def test_every_command_has_a_help(tamed: Tamed, command: str) -> None:
    """The help page fits a terminal of 80 columns."""
    status, out, err = tamed(command, "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"Usage: tamed {command} [OPTIONS]")
    assert max(map(len, out.splitlines())) <= 80
    assert tamed(command, "-h").out == out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["rnu"], "unknown command 'rnu'; did you mean 'run'?"),
        (["xyz"], "unknown command 'xyz'; `tamed --help` lists them"),
        (["--verison"], "unknown option '--verison'; did you mean '--version'? `tamed --help` lists them"),
        (["run"], "missing argument 'TARGET'; see `tamed run --help`"),
        (["run", "--log-level"], "option '--log-level' requires a value; see `tamed run --help`"),
        (
            ["run", "--log-levle", "debug", "x"],
            "unknown option '--log-levle'; did you mean '--log-level'? `tamed run --help` lists them",
        ),
        (
            ["run", "--port", "1", "fastpoetry"],
            "unknown option '--port'; options of the service go after TARGET; see `tamed run --help`",
        ),
        (
            ["run", "fastpoetry", "--prot", "1"],
            "unknown option '--prot'; did you mean '--port'? `tamed run fastpoetry --help` lists them",
        ),
        (
            ["run", "fastpoetry", "--log-level", "debug"],
            "the service has no option '--log-level'; options of Tamed go before",
        ),
        (
            ["run", "fastpoetry", "--port"],
            "option '--port' requires a value; see `tamed run fastpoetry --help`",
        ),
        (
            ["run", "fastpoetry", "x"],
            "unexpected argument 'x'; see `tamed run fastpoetry --help`",
        ),
        (["plugins", "x"], "unexpected argument 'x'; see `tamed plugins --help`"),
        (["run", "--preload=yes", "x"], "option '--preload' takes no value; see `tamed run --help`"),
        (["logs", "-fx"], "unknown option '-x'; `tamed logs --help` lists them"),
        (["logs", "-n", "-1"], "-n: expected a whole number from 0 to 1000000000, got '-1'; see `tamed logs"),
        (["scale", "none"], "COUNT: expected a whole number of at least 1, of 18 digits at most, got 'none'"),
        (["stop", "--timeout", "soon"], "--timeout: expected a duration of at most 36500d, such as 30s, "),
        (
            ["completion", "ksh"],
            "SHELL: expected bash, zsh or fish, got 'ksh'; see `tamed completion --help`",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_command_line_is_one_line_with_the_remedy(
    tamed: Tamed, arguments: list[str], says: str
) -> None:
    """Errors go to stderr, with the status for usage."""
    status, out, err = tamed(*arguments)
    assert (status, out) == (64, "")
    assert err.startswith(f"tamed: {says}")
    assert err.count("\n") == 1


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_leaves_no_line_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line is erased at the end, even after an error; without a terminal there is none."""
    status = {"name": "verse", "state": "stopping", "workers": [{"connections": 1}, {}]}
    terminal, file = Terminal(), io.StringIO()

    def interrupted() -> None:
        with progress_line() as show:
            show(status)
            raise KeyboardInterrupt

    for stream in (terminal, file):
        monkeypatch.setattr("sys.stderr", stream)
        with pytest.raises(KeyboardInterrupt):
            interrupted()
    assert terminal.getvalue() == "\r\x1b[Kverse is stopping: 1 connection open\r\x1b[K"
    assert file.getvalue() == ""
