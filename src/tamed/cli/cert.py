"""``tamed cert``: a local certificate authority, and certificates for development."""

import os
import re
import shlex
import ssl
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Self
from urllib.parse import quote

from tamed._os.text import shown
from tamed.errors import (
    CannotCreate,
    ConfigurationError,
    UsageError,
    from_creation_error,
    from_os_error,
)

if TYPE_CHECKING:
    from trustme import CA

__all__ = ["cert"]

_LOCAL: Final = ("localhost", "127.0.0.1", "::1")
_INSTALLED: Final = "/usr/local/share/ca-certificates/tamed-local.crt"
_PUBLIC, _SECRET = 0o644, 0o600
_LONGEST_NAME: Final = 64
"""Characters of an organizational unit (RFC 5280, A.1)."""


class _Pair(NamedTuple):
    """The files of a certificate and its key."""

    cert: Path
    key: Path

    @classmethod
    def named(cls, folder: Path, name: str) -> Self:
        return cls(folder / f"{name}.pem", folder / f"{name}-key.pem")

    def write(self, cert: bytes, key: bytes) -> None:
        """Write both files, the key first. Raises as `from_creation_error`."""
        _write(self.key, key, _SECRET)
        _write(self.cert, cert, _PUBLIC)


def cert(names: Sequence[str], *, to: str, days: int, force: bool) -> None:
    """Write a certificate for some names, and the authority that signs it if there is none."""
    names = names or _LOCAL
    folder = Path(to)
    pair = _Pair.named(folder, names[0].replace("*", "_wildcard"))
    ends = datetime.now(UTC) + timedelta(days=days)
    files = _Pair.named(folder, "authority")
    if {*pair} & {*files}:
        raise UsageError(
            f"name {names[0]!r}", "its files would be those of the authority", "begin with another"
        )
    if not force:
        _require_free(pair)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise from_creation_error(f"cannot write into {folder}", error) from error
    authority, is_new = _authority(files)
    leaf = _issue(authority, names, ends)
    if is_new:
        files.write(authority.cert_pem.bytes(), authority.private_key_pem.bytes())
        _say(f"wrote {files.cert} and {files.key}, a local authority")
    pair.write(*leaf)
    _explain(files, pair, names, ends)


def _authority(files: _Pair) -> "tuple[CA, bool]":
    """Return the authority in files, or a new one if there are none, and whether it is new."""
    try:
        from trustme import CA
    except ModuleNotFoundError as error:
        what = f"{error.name} is not installed"
        raise ConfigurationError("tamed cert", what, "pip install 'tamed[cert]'") from None
    there = [file for file in files if file.exists()]
    if not there:
        # Browsers list authorities by their names: this one says where it is.
        place = f"local authority in {files.cert.resolve().parent}"
        return CA(organization_name="Tamed", organization_unit_name=place[:_LONGEST_NAME]), True
    what = f"authority {files.cert}"
    remedy = f"remove {' and '.join(map(str, there))} to make a new authority"
    if len(there) == 1:
        (missing,) = set(files) - set(there)
        raise ConfigurationError(what, f"there is no {missing}", remedy)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files.cert, files.key, password=lambda: b"")
        return CA.from_pem(files.cert.read_bytes(), files.key.read_bytes()), False
    except (ssl.SSLError, ValueError) as error:
        why = "the key in it or beside it does not belong to the certificate, or one is damaged"
        raise ConfigurationError(what, why, remedy) from error
    except OSError as error:
        raise from_os_error(f"cannot read the {what}", error) from error


def _issue(authority: "CA", names: Sequence[str], ends: datetime) -> tuple[bytes, bytes]:
    """Return a new certificate and its key."""
    for name in names:
        # The library takes networks, too, which no client compares.
        if not re.fullmatch(r"[^/\s]+", name) or not _is_issuable(authority, name):
            expected = "expected a host name, *.DOMAIN, an address or an e-mail address"
            raise UsageError(f"name {name!r}", expected)
    leaf = authority.issue_cert(
        *names, common_name=names[0][:_LONGEST_NAME], organization_name="Tamed", not_after=ends
    )
    return b"".join(blob.bytes() for blob in leaf.cert_chain_pems), leaf.private_key_pem.bytes()


def _is_issuable(authority: "CA", name: str) -> bool:
    try:
        authority.issue_cert(name)
    except ValueError:
        return False
    return True


def _require_free(pair: _Pair) -> None:
    for file in pair:
        if file.exists() or file.is_symlink():
            raise CannotCreate(f"cannot write {file}", "there is a file of this name", "--force replaces it")


def _write(file: Path, content: bytes, mode: int) -> None:
    """Write a file with these permissions from its first moment, in one step."""
    new = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as opened:
            os.fchmod(opened.fileno(), mode)
            opened.write(content)
        new.rename(file)
    except OSError as error:
        with suppress(OSError):
            new.unlink()
        raise from_creation_error(f"cannot write {file}", error) from error


def _explain(authority: _Pair, pair: _Pair, names: Sequence[str], ends: datetime) -> None:
    """Print what to do with the files."""
    _say(f"wrote {pair.cert} and {pair.key}, for {', '.join(names)}, until {ends:%Y-%m-%d}")
    ca, cert, key = (shlex.quote(str(file)) for file in (authority.cert, *pair))
    host = next((name for name in names if "@" not in name), None)
    if host is None:
        _say("show it to a server with client_ca:")
        _say(f"    curl --cacert {ca} --cert {cert} --key {key} https://localhost:8443/")
    else:
        host = f"[{host}]" if ":" in host else host.replace("*", "www")
        files = "&".join(f"{name}={quote(bytes(file))}" for name, file in pair._asdict().items())
        listen = shlex.quote(f"tls://{host}:8443?{files}")
        _say("serve with it, and try it:")
        _say(f"    tamed run web --root . --listen {listen}")
        _say(f"    curl --cacert {ca} https://{host}:8443/")
    _say("trust the authority on this machine (Debian, as root); browsers import it in their settings:")
    _say(f"    cp {ca} {_INSTALLED} && update-ca-certificates")
    _say(f"keep {authority.key} secret: its owner can pretend to be any site to those who trust it")


def _say(line: str) -> None:
    """Print a line, which may have names of files in it."""
    print(shown(line))
