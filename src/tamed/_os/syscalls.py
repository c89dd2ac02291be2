"""Calls of the kernel that the standard library does not have; ``ctypes`` is loaded by the first of them."""

import errno
import os
import signal
import sys

__all__ = [
    "be_subreaper",
    "call",
    "die_with_parent",
    "forbid_new_privileges",
    "leave_keyring",
    "prctl",
]

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 36, 38  # linux/prctl.h

# keyctl(2), for which the C library has no function: its number by the machine, for programs of 64 bits.
_KEYCTL = {
    "x86_64": 250,
    "aarch64": 219,
    "loongarch64": 219,
    "ppc64le": 271,
    "riscv64": 219,
    "s390x": 280,
}
_JOIN_SESSION_KEYRING = 1  # linux/keyctl.h
_NO_KEYRINGS = (errno.ENOSYS, errno.EPERM, errno.EACCES)


def call(name: str, *arguments: object) -> int:
    """Call a function of the C library and return what it returns.

    Raises ``OSError``, with what the kernel said, for a result below 0.
    """
    import ctypes  # not above: it takes a megabyte

    result: int = getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def prctl(option: int, *arguments: int) -> int:
    """Call the function of the C library with up to four arguments; as `call` does."""
    from ctypes import c_ulong

    filled = (*arguments, 0, 0, 0, 0)[:4]  # the kernel demands that unused ones are 0
    return call("prctl", option, *map(c_ulong, filled))


def be_subreaper(yes: bool = True) -> None:
    """Adopt the orphans among our descendants, or no longer."""
    prctl(_PR_SET_CHILD_SUBREAPER, yes)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends; kept by exec, unless that changes the user."""
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def forbid_new_privileges() -> None:
    """Let no program that is executed from now on gain privileges by setuid bits or file capabilities."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def leave_keyring() -> None:
    """Begin a session keyring of its own (session-keyring(7)), in a process that becomes another user.

    A login's keyring goes along with whatever it starts, and its keys can be used by whoever has it, of
    whichever user: change of user or not. To be called before the change, since a user may have no room for
    a keyring left. A system that has none, or lets nobody use them (a filter of a container), has none to
    leave. ``OSError`` comes through.
    """
    number = _KEYCTL.get(os.uname().machine)
    if number is None or sys.maxsize < 1 << 32:
        return
    try:
        call("syscall", number, _JOIN_SESSION_KEYRING, None)
    except OSError as error:
        if error.errno not in _NO_KEYRINGS:
            raise
