import logging
from pathlib import Path

import pytest

from tamed._os.limits import sysctl
from tamed.net.accept import DEFAULT_BACKLOG, usable_backlog


@pytest.mark.parametrize(
    ("wanted", "limit", "granted"),
    [(4096, 128, 128), (4096, 4096, 4096), (100, 4096, 100), (4096, None, 4096)],
)
def test_the_kernel_s_limit_bounds_the_backlog(wanted: int, limit: int | None, granted: int) -> None:
    """The smaller of the two counts; an unknown limit is none."""
    assert usable_backlog(wanted, limit=lambda: limit, reported=set()) == granted


def test_a_low_limit_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    """The first server that gets less than it asked for is told the setting; the others are not."""
    reported: set[str] = set()
    with caplog.at_level(logging.WARNING, "tamed.net"):
        granted = [usable_backlog(4096, limit=lambda: 128, reported=reported) for _ in range(3)]
    assert granted == [128] * 3
    (told,) = caplog.messages
    assert told == (
        "net.core.somaxconn allows only 128 of the 4096 requested waiting connections; "
        "raise it: sysctl -w net.core.somaxconn=4096"
    )


def test_a_sufficient_limit_is_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is logged, and the one warning stays unspent, while everybody gets what they ask for."""
    reported: set[str] = set()
    assert (
        usable_backlog(DEFAULT_BACKLOG, limit=lambda: DEFAULT_BACKLOG, reported=reported) == DEFAULT_BACKLOG
    )
    assert caplog.messages == []
    assert reported == set()


def test_the_limit_of_this_machine() -> None:
    """The limit is read from where Linux shows it; elsewhere it is unknown."""
    file = Path("/proc/sys/net/core/somaxconn")
    assert sysctl("net.core.somaxconn") == (int(file.read_text()) if file.exists() else None)


@pytest.mark.parametrize("content", [None, "", "128 256"])
def test_settings_that_are_no_number_are_unknown(tmp_path: Path, content: str | None) -> None:
    """A setting that is missing, or is something else than one number, is None."""
    (tmp_path / "net").mkdir()
    if content is not None:
        (tmp_path / "net" / "thing").write_text(content)
    assert sysctl("net.thing", tmp_path) is None


def test_settings_are_numbers(tmp_path: Path) -> None:
    """A setting's dots are folders."""
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "thing").write_text("128\n")
    assert sysctl("net.thing", tmp_path) == 128
