"""Who a program runs as: looked up by name, while there is a user database."""

import grp
import os
import pwd

from tamed.builtin.keeper import Identity
from tamed.errors import ConfigurationError

__all__ = ["home_variables", "resolve"]


def resolve(user: str, group: str) -> Identity | None:
    """Look up a user and a group, each by name or number; None if that is who we are.

    An empty text is what this process has; a user's own group is the default for the group. The
    supplementary groups are those that the system lists for the user. Raises ConfigurationError for one
    that does not exist.
    """
    uid, name, own_group = _numbers(user)
    gid = _group(group) if group else own_group
    if gid is None:
        why = "the system has no such user, so its group is not known"
        raise ConfigurationError(f"user {user}", why, "name a group too")
    if (uid, gid) == (os.geteuid(), os.getegid()):
        return None
    groups = tuple(os.getgrouplist(name, gid)) if name else (gid,)
    return Identity(uid, gid, groups, name or user)


def home_variables(user: str) -> dict[str, str]:
    """Return what tells a program whose it is: the variables that login(1) sets; none for no user."""
    entry = _user(user) if user else None
    if entry is None:
        return {}
    return {"HOME": entry.pw_dir, "LOGNAME": entry.pw_name, "USER": entry.pw_name, "SHELL": entry.pw_shell}


def _numbers(user: str) -> tuple[int, str, int | None]:
    """Return a user's number, name and own group: what is known of it."""
    if not user:
        return os.geteuid(), _name(os.geteuid()), os.getegid()
    entry = _user(user)
    if entry is not None:
        return entry.pw_uid, entry.pw_name, entry.pw_gid
    if not _is_number(user):
        raise ConfigurationError(f"user {user}", "the system has no such user")
    return int(user), "", None  # which is usual in containers


def _name(uid: int) -> str:
    entry = _user(str(uid))
    return "" if entry is None else entry.pw_name


def _user(text: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(text)
    except KeyError:
        pass
    try:
        return pwd.getpwuid(int(text))
    except (ValueError, KeyError, OverflowError):
        return None


def _group(text: str) -> int:
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        pass
    if _is_number(text):
        return int(text)
    raise ConfigurationError(f"group {text}", "the system has no such group")


def _is_number(text: str) -> bool:
    """Tell whether a text is a number that can be an id: 32 bits, and not -1, which means "leave it"."""
    return text.isascii() and text.isdigit() and int(text) < 0xFFFFFFFF
