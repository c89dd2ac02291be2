"""What functions need that run in processes of their own: a word with the test, and favours of the kernel."""

import ctypes
import json
import os
import sys
from pathlib import Path

_CLONE_NEWNS, _CLONE_NEWNET = 0x00020000, 0x40000000
_MS_REC, _MS_PRIVATE = 0x4000, 1 << 18


def _check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def say(what: object) -> None:
    """Send the test a line, as JSON; ``Child.result`` takes it."""
    sys.stdout.write(f"{json.dumps(what)}\n")
    sys.stdout.flush()


def wait() -> None:
    """Wait until the test tells something, or has ended."""
    sys.stdin.readline()


def mount_small(directory: str, size: str) -> None:
    """Mount an empty file system in memory, of this size, that only this process sees."""
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.unshare(_CLONE_NEWNS))
    _check(libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))
    _check(libc.mount(b"tmpfs", directory.encode(), b"tmpfs", 0, f"size={size}".encode()))


def own_network() -> None:
    """Have ports that nobody else uses."""
    _check(ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET))


def status_of(pid: int | str = "self") -> dict[str, str]:
    """Return the lines of ``/proc/PID/status`` as names and values."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
