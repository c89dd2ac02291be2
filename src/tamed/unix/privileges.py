"""Dropping root's privileges for good, and proving that they are gone.

Each step needs privileges that a later step removes, which fixes the order (capabilities(7), credentials(7)):

1. the bounding set, which needs CAP_SETPCAP: from here on no executed program can get more capabilities than
   those that are kept;
2. PR_SET_KEEPCAPS, if capabilities are kept, because the change of user would empty the permitted set;
3. the session keyring of the login that started this process, which would stay accessible for every user;
4. supplementary groups, group, user: real, effective and saved, so that there is no way back;
5. the capabilities: effective, permitted, inheritable and ambient are set to those that are kept;
6. ``no_new_privs``, after which set-uid programs and file capabilities have no effect (prctl(2));
7. the proof: the process tries to become root again, and reads the sets.

In some containers root has no CAP_SETPCAP. The bounding set then stays unchanged. With ``no_new_privs`` and
without permitted capabilities it has no effect, so that is a warning and not an error.
"""

import errno
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from tamed._os.fork import require_single_thread
from tamed._os.identity import Identity, become
from tamed._os.syscalls import call, forbid_new_privileges, leave_keyring, prctl
from tamed._os.text import did_you_mean
from tamed.errors import ConfigurationError, PermissionRefused, SystemRefused, from_os_error

if TYPE_CHECKING:
    from ctypes import Array, c_uint32

__all__ = [
    "AS_ROOT",
    "CAPABILITIES",
    "ROOT_FLAGS",
    "Capability",
    "CapabilitySets",
    "capability_sets",
    "change_root",
    "drop_privileges",
    "forbid_tracing",
    "is_traceable",
    "require_keepable",
    "roots_environ",
    "set_capabilities",
    "stays_root",
]

_PR_SET_KEEPCAPS, _PR_GET_NO_NEW_PRIVS = 8, 39  # linux/prctl.h
_PR_GET_DUMPABLE, _PR_SET_DUMPABLE = 3, 4
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_PR_CAP_AMBIENT, _IS_SET, _RAISE, _CLEAR_ALL = 47, 1, 2, 4
_VERSION_3 = 0x20080522  # two 32-bit words a set

AS_ROOT = "running as root; drop privileges with --user NAME, or pass --user root to silence this warning"

ROOT_FLAGS = ("-E", "-s")
"""Flags of a Python that works as root for another user: no ``PYTHON*`` variables, and no user site."""

CAPABILITIES: Final = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT
    SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE
    AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ
    PERFMON BPF CHECKPOINT_RESTORE
""".split()  # noqa: SIM905 - one name a line would be 41 lines
"""The names of capabilities(7), without ``CAP_``, in the order of their numbers."""


class Capability(int):
    """A Linux capability, by its number."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``CAP_NET_BIND_SERVICE``, in any case, with or without ``CAP_``. Raises ValueError."""
        name = text.strip().upper().removeprefix("CAP_")
        if name in CAPABILITIES:
            return cls(CAPABILITIES.index(name))
        hint = did_you_mean(f"CAP_{name}", (f"CAP_{each}" for each in CAPABILITIES))
        expected = "expected a capability such as CAP_NET_BIND_SERVICE"
        raise ValueError("; ".join(filter(None, (f"{text!r}: {expected}", hint))))

    def __str__(self) -> str:
        return f"CAP_{CAPABILITIES[self]}"


class CapabilitySets(NamedTuple):
    """The five sets of the calling thread, each as the numbers of its capabilities."""

    effective: frozenset[int]
    permitted: frozenset[int]
    inheritable: frozenset[int]
    bounding: frozenset[int]
    ambient: frozenset[int]


# With any other capability a process can become root again, or get root's power: by writing or owning root's
# files (DAC_OVERRIDE, CHOWN, FOWNER, MKNOD), reading root's keys (DAC_READ_SEARCH), taking another identity
# (SETUID, SETGID, SETPCAP, SETFCAP), entering another process or the kernel (SYS_PTRACE, SYS_MODULE,
# SYS_RAWIO, BPF, SYS_ADMIN), or with a root directory that it has prepared (SYS_CHROOT). Unknown ones are
# refused too.
_KEEPABLE: Final = {
    Capability.parse(name)
    for name in """
        AUDIT_WRITE BLOCK_SUSPEND IPC_LOCK LEASE NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW SYS_NICE
        SYS_RESOURCE SYS_TIME WAKE_ALARM
    """.split()  # noqa: SIM905 - as above
}


def change_root(directory: Path) -> None:
    """Make a directory the root of all paths of this process, and the working directory.

    Open files and directories stay reachable: make sure that no worker gets the descriptor of a directory.
    Raises PermissionRefused without root, and MissingInput if there is no such directory.
    """
    try:
        os.chroot(directory)
        os.chdir("/")
    except OSError as error:
        raise from_os_error(f"cannot change the root directory to {directory}", error) from error


def drop_privileges(identity: Identity, *, keep: Collection[Capability] = ()) -> frozenset[int]:
    """Become a user for good, with the capabilities in ``keep`` only, which executed programs get too.

    Returns the numbers of the capabilities that could not be removed from the bounding set, normally none.

    For a process that is that user already, and not root, it does nothing. If the user is root, user and
    groups are set, and the privileges stay.

    Raises PermissionRefused if this user may not become that one or does not have the capabilities to keep,
    ConfigurationError if with those the process could become root again, and SystemRefused if there are
    threads or the proof fails. After an error the process may be half changed and must end.
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
    """Return whether processes of this user may trace this one, read its memory and copy its descriptors.

    After a change of user they may not, until the next exec (prctl(2), PR_SET_DUMPABLE).
    """
    return prctl(_PR_GET_DUMPABLE) == 1


def forbid_tracing() -> None:
    """Allow only root to trace this process from now on."""
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
        left = _limit_capabilities(keep)
        prctl(_PR_SET_KEEPCAPS, bool(keep))
        leave_keyring()
        _become(identity)
        set_capabilities(keep)
        forbid_new_privileges()
    except OSError as error:
        raise from_os_error("cannot drop privileges", error) from error
    return left


def _limit_capabilities(keep: Collection[Capability]) -> frozenset[int]:
    """Remove all but ``keep`` from the bounding set, for good; return what stays, without CAP_SETPCAP."""
    bounding = _bounding()
    excess = frozenset(number for number, inside in bounding.items() if inside and number not in keep)
    try:
        for number in excess:
            prctl(_PR_CAPBSET_DROP, number)
    except PermissionError:
        return excess
    return frozenset()


def _become(identity: Identity) -> None:
    try:
        become(identity)
    except OSError as error:
        what = f"cannot become user {identity.name or identity.uid} in group {identity.gid}"
        raise from_os_error(what, error, "start it as root, or without --user and --group") from error


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
    """Try to become root again, in each possible way; each must be refused."""
    ways: list[Callable[[], None]] = [lambda: os.setuid(0), lambda: os.setgroups([0])]
    if identity.gid != 0:
        ways.append(lambda: os.setgid(0))
    for become_root in ways:
        try:
            become_root()
        except PermissionError:
            continue
        return True
    return False


def stays_root(user: str) -> bool:
    """Return whether this process is root and ``user``, the one to become, is empty."""
    return not user and os.geteuid() == 0


def roots_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for a Python that works as root: no ``PYTHON*`` variables, and root's home."""
    own = Identity.resolve("0", "").environ_of(environ)
    return {name: value for name, value in own.items() if not name.startswith("PYTHON")}


def capability_sets() -> CapabilitySets:
    """Read the sets of the calling thread. Raises ``OSError`` on a system without capabilities."""
    words = _words()
    _call("capget", words)
    effective, permitted, inheritable = (_members(words[part], words[part + 3]) for part in range(3))
    bounding = _bounding()
    ambient = frozenset(number for number in bounding if prctl(_PR_CAP_AMBIENT, _IS_SET, number))
    limit = frozenset(number for number, inside in bounding.items() if inside)
    return CapabilitySets(effective, permitted, inheritable, limit, ambient)


def set_capabilities(keep: Collection[int]) -> None:
    """Make ``keep`` the effective, permitted, inheritable and ambient set of the calling thread.

    Raises ``OSError`` if one of them is not permitted now.
    """
    mask = sum(1 << number for number in keep)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    _call("capset", _words(low, low, low, high, high, high))
    prctl(_PR_CAP_AMBIENT, _CLEAR_ALL)
    for number in keep:
        prctl(_PR_CAP_AMBIENT, _RAISE, number)


def _bounding() -> dict[int, bool]:
    """Return, for each capability of this kernel, whether it is in the bounding set.

    Older kernels have fewer capabilities than this module, newer ones may have more. The first unknown number
    ends the loop; ``/proc/sys/kernel/cap_last_cap`` has the last one, but a chroot has no ``/proc``.
    """
    answers: dict[int, bool] = {}
    while True:
        number = len(answers)
        try:
            answers[number] = bool(prctl(_PR_CAPBSET_READ, number))
        except OSError as error:
            if error.errno == errno.EINVAL and answers:
                return answers
            raise


def _words(*values: int) -> "Array[c_uint32]":
    """Return two ``struct __user_cap_data_struct`` of capset(2): three low words, then three high ones."""
    import ctypes

    return (ctypes.c_uint32 * 6)(*values)


def _members(low: int, high: int) -> frozenset[int]:
    mask = low | high << 32
    return frozenset(number for number in range(64) if mask >> number & 1)


def _call(name: str, words: "Array[c_uint32]") -> None:
    import ctypes

    call(name, (ctypes.c_uint32 * 2)(_VERSION_3, 0), words)  # 0: the calling thread
