"""The options of every plugin that runs programs, the types of their values, and the resulting program."""

import fnmatch
import os
import resource
import shlex
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from tamed._os.identity import Identity
from tamed._os.text import did_you_mean
from tamed.builtin.programs.shim import Program
from tamed.plugins.option import option
from tamed.plugins.values import Duration, Size

__all__ = ["Command", "ProgramOptions", "Signal", "Umask"]

_OURS: Final = frozenset(
    {
        "NOTIFY_SOCKET",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
        "LISTEN_PID",
        "LISTEN_FDS",
        "LISTEN_FDNAMES",
        "FDSTORE",
    }
)
"""Variables for Tamed only: with them, a program could send messages in Tamed's name."""

_PASSED: Final = ("PATH", "HOME", "LOGNAME", "USER", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR")
"""Variables of Tamed that every program gets: those that a login sets."""

_LIMITS: Final = {
    name.removeprefix("RLIMIT_").lower() for name in dir(resource) if name.startswith("RLIMIT_")
}


class Command(tuple[str, ...]):
    """A program and its arguments, quoted as for a shell, though no shell is used.

    Words are split at spaces; quotes and backslashes keep a word together. There are no variables, wildcards
    or pipes; for those there is ``sh -c '...'``.
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a command. Raises ValueError for one without a program, or with an open quote."""
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise ValueError(f"expected a command, got {text!r}: {str(error).lower()}") from error
        if not words or not words[0] or "\0" in text:
            raise ValueError("expected a command, such as nginx -g 'daemon off;'")
        return cls(words)

    def relative_to(self, folder: Path) -> "Command":
        """Return the command with a relative path of its program taken from that folder."""
        program, *arguments = self
        return Command((str(folder / program), *arguments)) if "/" in program else self

    @property
    def name(self) -> str:
        """The program's name, without its path."""
        return os.path.basename(self[0])  # noqa: PTH119 - it returns a text

    def __str__(self) -> str:
        """Return a text that ``parse`` reads back."""
        return shlex.join(self)


class Signal(int):
    """A signal, by its name, with ``SIG`` or without, or its number."""

    __slots__ = ()

    def __new__(cls, number: int) -> Self:
        """Check a number. Raises ValueError if the system has no such signal."""
        if number not in signal.valid_signals():
            raise ValueError(f"expected a signal, got {number}")
        return super().__new__(cls, number)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a name or a number."""
        word = text.strip().upper().removeprefix("SIG")
        if word.isascii() and word.isdigit() and len(word) < 4:
            return cls(int(word))
        names = {each.name.removeprefix("SIG"): each for each in signal.Signals}
        if word not in names:
            hint = did_you_mean(word, names, "such as TERM, INT, QUIT, HUP or USR1")
            raise ValueError(f"expected a signal, got {text!r}; {hint}")
        return cls(names[word])

    def __str__(self) -> str:
        try:
            return signal.Signals(self).name.removeprefix("SIG")
        except ValueError:  # a real-time one
            return format(int(self))


@dataclass(frozen=True, slots=True)
class Umask:
    """A file-creation mask, written as an octal text; a number would be read as decimal."""

    mode: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an octal number up to 0777; raises ValueError for anything else."""
        if not (0 < len(text) <= 4 and set(text) <= set("01234567") and int(text, 8) <= 0o777):
            raise ValueError(f"expected an octal umask, such as 0027, got {text!r}")
        return cls(int(text, 8))

    def __str__(self) -> str:
        return f"{self.mode:04o}"


@dataclass
class ProgramOptions:
    """How a program is run."""

    command: Command = option(help="Program and its arguments, quoted as for a shell; no shell is used.")
    directory: Path | None = option(None, "The program's working directory. Default: Tamed's.")
    environment: dict[str, str] = option({}, "Variables for the program.", env=False)
    pass_environment: list[str] = option(
        [],
        "A variable of Tamed to pass on, or a pattern such as APP_* or *. PATH and others always are.",
    )
    user: str = option("", "User to run it as, by name or number; Tamed must be root.")
    group: str = option("", "Group to run it as. Default: the user's own.")
    no_new_privileges: bool | None = option(
        None, "Do not let it gain privileges by setuid programs. Default: yes if a user is given."
    )
    umask: Umask | None = option(None, "Its file-creation mask, in octal.")
    limit: dict[str, Size] = option(
        {}, "A limit of getrlimit(2), such as nofile=65536, core=0 or as=2GiB.", env=False
    )
    stop_signal: Signal = option(Signal(signal.SIGTERM), "Signal that asks it to end.")
    stop_timeout: Duration = option(
        Duration("10s"), "Time to end after the signal; then it is killed, with all its descendants."
    )
    line_limit: Size = option(Size("8 KiB"), "Longest line of its output that is logged in one piece.")

    def __post_init__(self) -> None:
        for name in self.limit:
            if name not in _LIMITS:
                raise ValueError(
                    f"unknown limit {name!r}; "
                    f"{did_you_mean(name, _LIMITS, 'there are ' + ', '.join(sorted(_LIMITS)))}"
                )

    def program(self) -> Program:
        """Return the program.

        Raises ConfigurationError for a user or a group that does not exist.
        """
        inherited = {
            name: value
            for name, value in {"PATH": os.defpath, **os.environ}.items()
            if name not in _OURS
            and any(fnmatch.fnmatchcase(name, each) for each in (*_PASSED, *self.pass_environment))
        }
        name, *arguments = self.command
        # Relative to Tamed's directory: the program's may differ.
        path = os.path.abspath(name) if "/" in name else name  # noqa: PTH100 - nor are links to be resolved
        identity = Identity.named(self.user, self.group)
        return Program(
            command=(path, *arguments),
            environment={**inherited, **self._login_variables(identity), **self.environment},
            directory="" if self.directory is None else str(self.directory.absolute()),
            umask=None if self.umask is None else self.umask.mode,
            identity=None if identity is None or identity.is_current else identity,
            no_new_privileges=bool(self.user) if self.no_new_privileges is None else self.no_new_privileges,
            limits=self.limit,
            stop_signal=self.stop_signal,
            stop_timeout=self.stop_timeout,
        )

    def _login_variables(self, identity: Identity | None) -> dict[str, str]:
        """Return the variables that login(1) sets for the user of the options, if that has a name."""
        if identity is None or not self.user or not identity.name:
            return {}
        name = identity.name
        return {"HOME": identity.home, "LOGNAME": name, "USER": name, "SHELL": identity.shell}
