"""Who an application runs as, by its settings."""

import os
from importlib import import_module
from pathlib import Path

import tamed.daemon as unix  # whole: its parts are loaded when they are used, and most have no use for them
from tamed.config.settings import Daemon
from tamed.errors import ConfigurationError

__all__ = ["drop_to", "identity_of", "kept_capabilities", "owner_of"]

_NEEDED_LATER = ("ctypes", "encodings.idna", "tamed.runner._explain")
"""What this process loads late, from folders that it cannot reach when it is shut in another one."""


def identity_of(settings: Daemon) -> "unix.Identity | None":
    """Return the user that the settings name, or None. Raises ConfigurationError for an unknown one."""
    return unix.Identity.resolve(settings.user, settings.group) if settings.user or settings.group else None


def owner_of(identity: "unix.Identity | None") -> tuple[int, int] | None:
    """Return whom the files belong to that a daemon must write later."""
    return None if identity is None else (identity.uid, identity.gid)


def kept_capabilities(settings: Daemon) -> "set[unix.Capability]":
    """Return what the settings keep. Raises ConfigurationError for what is none, or may not be kept."""
    try:
        kept = {unix.Capability.parse(name) for name in settings.keep_capability}
    except ValueError as error:
        raise ConfigurationError("keep-capability", str(error)) from error
    if kept:
        unix.require_keepable(kept)
    return kept


def drop_to(settings: Daemon, identity: "unix.Identity | None", root: Path | None = None) -> None:
    """Be shut in a directory, if one is given, and become another user, if one is named; both for good."""
    if root is not None:
        for module in _NEEDED_LATER:
            import_module(module)
        unix.change_root(root)
    if identity is not None:
        environ = identity.environ_of(os.environ)
        os.environ.clear()
        os.environ.update(environ)
        unix.drop_privileges(identity, keep=kept_capabilities(settings))
