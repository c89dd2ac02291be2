"""The run directory and the instances in it."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from tamed._os.identity import Identity
from tamed.errors import AlreadyRunning, CannotCreate, ConfigurationError, PermissionRefused
from tamed.unix.lock import take_life
from tamed.unix.pidfile import PidFile
from tamed.unix.rundir import Instance, RunDirectory, check_name, default_run_directory
from tests.unix import rundir_child
from tests.unix.process import NOBODY, call, needs_root


def user(number: int) -> Identity:
    """Return a user, with a group of the same number."""
    return Identity(number, number, ())


@pytest.fixture
def rundir(tmp_path: Path) -> RunDirectory:
    """Return a run directory that does not exist yet."""
    return RunDirectory(tmp_path / "run")


@pytest.mark.parametrize("name", ["verse", "Verse-2", "_x", "9", "a.b@c+d", "poesía", "x" * 64])
def test_good_name(name: str) -> None:
    """Letters and digits of any script make a name, with a few signs after the first."""
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "1 to 64 bytes"),
        ("x" * 65, "1 to 64 bytes"),
        ("ä" * 33, "1 to 64 bytes"),
        (".", "begin with a letter"),
        ("..", "begin with a letter"),
        (".hidden", "begin with a letter"),
        ("-n", "begin with a letter"),
        ("/etc", "begin with a letter"),
        ("a/b", "not '/'"),
        ("a b", "not ' '"),
        ("a\0b", r"not '\\x00'"),
        ("a\n", r"not '\\n'"),
    ],
)
def test_bad_name(name: str, why: str, rundir: RunDirectory) -> None:
    """A name that could mean another file, or an option, is refused with what is wrong with it."""
    with pytest.raises(ConfigurationError, match=why):
        check_name(name)
    with pytest.raises(ConfigurationError, match="instance name"):
        rundir.instance(name)


def test_paths_of_an_instance(rundir: RunDirectory) -> None:
    """An instance has a directory with its name, and files with its name in it. Nothing is made by asking."""
    verse = rundir.instance("verse")
    assert verse.directory == rundir.path / "verse"
    assert [verse.pid_file.name, verse.socket.name] == ["verse.pid", "verse.sock"]
    assert {path.parent for path in (verse.pid_file, verse.socket)} == {verse.directory}
    assert not rundir.path.exists()


def test_default_of_root() -> None:
    """Root's run directory is in /run, whatever the environment says."""
    assert default_run_directory({"XDG_RUNTIME_DIR": "/tmp", "TMPDIR": "/tmp"}, 0) == Path("/run/tamed")


def test_default_of_others(tmp_path: Path) -> None:
    """Others have theirs in their runtime directory, if it is theirs, or else among the temporary files."""
    uid = tmp_path.stat().st_uid or 1
    if uid == 1:
        os.chown(tmp_path, uid, -1)
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    assert default_run_directory(environ, uid) == tmp_path / "tamed"
    assert default_run_directory(environ, uid + 1) == Path(f"/tmp/tamed-{uid + 1}")
    assert default_run_directory({**environ, "TMPDIR": "/var/tmp"}, uid + 1) == Path(
        f"/var/tmp/tamed-{uid + 1}"
    )
    missing = {"XDG_RUNTIME_DIR": str(tmp_path / "none")}
    assert default_run_directory(missing, uid) == Path(f"/tmp/tamed-{uid}")
    assert default_run_directory({"XDG_RUNTIME_DIR": "relative"}, uid) == Path(f"/tmp/tamed-{uid}")
    assert default_run_directory({}, uid) == Path(f"/tmp/tamed-{uid}")
    assert default_run_directory({}) == default_run_directory({}, os.geteuid())


def test_directories_are_made_once(rundir: RunDirectory) -> None:
    """The directories are made, whatever the umask; when they are there they are taken as they are."""
    mask = os.umask(0o077)
    try:
        verse = rundir.create("verse")
    finally:
        os.umask(mask)
    expected = 0o755 if os.geteuid() == 0 else 0o700
    for path in (rundir.path, verse.directory):
        assert stat.S_IMODE(path.stat().st_mode) == expected
    verse.directory.chmod(0o750)
    assert rundir.create("verse") == verse
    assert stat.S_IMODE(verse.directory.stat().st_mode) == 0o750


def test_missing_parent(tmp_path: Path) -> None:
    """The directory above must be there; it is named when it is not."""
    with pytest.raises(
        CannotCreate, match=f"there is no directory {tmp_path / 'none'}; create it, or use another"
    ):
        RunDirectory(tmp_path / "none" / "run").create("verse")


def test_symbolic_link_is_refused(tmp_path: Path, rundir: RunDirectory) -> None:
    """Neither the run directory nor an instance's may be a link."""
    (tmp_path / "target").mkdir()
    rundir.path.symlink_to(tmp_path / "target")
    with pytest.raises(CannotCreate, match="symbolic link"):
        rundir.create("verse")
    assert list((tmp_path / "target").iterdir()) == []
    rundir.path.unlink()
    rundir.path.mkdir()
    link = rundir.path / "verse"
    link.symlink_to(tmp_path / "target")
    if os.geteuid() == 0:  # a link of root's may be one of systemd's
        os.lchown(link, NOBODY, NOBODY)
    with pytest.raises(CannotCreate, match="symbolic link"):
        rundir.create("verse")


def test_file_in_its_place(rundir: RunDirectory) -> None:
    """A file is no directory."""
    rundir.path.touch()
    with pytest.raises(CannotCreate, match="Not a directory"):
        rundir.create("verse")
    assert rundir.instances() == []


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o707])
def test_directory_that_others_can_change(rundir: RunDirectory, mode: int) -> None:
    """Where others can put files it is not safe to be; where only owners can remove theirs, it is."""
    rundir.path.mkdir()
    rundir.path.chmod(mode)
    with pytest.raises(PermissionRefused, match="others can write to it; chmod go-w"):
        rundir.create("verse")
    rundir.path.chmod(0o1777)
    verse = rundir.create("verse")
    verse.directory.chmod(mode)
    with pytest.raises(PermissionRefused, match=f"{verse.directory}: others can write"):
        rundir.create("verse")


def test_instances_and_those_that_run(rundir: RunDirectory) -> None:
    """Instances are those with a pid file, by name; those run whose file is held."""
    assert rundir.instances() == []
    for name in ("gone", "empty", "alive"):
        rundir.create(name)
    (rundir.path / "file").touch()
    (rundir.path / ".hidden").mkdir()
    (rundir.path / ".hidden" / ".hidden.pid").touch()
    rundir.instance("gone").pid_file.write_text("1\n")
    with PidFile.acquire(rundir.instance("alive").pid_file):
        assert [one.name for one in rundir.instances()] == ["alive", "gone"]
        assert rundir.running() == [rundir.instance("alive")]
    assert [one.name for one in rundir.instances()] == ["gone"]
    assert rundir.running() == []


def test_instance_whose_holder_cannot_be_known(rundir: RunDirectory) -> None:
    """A pid file held by one whom it does not name counts as running; one that is no file does not."""
    odd = rundir.create("odd").pid_file
    rundir.create("folder").pid_file.mkdir()
    with odd.open("w+") as file:
        take_life(file.fileno())
        assert [one.name for one in rundir.running()] == ["odd"]


def test_empty_directory_can_be_removed(rundir: RunDirectory) -> None:
    """An instance's directory goes when nothing is in it, and else stays."""
    verse = rundir.create("verse")
    verse.pid_file.touch()
    verse.remove_if_empty()
    assert verse.pid_file.exists()
    verse.pid_file.unlink()
    verse.remove_if_empty()
    assert not verse.directory.exists()
    verse.remove_if_empty()


def test_directory_may_be_removed_while_it_is_made(
    rundir: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a daemon of that name which ends just then: it is made again."""
    verse, open_it, removals = rundir.create("verse"), os.open, iter([True, True])

    def open_late(path: Any, *arguments: Any, **more: Any) -> int:
        if path == "verse" and next(removals, False):
            verse.directory.rmdir()
        return open_it(path, *arguments, **more)

    monkeypatch.setattr(os, "open", open_late)
    assert rundir.create("verse") == verse
    assert verse.directory.is_dir()


@needs_root
def test_directory_is_given_to_the_user(rundir: RunDirectory) -> None:
    """Root gives the instance's directory to the user it will run as, and keeps the one above."""
    verse = rundir.create("verse", user(NOBODY))
    status = verse.directory.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (NOBODY, NOBODY, 0o755)
    assert rundir.path.stat().st_uid == 0
    assert rundir.create("verse", user(NOBODY)) == verse


@needs_root
def test_a_link_of_roots_is_followed_and_no_other(tmp_path: Path) -> None:
    """Such a link is what systemd makes for a service with a user of its own; any user could make others."""
    (tmp_path / "private").mkdir()
    tmp_path.chmod(0o755)
    link = tmp_path / "run"
    link.symlink_to("private")
    assert RunDirectory(link).create("verse").directory == tmp_path / "private" / "verse"
    (tmp_path / "own").mkdir()
    (tmp_path / "private" / "ode").symlink_to("../own")
    instance = RunDirectory(link).create("ode")
    assert instance.directory == tmp_path / "own"
    instance.pid_file.touch()
    assert RunDirectory(link).instances() == [instance]
    instance.require_trusted()
    tmp_path.chmod(0o777)
    with pytest.raises(CannotCreate, match="symbolic link"):
        RunDirectory(link).create("verse")
    tmp_path.chmod(0o755)
    os.lchown(link, NOBODY, NOBODY)
    with pytest.raises(CannotCreate, match="symbolic link"):
        RunDirectory(link).create("verse")


@needs_root
def test_directory_that_another_user_has_left_is_given(rundir: RunDirectory, tmp_path: Path) -> None:
    """With the logs of that user; root's files, and what has another name too, stay whose they are."""
    verse = rundir.create("verse", user(12345))
    log, old, roots, linked = (verse.directory / f"verse.log{end}" for end in ("", ".1", ".2", ".3"))
    for path in (log, old, linked):
        path.touch()
        os.chown(path, 12345, 12345)
    roots.touch()
    (tmp_path / "another").hardlink_to(linked)
    (verse.directory / "verse.log.4").symlink_to("/etc/passwd")
    rundir.create("verse", user(NOBODY))
    assert [path.stat().st_uid for path in (verse.directory, log, old)] == [NOBODY] * 3
    assert (roots.stat().st_uid, linked.stat().st_uid) == (0, 12345)
    assert Path("/etc/passwd").stat().st_uid == 0
    rundir.create("verse")
    assert [path.stat().st_uid for path in (verse.directory, log, old)] == [0] * 3


@needs_root
def test_directory_of_one_that_runs_is_not_taken_from_it(rundir: RunDirectory) -> None:
    """Whoever starts it as another user is told that it runs."""
    verse = rundir.create("verse", user(12345))
    with PidFile.acquire(verse.pid_file), pytest.raises(AlreadyRunning, match=f"process {os.getpid()} runs"):
        rundir.create("verse", user(NOBODY))
    assert verse.directory.stat().st_uid == 12345


@needs_root
def test_directory_of_a_stranger(rundir: RunDirectory) -> None:
    """What belongs to somebody else, or has more in it than a daemon leaves, is not given away."""
    verse = rundir.create("verse", user(12345))
    (verse.directory / "verse.txt").touch()
    for owner in (user(NOBODY), None):
        with pytest.raises(PermissionRefused, match=r"user 12345, and contains a file .*: verse\.txt"):
            rundir.create("verse", owner)
    assert verse.directory.stat().st_uid == 12345
    roots = rundir.create("roots")
    (roots.directory / "passwd").touch()
    with pytest.raises(PermissionRefused, match="it belongs to user 0, and contains a file"):
        rundir.create("roots", user(NOBODY))
    os.chown(rundir.path, 12345, 12345)
    with pytest.raises(PermissionRefused, match=f"directory {rundir.path}: it belongs to user 12345"):
        rundir.create("other")


@needs_root
def test_directory_of_a_user(public_path: Path) -> None:
    """What a user makes is for that user only, and where he may not make anything he is told so."""
    public_path.chmod(0o1777)
    assert call(rundir_child.create_as, "nobody", public_path / "run", "verse") == [0o700, 0o700, NOBODY]
    public_path.chmod(0o755)
    kind, message = call(rundir_child.create_as, "nobody", public_path / "other", "verse")
    assert (kind, "Permission denied; use another one with --rundir" in message) == (
        "PermissionRefused",
        True,
    )


@needs_root
def test_users_can_look_at_what_root_runs(public_path: Path) -> None:
    """Any user sees which instances of root run; a directory that is for others only is told as such."""
    rundir = RunDirectory(public_path / "run")
    with PidFile.acquire(rundir.create("verse").pid_file):
        assert call(rundir_child.list_as, "nobody", rundir.path) == [["verse"], ["verse"]]
        rundir.instance("verse").directory.chmod(0o700)
        assert call(rundir_child.list_as, "nobody", rundir.path) == [[], []]
        rundir.path.chmod(0o700)
        ((kind, message),) = call(rundir_child.list_as, "nobody", rundir.path)
        assert kind == "PermissionRefused"
        assert message.startswith(f"run directory {rundir.path}: Permission denied")


@needs_root
def test_dropped_user_leaves_nothing(public_path: Path) -> None:
    """What a daemon makes as root in its directory it can remove as the user that it becomes."""
    assert call(rundir_child.live_as, "nobody", public_path / "run") == [["verse.pid", "verse.sock"], []]


def test_instance_is_plain_data() -> None:
    """An instance is made of a name and a path, and equal to another one of both."""
    assert Instance("a", Path("/x/a")) == Instance("a", Path("/x/a"))
