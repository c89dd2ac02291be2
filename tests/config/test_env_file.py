"""The environment file of a run."""

import os
from pathlib import Path

import pytest

from tamed.config.deployment import read_env_file
from tamed.config.job import Job, Reading, Target
from tamed.errors import ConfigurationError, MissingInput


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the path for an environment file."""
    return tmp_path / "env"


def test_its_variables_are_there_before_anything_else(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables are set in this process and its workers, and apply to the options of the job."""
    monkeypatch.setenv("POEM", "elegy")
    monkeypatch.setenv("TAMED_MAX_FILES", "76")
    file.write_text("POEM=ode\nTAMED_MAX_FILES=77\n")
    job = Job(Target.parse("ode"), daemon={"env_file": str(file)})
    reading = Reading.entering(job, str)
    assert os.environ["POEM"] == reading.job.environ["POEM"] == "ode"
    assert reading.settings.daemon.max_files == 77


def test_without_a_file_the_job_stays_as_it_is() -> None:
    """Without a file, the job and the environment are unchanged."""
    before = dict(os.environ)
    job = Job(Target.parse("ode"), environ={})
    assert Reading.entering(job, str).job is job
    assert dict(os.environ) == before


def test_lines_are_variables(file: Path) -> None:
    """Comments and empty lines are ignored; quotes are removed, and nothing is expanded."""
    file.write_text("\ufeff# poems\n\n  POEM=ode\nexport AUTHOR='John $DONNE' \nX=a=b\nQ=\"\"\nONE='\nE=\n")
    assert read_env_file(file) == {
        "POEM": "ode",
        "AUTHOR": "John $DONNE",
        "X": "a=b",
        "Q": "",
        "ONE": "'",
        "E": "",
    }


@pytest.mark.parametrize("line", ["POEM", "2=b", "A B=c", "=x", "SECRET =x"])
def test_another_line_is_refused(file: Path, line: str) -> None:
    """The error has the line number, not the content, which may be secret."""
    file.write_text(f"A=b\n{line}\n")
    with pytest.raises(ConfigurationError) as caught:
        read_env_file(file)
    assert str(caught.value) == f"{file}:2: expected KEY=VALUE"


def test_a_file_that_is_not_there_is_missing(file: Path) -> None:
    """The error names the file."""
    with pytest.raises(MissingInput, match=str(file)):
        read_env_file(file)


def test_a_zero_byte_is_refused(file: Path) -> None:
    """A zero byte is an error that names the line."""
    file.write_bytes(b"A=1\nB=a\0b\n")
    with pytest.raises(ConfigurationError, match=f"^{file}:2: a variable cannot contain a zero byte"):
        read_env_file(file)


def test_a_file_that_is_no_text_is_refused(file: Path) -> None:
    """The error names the byte."""
    file.write_bytes(b"A=\xff")
    with pytest.raises(ConfigurationError, match="byte 2 is not UTF-8"):
        read_env_file(file)
