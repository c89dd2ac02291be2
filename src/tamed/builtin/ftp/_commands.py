"""The commands of FTP: aioftp's, with some more, and stricter where its own would not hold against abuse."""

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

from tamed.builtin._beneath import Beneath
from tamed.builtin._login import TooManyFailures
from tamed.builtin.ftp._accounts import Accounts
from tamed.builtin.ftp._data import DataPort
from tamed.builtin.ftp._files import Files
from tamed.builtin.ftp._ports import PortRange

__all__ = ["Commands", "Limits", "forget_data"]

_BLOCK: Final = 256 * 1024
"""Bytes that are read from a file at once: each time costs a trip into a thread."""

_HALF_A_YEAR: Final = 182 * 86400

_LARGEST: Final = 2**63 - 1
"""The largest offset in a file (lseek(2))."""

_FLAGS: Final = re.compile(r"(-\S+( |$))*")
"""What some clients put before the path, as for ls(1)."""

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
    """How long one waits for a client, in seconds, and how often it may err."""

    idle: float = 300.0
    """For a command, while nothing is transferred."""
    stall: float = 60.0
    """For the client to take or give anything, in the middle of a transfer."""
    data: float = 30.0
    """For the client to make the data connection."""
    tries: int = 3
    """Wrong passwords until the connection is closed."""


class Commands(aioftp.Server):
    """What each command does. The answers go to the ``connection`` that it came on; see `Session`."""

    def __init__(
        self, root: Beneath, accounts: Accounts, ports: PortRange, address: str | None, limits: Limits
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
        """Begin to log in: the anonymous user is in at once, all others are asked for a password."""
        del connection.user
        del connection.logged
        connection.login = rest
        anonymous = self.accounts.anonymous(rest, connection.client_host)
        if anonymous is not None:
            self._let_in(connection, anonymous)
            connection.response("230", "welcome; you may read")
        elif self.accounts.has_passwords:
            connection.response("331", "password required")
        else:
            connection.response("530", "only anonymous users are let in")
        return True

    async def pass_(self, connection: Connection, rest: str) -> bool:
        """End to log in. Wrong passwords are answered slowly, and not often."""
        if connection.future.logged.done():
            connection.response("202", "you are logged in")
            return True
        if not connection.future.login.done():
            connection.response("503", "say USER first")
            return True
        try:
            user = await self.accounts.known(connection.login, rest, connection.client_host)
        except TooManyFailures as error:
            connection.response("421", str(error))
            return False
        if user is not None:
            self._let_in(connection, user)
            connection.response("230", "welcome")
            return True
        connection.failures += 1
        last = connection.failures >= self.limits.tries
        connection.response("421" if last else "530", "wrong user or password")
        return not last

    async def feat(self, connection: Connection, rest: str) -> bool:
        """Say what it can beyond RFC 959 (RFC 2389)."""
        connection.response("211", _FEATURES, True)
        return True

    async def opts(self, connection: Connection, rest: str) -> bool:
        """Take the one option that clients set though it is always on (RFC 2640)."""
        known = rest.upper() in {"UTF8", "UTF8 ON"}
        connection.response(*(("200", "always on") if known else ("501", "no such option")))
        return True

    async def noop(self, connection: Connection, rest: str) -> bool:
        """Do nothing."""
        connection.response("200", "")
        return True

    async def mode(self, connection: Connection, rest: str) -> bool:
        """Set the transmission mode: there is one, the stream."""
        connection.response(*(("200", "") if rest.upper() == "S" else ("504", "only mode S")))
        return True

    async def stru(self, connection: Connection, rest: str) -> bool:
        """Set the structure of files: there is one, none."""
        connection.response(*(("200", "") if rest.upper() == "F" else ("504", "only structure F")))
        return True

    async def prot(self, connection: Connection, rest: str | PurePosixPath) -> bool:
        """Set the protection of data connections: it is that of the control connection (RFC 4217)."""
        encrypted = connection.command_connection.writer.get_extra_info("sslcontext") is not None
        fits = str(rest).upper() == ("P" if encrypted else "C")
        connection.response(*(("200", "") if fits else ("536", "data is as safe as this connection")))
        return True

    async def rest(self, connection: Connection, rest: str) -> bool:
        """Set where the next transfer begins."""
        if not (rest.isascii() and rest.isdigit() and int(rest) <= _LARGEST):
            connection.response("501", "expected a number of bytes")
            return True
        connection.restart_offset = int(rest)
        connection.response("350", f"the next transfer begins at {connection.restart_offset}")
        return True

    async def size(self, connection: Connection, rest: str) -> bool:
        """Tell how many bytes a file has (RFC 3659)."""
        path = await self._existing(connection, rest)
        if path is not None:
            found = await connection.path_io.stat(path)
            regular = stat.S_ISREG(found.st_mode)
            connection.response(*(("213", str(found.st_size)) if regular else ("550", "it is no file")))
        return True

    async def mdtm(self, connection: Connection, rest: str) -> bool:
        """Tell when a file was last changed (RFC 3659)."""
        path = await self._existing(connection, rest)
        if path is not None:
            found = await connection.path_io.stat(path)
            connection.response("213", self._format_mlsx_time(found.st_mtime))
        return True

    async def list(self, connection: Connection, rest: str | PurePosixPath) -> bool:
        """Send a listing as ls(1) would. Flags, which some clients send, are passed over."""
        return await self._listing(connection, _FLAGS.sub("", str(rest), count=1), self.build_list_string)

    async def mlsd(self, connection: Connection, rest: str | PurePosixPath) -> bool:
        """Send a listing for programs (RFC 3659)."""
        return await self._listing(connection, str(rest), self.build_mlsx_string)

    async def nlst(self, connection: Connection, rest: str | PurePosixPath) -> bool:
        """Send the names only. Flags are passed over, as in a listing."""
        return await self._listing(connection, _FLAGS.sub("", str(rest), count=1), _name)

    async def pasv(self, connection: Connection, rest: str | PurePosixPath) -> bool:
        """Listen for the data connection of an IPv4 client."""
        host = self._address or connection.server_host.removeprefix("::ffff:")
        if ":" in host:
            connection.response("425", "say EPSV: this is an IPv6 connection")
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
            connection.response("522", f"this connection is of network protocol {ours} ({ours})")
        elif port := await self._expect_data(connection):
            connection.response("229", f"entering extended passive mode (|||{port.number}|)")
        return True

    @staticmethod
    def build_list_mtime(st_mtime: float, now: float | None = None) -> str:
        """Write a time as ls(1) does in English, without aioftp's detour by the locale of the process."""
        then = time.gmtime(st_mtime)
        recent = abs((time.time() if now is None else now) - st_mtime) < _HALF_A_YEAR
        month = "JanFebMarAprMayJunJulAugSepOctNovDec"[then.tm_mon * 3 - 3 : then.tm_mon * 3]
        when = f"{then.tm_hour:02}:{then.tm_min:02}" if recent else f"{then.tm_year:>5}"
        return f"{month} {then.tm_mday:>2} {when}"

    def _let_in(self, connection: Connection, user: aioftp.User) -> None:
        connection.user = user
        connection.logged = True
        connection.current_directory = user.home_path

    async def _existing(self, connection: Connection, rest: str) -> Path | None:
        """Return where a path that a client has said leads to; answer it if that is nowhere."""
        if not connection.future.logged.done():
            connection.response("530", "log in first")
            return None
        path, _ = self.get_paths(connection, rest)
        if not await connection.path_io.exists(path):
            connection.response("550", "there is no such file")
            return None
        return path

    async def _listing(self, connection: Connection, rest: str, line: Line) -> bool:
        path = await self._existing(connection, rest)
        if path is not None and not connection.future.passive_server.done():
            connection.response("425", "say EPSV or PASV first")
        elif path is not None:
            sending = asyncio.get_running_loop().create_task(self._send_listing(connection, path, line))
            connection.extra_workers.add(sending)
            connection.response("150", "here it comes")
        return True

    async def _send_listing(self, connection: Connection, path: Path, line: Line) -> bool:
        try:
            async with asyncio.timeout(self.limits.data):
                stream = await asyncio.shield(connection.future.data_connection)
        except TimeoutError:
            connection.response("425", "nobody has made the data connection")
            return True
        del connection.data_connection
        async with stream:
            async for found in connection.path_io.list(path):
                await stream.write(f"{await line(connection, found)}\r\n".encode())
        connection.response("226", "that was all")
        return True

    async def _expect_data(self, connection: Connection) -> DataPort | None:
        if not connection.future.logged.done():
            connection.response("530", "log in first")
            return None
        forget_data(connection)
        try:
            port = DataPort(self._ports, connection.server_host, self.limits.stall)
        except OSError:
            connection.response("425", "no port is free; try later")
            return None
        await port.open(connection)
        connection.passive_server = port
        return port


def forget_data(connection: Any) -> None:
    """Give up the data connection that a session expected, or has made and not used."""
    if connection.future.passive_server.done():
        connection.passive_server.close()
    if connection.future.data_connection.done():
        connection.data_connection.reset()
        del connection.data_connection


async def _name(_: Connection, path: Path) -> str:
    return path.name
