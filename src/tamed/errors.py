"""The public exceptions, one class for each kind of fault, each with its exit status.

An error is a sentence on one line: what failed, why, and the remedy. The three parts are fields, so that
programs and tests need not parse the sentence.

The statuses are those of ``sysexits.h``; see also ``docs/reference/exit-status.md``.
"""

from __future__ import annotations

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar, Final

__all__ = [
    "AlreadyRunning",
    "ApplicationFailed",
    "CannotCreate",
    "ConfigurationError",
    "DeadlinePassed",
    "Errors",
    "ExitStatus",
    "MissingInput",
    "PermissionRefused",
    "ServiceFailed",
    "ServiceMisuse",
    "SystemRefused",
    "TamedError",
    "Unavailable",
    "UsageError",
    "exit_code",
    "exit_request",
    "from_creation_error",
    "from_os_error",
    "reason",
    "status_of",
]


class ExitStatus:
    """The exit statuses of Tamed's processes, unless a signal ends them: the codes of ``sysexits.h``.

    They are integers. As an enumeration they were two fifths of an interpreter's start, in every command.
    """

    OK: Final = 0
    USAGE: Final = 64
    NO_INPUT: Final = 66
    UNAVAILABLE: Final = 69
    SOFTWARE: Final = 70
    OS_ERROR: Final = 71
    CANNOT_CREATE: Final = 73
    ALREADY_RUNNING: Final = 75
    NO_PERMISSION: Final = 77
    CONFIGURATION: Final = 78


class TamedError(Exception):
    """The base class of all errors that Tamed raises on purpose.

    ``what`` is the failed action and its object, ``why`` the reason, and ``remedy`` the advice to the user;
    the last two may be empty. ``str()`` is all three, on one line. ``others`` are errors that were found with
    it, each to be fixed as well.
    """

    status: ClassVar[int] = ExitStatus.SOFTWARE
    others: tuple[TamedError, ...] = ()

    def __init__(self, what: str, why: str = "", remedy: str = "") -> None:
        super().__init__(what, why, remedy)
        self.what = what
        self.why = why
        self.remedy = remedy

    def __str__(self) -> str:
        sentence = f"{self.what}: {self.why}" if self.why else self.what
        sentence = f"{sentence}; {self.remedy}" if self.remedy else sentence
        return " ".join(sentence.split())


class UsageError(TamedError):
    """The command line is wrong."""

    status = ExitStatus.USAGE


class MissingInput(TamedError):
    """A file does not exist that the operator or the program has named."""

    status = ExitStatus.NO_INPUT


class Unavailable(TamedError):
    """An address is in use, does not resolve, is not on this machine, or does not answer."""

    status = ExitStatus.UNAVAILABLE


class ApplicationFailed(TamedError):
    """The application's code is at fault: it raised an exception, or broke a rule of Tamed."""

    status = ExitStatus.SOFTWARE


class DeadlinePassed(ApplicationFailed):
    """A service did not finish a phase before its deadline, in seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"not done within {seconds:g} s")
        self.args = (seconds,)  # for copying
        self.seconds = seconds


class SystemRefused(TamedError):
    """The operating system refused a call that usually succeeds."""

    status = ExitStatus.OS_ERROR


class CannotCreate(TamedError):
    """Tamed cannot create a file that it must write."""

    status = ExitStatus.CANNOT_CREATE


class AlreadyRunning(TamedError):
    """Another process runs under this name already."""

    status = ExitStatus.ALREADY_RUNNING


class PermissionRefused(TamedError):
    """The user of this process lacks a permission."""

    status = ExitStatus.NO_PERMISSION


class ConfigurationError(TamedError):
    """A deployment file, an environment variable or a certificate is wrong."""

    status = ExitStatus.CONFIGURATION


class ServiceMisuse(TamedError):
    """The program broke a rule of the service model."""


class ServiceFailed(TamedError):
    """A service failed in one of its phases, and its restart policy does not restart it.

    ``path`` is the service's place in its application (``fastpoetry/poetry``), ``phase`` is one of
    ``prepare``, ``start``, ``run``, ``stop`` and ``release``, and ``cause`` is the exception.
    """

    def __init__(self, path: str, phase: str, cause: BaseException) -> None:
        super().__init__(f"service {path} failed in {phase}", reason(cause))
        self.args = (path, phase, cause)
        self.path = path
        self.phase = phase
        self.cause = cause


class Errors:
    """The errors of a validation that continues after the first, so that the user sees all of them at once.

    As a context manager it keeps a `TamedError` of its block, and the code after the block runs. It can be
    entered repeatedly; `raise_first` ends the validation.
    """

    def __init__(self) -> None:
        self._found: list[TamedError] = []

    def __enter__(self) -> None:
        """Begin a step of the validation."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        """Keep the error of the step."""
        if not isinstance(error, TamedError):
            return False
        self.add(error)
        return True

    def add(self, error: TamedError) -> None:
        """Keep an error, and those that were found with it."""
        self._found += (error, *error.others)
        error.others = ()

    def raise_first(self) -> None:
        """Raise the first error, if there is any, with all the others as its ``others``."""
        if self._found:
            first, *others = self._found
            first.others = tuple(others)
            raise first


def reason(error: BaseException) -> str:
    """Return a short description of an exception, on one line, for the user."""
    if isinstance(error, TamedError):
        return str(error)
    if isinstance(error, BaseExceptionGroup):
        first, *others = _leaves(error)
        return f"{reason(first)} (and {len(others)} more)" if others else reason(first)
    if isinstance(error, OSError) and error.strerror:
        sentence = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        return " ".join(sentence.split())
    name = type(error).__name__
    text = " ".join(str(error).split())
    return f"{name}: {text}" if text else name


def status_of(error: BaseException) -> int:
    """Return the exit status for an exception.

    A failed service has the status of its cause, and a group that of its first exception; ``SystemExit`` has
    its own.
    """
    if isinstance(error, BaseExceptionGroup):
        return status_of(_leaves(error)[0])
    if isinstance(error, ServiceFailed):
        return status_of(error.cause)
    if isinstance(error, TamedError):
        return error.status
    if isinstance(error, SystemExit):
        return exit_code(error)
    if isinstance(error, OSError):
        return _kind_of(error).status
    return ExitStatus.SOFTWARE


def exit_code(error: SystemExit) -> int:
    """Return the exit status of a ``SystemExit``, by the interpreter's own rule."""
    if error.code is None:
        return 0
    return error.code & 0xFF if isinstance(error.code, int) else 1


def exit_request(error: SystemExit) -> str:
    """Return what a ``SystemExit`` asks for, as the end of a sentence, with the text that it may have."""
    text = f": {error.code}" if isinstance(error.code, str) and error.code else ""
    return f"asked to exit with status {exit_code(error)}{text}"


def from_os_error(what: str, error: OSError, remedy: str = "") -> TamedError:
    """Return the `TamedError` for an error of the operating system: its class is chosen by the errno."""
    return _kind_of(error)(what, error.strerror or reason(error), _LIMITS.get(error.errno, remedy))


def from_creation_error(what: str, error: OSError, remedy: str = "") -> TamedError:
    """Return the same as `from_os_error`, for a file that could not be created.

    A missing folder, or another file in its place, is then `CannotCreate`, not `MissingInput`.
    """
    kind = _kind_of(error)
    if kind is MissingInput or error.errno in _IN_THE_WAY:
        kind = CannotCreate
    return kind(what, error.strerror or reason(error), _LIMITS.get(error.errno, remedy))


_LIMITS: dict[int | None, str] = {
    errno.EMFILE: "raise the limit of open files: ulimit -n, or LimitNOFILE= of a unit",
    errno.ENFILE: "raise the limit of open files of the system: sysctl fs.file-max",
    errno.EFBIG: "raise the limit of a file's size: ulimit -f, or LimitFSIZE= of a unit",
}
"""The remedies for limits of a process or the system, whatever it wanted to open or write."""


_IN_THE_WAY = (
    errno.EEXIST,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENODEV,
    errno.ENOSPC,
    errno.ENOTEMPTY,
    errno.ENXIO,
    errno.EDQUOT,
    errno.EROFS,
)

_KINDS: dict[int | None, type[TamedError]] = {
    None: ApplicationFailed,  # raised by Python code (TimeoutError, say), not by the system
    errno.ENOENT: MissingInput,
    errno.ENOTDIR: MissingInput,
    errno.EISDIR: MissingInput,
    errno.EACCES: PermissionRefused,
    errno.EPERM: PermissionRefused,
    errno.EADDRINUSE: Unavailable,
    errno.EADDRNOTAVAIL: Unavailable,
    errno.EAFNOSUPPORT: Unavailable,
    errno.ECONNREFUSED: Unavailable,
    errno.EHOSTUNREACH: Unavailable,
    errno.ENETUNREACH: Unavailable,
    errno.ETIMEDOUT: Unavailable,
}


def _kind_of(error: OSError) -> type[TamedError]:
    home = type(error).__module__
    if home == "socket":  # a name that does not resolve; the numbers are those of getaddrinfo(3)
        return Unavailable
    if home == "ssl":  # the numbers are those of OpenSSL
        return ApplicationFailed
    return _KINDS.get(error.errno, SystemRefused)


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """Return the exceptions in a group and in its nested groups, in order."""
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves
