from collections.abc import Callable
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamed.cli._quick import quick_job
from tamed.cli.commands import run_command
from tamed.cli.targets import job_of
from tamed.cli.targets import run as run_command_of_click
from tamed.config.job import Job
from tamed.errors import TamedError
from tests.fresh import loaded_by

VERSE = Path(__file__).parents[2] / "examples" / "verse" / "verse.toml"


def slow_job(words: list[str]) -> Job:
    """Read a command line by the commands, as `tamed run` does."""
    context = run_command_of_click.make_context("run", list(words))
    assert isinstance(context, click.Context)
    return job_of(context)


def outcome(read: Callable[[list[str]], Job | None], words: list[str]) -> Job | str | None:
    """Return what is read from a command line, or the sentence with which it is refused."""
    try:
        return read(words)
    except TamedError as error:
        return str(error)


@pytest.mark.parametrize(
    "words",
    [
        ["fastpoetry"],
        ["fastpoetry", "--port", "0", "-p", "1", "--listen=a:1", "--listen", "b:2", "--poem", ""],
        ["--workers", "2", "--log", "x.log", "--log-level", "debug", "--log-level=a=info", "fastpoetry"],
        ["--preload", "--no-preload", "--log-no-compress", "fastpoetry.py"],
        ["--plugin-dir", "plugins", "--plugin-dir=more", "package.module:application"],
        [str(VERSE), "--ecstasy.port", "7", "--science.listen=x:1"],
    ],
)
def test_a_plain_command_line_is_read_quickly(words: list[str], tmp_path: Path) -> None:
    """And gives the job that the commands make of it."""
    words = [str(tmp_path) if word == "plugins" else word.replace("more", str(tmp_path)) for word in words]
    quick = quick_job(words)
    assert quick is not None
    assert quick == slow_job(words)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--help"],
        ["fastpoetry", "--help"],
        ["fastpoetry", "-p1"],
        ["fastpoetry", "--port"],
        ["fastpoetry", "--port", "-1"],
        ["fastpoetry", "--bogus", "1"],
        ["fastpoetry", "word"],
        ["fastpoetry", "--", "--port"],
        ["--preload=yes", "fastpoetry"],
        ["--workers"],
        ["fastpoetry.py", "--port", "1"],
        ["twisted:web", "--path", "."],
    ],
)
def test_what_is_not_plain_is_left_to_the_commands(words: list[str]) -> None:
    """They explain it, or show the help."""
    assert quick_job(words) is None


WORDS = """
    fastpoetry a.py m:v --port --port=1 -p -p1 --ecstasy.port --log --help --preload --no-preload --preload=1
    --workers --workers=2 --log-level debug 1 - -- --listen --listen=a:1 --umask x=y --log-compress --bogus
    --plugin-dir --nam
"""


@given(st.lists(st.sampled_from([*WORDS.split(), str(VERSE), ""]), max_size=7))
def test_both_read_the_same(words: list[str]) -> None:
    """Whatever is read quickly means to the commands what it means here, and is no mistake to them."""
    quick = outcome(quick_job, words)
    if quick is not None:
        assert quick == outcome(slow_job, words)


def test_a_plain_command_line_loads_no_command_line_library() -> None:
    """That is what it is there for."""
    loaded = loaded_by("from tamed.cli._quick import quick_job; quick_job(['fastpoetry', '--port', '0'])")
    assert "click" not in loaded


def test_a_mistake_is_told_as_ever(capfd: pytest.CaptureFixture[str]) -> None:
    """The commands read what was not plain."""
    with pytest.raises(TamedError, match="unknown option '--prot'; did you mean '--port'"):
        run_command(["run", "fastpoetry", "--prot", "1"])
