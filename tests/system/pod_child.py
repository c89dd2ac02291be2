"""Become the first process of a container: ``unshare ... python pod_child.py SPECIFICATION``, as root.

What a container runtime does between the namespaces and the program: a root directory that is read-only but
for its volumes, an address, one user without any capability, and no way to get more. A step of a build is
root, in a root directory that it may change.
"""

import ctypes
import fcntl
import json
import os
import socket
import struct
import sys
from pathlib import Path
from typing import Any

_MS_RDONLY, _MS_NOSUID, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 2, 32, 4096, 16384, 1 << 18
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
_SIOCSIFADDR, _SIOCSIFFLAGS, _IFF_UP = 0x8916, 0x8914, 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Set the container up, and execute its program."""
    specification: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    _set_up_network(specification["address"])
    for name, value in specification["sysctls"].items():
        Path("/proc/sys", name.replace(".", "/")).write_text(value)
    root = Path(specification["root"])
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    if specification["is_build"]:
        _mount(str(root), str(root), None, _MS_BIND)
    else:
        _mount("tmpfs", str(root), "tmpfs", 0, "mode=755")
    for place in ("usr", "bin", "sbin", "lib", "lib64", "etc", "dev"):
        _add(root, Path("/", place))
    (root / "proc").mkdir(exist_ok=True)
    _mount("proc", str(root / "proc"), "proc", _MS_NOSUID)
    for folder in specification["writable"]:
        place = root / folder.lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        _mount("tmpfs", str(place), "tmpfs", 0, "mode=777")
    for source, target in specification["files"]:
        _bind(Path(source), root / target.lstrip("/"))
    if not specification["is_build"]:
        _mount("tmpfs", str(root), None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY)
    os.chroot(root)
    os.chdir(specification["directory"])
    if not specification["is_build"]:
        _drop(specification["user"])
    command: list[str] = specification["command"]
    os.execvpe(command[0], command, specification["environment"])


def _set_up_network(address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))
        there = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))
        fcntl.ioctl(sock, _SIOCSIFADDR, struct.pack("16s16s", b"lo:0", there))


def _add(root: Path, place: Path) -> None:
    if place.is_symlink():
        if not (root / place.name).is_symlink():
            (root / place.name).symlink_to(place.readlink())
    elif place.exists():
        _bind(place, root / place.name)


def _bind(source: Path, target: Path) -> None:
    """Make a file or a folder visible at another path, where it cannot be changed."""
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    _mount(str(source), str(target), None, _MS_BIND | _MS_REC)
    if source != Path("/dev"):
        _mount("none", str(target), None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY)


def _drop(user: int) -> None:
    for capability in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
        _check(_LIBC.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0))
    os.setgroups([user])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    _check(_LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def _mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    encoded = None if kind is None else kind.encode()
    _check(_LIBC.mount(source.encode(), target.encode(), encoded, flags, data.encode()))


def _check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    main()
