"""Who an application runs as, by its settings."""

import os

import pytest

from tamed.config.identity import drop_to, identity_of, kept_capabilities, owner_of
from tamed.config.settings import Daemon
from tamed.errors import ConfigurationError
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
