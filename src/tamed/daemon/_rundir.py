"""The run directory: where instances live, are found and reached.

Each instance has a directory of its own in it, with its pid file, its control socket and by default its
log: ``RUNDIR/NAME/NAME.pid``, ``.sock`` and ``.log``. They are not side by side in the run directory since
a daemon that was started by root and runs as somebody else has to remove its pid file and rotate its log:
for both it must own the directory they are in, and nobody may own ``/run/tamed`` but root.

A directory that others can write to is not used: they could put their own files under the names of ours.
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tamed.daemon._holder import holder
from tamed.errors import (
    CannotCreate,
    ConfigurationError,
    PermissionRefused,
    SystemRefused,
    TamedError,
    from_creation_error,
    from_os_error,
)

__all__ = ["Instance", "InstanceFolder", "RunDirectory", "check_name", "default_run_directory"]

_OF_ROOT = Path("/run/tamed")
_LONGEST = 64  # bytes
_ALSO = "_.@+-"  # in a name, besides letters and digits
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _is_bad(name: str) -> bool:
    try:
        check_name(name)
    except ConfigurationError:
        return True
    return False


def check_name(name: str) -> str:
    """Return the name of an instance, or raise ConfigurationError which says what is wrong with it."""
    if not name or len(os.fsencode(name)) > _LONGEST:
        why = f"a name has 1 to {_LONGEST} bytes"
    elif not name[0].isalnum() and name[0] != "_":
        why = "a name begins with a letter, a digit or _"
    elif bad := next((one for one in name if not one.isalnum() and one not in _ALSO), ""):
        why = f"a name has letters, digits and {_ALSO} only, not {bad!r}"
    else:
        return name
    raise ConfigurationError(f"instance name {name!r}", why, "name it with --name")


def default_run_directory(environ: Mapping[str, str], uid: int | None = None) -> Path:
    """Return where the run directory of a user is, unless the operator names one.

    For root it is ``/run/tamed``. For others it is ``tamed`` in ``XDG_RUNTIME_DIR``, if that is really this
    user's, which after ``su`` it often is not, or else ``tamed-UID`` in the directory for temporary files.
    """
    uid = os.geteuid() if uid is None else uid
    if uid == 0:
        return _OF_ROOT
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/") and _belongs_to(Path(runtime), uid):
        return Path(runtime, "tamed")
    return Path(environ.get("TMPDIR") or "/tmp", f"tamed-{uid}")  # noqa: S108 (create() checks whose it is)


class Instance(NamedTuple):
    """A name and the directory of its own. Nothing of it need exist."""

    name: str
    directory: Path

    @property
    def pid_file(self) -> Path:
        """Where the pid file is."""
        return self.directory / f"{self.name}.pid"

    @property
    def socket(self) -> Path:
        """Where the control socket is. The path may be longer than an address: see ``bind_unix``."""
        return self.directory / f"{self.name}.sock"

    @property
    def log(self) -> Path:
        """Where the log is, unless the operator names another place."""
        return self.directory / f"{self.name}.log"

    @property
    def is_running(self) -> bool:
        """Whether its pid file is held, also while that is swept away, or held by who knows whom."""
        try:
            return holder(self.pid_file) is not None
        except (PermissionRefused, SystemRefused):
            return True
        except CannotCreate:
            return False

    def remove_if_empty(self) -> None:
        """Remove the directory if nothing is left in it and this user may; else leave it."""
        try:
            self.directory.rmdir()
        except OSError:
            return


class RunDirectory:
    """A run directory, which need not exist for looking into it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def instance(self, name: str) -> Instance:
        """Return where an instance lives or would live. Raises ConfigurationError for a bad name."""
        return Instance(check_name(name), self.path / name)

    def instances(self) -> list[Instance]:
        """List those that have a pid file, be it stale; PermissionRefused if this user may not look."""
        try:
            found = [Instance(entry.name, entry) for entry in self.path.iterdir() if not _is_bad(entry.name)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise from_os_error(f"run directory {self.path}", error, _ANOTHER) from error
        return sorted(instance for instance in found if _exists(instance.pid_file))

    def running(self) -> list[Instance]:
        """List those whose pid file is there, and held. One whose holder cannot be told is held too."""
        return [instance for instance in self.instances() if instance.is_running]

    def create(self, name: str, owner: tuple[int, int] | None = None) -> Instance:
        """Make the directory of an instance, and the run directory, where they are missing, and check them.

        If this process is root, the instance's directory is given to ``owner``, a user and a group: the
        ones that the daemon will run as. Anyone may then look into it; what others make is for its user
        only. Raises CannotCreate, PermissionRefused if a directory belongs to somebody else or others can
        write to it, and ConfigurationError for a bad name.
        """
        instance = self.instance(name)
        parent = _make(self.path, None, {os.geteuid(), 0})
        try:
            trusted = {os.geteuid(), 0} if owner is None else {os.geteuid(), 0, owner[0]}
            own = _make(instance.directory, parent, trusted)
            try:
                if owner is not None and os.geteuid() == 0:
                    os.fchown(own, *owner)
            finally:
                os.close(own)
        finally:
            os.close(parent)
        return instance


class InstanceFolder:
    """The folder of an instance, which belongs to the user that the daemon runs as."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._mode = _mode_of(instance.directory)

    def tend(self) -> bool:
        """Make the folder, and the run directory, if they are gone. Raises as `RunDirectory.create` does."""
        mode = _mode_of(self._instance.directory)
        if mode is not None:
            self._mode = mode
            return False
        RunDirectory(self._instance.directory.parent).create(self._instance.name)
        if self._mode is not None:
            self._instance.directory.chmod(self._mode)
        return True


def _mode_of(directory: Path) -> int | None:
    try:
        status = os.lstat(directory)
    except OSError:
        return None
    return stat.S_IMODE(status.st_mode) if stat.S_ISDIR(status.st_mode) else None


_ANOTHER = "name another one with --rundir"


def _make(path: Path, parent: int | None, trusted: set[int]) -> int:
    """Make a directory if need be, and return it open, after a look at whose it is."""
    mode = 0o755 if os.geteuid() == 0 else 0o700
    where = path if parent is None else path.name
    try:
        try:
            os.mkdir(where, 0o700, dir_fd=parent)
            is_new = True
        except FileExistsError:
            is_new = False
        descriptor = os.open(where, _FLAGS, dir_fd=parent)
    except OSError as error:
        raise _explain(path, error) from error
    try:
        if is_new:
            os.fchmod(descriptor, mode)  # whatever the umask
        _check(path, os.fstat(descriptor), trusted, is_instance=parent is not None)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check(path: Path, status: os.stat_result, trusted: set[int], *, is_instance: bool) -> None:
    what = f"directory {path}"
    if status.st_uid not in trusted:
        uid = status.st_uid
        again = f"start it with --user {uid} again, " if is_instance and os.geteuid() == 0 else ""
        raise PermissionRefused(what, f"it belongs to user {uid}", f"{again}remove it, or {_ANOTHER}")
    if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        raise PermissionRefused(what, "others can write to it", f"chmod go-w {path}")


def _explain(path: Path, error: OSError) -> TamedError:
    what = f"directory {path}"
    if path.is_symlink():
        return CannotCreate(what, "it is a symbolic link", f"remove it, or {_ANOTHER}")
    if isinstance(error, FileNotFoundError):
        return CannotCreate(what, f"there is no directory {path.parent}", f"make it, or {_ANOTHER}")
    if isinstance(error, PermissionError):
        return PermissionRefused(what, error.strerror or "", _ANOTHER)
    return from_creation_error(what, error, _ANOTHER)


def _belongs_to(directory: Path, uid: int) -> bool:
    try:
        status = directory.stat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == uid


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False  # in a directory that is not for us
