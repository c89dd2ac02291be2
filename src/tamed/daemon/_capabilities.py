"""Linux capabilities of this process: their names, and setting all five sets at once.

A process has, in each thread, five sets (capabilities(7)): *permitted*, what it may use; *effective*, what
it uses; *inheritable*; *ambient*, what a program that it executes gets although it is not root; and the
*bounding* set, which limits what any program that it executes can ever get. A capability that a daemon
keeps has to be in all of them, since its workers are executed, and ambient capabilities work under
``no_new_privs``.

The names and numbers are those of linux/capability.h. ``ctypes`` is loaded by the first call.
"""

import enum
import errno
import os
from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple, Self

from tamed.daemon._prctl import prctl

if TYPE_CHECKING:
    from ctypes import Array, c_uint32

__all__ = ["Capability", "CapabilitySets", "capability_sets", "limit_capabilities", "set_capabilities"]

_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_PR_CAP_AMBIENT, _IS_SET, _RAISE, _CLEAR_ALL = 47, 1, 2, 4
_VERSION_3 = 0x20080522  # two 32-bit words a set


class Capability(enum.IntEnum):
    """A part of what root may do, by the name that the manual gives it after ``CAP_``."""

    CHOWN = 0
    DAC_OVERRIDE = 1
    DAC_READ_SEARCH = 2
    FOWNER = 3
    FSETID = 4
    KILL = 5
    SETGID = 6
    SETUID = 7
    SETPCAP = 8
    LINUX_IMMUTABLE = 9
    NET_BIND_SERVICE = 10
    NET_BROADCAST = 11
    NET_ADMIN = 12
    NET_RAW = 13
    IPC_LOCK = 14
    IPC_OWNER = 15
    SYS_MODULE = 16
    SYS_RAWIO = 17
    SYS_CHROOT = 18
    SYS_PTRACE = 19
    SYS_PACCT = 20
    SYS_ADMIN = 21
    SYS_BOOT = 22
    SYS_NICE = 23
    SYS_RESOURCE = 24
    SYS_TIME = 25
    SYS_TTY_CONFIG = 26
    MKNOD = 27
    LEASE = 28
    AUDIT_WRITE = 29
    AUDIT_CONTROL = 30
    SETFCAP = 31
    MAC_OVERRIDE = 32
    MAC_ADMIN = 33
    SYSLOG = 34
    WAKE_ALARM = 35
    BLOCK_SUSPEND = 36
    AUDIT_READ = 37
    PERFMON = 38
    BPF = 39
    CHECKPOINT_RESTORE = 40

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``CAP_NET_BIND_SERVICE``, in any case, with or without ``CAP_``; else raise ValueError."""
        name = text.strip().upper().removeprefix("CAP_")
        try:
            return cls[name]
        except KeyError:
            pass
        import difflib

        near = difflib.get_close_matches(name, cls.__members__, n=1)
        hint = f"; did you mean CAP_{near[0]}?" if near else ""
        raise ValueError(f"{text!r}: expected a capability such as CAP_NET_BIND_SERVICE{hint}")

    def __str__(self) -> str:
        return f"CAP_{self.name}"


class CapabilitySets(NamedTuple):
    """The five sets of the calling thread, each as the numbers of its capabilities."""

    effective: frozenset[int]
    permitted: frozenset[int]
    inheritable: frozenset[int]
    bounding: frozenset[int]
    ambient: frozenset[int]


def capability_sets() -> CapabilitySets:
    """Ask the kernel for the sets of the calling thread. Raises ``OSError`` where there are none."""
    words = _words()
    _call("capget", words)
    effective, permitted, inheritable = (_members(words[part], words[part + 3]) for part in range(3))
    bounding = _bounding()
    ambient = frozenset(number for number in bounding if prctl(_PR_CAP_AMBIENT, _IS_SET, number))
    limit = frozenset(number for number, inside in bounding.items() if inside)
    return CapabilitySets(effective, permitted, inheritable, limit, ambient)


def limit_capabilities(keep: Collection[int]) -> None:
    """Take all but ``keep`` out of the bounding set, for good.

    Needs CAP_SETPCAP, unless there is nothing to take out; raises ``OSError`` without.
    """
    for number, inside in _bounding().items():
        if inside and number not in keep:
            prctl(_PR_CAPBSET_DROP, number)


def set_capabilities(keep: Collection[int]) -> None:
    """Make ``keep`` the effective, permitted, inheritable and ambient set of the calling thread.

    Raises ``OSError`` if they are not all permitted now.
    """
    mask = sum(1 << number for number in keep)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    _call("capset", _words(low, low, low, high, high, high))
    prctl(_PR_CAP_AMBIENT, _CLEAR_ALL)
    for number in keep:
        prctl(_PR_CAP_AMBIENT, _RAISE, number)


def _bounding() -> dict[int, bool]:
    """Return whether each capability that this kernel knows is in the bounding set.

    Older kernels know fewer than we, newer ones may know more. The first one that it does not know ends the
    asking; ``/proc/sys/kernel/cap_last_cap`` tells too, but a chroot has no ``/proc``.
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

    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)  # 0: the calling thread
    if getattr(ctypes.CDLL(None, use_errno=True), name)(header, words) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
