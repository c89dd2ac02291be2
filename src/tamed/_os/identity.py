"""The user and groups of a daemon, looked up once, as numbers.

The lookup needs the user database, which is missing in a chroot and may change; so the lookup comes first,
and later steps use the numbers.
"""

import grp
import os
import pwd
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple, Self

from tamed._os.text import did_you_mean
from tamed.errors import ConfigurationError, SystemRefused

__all__ = ["Identity", "acting_for", "become", "becomes_another", "user_folder"]

_OF_A_LOGIN = (
    *("HOME", "LOGNAME", "USER", "SHELL", "MAIL"),
    *("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"),
    *("DBUS_SESSION_BUS_ADDRESS", "SSH_AUTH_SOCK"),
)


def user_folder(environ: Mapping[str, str], variable: str, below_home: str) -> Path:
    """Return the folder of this user that a variable names, by default one below the user's home.

    The variable is one of the XDG Base Directory Specification, which demands that a relative path in it is
    ignored. A user without a home, such as a number without an entry in the user database, has ``/`` for it,
    as container engines do it.
    """
    folder, home = environ.get(variable, ""), environ.get("HOME", "")
    if folder.startswith("/"):
        return Path(folder)
    if not home.startswith("/"):
        found = _user_by_number(os.geteuid())
        home = "/" if found is None else found.pw_dir
    return Path(home, below_home)


class Identity(NamedTuple):
    """A user, a group and the supplementary groups, by number.

    ``name``, ``home`` and ``shell`` are empty for a uid without an entry in the user database. All values are
    plain data, so that an identity can be passed to another program.
    """

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str = ""
    home: str = ""
    shell: str = ""

    @classmethod
    def resolve(cls, user: str = "", group: str = "") -> Self:
        """Look up a user and a group, by name or number; an empty text means those of this process.

        The default of ``group`` is the user's primary group. The supplementary groups are those of the user
        in the database, and ``group``. Raises ConfigurationError if one does not exist.
        """
        found = _user(user) if user else _user_by_number(os.geteuid())
        if found is None:
            return cls._numbered(int(user) if user else os.geteuid(), group, is_other=bool(user))
        gid = _group(group) if group else (found.pw_gid if user else os.getegid())
        groups = os.getgrouplist(found.pw_name, gid) if user else [gid, *os.getgroups()]
        return cls(found.pw_uid, gid, tuple(sorted(set(groups))), found.pw_name, found.pw_dir, found.pw_shell)

    @classmethod
    def named(cls, user: str, group: str) -> Self | None:
        """Look up a user and a group as `resolve` does; None if both are empty."""
        return cls.resolve(user, group) if user or group else None

    @classmethod
    def _numbered(cls, uid: int, group: str, *, is_other: bool) -> Self:
        """Return the identity of a uid that is not in the user database, which is usual in containers."""
        if is_other and not group:
            raise ConfigurationError(
                f"user {uid}", "the system has no such user, so its group is unknown", "add --group"
            )
        gid = _group(group) if group else os.getegid()
        return cls(uid, gid, (gid,))

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Access files as this user inside the ``with``; needs root. May raise ``OSError``."""
        groups, gid, uid = os.getgroups(), os.getegid(), os.geteuid()
        os.setgroups(self.groups)
        os.setegid(self.gid)
        os.seteuid(self.uid)
        try:
            yield
        finally:
            os.seteuid(uid)
            os.setegid(gid)
            os.setgroups(groups)

    @property
    def is_current(self) -> bool:
        """Whether the real, effective and saved user and group of this process are these."""
        return {*os.getresuid()} == {self.uid} and {*os.getresgid()} == {self.gid}

    def environ_of(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return an environment for a process of this user, without the variables of another user's login.

        The variables of login(1) get this user's values. For a user without a name only ``HOME`` is set, to
        the root directory.
        """
        kept = {name: value for name, value in environ.items() if name not in _OF_A_LOGIN}
        if not self.name:
            return {**kept, "HOME": "/"}
        own = {"HOME": self.home, "LOGNAME": self.name, "USER": self.name, "SHELL": self.shell}
        return {**kept, **own, "MAIL": f"/var/mail/{self.name}"}

    def can_write_in(self, directory: Path) -> bool:
        """Return whether this identity may create, rename and remove files in a directory.

        A short-lived child becomes this identity and calls access(2): mode bits alone are not enough, because
        of access control lists, read-only mounts and parent directories. Raises SystemRefused if this process
        does not have the identity and may not become it.
        """
        return self._may(os.W_OK | os.X_OK, directory)

    def can_read(self, file: Path) -> bool:
        """Return whether this identity may read a file; see `can_write_in`."""
        return self._may(os.R_OK, file)

    def can_run(self, program: Path) -> bool:
        """Return whether this identity may execute a program; see `can_write_in`."""
        return self._may(os.X_OK, program)

    def _may(self, access: int, path: Path) -> bool:
        from tamed._os.fork import require_single_thread  # lazy import: commands do not need it

        require_single_thread("cannot fork")
        child = os.fork()
        if child == 0:
            os._exit(_answer(self, access, path))
        answer = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if answer not in (_YES, _NO):
            raise SystemRefused(
                f"cannot check the permissions of user {self.name or self.uid} for {path}",
                "this process may not become that user",
            )
        return answer == _YES


def acting_for(owner: Identity | None) -> AbstractContextManager[None]:
    """Open, create, rename or remove files of a user, inside the ``with``, as that user.

    If root did that as root, it would have to chown the files; and if the user can change a parent directory,
    root could open or chown a wrong file. As that user, the kernel checks the user's permissions. Without an
    ``owner``, or in a process that is not root, nothing changes. May raise ``OSError``.
    """
    return owner.acting() if owner is not None and os.geteuid() == 0 else nullcontext()


_YES, _NO, _UNKNOWN = 10, 11, 12


def _answer(identity: Identity, access: int, path: Path) -> int:
    try:
        if not identity.is_current:
            become(identity)
        return _YES if os.access(path, access, effective_ids=True) else _NO
    except BaseException:
        return _UNKNOWN


def become(identity: Identity) -> None:
    """Set the groups, the group and the user, real, effective and saved; may raise ``OSError``.

    The order matters: without root, groups cannot be set.
    """
    os.setgroups(identity.groups)
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, identity.uid)


def _user(text: str) -> pwd.struct_passwd | None:
    """Return a user's entry: by name, also for digits (POSIX requires that), otherwise by number."""
    try:
        return pwd.getpwnam(text)
    except KeyError:
        pass
    if _is_number(text):
        return _user_by_number(int(text))
    raise ConfigurationError(
        f"user {text if text.strip() else repr(text)}",
        "the system has no such user",
        did_you_mean(text, (entry.pw_name for entry in pwd.getpwall())),
    )


def _user_by_number(uid: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(uid)
    except (KeyError, OverflowError):
        return None


def _group(text: str) -> int:
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        pass
    if _is_number(text):
        return int(text)
    raise ConfigurationError(
        f"group {text if text.strip() else repr(text)}",
        "the system has no such group",
        did_you_mean(text, (entry.gr_name for entry in grp.getgrall())),
    )


def _is_number(text: str) -> bool:
    """Return whether a text is a valid id: 32 bits, and not -1, which means "no change"."""
    return text.isascii() and text.isdigit() and int(text) < 0xFFFFFFFF


def becomes_another(identity: Identity | None) -> bool:
    """Return whether this process is root and must become another user."""
    return identity is not None and identity.uid != 0 and os.geteuid() == 0
