"""The user of a daemon: finding it, changing to it, and checking that it has the needed permissions."""

import errno
import os
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.util import source_from_cache
from pathlib import Path

from tamed._os.identity import Identity
from tamed.config.deployment import Deployment
from tamed.config.job import Job
from tamed.config.settings import Daemon
from tamed.errors import CannotCreate, ConfigurationError, PermissionRefused
from tamed.unix.privileges import Capability, change_root, drop_privileges, require_keepable

__all__ = [
    "ReadAsRoot",
    "check_application",
    "check_files",
    "check_interpreter",
    "drop_to",
    "identity_of",
    "kept_capabilities",
]

_NEEDED_LATER = ("ctypes", "encodings.idna", "tamed.ipc.fault")
"""Modules that are otherwise imported late, when a chroot has made their folders unreachable."""
_NO_FILES = ("/proc/", "/sys/", "/dev/")
_WRITING = frozenset("wax+")


def identity_of(settings: Daemon) -> Identity | None:
    """Return the user that the settings name, or None. Raises ConfigurationError for an unknown one."""
    return Identity.named(settings.user, settings.group)


def kept_capabilities(settings: Daemon) -> set[Capability]:
    """Return the capabilities to keep. Raises ConfigurationError for an unknown or refused name."""
    try:
        kept = {Capability.parse(name) for name in settings.keep_capability}
    except ValueError as error:
        raise ConfigurationError("keep-capability", str(error)) from error
    if kept:
        require_keepable(kept)
    return kept


def drop_to(settings: Daemon, identity: Identity | None, root: Path | None = None) -> None:
    """Change the root directory, if one is given, and become another user, if one is named; irreversibly."""
    if root is not None:
        for module in _NEEDED_LATER:
            import_module(module)
        change_root(root)
    if identity is not None:
        environ = identity.environ_of(os.environ)
        os.environ.clear()
        os.environ.update(environ)
        drop_privileges(identity, keep=kept_capabilities(settings))


def check_files(identity: Identity | None, *, log: str = "", pid_files: Iterable[str] = ()) -> None:
    """Raise PermissionRefused or CannotCreate for files that the daemon's user cannot rotate or remove.

    ``log`` and ``pid_files`` are paths; an empty path means no file.
    """
    for what, path in (("log file", log), *(("pid file", each) for each in pid_files)):
        folder = Path(path).parent
        if path and identity is not None and folder.is_dir() and not identity.can_write_in(folder):
            if os.statvfs(folder).f_flag & os.ST_RDONLY:
                raise CannotCreate(f"{what} {path}", os.strerror(errno.EROFS), "use another")
            who = identity.name or identity.uid
            raise PermissionRefused(
                f"{what} {path}", f"user {who} cannot write in {folder}", f"give it to {who}, or use another"
            )


def check_interpreter(identity: Identity | None) -> None:
    """Raise PermissionRefused if this user cannot run this Python: replacement workers run as it."""
    if identity is None:
        return
    for path, can in (
        (Path(sys.executable), identity.can_run),
        (Path(os.__file__), identity.can_read),
        (Path(__file__), identity.can_read),
    ):
        if not can(path):
            who = identity.name or identity.uid
            raise PermissionRefused(
                f"user {who} cannot run this Python",
                f"{path} is not accessible to {who}, so no worker could be replaced",
                f"install Python and Tamed where {who} can read them",
            )


def check_application(identity: Identity | None, job: Job, deployment: Deployment | None) -> None:
    """Raise PermissionRefused for an application file that the user cannot read."""
    for path in _application_files(job, deployment):
        if identity is not None and path.is_file() and not identity.can_read(path):
            raise _unreadable(identity, path, "its workers load it as that user")


def _application_files(job: Job, deployment: Deployment | None) -> Iterator[Path]:
    if deployment is None:
        yield (job.folder or Path.cwd()) / job.target.name
        return
    for entry in deployment.services:
        if entry.application is not None:
            yield deployment.folder / entry.application


class ReadAsRoot:
    """Records the files that this process reads while it loads and prepares an application as root.

    The application's code or a library reads them, so only an audit hook of the interpreter sees every read.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._read: set[str] | None = set()
        sys.addaudithook(self._record)

    def _record(self, event: str, arguments: tuple[object, ...]) -> None:
        if event != "open" or self._read is None:
            return
        path, mode, flags = arguments
        is_read = (
            not _WRITING & set(mode) if isinstance(mode, str) else isinstance(flags, int) and not flags & 3
        )
        if is_read and isinstance(path, str | bytes):
            self._read.add(os.path.abspath(os.fsdecode(path)))  # noqa: PTH100 - a Path may come to open one

    def require_readable(self) -> None:
        """Raise PermissionRefused for a file that the user cannot read; call it as that user."""
        read, self._read = self._read or set(), None
        for path in sorted(read):
            file = Path(source_from_cache(path) if path.endswith(".pyc") else path)
            if not path.startswith(_NO_FILES) and _is_unreadable(file):
                why = "it was read as root, but a replacement worker reads it as that user"
                raise _unreadable(self._identity, file, why)


def _is_unreadable(file: Path) -> bool:
    try:
        return not os.access(file, os.R_OK) and file.is_file()
    except PermissionError:  # a parent folder is not accessible
        return True


def _unreadable(identity: Identity, path: Path, why: str) -> PermissionRefused:
    who = identity.name or identity.uid
    remedy = f"give {who} permission to read it and to enter its folders: chown, chgrp or chmod"
    return PermissionRefused(f"user {who} cannot read {path}", why, remedy)
