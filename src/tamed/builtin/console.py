"""The console: a Python prompt into the running process, over ssh, with line editing and history."""

import asyncio
import logging
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Final, cast

import asyncssh

from tamed._os.trust import require_trusted
from tamed.builtin._login import LoginGate, PendingLogins, TooManyFailures
from tamed.builtin._prompt.dialogue import Dialogue, Limits, Sessions, quieten
from tamed.builtin._prompt.terminal import Keyboard, Lines
from tamed.errors import CannotCreate, ConfigurationError, PermissionRefused, TamedError, from_os_error
from tamed.log.logger import own_logger
from tamed.net.endpoint import Endpoint, TcpEndpoint, address_text
from tamed.net.stream import ProtocolServer
from tamed.passwords import PasswordFile
from tamed.plugins.option import option
from tamed.plugins.plugin import plugin
from tamed.service.service import MultiService, Service

__all__ = ["Options", "Reception", "authorized_keys", "console", "host_key"]

log = own_logger("console")

_ATTEMPTS: Final = 3
"""Wrong passwords until a connection is closed."""

_SPARE: Final = 20
"""Connections beyond those of sessions and logins: without a session yet, or closing."""

_KEEPALIVE: Final = 30
"""Seconds of silence before a keepalive request; after three without an answer the client is cut off."""


@dataclass
class Options(Limits):
    """The options of ``console``."""

    port: int = option(6022, "The port number to listen on.", short="p")
    iface: str = option("127.0.0.1", "The interface to listen on.")
    listen: list[Endpoint] = option([], "An endpoint to listen on, instead of the interface and port.")
    host_key: Path = option(help="File with the host's private key; created if it does not exist.")
    authorized_keys: Path | None = option(None, "File with the public keys of users who may log in.")
    password_file: Path | None = option(
        None, "File of users who may log in with a password, and of the hashes."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        TcpEndpoint(self.iface, self.port)  # raises ValueError for invalid options
        if self.authorized_keys is None and self.password_file is None:
            raise ValueError("no user could log in; use --authorized-keys or --password-file")


class _Connection(asyncssh.SSHServerConnection):
    """A connection that ends when its server stops."""

    def connection_draining(self) -> None:
        self.disconnect(asyncssh.DISC_BY_APPLICATION, "the service is stopping")


class _Server(asyncssh.SSHServer):
    """Lets users log in to sessions only: no files, no forwarding.

    A connection that has had no session for the login timeout is closed.
    """

    peer = host = "unix"

    def __init__(self, reception: "Reception") -> None:
        self.reception = reception
        self._failures = 0
        self._had_password = False
        self._open = 0
        self._unused: asyncio.TimerHandle | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Store the connection, and count it as not logged in yet."""
        self._connection = conn
        if peer := conn.get_extra_info("peername"):
            self.peer, self.host = address_text(peer), peer[0]
        self.reception.pending.enter(self, self.host, conn.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self.reception.pending.leave(self)
        self._expect_session(False)

    async def begin_auth(self, username: str) -> bool:
        """Read the current authorized keys. Every user has to authenticate."""
        if self.reception.keys is not None:
            try:
                keys = await asyncio.to_thread(authorized_keys, self.reception.keys)
            except TamedError as error:
                log.error("no user can log in with a key: %s", error)  # noqa: TRY400 - one line is enough
            else:
                self._connection.set_authorized_keys(keys)
        return True

    def password_auth_supported(self) -> bool:
        return self.reception.gate is not None

    async def validate_password(self, username: str, password: str) -> bool:
        """Return whether a user has this password; each failure makes the next answer slower."""
        assert self.reception.gate is not None
        try:
            self._had_password = await self.reception.gate.verify(username, password, self.host)
        except TooManyFailures as error:
            raise asyncssh.DisconnectError(asyncssh.DISC_BY_APPLICATION, str(error)) from error
        if self._had_password:
            return True
        self._failures += 1
        if self._failures == _ATTEMPTS:
            raise asyncssh.DisconnectError(asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "too many failures")
        return False

    def auth_completed(self) -> None:
        """Log the user, and expect a session."""
        self.reception.pending.leave(self)
        if not self._had_password:  # otherwise the gate has logged it
            user = self._connection.get_extra_info("username")
            log.info("logged in from %s as %r, with a key", self.host, user)
        self._expect_session(True)

    def session_requested(self) -> "_Session":
        """Create a session. It is refused when it begins if there are too many."""
        return _Session(self)

    def session_begun(self) -> None:
        self._open += 1
        self._expect_session(False)

    def session_ended(self) -> None:
        self._open -= 1
        self._expect_session(self._open == 0)

    def _expect_session(self, wanted: bool) -> None:
        if self._unused is not None:
            self._unused.cancel()
            self._unused = None
        if wanted:
            loop = asyncio.get_running_loop()
            timeout = self.reception.options.login_timeout
            self._unused = loop.call_later(timeout, self._connection.close)


class _Session(asyncssh.SSHServerSession[str]):
    """One channel: a prompt, with line editing if there is a terminal, or one command.

    With a terminal, asyncssh's editor is between the channel and this.
    """

    def __init__(self, server: _Server) -> None:
        self._server = server
        self._service = server.reception
        self._sessions = server.reception.sessions
        self._limits = server.reception.options
        self._has_terminal = False
        self._command: str | None = None
        self._task: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._room.set()

    def connection_made(self, chan: "asyncssh.SSHServerChannel[str]") -> None:
        """Keep the channel."""
        self._channel = chan
        self._keyboard = Keyboard(self._read)
        self._lines = Lines(self._keyboard.line, self._keyboard.too_long, self._limits.max_line)

    def pty_requested(self, term_type: str, term_size: Any, term_modes: Any) -> bool:
        """Accept a terminal, for which asyncssh edits the lines."""
        self._has_terminal = True
        return True

    def shell_requested(self) -> bool:
        """Accept a prompt."""
        return True

    def exec_requested(self, command: str) -> bool:
        """Accept statements to run."""
        self._command = command
        return True

    def session_started(self) -> None:
        """Begin, if there is room for a session."""
        if self._sessions.full:
            log.warning("refused %s: there are already %d sessions", self._server.peer, self._sessions.most)
            self.write("too many sessions: try again later\n")
            self._channel.exit(1)
            return
        self._task = self._sessions.watch(self._serve(), self._server.peer)

    def data_received(self, data: str, datatype: asyncssh.DataType) -> None:
        self._lines.feed(data.encode(errors="replace"))

    def break_received(self, msec: int) -> bool:
        """Handle a Ctrl-C, which the editor reports as a break."""
        if self._has_terminal and self._keyboard.on_interrupt is None:
            cast(asyncssh.SSHLineEditorChannel, self._channel).clear_input()
        self._keyboard.interrupt()
        return True

    def signal_received(self, signal: str) -> None:
        """Handle a Ctrl-C of a client without a terminal, which is a signal."""
        if signal == "INT":
            self._keyboard.interrupt()

    def soft_eof_received(self) -> None:
        """Handle a Ctrl-D."""
        self._keyboard.end()

    def eof_received(self) -> bool:
        """Run the input so far, and then end."""
        self._lines.finish()
        self._keyboard.end()
        return True

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()

    def write(self, text: str) -> None:
        if not self._channel.is_closing():
            self._channel.write(text)

    async def drain(self) -> None:
        await self._room.wait()

    def _read(self, on: bool) -> None:
        if on:
            self._channel.resume_reading()
        else:
            self._channel.pause_reading()

    async def _serve(self) -> None:
        self._server.session_begun()
        status = 0
        try:
            with self._sessions.counted():
                dialogue = Dialogue(self._service, self, self._keyboard, self._limits)
                if self._command is None:
                    await dialogue.converse(greeting=self._has_terminal)
                else:
                    status = 0 if await dialogue.run_script(self._command) else 1
        finally:
            self._server.session_ended()
            if not self._channel.is_closing():
                self._channel.exit(status)


def host_key(path: Path) -> asyncssh.SSHKey:
    """Return the host's private key; if the file does not exist, create one that only its owner can read.

    Several processes may call this at once, and all get the same key. Raises CannotCreate or another
    `TamedError` if the file cannot be created or read, ConfigurationError if it is not a private key without
    a passphrase, PermissionRefused if others may read it.
    """
    with suppress(FileNotFoundError):
        return _read_key(path)
    _make_key(path)
    return _read_key(path)


def authorized_keys(path: Path) -> asyncssh.SSHAuthorizedKeys:
    """Read the public keys that may log in, in the format of sshd(8), "AUTHORIZED_KEYS FILE FORMAT".

    Raises MissingInput or another `TamedError` if it cannot be read, ConfigurationError if it is not such a
    file, PermissionRefused if others may write it.
    """
    what = f"authorized keys {path}"
    try:
        _refuse(what, path, stat.S_IWGRP | stat.S_IWOTH, "go-w")
        require_trusted(path, "authorized keys")
        return asyncssh.import_authorized_keys(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise from_os_error(f"cannot read {what}", error, "use a readable file") from error
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
        raise from_os_error(f"cannot read {what}", error, "use a readable file") from error
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise ConfigurationError(what, str(error), "use a private key without a passphrase") from error


def _make_key(path: Path) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519").export_private_key()
    try:
        with NamedTemporaryFile(dir=path.parent) as file:  # with mode 0600
            file.write(key)
            file.flush()
            with suppress(FileExistsError):  # another process created it
                path.hardlink_to(file.name)
    except OSError as error:
        raise CannotCreate(f"cannot create the host key {path}", error.strerror or str(error)) from error


def _refuse(what: str, path: Path, bits: int, remedy: str) -> None:
    """Raise PermissionRefused for a file that gives others one of these permissions."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & bits:
        raise PermissionRefused(what, f"its mode is {mode:o}", f"chmod {remedy} {path}")


log = own_logger("console")


class Reception(Service):
    """Reads the keys, and makes the protocol of each connection."""

    def __init__(self, options: Options, sessions: Sessions) -> None:
        super().__init__("reception")
        self.options = options
        self.sessions = sessions
        self.keys = options.authorized_keys
        users = options.password_file
        self.gate = None if users is None else LoginGate(PasswordFile(users), log)
        self.pending = PendingLogins()

    @property
    def most_connections(self) -> int:
        """The maximum number of connections, in any state."""
        return self.sessions.most + self.pending.most + _SPARE

    async def prepare(self) -> None:
        """Read files while still privileged. Not in a thread: with one, privileges cannot be dropped."""
        self._key = host_key(self.options.host_key)
        if self.gate is not None:
            self.gate.users.load()

    async def start(self) -> None:
        """Check that the authorized keys can be read, and set asyncssh up."""
        if self.keys is not None:
            await asyncio.to_thread(authorized_keys, self.keys)
        quieten("asyncssh", logging.WARNING)  # it logs a dozen lines for each session, with every command
        self._ssh = asyncssh.SSHServerConnectionOptions(
            server_factory=self._server,
            server_host_keys=[self._key],
            login_timeout=float(self.options.login_timeout),
            keepalive_interval=_KEEPALIVE,
            max_line_length=int(self.options.max_line),
            errors="replace",
            agent_forwarding=False,
            gss_host=None,  # otherwise it looks up this host's name in the DNS
            host_based_auth=False,
            kbdint_auth=False,
            password_auth=self.gate is not None,
        )

    def protocol(self) -> _Connection:
        """Return the protocol of a new connection.

        asyncssh's own functions accept connections themselves, and call this constructor. Here the server
        accepts them, so this calls it.
        """
        return _Connection(asyncio.get_running_loop(), self._ssh)

    def _server(self) -> _Server:
        return _Server(self)


@plugin
def console(options: Options) -> Service:
    """A Python prompt into the running process, over ssh."""
    sessions = Sessions(options.max_sessions)
    reception = Reception(options, sessions)
    server = ProtocolServer(
        options.listen or [TcpEndpoint(options.iface, options.port)],
        reception.protocol,
        name="server",
        max_connections=reception.most_connections,
    )
    return MultiService("console", sessions, reception, server)
