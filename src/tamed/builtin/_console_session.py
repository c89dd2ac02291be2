"""A session of the console: one channel of an ssh connection."""

import asyncio
from typing import TYPE_CHECKING, Any, cast

import asyncssh

from tamed._logger import own_logger
from tamed.builtin._prompt import Dialogue, Keyboard, Limits, Lines, Sessions
from tamed.service.service import Service

if TYPE_CHECKING:
    from tamed.builtin._console_server import ConsoleServer

__all__ = ["ConsoleSession"]

log = own_logger("console")


class ConsoleSession(asyncssh.SSHServerSession[str]):
    """A prompt with line editing if there is a terminal, without if there is none, or one command.

    With a terminal asyncssh's editor is between the channel and this.
    """

    def __init__(self, server: "ConsoleServer", service: Service, sessions: Sessions, limits: Limits) -> None:
        self._server = server
        self._service = service
        self._sessions = sessions
        self._limits = limits
        self._has_terminal = False
        self._command: str | None = None
        self._task: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._room.set()

    def connection_made(self, chan: "asyncssh.SSHServerChannel[str]") -> None:
        """Take the channel."""
        self._channel = chan
        self._keyboard = Keyboard(self._read)
        self._lines = Lines(self._keyboard.line, self._keyboard.too_long, self._limits.max_line)

    def pty_requested(self, term_type: str, term_size: Any, term_modes: Any) -> bool:
        """Agree to a terminal; the editor is it."""
        self._has_terminal = True
        return True

    def shell_requested(self) -> bool:
        """Agree to a prompt."""
        return True

    def exec_requested(self, command: str) -> bool:
        """Agree to run statements."""
        self._command = command
        return True

    def session_started(self) -> None:
        """Begin, if there is room."""
        if self._sessions.full:
            log.warning("no room for %s: there are %d sessions", self._server.peer, self._sessions.most)
            self.write("there are too many sessions: try again later\n")
            self._channel.exit(1)
            return
        self._task = self._sessions.watch(self._serve(), self._server.peer)

    def data_received(self, data: str, datatype: asyncssh.DataType) -> None:
        """Take what was typed."""
        self._lines.feed(data.encode(errors="replace"))

    def break_received(self, msec: int) -> bool:
        """Take a Ctrl-C: that is how the editor tells of it."""
        if self._has_terminal and self._keyboard.interrupted is None:
            cast(asyncssh.SSHLineEditorChannel, self._channel).clear_input()
        self._keyboard.interrupt()
        return True

    def signal_received(self, signal: str) -> None:
        """Take an INT, which is a Ctrl-C from a client without a terminal."""
        if signal == "INT":
            self._keyboard.interrupt()

    def soft_eof_received(self) -> None:
        """Take a Ctrl-D."""
        self._keyboard.end()

    def eof_received(self) -> bool:
        """Do what was sent, and then end."""
        self._lines.finish()
        self._keyboard.end()
        return True

    def pause_writing(self) -> None:
        """Wait for the client to take what was sent."""
        self._room.clear()

    def resume_writing(self) -> None:
        """Go on."""
        self._room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """End: there is nobody any more."""
        if self._task is not None:
            self._task.cancel()

    def write(self, text: str) -> None:
        """Show text."""
        if not self._channel.is_closing():
            self._channel.write(text)

    async def drain(self) -> None:
        """Wait until there is room for more."""
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
