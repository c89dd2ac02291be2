"""The run directory: where commands find the instances.

Each instance has a directory of its own in it, with its pid file and its control socket:
``RUNDIR/NAME/NAME.pid`` and ``.sock``. They are not directly in the run directory, because a daemon that is
started by root and runs as another user has to remove its pid file. For that it must own the directory of the
file, and only root may own ``/run/tamed``. The same is true for its log: by default that is in a directory of
this kind too.

A directory that others can write to is not used: they could replace Tamed's files. If the
directory of an instance belongs to another user, root gives it to the new user, if it contains only files
that an instance leaves there.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack, suppress
from pathlib import Path

from tamed._os.proc import user_of
from tamed._os.text import why_no_name
from tamed._os.trust import TO_READ, first_untrusted
from tamed.errors import (
    AlreadyRunning,
    CannotCreate,
    ConfigurationError,
    PermissionRefused,
    SystemRefused,
    TamedError,
    from_creation_error,
    from_os_error,
)
from tamed.unix.lock import guardian_of_root, holder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from tamed._os.identity import Identity

__all__ = ["Instance", "RunDirectory", "check_name", "default_run_directory", "is_name"]

_OF_ROOT = Path("/run/tamed")
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def is_name(name: str) -> bool:
    """Return whether `check_name` accepts this name of an instance."""
    return not why_no_name(name)


def check_name(name: str) -> str:
    """Return the name of an instance. Raises ConfigurationError, with the reason, if it is invalid."""
    if why := why_no_name(name):
        raise ConfigurationError(f"instance name {name!r}", why, "choose one with --name")
    return name


def default_run_directory(environ: Mapping[str, str], uid: int | None = None) -> Path:
    """Return the default run directory of a user.

    For root it is ``/run/tamed``. For others it is ``tamed`` in ``XDG_RUNTIME_DIR``, if that belongs to the
    user, which is often not so after ``su``; otherwise ``tamed-UID`` in the directory for temporary files.
    """
    uid = os.geteuid() if uid is None else uid
    if uid == 0:
        return _OF_ROOT
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/") and _belongs_to(Path(runtime), uid):
        return Path(runtime, "tamed")
    return Path(environ.get("TMPDIR") or "/tmp", f"tamed-{uid}")  # noqa: S108 (create() checks its owner)


class Instance:
    """The name of an instance and its directory, which need not exist."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Instance) and (self.name, self.directory) == (other.name, other.directory)

    def __hash__(self) -> int:
        return hash((self.name, self.directory))

    @property
    def pid_file(self) -> Path:
        """The path of the pid file."""
        return self.directory / f"{self.name}.pid"

    @property
    def socket(self) -> Path:
        """The path of the control socket. It may be longer than an address: see ``bind_unix``."""
        return self.directory / f"{self.name}.sock"

    @property
    def owner(self) -> int | None:
        """The user who owns the directory, None if it does not exist."""
        try:
            return self.directory.lstat().st_uid
        except OSError:
            return None

    def require_trusted(self) -> None:
        """Raise PermissionRefused if an untrusted user may have put files into the directory.

        It, the run directory and all directories above must belong to root or to this user, and no other user
        may write in them, except in a directory with the sticky bit. Root trusts a directory that it has
        given to another user for information about that user's daemon: `holder` checks that. If others can
        create directories beside it, the daemon must be one that root has started.
        """
        owner = self.owner
        if owner is None:
            return
        is_given = os.geteuid() == 0 != owner
        _require_trusted(self.directory, {0, os.geteuid(), owner} if is_given else {0, os.geteuid()})
        if (
            is_given
            and self.directory.parent.stat().st_mode & 0o022
            and guardian_of_root(self.pid_file) is None
        ):
            why = f"it belongs to user {owner}, and root did not start its daemon"
            raise PermissionRefused(f"directory {self.directory}", why, "run the command as that user")

    @property
    def is_trusted(self) -> bool:
        """Whether `require_trusted` raises nothing."""
        try:
            self.require_trusted()
        except PermissionRefused:
            return False
        return True

    def holder(self) -> int | None:
        """Return the pid of the process that holds the pid file, None if no process does.

        Raises as the function `holder` does. For root it also raises PermissionRefused if the directory
        belongs to another user and the process does not: that user could have written any pid.
        """
        pid, owner = holder(self.pid_file), self.owner
        if pid is None or os.geteuid() != 0 or not owner or (user := user_of(pid)) is None:
            return pid
        if user != owner and guardian_of_root(self.pid_file) != pid:
            why = f"it belongs to user {owner}, but process {pid}, whose pid it contains, to user {user}"
            raise PermissionRefused(
                f"pid file {self.pid_file}", why, f"find the process: fuser -v {self.pid_file}"
            )
        return pid

    @property
    def is_running(self) -> bool:
        """Whether its pid file is held, also if the file is missing or the holder is unknown."""
        try:
            return holder(self.pid_file) is not None
        except (PermissionRefused, SystemRefused):
            return True
        except CannotCreate:
            return False

    def remove_if_empty(self) -> None:
        """Remove the directory if it is empty, the instance does not run and this user may remove it.

        The directory of a running daemon may be empty for a moment, after a clean-up; a daemon that has
        dropped root could not create it again.
        """
        if self.is_running:
            return
        try:
            self.directory.rmdir()
        except OSError:
            return


class RunDirectory:
    """A run directory. It need not exist, except for `make` and `create`, which create it.

    It, and the directory of an instance, may be a symbolic link that root has made in a folder of root's:
    then its target is used. systemd makes such links, into a folder ``private``, for ``DynamicUser``.
    """

    def __init__(self, path: Path) -> None:
        self.path = _followed(path)

    def instance(self, name: str) -> Instance:
        """Return the instance of a name, which need not exist. Raises ConfigurationError for a bad name."""
        return Instance(check_name(name), _followed(self.path / name))

    def instances(self) -> list[Instance]:
        """List the instances with a pid file, even a stale one. Raises PermissionRefused."""
        try:
            names = [entry.name for entry in self.path.iterdir() if is_name(entry.name)]
            found = [self.instance(name) for name in names]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise from_os_error(f"run directory {self.path}", error, _ANOTHER) from error
        return sorted((each for each in found if _exists(each.pid_file)), key=lambda each: each.name)

    def running(self) -> list[Instance]:
        """List the instances whose pid file exists and is held, and whose directory can be trusted.

        A pid file with an unknown holder is held too.
        """
        return [each for each in self.instances() if each.is_trusted and each.is_running]

    def require_trusted(self) -> None:
        """Raise PermissionRefused if users other than root and this one could change it or a parent."""
        trusted = {0, os.geteuid()}
        _require_trusted(self.path, trusted)
        if (found := first_untrusted(self.path, trusted, may_be_shared=True)) is not None:
            raise PermissionRefused(f"directory {self.path}", " ".join(map(str, found)), _ANOTHER)

    def create(self, name: str, owner: Identity | None = None) -> Instance:
        """Create the directory of an instance and the run directory if they are missing, and check them.

        If this process is root, the instance's directory is given to ``owner``, the user that the daemon
        will run as, by default to root. All users may read a directory created by root; one created by
        another user is for that user only. Raises CannotCreate, PermissionRefused if a directory belongs to
        another user, others can write to it or it contains other files, AlreadyRunning if it belongs to a
        running daemon of another user, and ConfigurationError for a bad name.
        """
        instance = self.instance(name)
        with ExitStack() as opened:
            folder = instance.directory.parent  # another one if the instance's directory was a link
            parent, _ = _make(folder, None)
            opened.callback(os.close, parent)
            _check(folder, os.fstat(parent), {os.geteuid(), 0})
            own, is_new = _make(instance.directory, parent)
            opened.callback(os.close, own)
            if os.geteuid() == 0:
                _give(instance, own, (owner.uid, owner.gid) if owner else (0, os.getegid()), is_new=is_new)
            _check(instance.directory, os.fstat(own), {os.geteuid(), owner.uid if owner else 0})
        return instance

    def make(self) -> None:
        """Create the run directory if it is missing, and check it. Raises as `create` does."""
        directory, _ = _make(self.path, None)
        try:
            _check(self.path, os.fstat(directory), {os.geteuid(), 0})
        finally:
            os.close(directory)


_ANOTHER = "use another one with --rundir"


def _followed(path: Path) -> Path:
    """Return the target of a path that is a symbolic link which only root could have made or could change."""
    try:
        status, above = path.lstat(), path.parent.stat()
    except OSError:
        return path
    is_roots = status.st_uid == above.st_uid == 0 and not above.st_mode & 0o022
    # Not `Path.resolve`, which before Python 3.13 raises RuntimeError for links that go in a circle.
    return Path(os.path.realpath(path)) if stat.S_ISLNK(status.st_mode) and is_roots else path


def _make(path: Path, parent: int | None) -> tuple[int, bool]:
    """Create a directory if necessary; return its descriptor, and whether it is new."""
    mode = 0o755 if os.geteuid() == 0 else 0o700
    where = path if parent is None else path.name
    while True:
        try:
            os.mkdir(where, 0o700, dir_fd=parent)
            is_new = True
        except FileExistsError:
            is_new = False
        except OSError as error:
            raise _explain(path, error) from error
        try:
            descriptor = os.open(where, _FLAGS, dir_fd=parent)
        except FileNotFoundError:
            continue  # a daemon that ends has removed it since
        except OSError as error:
            raise _explain(path, error) from error
        if is_new:
            os.fchmod(descriptor, mode)  # regardless of the umask
        return descriptor, is_new


def _require_trusted(path: Path, trusted: Collection[int]) -> None:
    try:
        status = path.lstat()
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):  # nothing can ever be there
            raise from_os_error(f"directory {path}", error, _ANOTHER) from error
        return  # it does not exist, or is not accessible: opening it reports that
    if stat.S_ISLNK(status.st_mode):
        raise PermissionRefused(f"directory {path}", "it is a symbolic link", f"remove it, or {_ANOTHER}")
    _check(path, status, trusted)


def _check(path: Path, status: os.stat_result, trusted: Collection[int]) -> None:
    what = f"directory {path}"
    if status.st_uid not in trusted:
        raise PermissionRefused(what, f"it belongs to user {status.st_uid}", f"remove it, or {_ANOTHER}")
    if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        raise PermissionRefused(what, "others can write to it", f"chmod go-w {path}")


def _give(instance: Instance, directory: int, owner: tuple[int, int], *, is_new: bool) -> None:
    """Give the directory of an instance to a user, as root.

    Logs of the previous user are given too. Other files of a daemon are stale, and are removed.
    """
    before = os.fstat(directory).st_uid
    if before == owner[0] and not is_new:
        return
    if is_new:
        os.fchown(directory, *owner)
        return
    entries = os.listdir(directory)
    if strange := next((name for name in entries if not _kind_of(instance, name)), ""):
        why = f"it belongs to user {before}, and contains a file that is not a daemon's: {strange}"
        raise PermissionRefused(f"directory {instance.directory}", why, f"remove it, or {_ANOTHER}")
    if (pid := holder(instance.pid_file)) is not None:
        raise AlreadyRunning(
            f"pid file {instance.pid_file}", f"process {pid} runs and holds it", "stop it first"
        )
    os.fchown(directory, 0, -1)  # from now on no other user changes its content
    for entry in entries:
        if _kind_of(instance, entry) == "log":
            _give_log(directory, entry, before, owner)
        else:
            with suppress(OSError):  # a directory: the code that needs the name refuses it
                os.unlink(entry, dir_fd=directory)
    os.fchown(directory, *owner)


_LEFT = ("pid", "sock", "plan", "failed", "log", "events")


def _kind_of(instance: Instance, entry: str) -> str:
    """Return the kind of an entry that a daemon of this name leaves in its directory; empty for others."""
    kind = entry.removeprefix(".").removeprefix(f"{instance.name}.")
    kind = "" if kind == entry.removeprefix(".") else kind.partition(".")[0]
    return kind if kind in _LEFT else ""


def _give_log(directory: int, entry: str, before: int, owner: tuple[int, int]) -> None:
    """Give a file to a user if it is a regular file of the previous user.

    A file of root is not given: the previous user may have moved it there.
    """
    with ExitStack() as opened:
        try:
            descriptor = os.open(entry, TO_READ, dir_fd=directory)
        except OSError:
            return  # a link, or a socket: the code that needs the name refuses or replaces it
        opened.callback(os.close, descriptor)
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid == before != 0:
            os.fchown(descriptor, *owner)


def _explain(path: Path, error: OSError) -> TamedError:
    what = f"directory {path}"
    if path.is_symlink():
        return CannotCreate(what, "it is a symbolic link", f"remove it, or {_ANOTHER}")
    if isinstance(error, FileNotFoundError):
        return CannotCreate(what, f"there is no directory {path.parent}", f"create it, or {_ANOTHER}")
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
        return False  # in a directory that is not accessible
