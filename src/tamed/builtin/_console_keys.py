"""The files with keys: the host's own, and those of the users."""

import stat
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

import asyncssh

from tamed._trust import require_trusted
from tamed.errors import CannotCreate, ConfigurationError, PermissionRefused, from_os_error

__all__ = ["authorized_keys", "host_key"]


def host_key(path: Path) -> asyncssh.SSHKey:
    """Return the host's private key; if the file does not exist, make one that only its owner can read.

    Several processes may do so at once: they all get the key of the first. Raises CannotCreate or another
    `TamedError` if the file cannot be made or read, ConfigurationError if it is not a private key without a
    passphrase, PermissionRefused if others may read it.
    """
    with suppress(FileNotFoundError):
        return _read_key(path)
    _make_key(path)
    return _read_key(path)


def authorized_keys(path: Path) -> asyncssh.SSHAuthorizedKeys:
    """Return the keys that may log in: a file as ``sshd`` has it (sshd(8), "AUTHORIZED_KEYS FILE FORMAT").

    Raises MissingInput or another `TamedError` if it cannot be read, ConfigurationError if it is not such a
    file, PermissionRefused if others may write it.
    """
    what = f"authorized keys {path}"
    try:
        _refuse(what, path, stat.S_IWGRP | stat.S_IWOTH, "go-w")
        require_trusted(path, "authorized keys")
        return asyncssh.import_authorized_keys(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise from_os_error(f"cannot read {what}", error, "name a readable file") from error
    except ValueError as error:
        raise ConfigurationError(what, str(error)) from error


def _read_key(path: Path) -> asyncssh.SSHKey:
    what = f"host key {path}"
    try:
        _refuse(what, path, stat.S_IRWXG | stat.S_IRWXO, "go-rwx")
        return asyncssh.import_private_key(path.read_bytes())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise from_os_error(f"cannot read {what}", error, "name a readable file") from error
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise ConfigurationError(what, str(error), "name a private key without a passphrase") from error


def _make_key(path: Path) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519").export_private_key()
    try:
        with NamedTemporaryFile(dir=path.parent) as file:  # which nobody else may read
            file.write(key)
            file.flush()
            with suppress(FileExistsError):  # another process was faster
                path.hardlink_to(file.name)
    except OSError as error:
        raise CannotCreate(f"cannot make the host key {path}", error.strerror or str(error)) from error


def _refuse(what: str, path: Path, bits: int, remedy: str) -> None:
    """Refuse a file that gives others permissions which only its owner may have."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & bits:
        raise PermissionRefused(what, f"its mode is {mode:o}", f"chmod {remedy} {path}")
