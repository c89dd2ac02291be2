"""Number options of a daemon and of the built-in plugins, with invalid numbers."""

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tamed.config.settings import Daemon, Log
from tamed.errors import ConfigurationError, TamedError
from tamed.plugins.build import Given, build
from tamed.plugins.describe import describe
from tamed.plugins.discovery import available, find
from tests.patience import PATIENCE

HUGE = 10**400
NUMBERS = [math.inf, -math.inf, math.nan, HUGE, -HUGE, 2**63, -(2**63) - 1, -0.0, -1, 0, True, 1.5, 10**18]
TEXTS = ["inf", "nan", "1e400", "9" * 401, "9" * 5000, "-0", "-1", "1_0", "0x10", "\u0663", "1e5"]


def all_options() -> Iterator[tuple[type, str]]:
    """Yield every options class of Tamed, with the name of a service that uses it."""
    yield Daemon, ""
    yield Log, "log"
    for found in available():
        if found.error is None:  # else what it needs is not installed
            yield find(found.name).options_type, found.name


def given(service: str, name: str, key: str, value: object) -> Iterator[Given]:
    """Yield all ways to give a value."""
    yield Given(service=service, table={key: value}, file="verse.toml")
    if isinstance(value, str):
        yield Given(service=service, flags={name: value})
        yield Given(service=service, flags={name: [value]})
        yield Given(service=service, environ={f"TAMED_{key.upper().replace('-', '_')}": value})


@pytest.mark.parametrize(
    ("kind", "service"), list(all_options()), ids=lambda value: getattr(value, "__name__", value)
)
def test_whatever_an_option_is_given_is_taken_or_refused(kind: type[Any], service: str) -> None:
    """The error names the right party; accepted numbers are usable in every process."""
    for option in describe(kind):
        for value in [*NUMBERS, *TEXTS, [math.inf], {"a": HUGE}]:
            for way in given(service, option.name, option.key, value):
                try:
                    taken = getattr(build(kind, way), option.name)
                except TamedError:
                    continue
                if isinstance(taken, int | float) and not isinstance(taken, bool):
                    assert math.isfinite(taken)
                    assert abs(taken) < 2**63


@pytest.mark.parametrize(
    "value",
    [math.inf, math.nan, 1e300, 1.0, HUGE, 2**32, 0, -1, True, "inf", "9" * 401, "1_0", ""],
    ids=lambda value: repr(value)[:20],
)
def test_a_number_of_workers_is_nothing_else(value: object) -> None:
    """Other values in a file are refused."""
    with pytest.raises(ConfigurationError, match=r"^verse\.toml: workers: expected a"):
        build(Daemon, Given(table={"workers": value}, file="verse.toml"))


@pytest.mark.parametrize(
    "value", [math.inf, -1, 0o1000, 0.5, HUGE, "0o", "-0", "7_7", "8"], ids=lambda value: repr(value)[:20]
)
def test_a_umask_is_nothing_else(value: object) -> None:
    """Other values in a file are refused."""
    with pytest.raises(ConfigurationError, match=r"^verse\.toml: umask: expected a"):
        build(Daemon, Given(table={"umask": value}, file="verse.toml"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max-files", HUGE),
        ("watchdog", math.nan),
        ("drain-timeout", math.inf),
        ("max-worker-memory", math.inf),
        ("max-connections-per-worker", HUGE),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_setting_of_a_file_is_a_number_in_its_range(key: str, value: object) -> None:
    """Other values are refused with the name of the setting."""
    with pytest.raises(ConfigurationError, match=rf"^verse\.toml: {key}: "):
        build(Daemon, Given(table={key: value}, file="verse.toml"))


@pytest.mark.parametrize(
    ("arguments", "environ", "table", "status"),
    [
        (["--workers", "9" * 401], {}, "", 64),
        ([], {"TAMED_WORKERS": "nan"}, "", 78),
        ([], {}, f"workers = {HUGE}", 78),
        ([], {}, "drain-timeout = 1e400", 78),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_daemon_that_is_given_no_number_says_so_in_a_line(
    tmp_path: Path, arguments: list[str], environ: dict[str, str], table: str, status: int
) -> None:
    """The error has the status for the party at fault."""
    (tmp_path / "verse.toml").write_text(
        f'[daemon]\n{table}\n[services.a]\nplugin = "fastpoetry"\nport = 0\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "tamed", "start", "--rundir", "run", *arguments, "verse.toml"],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, **environ},
        timeout=PATIENCE,
    )
    assert done.returncode == status, done
    assert done.stderr.startswith("tamed: ")
    assert done.stderr.count("\n") == 1
    assert len(done.stderr) < 300
    assert not (tmp_path / "run").exists()
