"""The last state of a daemon that has ended by itself."""

import os
import re
from pathlib import Path

import pytest

from tamed.supervisor.records import LastState
from tamed.unix.rundir import Instance, RunDirectory


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    """The folder of an instance that does not run."""
    folder = tmp_path / "verse"
    folder.mkdir()
    return Instance("verse", folder)


def test_what_is_left_can_be_read(instance: Instance, tmp_path: Path) -> None:
    """The last state can be read until the next start; without a name, if it is the only one."""
    assert LastState.of(instance) is None
    left = LastState.now("verse", "no poems", 70, "/var/verse.log")
    left.leave(instance)
    assert LastState.of(instance) == LastState.only_one(RunDirectory(tmp_path)) == left
    assert left.state == "failed"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", str(left.ended_at))
    LastState.now("verse", "it chose to", 0, "").leave(instance)
    again = LastState.of(instance)
    assert again is not None
    assert (again.state, again.log) == ("ended", "")
    LastState.forget(instance)
    assert LastState.of(instance) is None


def test_one_that_was_killed_is_known_by_its_pid_file(instance: Instance) -> None:
    """The time and the status of a killed daemon are unknown."""
    instance.pid_file.write_text("4711\n")
    left = LastState.of(instance)
    assert left is not None
    assert (left.state, left.status, left.ended_at, left.log) == ("failed", None, None, "")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1]", b"[" * 5000, b'{"error": 1}', b'{"error": "", "status": 1e999}', b"\xff" * 99],
)
def test_a_record_that_makes_no_sense_is_none(instance: Instance, content: bytes) -> None:
    """An invalid file, which the folder's owner can have written, is ignored."""
    (instance.directory / "verse.failed").write_bytes(content)
    assert LastState.of(instance) is None


def test_only_a_file_is_read(instance: Instance, tmp_path: Path) -> None:
    """Links are not followed, and pipes do not block."""
    LastState.now("verse", "elsewhere", 1, "").leave(instance)
    path = instance.directory / "verse.failed"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert LastState.of(instance) is None
    path.unlink()
    os.mkfifo(path)
    assert LastState.of(instance) is None


def test_a_folder_that_is_gone_has_no_room_for_it(instance: Instance) -> None:
    """Writing to a removed folder does not fail."""
    instance.directory.rmdir()
    LastState.now("verse", "no poems", 70, "").leave(instance)
    assert not instance.directory.exists()
