"""Who a daemon runs as: a user and groups, looked up once, as numbers.

The lookup needs the user database, which a chroot does not have and a changed ``/etc`` may contradict; so
it comes first, and what follows works on the numbers.
"""

import grp
import os
import pwd
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple, Self

from tamed._os.fork import require_single_thread
from tamed._os.text import did_you_mean
from tamed.errors import ConfigurationError, SystemRefused

__all__ = ["Identity", "acting_for", "become"]

_OF_A_LOGIN = (
    *("HOME", "LOGNAME", "USER", "SHELL", "MAIL"),
    *("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"),
    *("DBUS_SESSION_BUS_ADDRESS", "SSH_AUTH_SOCK"),
)


class Identity(NamedTuple):
    """A user, a group and the supplementary groups, by number.

    ``name``, ``home`` and ``shell`` are empty for a user that is known by its number only. It is made of
    plain values, so that it can be handed to another program as data.
    """

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str = ""
    home: str = ""
    shell: str = ""

    @classmethod
    def resolve(cls, user: str = "", group: str = "") -> Self:
        """Look up a user and a group, by name or number; an empty text is what this process has.

        A user's own group is the default for ``group``. The supplementary groups are those that the system
        lists for the user, and ``group``. Raises ConfigurationError for one that does not exist.
        """
        found = _user(user) if user else _user_by_number(os.geteuid())
        if found is None:
            return cls._numbered(int(user) if user else os.geteuid(), group, is_other=bool(user))
        gid = _group(group) if group else (found.pw_gid if user else os.getegid())
        groups = os.getgrouplist(found.pw_name, gid) if user else [gid, *os.getgroups()]
        return cls(found.pw_uid, gid, tuple(sorted(set(groups))), found.pw_name, found.pw_dir, found.pw_shell)

    @classmethod
    def _numbered(cls, uid: int, group: str, *, is_other: bool) -> Self:
        """Make do with a number that the user database does not have, which is usual in containers."""
        if is_other and not group:
            raise ConfigurationError(
                f"user {uid}", "the system has no such user, so its group is not known", "name a group too"
            )
        gid = _group(group) if group else os.getegid()
        return cls(uid, gid, (gid,))

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Be this user for a while, in what files are concerned; for root. ``OSError`` comes through."""
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
        """Whether this process is that user, in that group, and was not another one before."""
        return _all_ids() == ({self.uid}, {self.gid})

    def environ_of(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return an environment in which nothing is of another user's login: for a process of this one.

        What login(1) sets is this user's. A user without a name has of it only a home, the root directory.
        """
        kept = {name: value for name, value in environ.items() if name not in _OF_A_LOGIN}
        if not self.name:
            return {**kept, "HOME": "/"}
        own = {"HOME": self.home, "LOGNAME": self.name, "USER": self.name, "SHELL": self.shell}
        return {**kept, **own, "MAIL": f"/var/mail/{self.name}"}

    def can_write_in(self, directory: Path) -> bool:
        """Tell whether this identity may make, rename and remove files in a directory.

        The kernel is asked, by a short-lived child that has become this identity: mode bits alone do not
        tell, there are access control lists, read-only mounts and directories above. Raises SystemRefused
        if this process may neither be nor become that identity.
        """
        return self._may(os.W_OK | os.X_OK, directory)

    def can_read(self, file: Path) -> bool:
        """Tell whether this identity may read a file; as `can_write_in` does."""
        return self._may(os.R_OK, file)

    def can_run(self, program: Path) -> bool:
        """Tell whether this identity may execute a program; as `can_write_in` does."""
        return self._may(os.X_OK, program)

    def _may(self, access: int, path: Path) -> bool:
        require_single_thread("cannot fork")
        child = os.fork()
        if child == 0:
            os._exit(_answer(self, access, path))
        answer = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if answer not in (_YES, _NO):
            raise SystemRefused(
                f"cannot tell what user {self.name or self.uid} may do with {path}",
                "this process may not become that user",
            )
        return answer == _YES


def acting_for(owner: Identity | None) -> AbstractContextManager[None]:
    """Be a user while files are opened, made, renamed or removed that are to be that user's.

    Root who does that as root has to give the files away, and where the user can change a folder above, may
    open or give away something else than was meant. Here the kernel lets the user have what that user may
    have. For a process that is not root, or without an ``owner``, nothing changes. ``OSError`` comes through.
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
    """Set the groups, the group and the user, real, effective and saved; ``OSError`` comes through.

    The order matters: who is no longer root cannot set groups.
    """
    os.setgroups(identity.groups)
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, identity.uid)


def _all_ids() -> tuple[set[int], set[int]]:
    return set(os.getresuid()), set(os.getresgid())


def _user(text: str) -> pwd.struct_passwd | None:
    """Return a user's entry: by name, as POSIX wants it for all-digit names too, else by number."""
    try:
        return pwd.getpwnam(text)
    except KeyError:
        pass
    if _is_number(text):
        return _user_by_number(int(text))
    raise ConfigurationError(
        f"user {text}",
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
        f"group {text}",
        "the system has no such group",
        did_you_mean(text, (entry.gr_name for entry in grp.getgrall())),
    )


def _is_number(text: str) -> bool:
    """Tell whether a text is a number that can be an id: 32 bits, and not -1, which means "leave it"."""
    return text.isascii() and text.isdigit() and int(text) < 0xFFFFFFFF
