"""The destination of the log."""

import os
import sys
from pathlib import Path

import pytest

from tamed.config.log_plan import log_in_foreground, log_of_daemon
from tamed.config.settings import Log
from tamed.errors import ConfigurationError, UsageError
from tamed.log.plan import LogPlan
from tamed.plugins.values import Duration, Size


class Terminal:
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _plain_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without the journal and without NO_COLOR."""
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_a_daemon_has_a_file(tmp_path: Path) -> None:
    """The log is in its own directory, and is rotated according to the settings."""
    path = tmp_path / "poetry.log"
    settings = Log(
        rotate=Size("2 MB"),
        rotate_every=Duration("1h"),
        keep=3,
        keep_for=Duration("1d"),
        max_use=Size("3 MB"),
        compress=True,
    )
    plan = LogPlan(
        "file",
        "plain",
        str(path),
        rotate=2_000_000,
        every=3600.0,
        keep=3,
        compress=True,
        keep_for=86400.0,
        max_use=3_000_000,
    )
    assert log_of_daemon(settings, path) == plan


def test_a_file_may_never_be_rotated(tmp_path: Path) -> None:
    """A size or time of 0 disables rotation."""
    for every in (None, Duration(0)):
        plan = log_of_daemon(Log(rotate=Size(0), rotate_every=every), tmp_path / "log")
        assert (plan.rotate, plan.every) == (None, None)


def test_the_settings_may_name_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path is absolute, so the daemon's working directory does not matter."""
    monkeypatch.chdir(tmp_path)
    settings = Log(file="its.log", format="json")
    for plan in (log_of_daemon(settings, Path("other")), log_in_foreground(settings)):
        assert (plan.kind, plan.layout, plan.path) == ("file", "json", str(tmp_path / "its.log"))


def test_a_daemon_has_no_standard_error(tmp_path: Path) -> None:
    """A daemon's standard error would be lost."""
    with pytest.raises(UsageError, match="--log stderr"):
        log_of_daemon(Log(file="stderr"), tmp_path / "log")


@pytest.mark.parametrize("layout", ["human", "plain", "json"])
def test_the_foreground_has_standard_error(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The requested layout is used; files and pipes get no colours."""
    monkeypatch.setattr(sys, "stderr", None)
    assert log_in_foreground(Log(format=layout)) == LogPlan("stderr", layout)
    assert log_in_foreground(Log(file="stderr")) == LogPlan("stderr", "plain")


def test_a_terminal_has_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR or another layout disables colours."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert log_in_foreground(Log()).layout == "coloured"
    assert log_in_foreground(Log(format="human")).layout == "coloured"
    assert log_in_foreground(Log(format="plain")).layout == "plain"
    monkeypatch.setenv("NO_COLOR", "1")
    assert log_in_foreground(Log()).layout == "human"


def test_where_standard_error_is_the_journal_the_log_is_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal stores time and level itself, so it gets only the message."""
    status = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    assert log_in_foreground(Log()) == LogPlan("journal", "bare")
    assert log_in_foreground(Log(file="stderr")).kind == "stderr"


@pytest.mark.parametrize("address", ["", "unix:/run/log"])
def test_syslog_may_be_elsewhere(address: str) -> None:
    """The address is used as given."""
    settings = Log(file=f"syslog:{address}" if address else "syslog")
    assert log_in_foreground(settings) == LogPlan("syslog", "bare", address=address)


def test_a_layout_may_be_asked_for_in_syslog() -> None:
    """The format ``json`` is available for syslog, too."""
    assert log_in_foreground(Log(file="syslog", format="json")).layout == "json"


def test_an_address_that_makes_no_sense_is_refused() -> None:
    """An invalid address is refused before the daemon exists."""
    with pytest.raises(ConfigurationError, match="expected unix:/path"):
        log_in_foreground(Log(file="syslog:nowhere"))
