"""Giving up root."""

import os
from pathlib import Path

import pytest

from tamed._os.identity import Identity
from tamed.errors import ConfigurationError, PermissionRefused
from tamed.unix.privileges import CAPABILITIES, Capability, drop_privileges
from tests.unix import privileges_child
from tests.unix.process import NOBODY, call, needs_root

pytestmark = needs_root

NONE = "0000000000000000"

KEEPABLE = {
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "IPC_LOCK",
    "LEASE",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "WAKE_ALARM",
}


def test_nothing_is_left_of_root() -> None:
    """After the drop the process, and what it executes, is that user, in its groups, and can do no more."""
    seen = call(privileges_child.drop, "nobody", "", [])
    ids = "\t".join([str(NOBODY)] * 4)
    group = Identity.resolve("nobody").gid
    assert seen["left"] == []
    assert seen["Uid"] == [ids, ids]
    assert seen["Gid"] == ["\t".join([str(group)] * 4)] * 2
    assert seen["Groups"] == [str(group)] * 2
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert seen[name] == [NONE, NONE], name
    assert seen["NoNewPrivs"] == ["1", "1"]


def test_group_may_be_another() -> None:
    """A group that is named takes the place of the user's own; numbers do as well as names."""
    seen = call(privileges_child.drop, str(NOBODY), "daemon", [])
    gid = Identity.resolve("", "daemon").gid
    assert seen["Gid"][0].split() == [str(gid)] * 4
    assert str(gid) in seen["Groups"][0].split()


def test_user_that_is_only_a_number() -> None:
    """A number that no user has will do, with a group."""
    seen = call(privileges_child.drop, "54321", "54322", [])
    assert seen["Uid"][1].split() == ["54321"] * 4
    assert seen["Gid"][1].split() == ["54322"] * 4
    assert seen["Groups"][1].split() == ["54322"]


def test_there_is_no_way_back() -> None:
    """Every way to be root again is refused, and to be who one is already is no error."""
    tried = call(privileges_child.try_to_regain, "nobody")
    assert tried.pop("same") == "done"
    assert tried.pop("again") == "PermissionRefused"
    assert tried.pop("keep") == "PermissionRefused"
    assert set(tried.values()) == {"PermissionError"}


def test_kept_capability_is_the_only_one() -> None:
    """What is kept is in all five sets, in programs that are executed too, and nothing else is."""
    seen = call(privileges_child.drop, "nobody", "", ["CAP_NET_BIND_SERVICE"])
    only = f"{1 << Capability.parse('NET_BIND_SERVICE'):016x}"
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert seen[name] == [only, only], name
    assert seen["NoNewPrivs"] == ["1", "1"]
    assert seen["left"] == []


def test_kept_capability_works() -> None:
    """With CAP_NET_BIND_SERVICE a low port can be bound after the drop, and without it cannot."""
    assert call(privileges_child.bind_low_port, "nobody", ["CAP_NET_BIND_SERVICE"]) == "done"
    assert call(privileges_child.bind_low_port, "nobody", []) == "PermissionError"


@pytest.mark.parametrize("name", [each for each in CAPABILITIES if each not in KEEPABLE])
def test_what_would_give_root_back_cannot_be_kept(name: str) -> None:
    """With any capability but those of the list a process could become root again, so it is refused."""
    with pytest.raises(ConfigurationError, match=f"cannot keep CAP_{name}: .* CAP_NET_BIND_SERVICE, "):
        drop_privileges(Identity.resolve("nobody"), keep=[Capability.parse(name)])


def test_what_one_does_not_have_cannot_be_kept() -> None:
    """A capability that this process lacks is refused before anything changes."""
    kind, message = call(privileges_child.drop_without, ["NET_RAW"], "nobody", ["NET_RAW", "SYS_TIME"])
    assert kind == PermissionRefused.__name__
    assert message.startswith("cannot keep CAP_NET_RAW: this process does not have it")


def test_root_without_the_right_to_limit() -> None:
    """In a container without CAP_SETPCAP the bounding set stays, and that is told; the rest is dropped."""
    assert call(privileges_child.drop_without, ["SETPCAP"], "nobody", []) == [True, [], "1"]


@pytest.mark.parametrize("missing", ["SETUID", "SETGID"])
def test_root_without_the_right_to_change(missing: str) -> None:
    """In a container without CAP_SETUID or CAP_SETGID the drop is refused, and it says why."""
    kind, message = call(privileges_child.drop_without, [missing], "nobody", [])
    assert kind == PermissionRefused.__name__
    assert message.startswith("cannot become user nobody in group ")


def test_threads_forbid_it() -> None:
    """Capabilities belong to a thread, so with another one nothing is dropped."""
    assert call(privileges_child.drop_beside_thread, "nobody").startswith(
        "cannot drop privileges: this process has 2 threads"
    )


def test_root_stays_root_when_asked_to() -> None:
    """As root, the group alone may be changed; then the privileges stay."""
    gid = str(Identity.resolve("", "daemon").gid)
    root = "\t".join("0000")
    assert call(privileges_child.become_root_again) == [root, root, root, "\t".join([gid] * 4), "0"]


def test_proof_sees_a_way_back() -> None:
    """The proof fails when ids are not set, and when the saved user is still root."""
    not_set = "the system took the new user and groups, and did not set them"
    assert call(privileges_child.see_what_is_wrong, "nobody") == [not_set, not_set, "True"]


def test_proof_sees_capabilities() -> None:
    """The proof fails when there are other capabilities than are kept, and when new ones could be had."""
    assert call(privileges_child.see_capabilities_left, "nobody") == ["capabilities are left", ""]
    assert call(privileges_child.leave_new_privileges, "nobody") == "no_new_privs is not set"


def test_root_directory(public_path: Path) -> None:
    """After the change paths begin in the new root, as does the working directory; only root may do it."""
    (public_path / "inside").touch()
    assert call(privileges_child.go_into, public_path, "nobody") == [
        "MissingInput",
        ["inside"],
        "/",
        "PermissionRefused",
    ]


def test_files_that_can_be_written(public_path: Path) -> None:
    """Whether a user may write in a directory is told beforehand, and this process stays who it is."""
    assert call(privileges_child.access, public_path, "nobody") == [False, 0, 0]
    os.chown(public_path, NOBODY, 0)
    assert call(privileges_child.access, public_path, "nobody") == [True, 0, 0]
    hidden = public_path / "hidden"
    (hidden / "open").mkdir(parents=True)
    (hidden / "open").chmod(0o777)
    hidden.chmod(0o700)
    assert call(privileges_child.access, hidden / "open", "nobody") == [False, 0, 0]


def test_the_access_of_others_cannot_be_known_by_anyone(public_path: Path) -> None:
    """Who is not root can ask about himself only."""
    own, other = call(privileges_child.access_as, "nobody", "daemon", public_path)
    assert own is False
    assert other.startswith("SystemRefused: cannot check the permissions of user daemon for")
