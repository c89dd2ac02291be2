"""Users and groups by name and number."""

import grp
import os
import pwd
from pathlib import Path

import pytest

from tamed._os.identity import Identity, user_folder
from tamed.errors import ConfigurationError

ROOT = pwd.getpwuid(0)


def test_user_by_name_and_by_number() -> None:
    """A name and its number give the same user, with its own group and all it belongs to."""
    identity = Identity.resolve(ROOT.pw_name)
    assert identity == Identity.resolve("0")
    assert identity == (0, ROOT.pw_gid, identity.groups, ROOT.pw_name, ROOT.pw_dir, ROOT.pw_shell)
    assert ROOT.pw_gid in identity.groups


def test_group_by_name_and_by_number() -> None:
    """A group that is named is the group, and one of the groups."""
    entry = grp.getgrall()[-1]
    identity = Identity.resolve("root", entry.gr_name)
    assert identity == Identity.resolve("root", str(entry.gr_gid))
    assert identity.gid == entry.gr_gid
    assert entry.gr_gid in identity.groups


def test_nobody_named_is_this_process() -> None:
    """Without a name, the user and group are those of this process."""
    identity = Identity.resolve()
    assert (identity.uid, identity.gid) == (os.geteuid(), os.getegid())
    assert identity.is_current
    assert not Identity(identity.uid + 1, identity.gid, ()).is_current
    assert not Identity(identity.uid, identity.gid + 1, ()).is_current


def test_only_a_group() -> None:
    """With a group alone the user stays who he is, with the groups he has."""
    identity = Identity.resolve("", "12345")
    assert (identity.uid, identity.gid) == (os.geteuid(), 12345)
    assert {12345, *os.getgroups()} == set(identity.groups)


@pytest.mark.parametrize("user", ["rooot", "nobdy"])
def test_unknown_user(user: str) -> None:
    """An unknown user is named, with the nearest one that exists."""
    near = {"rooot": "root", "nobdy": "nobody"}[user]
    with pytest.raises(
        ConfigurationError, match=rf"^user {user}: the system has no such user; did you mean '{near}'"
    ):
        Identity.resolve(user)


def test_unknown_group() -> None:
    """An unknown group is named; if none is near, nothing is guessed."""
    with pytest.raises(ConfigurationError, match=r"^group qqqqqqqqqqqq: the system has no such group$"):
        Identity.resolve("root", "qqqqqqqqqqqq")


@pytest.mark.parametrize("number", ["-1", "4294967295", "4294967296", "99999999999999999999", "٣", "1.5"])
def test_what_is_no_number(number: str) -> None:
    """What cannot be an id is no user and no group: -1 would mean to leave it as it is."""
    with pytest.raises(ConfigurationError, match=r"no such user"):
        Identity.resolve(number)
    with pytest.raises(ConfigurationError, match=r"no such group"):
        Identity.resolve("root", number)


def test_number_that_no_user_has() -> None:
    """A number without a user needs a group, and has that only; it has no name and no home."""
    with pytest.raises(ConfigurationError, match=r"user 54321: .*; add --group"):
        Identity.resolve("54321")
    identity = Identity.resolve("54321", "54322")
    assert identity.environ_of({"HOME": "/root", "A": "1"}) == {"HOME": "/", "A": "1"}
    assert identity == Identity(54321, 54322, (54322,), "", "")


def test_environment() -> None:
    """The environment names the target user and has nothing of the original login."""
    others = {
        "HOME": "/home/x",
        "USER": "x",
        "XDG_RUNTIME_DIR": "/run/user/1",
        "SSH_AUTH_SOCK": "y",
        "A": "1",
    }
    assert Identity.resolve("root").environ_of(others) == {
        "HOME": ROOT.pw_dir,
        "LOGNAME": "root",
        "USER": "root",
        "SHELL": ROOT.pw_shell,
        "MAIL": "/var/mail/root",
        "A": "1",
    }


def test_a_folder_of_this_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable names it, if it is absolute; a number without a home has the root's."""

    def folder(**environ: str) -> Path:
        return user_folder(environ, "XDG_STATE_HOME", ".local/state")

    assert folder(XDG_STATE_HOME="/srv/state", HOME="/home/x") == Path("/srv/state")
    assert folder(XDG_STATE_HOME="state", HOME="/home/x") == Path("/home/x/.local/state")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert folder(HOME="") == Path(ROOT.pw_dir, ".local/state")
    monkeypatch.setattr(os, "geteuid", lambda: 2**31 - 5)
    assert folder() == Path("/.local/state")
