"""Files that nobody else may be able to write."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tamed._os.trust import TRUST_WRITABLE, require_trusted
from tamed.errors import PermissionRefused
from tests.unix.process import NOBODY, needs_root


def given_away(path: Path) -> None:
    """Give a file to another user."""
    os.chown(path, NOBODY, -1)


def open_to_all(path: Path) -> None:
    """Let everybody write."""
    path.chmod(path.stat().st_mode | 0o002)


def open_to_a_group(path: Path) -> None:
    """Let a group write."""
    os.chown(path, -1, 12345)
    path.chmod(path.stat().st_mode | 0o020)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Make a file, two folders down."""
    folder = tmp_path / "outer" / "inner"
    folder.mkdir(parents=True)
    file = folder / "app.py"
    file.touch()
    return file


@needs_root
def test_what_is_roots_alone_is_trusted(file: Path) -> None:
    """Also when it is not there: whoever opens it says so."""
    require_trusted(file, "application file")
    require_trusted(file.parent / "missing", "application file")


@needs_root
@pytest.mark.parametrize("change", [given_away, open_to_all, open_to_a_group])
@pytest.mark.parametrize("levels", [0, 1, 2])
def test_root_refuses_what_others_can_change(file: Path, change: Callable[[Path], None], levels: int) -> None:
    """The file itself or a folder above it: the message names the place, and what to do."""
    place = [file, *file.parents][levels]
    change(place)
    with pytest.raises(PermissionRefused, match="so others could become root; chown root") as caught:
        require_trusted(file, "application file")
    assert f"application file {file}: {place} " in str(caught.value)


@needs_root
def test_a_link_is_followed(file: Path, tmp_path: Path) -> None:
    """What it leads to has to be trusted too, and the folder that it is in."""
    link = tmp_path / "link.py"
    link.symlink_to(file)
    require_trusted(link, "application file")
    given_away(file.parent)
    with pytest.raises(PermissionRefused):
        require_trusted(link, "application file")


@needs_root
def test_a_sticky_folder_keeps_files(file: Path) -> None:
    """In a folder like ``/tmp`` everybody may make files, and nobody replace those of others."""
    file.parent.chmod(0o1777)
    require_trusted(file, "application file")
    given_away(file)
    with pytest.raises(PermissionRefused):
        require_trusted(file, "application file")


@needs_root
def test_who_must_can_trust_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the option, which is in the environment, nothing is looked at."""
    given_away(file)
    monkeypatch.setenv(TRUST_WRITABLE, "1")
    require_trusted(file, "application file")


@needs_root
def test_others_are_warned(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever is not root runs it, and is told."""
    for folder in file.parents:
        if folder.is_relative_to("/tmp/pytest-of-root"):
            folder.chmod(0o755)
    open_to_all(file)
    os.seteuid(NOBODY)
    try:
        require_trusted(file, "application file")
    finally:
        os.seteuid(0)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "can be written by every user" in record.message
