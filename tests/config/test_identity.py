"""Who an application runs as, by its settings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tamed._os.identity import Identity
from tamed.config.deployment import Deployment
from tamed.config.identity import (
    becomes_another,
    check_application,
    check_files,
    check_interpreter,
    drop_to,
    identity_of,
    kept_capabilities,
    owner_of,
)
from tamed.config.job import Job
from tamed.config.settings import Daemon
from tamed.config.target import Target
from tamed.errors import ConfigurationError, PermissionRefused
from tamed.supervisor.posix import print_error
from tamed.unix.privileges import Capability, stays_root


def test_nobody_named_is_nobody() -> None:
    """The process stays who it is, and files need no other owner."""
    assert identity_of(Daemon()) is None
    assert owner_of(None) is None


@pytest.mark.parametrize("settings", [Daemon(user="root"), Daemon(user="0"), Daemon(group="root")], ids=repr)
def test_a_user_or_a_group_is_an_identity(settings: Daemon) -> None:
    """By name or number; it has the files that the daemon must write later."""
    identity = identity_of(settings)
    assert identity is not None
    assert owner_of(identity) == (identity.uid, identity.gid)
    assert identity.uid == (0 if settings.user else os.geteuid())
    assert identity.gid == 0


STRANGER = Identity(54321, 54321, (54321,))
"""A user who owns nothing."""

MYSELF = Identity(os.geteuid(), os.getegid(), (os.getegid(),), "me")


def test_files_must_be_in_folders_that_the_user_can_write_in(tmp_path: Path) -> None:
    """Else the log could not be rotated, and the pid file not be removed."""
    log = str(tmp_path / "the.log")
    check_files(None, log=log, pid_files=[log])
    check_files(MYSELF, log=log, pid_files=["", log])
    check_files(STRANGER, log=str(tmp_path / "nowhere" / "the.log"))  # opening it will report that
    for files in ({"log": log}, {"pid_files": ["", log]}):
        with pytest.raises(PermissionRefused, match=f"{log}: user 54321 cannot write in {tmp_path}; "):
            check_files(STRANGER, **files)


def test_the_application_must_be_readable_for_the_user(tmp_path: Path) -> None:
    """Its file, and those that a deployment names."""
    tmp_path.chmod(0o755)
    file = tmp_path / "app.py"
    file.touch(mode=0o600)
    deployment = Deployment.parse('[services.a]\napplication = "app.py"\n', tmp_path / "verse.toml")
    for job, found in ((Job(Target.parse(str(file))), None), (Job(Target.parse("verse.toml")), deployment)):
        check_application(None, job, found)
        check_application(MYSELF, job, found)
        with pytest.raises(PermissionRefused, match=f"user 54321 cannot read {file}: which its"):
            check_application(STRANGER, job, found)


def test_the_user_must_be_able_to_run_this_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Workers are replaced as that user."""
    check_interpreter(None)
    check_interpreter(MYSELF)
    program = tmp_path / "python"
    program.touch(mode=0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(PermissionRefused, match=f"cannot run this Python: {program} is out of reach"):
        check_interpreter(STRANGER)


def test_only_root_becomes_another() -> None:
    """And root itself does not."""
    assert not becomes_another(None)
    assert not becomes_another(Identity(0, 0, (0,)))
    assert becomes_another(STRANGER) is (os.geteuid() == 0)


# In a process of its own: a hook of the interpreter stays.
READING = """
import os
from tamed._os.identity import Identity
from tamed.config.identity import ReadAsRoot
reads = ReadAsRoot(Identity(54321, 54321, (54321,)))
for name in ("read", "gone"):
    open(name).read()
open("written", "w").write("a poem")
os.close(os.open("written", os.O_WRONLY))
os.unlink("gone")
reads.require_readable()
reads.require_readable()  # nothing is recorded any more
"""


def test_files_that_were_read_must_be_readable(tmp_path: Path) -> None:
    """Those that are gone do not matter, nor those that were written."""
    for name in ("read", "gone"):
        (tmp_path / name).write_text("a poem")
    done = subprocess.run(
        [sys.executable, "-c", READING], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_an_unknown_user_is_refused() -> None:
    """Before anything is done."""
    with pytest.raises(ConfigurationError, match="the system has no such user"):
        identity_of(Daemon(user="nobody-of-this-name"))


def test_capabilities_are_named() -> None:
    """One that does not exist is the operator's mistake."""
    kept = kept_capabilities(Daemon(keep_capability=["CAP_NET_BIND_SERVICE"]))
    assert kept == {Capability.parse("CAP_NET_BIND_SERVICE")}
    with pytest.raises(ConfigurationError, match="keep-capability"):
        kept_capabilities(Daemon(keep_capability=["CAP_POETRY"]))


def test_without_an_identity_nothing_is_dropped() -> None:
    """Nor is the process shut in."""
    before = os.getresuid()
    drop_to(Daemon(), None)
    assert before == os.getresuid()


def test_whoever_is_named_does_not_stay_root_by_mistake() -> None:
    """Naming root itself is to mean it."""
    assert stays_root("") is (os.geteuid() == 0)
    assert not stays_root("root")


def test_a_person_who_has_gone_is_told_nothing() -> None:
    """The text is on a line of its own, and a pipe that is broken is no reason to stop."""
    reading, writing = os.pipe()
    print_error("ready \udcff", writing)
    assert os.read(reading, 100) == b"ready \\udcff\n"
    os.close(reading)
    print_error("nobody reads this", writing)
    os.close(writing)
