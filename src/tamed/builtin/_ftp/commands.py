"""The commands of FTP: those of aioftp, stricter where they can be abused, and some more; and the users.

aioftp documents how to run a server, but not how to replace its parts: the attributes of a connection that
its commands use, and the methods that they call. Only this folder uses these, hence the upper bound in
pyproject.toml and a test that names them.
"""

import asyncio
import re
import stat
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Final, cast

import aioftp
from aioftp import Connection

from tamed.builtin._ftp.data import DataPort, PortRange
from tamed.builtin._ftp.files import Files
from tamed.builtin._login import LoginGate, TooManyFailures
from tamed.builtin._rooted import RootedDirectory
from tamed.log.logger import own_logger
from tamed.passwords import PasswordFile
from tamed.service.service import Service

__all__ = ["Accounts", "Commands", "Limits", "close_data"]

log = own_logger("ftp")

_ANONYMOUS: Final = {"anonymous", "ftp"}  # "ftp" as in ftpd(8)

_BLOCK: Final = 256 * 1024
"""Bytes that are read from a file at once: each read is a call in a thread."""

_HALF_A_YEAR: Final = 182 * 86400

_LARGEST: Final = 2**63 - 1
"""The largest offset in a file (lseek(2))."""

_FLAGS: Final = re.compile(r"(-\S+( |$))*")
"""Options of ls(1), which some clients put before the path."""

_FEATURES: Final = (
    "Features:",
    "EPSV",
    "MDTM",
    "MLST Type*;Size*;Modify*;Create*;",
    "REST STREAM",
    "SIZE",
    "TVFS",
    "UTF8",
    "End",
)

Line = Callable[[Connection, Any], Awaitable[str]]
"""Describes a file of a listing."""


@dataclass(frozen=True)
class Limits:
    """The timeouts for a client, in seconds, and the number of wrong passwords that it may send."""

    idle: float = 300.0
    """For a command, while there is no transfer."""
    stall: float = 60.0
    """For the next byte of a transfer."""
    data: float = 30.0
    """For the data connection."""
    tries: int = 3
    """Wrong passwords until the connection is closed."""


class Accounts(Service):
    """The anonymous user, if there is one, and those of a password file, which is read at the start.

    With ``write``, users with a password may change files; the anonymous one never may.
    """

    def __init__(self, passwords: Path | None, *, anonymous: bool, write: bool) -> None:
        super().__init__("accounts")
        self._gate = None if passwords is None else LoginGate(PasswordFile(passwords), log)
        self._anonymous = _user(write=False) if anonymous else None
        self._known = _user(write=write)

    async def start(self) -> None:
        if self._gate is not None:
            self._gate.users.load()

    @property
    def has_passwords(self) -> bool:
        """Whether there are users with a password."""
        return self._gate is not None

    def anonymous(self, name: str, host: str) -> aioftp.User | None:
        """Return the anonymous user, if there is one and this is its name. ``host`` is for the log."""
        if self._anonymous is None or name.lower() not in _ANONYMOUS:
            return None
        log.info("logged in from %s as %r, without a password", host, name)
        return self._anonymous

    async def known(self, name: str, password: str, host: str) -> aioftp.User | None:
        """Return the user with this name and password; None if there is none.

        It takes a tenth of a second, and longer after failures. Raises TooManyFailures; see `LoginGate`.
        """
        if self._gate is None or not await self._gate.verify(name, password, host):
            return None
        return self._known


def _user(*, write: bool) -> aioftp.User:
    return aioftp.User(base_path="/", permissions=[aioftp.Permission("/", writable=write)])


class Commands(aioftp.Server):
    """The implementation of each command. Answers go to its ``connection``; see `Session`."""

    def __init__(
        self, root: RootedDirectory, accounts: Accounts, ports: PortRange, address: str | None, limits: Limits
    ) -> None:
        files = cast(type[aioftp.AbstractPathIO[Path]], partial(Files, root))
        super().__init__(path_io_factory=files, block_size=_BLOCK)
        self.accounts = accounts
        self.limits = limits
        self._ports = ports
        self._address = address
        self.commands_mapping |= {
            "feat": self.feat,
            "mdtm": self.mdtm,
            "mode": self.mode,
            "nlst": self.nlst,
            "noop": self.noop,
            "opts": self.opts,
            "size": self.size,
            "stru": self.stru,
            "xcup": self.cdup,
            "xcwd": self.cwd,
            "xmkd": self.mkd,
            "xpwd": self.pwd,
            "xrmd": self.rmd,
        }

    async def user(self, connection: Connection, rest: str) -> bool:
        """Begin a login: the anonymous user is logged in at once, all others need a password."""
        del connection.user
        del connection.logged
        connection.login = rest
        anonymous = self.accounts.anonymous(rest, connection.client_host)
        if anonymous is not None:
            self._log_in(connection, anonymous)
            connection.response("230", "welcome; you may read")
        elif self.accounts.has_passwords:
            connection.response("331", "password required")
        else:
            connection.response("530", "only anonymous users may log in")
        return True

    async def pass_(self, connection: Connection, rest: str) -> bool:
        """Complete a login. Wrong passwords are answered slowly; after a few the session ends."""
        if connection.future.logged.done():
            connection.response("202", "you are logged in")
            return True
        if not connection.future.login.done():
            connection.response("503", "send USER first")
            return True
        try:
            user = await self.accounts.known(connection.login, rest, connection.client_host)
        except TooManyFailures as error:
            connection.response("421", str(error))
            return False
        if user is not None:
            self._log_in(connection, user)
            connection.response("230", "welcome")
            return True
        connection.failures += 1
        last = connection.failures >= self.limits.tries
        connection.response("421" if last else "530", "wrong user or password")
        return not last

    async def feat(self, connection: Connection, rest: str) -> bool:
        """List the extensions of RFC 959 (RFC 2389)."""
        connection.response("211", _FEATURES, True)
        return True

    async def opts(self, connection: Connection, rest: str) -> bool:
        """Accept the one option that clients set, UTF8, which is always on (RFC 2640)."""
        known = rest.upper() in {"UTF8", "UTF8 ON"}
        connection.response(*(("200", "always on") if known else ("501", "no such option")))
        return True

    async def noop(self, connection: Connection, rest: str) -> bool:
        """Do nothing."""
        connection.response("200", "")
        return True

    async def mode(self, connection: Connection, rest: str) -> bool:
        """Set the transmission mode: only stream is supported."""
        connection.response(*(("200", "") if rest.upper() == "S" else ("504", "only mode S")))
        return True

    async def stru(self, connection: Connection, rest: str) -> bool:
        """Set the file structure: only F (no record structure) is supported."""
        connection.response(*(("200", "") if rest.upper() == "F" else ("504", "only structure F")))
        return True

    async def prot(self, connection: Connection, rest: str | PurePosixPath) -> bool:
        """Set the protection of data connections, which is that of the control connection (RFC 4217)."""
        encrypted = connection.command_connection.writer.get_extra_info("sslcontext") is not None
        fits = str(rest).upper() == ("P" if encrypted else "C")
        connection.response(
            *(("200", "") if fits else ("536", "data connections are as protected as this one"))
        )
        return True

    async def rest(self, connection: Connection, rest: str) -> bool:
        """Set the offset of the next transfer."""
        if not (rest.isascii() and rest.isdigit() and int(rest) <= _LARGEST):
            connection.response("501", "expected a number of bytes")
            return True
        connection.restart_offset = int(rest)
        connection.response("350", f"the next transfer begins at {connection.restart_offset}")
        return True

    async def size(self, connection: Connection, rest: str) -> bool:
        """Return the size of a file in bytes (RFC 3659)."""
        path = await self._existing(connection, rest)
        if path is not None:
            found = await connection.path_io.stat(path)
            regular = stat.S_ISREG(found.st_mode)
            connection.response(*(("213", str(found.st_size)) if regular else ("550", "not a file")))
        return True

    async def mdtm(self, connection: Connection, rest: str) -> bool:
        """Return when a file was last changed (RFC 3659)."""
        path = await self._existing(connection, rest)
        if path is not None:
            found = await connection.path_io.stat(path)
            connection.response("213", time.strftime("%Y%m%d%H%M%S", time.gmtime(found.st_mtime)))
        return True

    async def list(self, connection: Connection, rest: str | PurePosixPath) -> bool:
        """Send a listing in the format of ls(1). Its options, which some clients send, are ignored."""
        return await self._listing(connection, _FLAGS.sub("", str(rest), count=1), self.build_list_string)

    async def mlsd(self, connection: Connection, rest: str | PurePosixPath) -> bool:
        """Send a listing for programs (RFC 3659)."""
        return await self._listing(connection, str(rest), self.build_mlsx_string)

    async def nlst(self, connection: Connection, rest: str | PurePosixPath) -> bool:
        """Send the names only. Options of ls(1) are ignored."""
        return await self._listing(connection, _FLAGS.sub("", str(rest), count=1), _name)

    async def pasv(self, connection: Connection, rest: str | PurePosixPath) -> bool:
        """Listen for the data connection of an IPv4 client."""
        host = self._address or connection.server_host.removeprefix("::ffff:")
        if ":" in host:
            connection.response("425", "send EPSV: this is an IPv6 connection")
            return True
        port = await self._expect_data(connection)
        if port is not None:
            numbers = [*host.split("."), str(port.number >> 8), str(port.number & 0xFF)]
            connection.response("227", f"entering passive mode ({','.join(numbers)})")
        return True

    async def epsv(self, connection: Connection, rest: str | PurePosixPath) -> bool:
        """Listen for the data connection of any client (RFC 2428)."""
        ours = "2" if ":" in connection.server_host else "1"
        if str(rest).upper() == "ALL":
            connection.response("200", "")
        elif rest and rest != ours:
            connection.response("522", f"this connection uses network protocol {ours} ({ours})")
        elif port := await self._expect_data(connection):
            connection.response("229", f"entering extended passive mode (|||{port.number}|)")
        return True

    @staticmethod
    def build_list_mtime(st_mtime: float, now: float | None = None) -> str:
        """Format a time as ls(1) does in English; aioftp's own method changes the locale of the process."""
        then = time.gmtime(st_mtime)
        recent = abs((time.time() if now is None else now) - st_mtime) < _HALF_A_YEAR
        month = "JanFebMarAprMayJunJulAugSepOctNovDec"[then.tm_mon * 3 - 3 : then.tm_mon * 3]
        when = f"{then.tm_hour:02}:{then.tm_min:02}" if recent else f"{then.tm_year:>5}"
        return f"{month} {then.tm_mday:>2} {when}"

    def _log_in(self, connection: Connection, user: aioftp.User) -> None:
        connection.user = user
        connection.logged = True
        connection.current_directory = user.home_path

    async def _existing(self, connection: Connection, rest: str) -> Path | None:
        """Return the file or directory of a client's path; if there is none, answer with an error."""
        if not connection.future.logged.done():
            connection.response("530", "log in first")
            return None
        path, _ = self.get_paths(connection, rest)
        if not await connection.path_io.exists(path):
            connection.response("550", "no such file")
            return None
        return path

    async def _listing(self, connection: Connection, rest: str, line: Line) -> bool:
        path = await self._existing(connection, rest)
        if path is not None and not connection.future.passive_server.done():
            connection.response("425", "send EPSV or PASV first")
        elif path is not None:
            sending = asyncio.get_running_loop().create_task(self._send_listing(connection, path, line))
            connection.extra_workers.add(sending)
            connection.response("150", "sending the listing")
        return True

    async def _send_listing(self, connection: Connection, path: Path, line: Line) -> bool:
        try:
            async with asyncio.timeout(self.limits.data):
                stream = await asyncio.shield(connection.future.data_connection)
        except TimeoutError:
            connection.response("425", "the data connection was not opened")
            return True
        del connection.data_connection
        async with stream:
            async for found in connection.path_io.list(path):
                await stream.write(f"{await line(connection, found)}\r\n".encode())
        connection.response("226", "the listing is complete")
        return True

    async def _expect_data(self, connection: Connection) -> DataPort | None:
        if not connection.future.logged.done():
            connection.response("530", "log in first")
            return None
        close_data(connection)
        try:
            port = DataPort(self._ports, connection.server_host, self.limits.stall)
        except OSError:
            connection.response("425", "no port is free; try later")
            return None
        await port.open(connection)
        connection.passive_server = port
        return port


def close_data(connection: Any) -> None:
    """Close the data port of a session, and a data connection that it has not used."""
    if connection.future.passive_server.done():
        connection.passive_server.close()
    if connection.future.data_connection.done():
        connection.data_connection.reset()
        del connection.data_connection


async def _name(_: Connection, path: Path) -> str:
    return path.name
