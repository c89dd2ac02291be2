"""Giving up root's privileges for good, and proving that they are gone.

The order is fixed by what each step needs (capabilities(7), credentials(7)):

1. the bounding set, which needs CAP_SETPCAP: from here on no program that is executed can get more than is
   kept;
2. PR_SET_KEEPCAPS, if something is kept, since the change of user would empty the permitted set;
3. the session keyring of whoever started this, which would stay in reach for every user;
4. supplementary groups, group, user: real, effective and saved, so that there is no way back;
5. the capabilities: effective, permitted, inheritable and ambient become what is kept;
6. ``no_new_privs``, after which no set-uid program or file capability gives anything (prctl(2));
7. the proof: the way back is tried, and the sets are read.

Some containers leave root without CAP_SETPCAP. The bounding set then stays as it is. With ``no_new_privs``
and nothing permitted it gives nothing, so that is told and not refused.
"""

import os
from collections.abc import Collection
from pathlib import Path

from tamed._fork import leave_keyring
from tamed.daemon._capabilities import Capability, capability_sets, limit_capabilities, set_capabilities
from tamed.daemon._identity import Identity, become
from tamed.daemon._prctl import prctl
from tamed.daemon._threads import require_single_thread
from tamed.errors import ConfigurationError, PermissionRefused, SystemRefused, from_os_error

__all__ = ["change_root", "drop_privileges", "forbid_tracing", "is_traceable", "require_keepable"]

_PR_SET_KEEPCAPS, _PR_SET_NO_NEW_PRIVS, _PR_GET_NO_NEW_PRIVS = 8, 38, 39  # linux/prctl.h
_PR_GET_DUMPABLE, _PR_SET_DUMPABLE = 3, 4

# With any other one a process can become root again, or do what only root may: by writing or owning root's
# files (DAC_OVERRIDE, CHOWN, FOWNER, MKNOD), reading root's keys (DAC_READ_SEARCH), taking another identity
# (SETUID, SETGID, SETPCAP, SETFCAP), entering another process or the kernel (SYS_PTRACE, SYS_MODULE,
# SYS_RAWIO, BPF, SYS_ADMIN), or by a root directory of its own making (SYS_CHROOT). What we do not know is
# refused, too.
_KEEPABLE = {
    Capability.AUDIT_WRITE,
    Capability.BLOCK_SUSPEND,
    Capability.IPC_LOCK,
    Capability.LEASE,
    Capability.NET_ADMIN,
    Capability.NET_BIND_SERVICE,
    Capability.NET_BROADCAST,
    Capability.NET_RAW,
    Capability.SYS_NICE,
    Capability.SYS_RESOURCE,
    Capability.SYS_TIME,
    Capability.WAKE_ALARM,
}


def change_root(directory: Path) -> None:
    """Make a directory the root of all paths of this process, and the working directory.

    Files and directories that are open stay reachable: see to it that no worker gets one that is a
    directory. Raises PermissionRefused for who is not root, and MissingInput if there is no such directory.
    """
    try:
        os.chroot(directory)
        os.chdir("/")
    except OSError as error:
        raise from_os_error(f"cannot change the root directory to {directory}", error) from error


def drop_privileges(identity: Identity, *, keep: Collection[Capability] = ()) -> frozenset[int]:
    """Become a user for good, without privileges but those in ``keep``, which executed programs get too.

    Returns the numbers of what could not be taken out of the bounding set, normally nothing.

    For a process that is that user already and no root, it does nothing. To become root is no loss: user
    and groups are set, and the privileges stay.

    Raises PermissionRefused if this user may not become that one or does not have what is to be kept,
    ConfigurationError if what is to be kept would give root back, and SystemRefused if there are threads
    or the proof fails. After an error the process may be half changed and must end.
    """
    require_keepable(keep)
    _require_permitted(keep)
    require_single_thread("cannot drop privileges")
    if identity.is_current and identity.uid != 0:
        return frozenset()
    if identity.uid == 0:
        _become(identity)
        left: frozenset[int] = frozenset()
    else:
        left = _drop(identity, keep)
    _prove(identity, keep)
    return left


def is_traceable() -> bool:
    """Tell whether processes of this user may trace this one, read its memory and take its descriptors.

    They may not since a change of user, until the next exec (prctl(2), PR_SET_DUMPABLE).
    """
    return prctl(_PR_GET_DUMPABLE) == 1


def forbid_tracing() -> None:
    """Have only root trace this process from now on."""
    prctl(_PR_SET_DUMPABLE, 0)


def require_keepable(keep: Collection[Capability]) -> None:
    """Raise ConfigurationError if a process that keeps these could become root again."""
    names = ", ".join(str(one) for one in sorted(set(keep) - _KEEPABLE))
    if names:
        remedy = f"these can be kept: {', '.join(str(one) for one in sorted(_KEEPABLE))}"
        raise ConfigurationError(f"cannot keep {names}", "with it a process can become root again", remedy)


def _require_permitted(keep: Collection[Capability]) -> None:
    if not keep:
        return
    try:
        missing = set(keep) - capability_sets().permitted
    except OSError as error:
        raise from_os_error("cannot keep capabilities", error) from error
    if missing:
        names = ", ".join(str(one) for one in sorted(missing))
        raise PermissionRefused(f"cannot keep {names}", "this process does not have it", "start it as root")


def _drop(identity: Identity, keep: Collection[Capability]) -> frozenset[int]:
    try:
        left = _limit(keep)
        prctl(_PR_SET_KEEPCAPS, bool(keep))
        leave_keyring()
        _become(identity)
        set_capabilities(keep)
        prctl(_PR_SET_NO_NEW_PRIVS, 1)
    except OSError as error:
        raise from_os_error("cannot drop privileges", error) from error
    return left


def _limit(keep: Collection[Capability]) -> frozenset[int]:
    try:
        limit_capabilities(keep)
    except PermissionError:
        return capability_sets().bounding.difference(keep)
    return frozenset()


def _become(identity: Identity) -> None:
    try:
        become(identity)
    except OSError as error:
        what = f"cannot become user {identity.name or identity.uid} in group {identity.gid}"
        raise from_os_error(what, error, "start it as root, or without another user and group") from error


def _prove(identity: Identity, keep: Collection[Capability]) -> None:
    failed = _what_is_wrong(identity, keep)
    if failed:
        raise SystemRefused("cannot drop privileges", failed)


def _what_is_wrong(identity: Identity, keep: Collection[Capability]) -> str:
    if not identity.is_current or not {*os.getgroups()} <= {*identity.groups, identity.gid}:
        return "the system took the new user and groups, and did not set them"
    if identity.uid == 0:
        return ""
    if _can_go_back(identity):
        return "the process could become root again"
    sets = capability_sets()
    if {*sets.effective, *sets.permitted, *sets.inheritable, *sets.ambient} != set(keep):
        return "capabilities are left"
    return "" if prctl(_PR_GET_NO_NEW_PRIVS) else "no_new_privs is not set"


def _can_go_back(identity: Identity) -> bool:
    """Try to be root again, in the ways there are; each must be refused."""
    try:
        os.setuid(0)
    except PermissionError:
        pass
    else:
        return True
    try:
        os.setgroups([0])
    except PermissionError:
        pass
    else:
        return True
    if identity.gid == 0:
        return False
    try:
        os.setgid(0)
    except PermissionError:
        return False
    return True
