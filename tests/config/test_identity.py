"""The user of an application, according to its settings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tamed._os.identity import Identity, becomes_another
from tamed.config.identity import (
    drop_to,
    identity_of,
    kept_capabilities,
)
from tamed.config.settings import Daemon
from tamed.errors import ConfigurationError
from tamed.supervisor.platform import print_error
from tamed.unix.privileges import Capability, stays_root


def test_nobody_named_is_nobody() -> None:
    """Without a user, the process keeps its identity, and files need no other owner."""
    assert identity_of(Daemon()) is None


@pytest.mark.parametrize(
    "settings",
    [Daemon(user="root"), Daemon(user="0"), Daemon(group="root")],
    ids=["a name", "a number", "a group"],
)
def test_a_user_or_a_group_is_an_identity(settings: Daemon) -> None:
    """The user is found by name or number, and owns the files that the daemon writes later."""
    identity = identity_of(settings)
    assert identity is not None
    assert identity.uid == (0 if settings.user else os.geteuid())
    assert identity.gid == 0


STRANGER = Identity(54321, 54321, (54321,))
"""A user who owns nothing."""

# What the checks of files and of the interpreter say, in a process of its own: it forks to look as another
# user, and what records the files that are read stays in an interpreter.
CHECKS = """
import os, sys
from pathlib import Path
from tamed._os.identity import Identity, becomes_another
from tamed.config.deployment import Deployment
from tamed.config.identity import *
from tamed.config.job import Job
from tamed.config.job import Target
from tamed.errors import PermissionRefused

stranger = Identity(54321, 54321, (54321,))
myself = Identity(os.geteuid(), os.getegid(), (os.getegid(),), "me")
folder = Path.cwd()

def refused(check, *arguments, **named):
    for identity in (None, myself):
        check(identity, *arguments, **named)
    try:
        check(stranger, *arguments, **named)
    except PermissionRefused as error:
        print(str(error).replace(str(folder), "HERE"))

refused(check_files, log="the.log")
refused(check_files, log=f"{folder}/nowhere/the.log")  # no line: opening it will report that
refused(check_files, log=f"{folder}/the.log", pid_files=[""])
refused(check_files, pid_files=["", f"{folder}/the.pid"])
deployment = Deployment.parse('[services.a]\\napplication = "app.py"\\n', folder / "verse.toml")
refused(check_application, Job(Target.parse(f"{folder}/app.py")), None)
refused(check_application, Job(Target.parse("verse.toml")), deployment)
sys.executable = f"{folder}/python"
refused(check_interpreter)

reads = ReadAsRoot(stranger)
for name in ("read", "gone"):
    open(name).read()
open("written", "w").write("a poem")
os.close(os.open("written", os.O_WRONLY))
os.unlink("gone")
reads.require_readable()
reads.require_readable()  # nothing is recorded any more
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="looks as another user, as root")
def test_what_the_user_could_not_use_is_refused(tmp_path: Path) -> None:
    """Unwritable folders, unreadable applications and inaccessible Pythons are reported."""
    for name in ("read", "gone", "app.py", "python"):
        (tmp_path / name).write_text("a poem")
        (tmp_path / name).chmod(0o700)
    done = subprocess.run(
        [sys.executable, "-c", CHECKS], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    cannot_write = "user 54321 cannot write in HERE; give it to 54321, or use another"
    cannot_read = "user 54321 cannot read HERE/app.py: its workers load it as that user; "
    found = done.stdout.splitlines()
    assert found[0] == "log file the.log: user 54321 cannot write in .; give it to 54321, or use another"
    assert found[1:3] == [f"log file HERE/the.log: {cannot_write}", f"pid file HERE/the.pid: {cannot_write}"]
    assert [line.startswith(cannot_read) for line in found[3:5]] == [True, True]
    assert found[5].startswith("user 54321 cannot run this Python: HERE/python is not accessible to 54321, ")
    assert len(found) == 6


def test_only_root_becomes_another() -> None:
    """Only root changes to another user, and not to root itself."""
    assert not becomes_another(None)
    assert not becomes_another(Identity(0, 0, (0,)))
    assert becomes_another(STRANGER) is (os.geteuid() == 0)


def test_an_unknown_user_is_refused() -> None:
    """An unknown user is refused before anything is done."""
    with pytest.raises(ConfigurationError, match="the system has no such user"):
        identity_of(Daemon(user="nobody-of-this-name"))


def test_capabilities_are_named() -> None:
    """An unknown capability is a configuration error."""
    kept = kept_capabilities(Daemon(keep_capability=["CAP_NET_BIND_SERVICE"]))
    assert kept == {Capability.parse("CAP_NET_BIND_SERVICE")}
    with pytest.raises(ConfigurationError, match="keep-capability"):
        kept_capabilities(Daemon(keep_capability=["CAP_POETRY"]))


def test_without_an_identity_nothing_is_dropped() -> None:
    """Without an identity, the process keeps its privileges and its root directory."""
    before = os.getresuid()
    drop_to(Daemon(), None)
    assert before == os.getresuid()


def test_whoever_is_named_does_not_stay_root_by_mistake() -> None:
    """Naming root explicitly silences the warning."""
    assert stays_root("") is (os.geteuid() == 0)
    assert not stays_root("root")


def test_a_user_who_has_gone_gets_no_message() -> None:
    """The text is printed on its own line, and a broken pipe is ignored."""
    reading, writing = os.pipe()
    print_error("ready \udcff", writing)
    assert os.read(reading, 100) == b"ready \\udcff\n"
    os.close(reading)
    print_error("nobody reads this", writing)
    os.close(writing)
