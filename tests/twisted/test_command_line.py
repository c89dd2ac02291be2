"""twistd's options as Tamed's settings, read in this process."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("twisted")

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from tamed.config.job import TargetKind
from tamed.config.kinds import CommandLine
from tamed.errors import UsageError
from tamed.twisted._twistd import apply_twistd, parse_twistd
from tests.supervised.daemon import needs_root

Parse = Callable[..., CommandLine]


@pytest.fixture
def parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Parse:
    """Return a function that parses words in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [*sys.argv])
    monkeypatch.setattr(sys, "path", [*sys.path])
    # What `--debug` changes for the whole process.
    monkeypatch.setattr(Failure, "__init__", Failure.__init__)
    monkeypatch.setattr(Deferred, "debug", Deferred.debug)
    return lambda *words: parse_twistd(words)


def test_a_daemon_has_twistds_own_defaults(parse: Parse, tmp_path: Path) -> None:
    """The pid file and the log are in the working directory, accessible to the user alone."""
    line = parse("-y", "poem.tac")
    daemon = dict(line.job.daemon)
    assert str(daemon.pop("name")).startswith("poem-")
    assert daemon == {"pid_file": f"{tmp_path}/twistd.pid", "umask": "0077"}
    assert line.job.log == {"file": f"{tmp_path}/twistd.log"}
    assert line.job.target == (TargetKind.FILE, f"{tmp_path}/poem.tac", "")
    assert (line.foreground, line.job.detached, line.notices) == (False, True, ())


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (["--uid", "1", "--gid", "2"], {"user": "1", "group": "2"}),
        (["--umask", "022"], {"umask": "0022"}),
        (["--prefix", "verse"], {"name": "verse"}),
        (["--pidfile", "a.pid"], {"pid_file": "{here}/a.pid"}),
        (["--chroot", "jail"], {"chroot": "{here}/jail"}),
        (["--rundir", "var"], {"directory": "{here}/var"}),
    ],
)
def test_an_option_is_a_setting(
    parse: Parse, tmp_path: Path, words: list[str], settings: dict[str, str]
) -> None:
    """A path is one from where the command is typed."""
    daemon = parse(*words, "-y", "poem.tac").job.daemon
    expected = {name: value.format(here=tmp_path) for name, value in settings.items()}
    assert {name: daemon[name] for name in settings} == expected


@pytest.mark.parametrize(
    ("words", "log"),
    [
        (["-n"], {}),
        (["-n", "--logfile", "-"], {"file": "stderr"}),
        (["-n", "--logfile", "a.log"], {"file": "{here}/a.log"}),
        (["--syslog"], {"file": "syslog"}),
    ],
)
def test_the_log_goes_where_twistds_would(
    parse: Parse, tmp_path: Path, words: list[str], log: dict[str, str]
) -> None:
    """In the foreground it stays on the terminal, unless a file is named."""
    line = parse(*words, "-y", "poem.tac")
    assert line.job.log == {name: value.format(here=tmp_path) for name, value in log.items()}
    assert line.foreground == ("-n" in words)


def test_what_changes_the_process_is_kept_for_it(parse: Parse, tmp_path: Path) -> None:
    """The observer of the log by its name, a profile, and what a debugger wants, in the foreground."""
    words = [
        "--logger",
        "twisted.logger.globalLogPublisher",
        "--profile",
        "stats",
        "--savestats",
        "--spew",
        "--debug",
    ]
    line = parse(*words, "-y", "poem.tac")
    assert line.job.foreign["effects"] == {
        "path": [str(tmp_path)],
        "logger": "twisted.logger.globalLogPublisher",
        "profile": f"{tmp_path}/stats",
        "savestats": True,
        "spew": True,
        "debug": True,
    }
    assert line.foreground


def test_a_plugin_keeps_its_words(parse: Parse) -> None:
    """The plugin also sees the options before its name."""
    job = parse("-n", "--prefix", "verse", "portforward", "--host", "poems").job
    assert job.target == (TargetKind.FOREIGN, "portforward", "twisted")
    assert tuple(job.words) == ("--host", "poems")
    assert job.foreign["options"]["prefix"] == "verse"


@pytest.mark.parametrize(
    ("words", "notice"),
    [
        (["--reactor", "epoll"], "--reactor epoll: Tamed runs Twisted on its own event loop instead"),
        (["--euid", "--uid", "1"], "--euid: Tamed drops privileges permanently"),
        (["--reactor", "asyncio"], ""),
    ],
)
def test_what_is_done_otherwise_is_said(parse: Parse, words: list[str], notice: str) -> None:
    """An option that a program can do without is accepted."""
    assert parse(*words, "-y", "poem.tac").notices == ((notice,) if notice else ())


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--encrypted", "-y", "poem.tac"], "saved applications are not supported; use the .tac file"),
        (["--file", "poem.tap"], "--file poem.tap: saved applications are not supported"),
        (["--source", "poem.tas"], "--source poem.tas: saved applications are not supported"),
        (["-n"], "nothing to run"),
        (["--reactor", "gtk3", "portforward"], "--reactor gtk3: Tamed runs Twisted on its own event loop"),
        (
            ["--profile", "p", "--profiler", "profile", "portforward"],
            "--profiler profile: not supported; use cprofile",
        ),
        (["--logfile", "-", "portforward"], "a daemon has no standard output; pass --nodaemon too"),
        (["portforward", "--rhyme"], "`tamed twistd --help` lists the options"),
        (["--prfile", "x"], "--prfile not recognized"),
        (["-n", "nothing"], "Unknown command: nothing"),
    ],
)
def test_what_is_not_supported_is_refused(parse: Parse, words: list[str], why: str) -> None:
    """It is a usage error, with the remedy on the same line."""
    with pytest.raises(UsageError) as caught:
        parse(*words)
    assert str(caught.value).startswith("twistd: ")
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


@needs_root
def test_root_imports_nothing_from_where_others_may_write(parse: Parse, tmp_path: Path) -> None:
    """It is said with a file of another folder, whose plugins may be missed, and with an unknown plugin."""
    tmp_path.chmod(0o777)
    line = parse("-n", "-y", "/srv/poem.tac")
    assert list(line.job.plugin_dirs) == []
    assert [notice.partition(":")[0] for notice in line.notices] == [f"nothing is imported from {tmp_path}"]
    with pytest.raises(UsageError, match=f"nothing is imported from {tmp_path}"):
        parse("-n", "rhyme")


def test_folders_to_import_from_are_put_in_front_once(parse: Parse, tmp_path: Path) -> None:
    """As each process of a daemon applies what the command has read."""
    for _ in range(2):
        apply_twistd({"path": [str(tmp_path)]})
    assert sys.path[0] == str(tmp_path)
    assert sys.path.count(str(tmp_path)) == 1
