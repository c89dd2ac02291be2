"""What the tests of appending do in processes of their own, with limits that the kernel holds."""

import fcntl
import os
import resource

from tamed.log.file import Appender


def append_up_to(path: str, limit: int) -> list[object]:
    """Append where a file can have so many bytes only."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    appender = Appender(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT))
    count, _ = appender.append([b"one\n", b"two\n", b"six\n", b"ten\n"])
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return [count, os.pread(appender.fileno(), 100, 0).decode()]


def append_where_nothing_can_be_cut() -> list[list[object]]:
    """Append to a file that may not shrink, with little room; then have both changed."""
    sealed = os.memfd_create("sealed", os.MFD_ALLOW_SEALING)
    fcntl.fcntl(sealed, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    appender = Appender(sealed)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6, resource.RLIM_INFINITY))
    seen = [attempt(appender, [b"one\n", b"two\n"]), attempt(appender, [b"six\n"])]
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    free = os.memfd_create("free")
    fcntl.fcntl(free, fcntl.F_SETFL, os.O_APPEND)
    os.write(free, os.pread(sealed, 100, 0))
    os.dup2(free, sealed)
    return [*seen, attempt(appender, [b"six\n"])]


def attempt(appender: Appender, records: list[bytes]) -> list[object]:
    """Append, and return what came of it."""
    count, failure = appender.append(records)
    why = failure.strerror if failure else ""
    return [count, why, os.pread(appender.fileno(), 100, 0).decode()]
