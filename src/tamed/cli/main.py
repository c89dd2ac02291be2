"""The entry point of the command: runs it, prints errors, and exits with the status."""

from __future__ import annotations

import io
import os
import sys

from tamed._os.beginning import Unwind  # before any other module of ours

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn, TextIO

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit: with a status of ``ExitStatus``, with the application's own, or by a signal.

    ``arguments`` default to those of the process. If the reader of the output has closed the pipe, the rest
    of the output is dropped, and that is no error.
    """
    _fill_standard_streams()
    try:
        outcome = _run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        outcome = 0
    except OSError as error:  # most likely of standard output: others are handled where they occur
        outcome = _report_lost_output(error)
    except KeyboardInterrupt as error:
        import signal

        from tamed.unix.process import end_by_signal

        _flush(sys.stdout)
        number = next((each for each in error.args if isinstance(each, int)), signal.SIGINT)
        outcome = end_by_signal(number)
    finally:  # even after `sys.exit` in a Twisted program: the interpreter would report a closed pipe
        _flush(sys.stdout)
        _flush(sys.stderr)
    if callable(outcome):
        outcome()
    sys.exit(outcome)


def _fill_standard_streams() -> None:
    """Open /dev/null for each closed descriptor of 0 to 2, so that no other file gets its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null == number:
                os.set_inheritable(null, True)  # as a standard stream is, for a program executed later
            else:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.encoding != "utf-8":
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error has it: not all can be encoded


def _run(arguments: list[str]) -> int | Callable[[], NoReturn]:
    """Run a command line, and print its error; return its status, or what this forked process does next.

    The two cases that scripts run often load only the modules that they need.
    """
    match arguments:
        case ["--version"]:
            from tamed._version import __version__

            print("tamed", __version__)
            return 0
        case ["__complete", shell, *words]:
            from tamed.cli.completion import offer

            return offer(shell, words)
    from tamed.errors import TamedError, status_of

    try:
        if arguments[:1] == ["start"] and (outcome := _begun(arguments)) is not None:
            return outcome
        if arguments[:1] == ["run"]:
            from tamed._os.interrupts import remember_interrupts

            remember_interrupts()
            if os.getpid() == 1:
                _keep_signals()
        from tamed.cli.commands import run_command

        return run_command(arguments)
    except Unwind as unwound:
        return unwound.rest
    except TamedError as error:
        if isinstance(error.__cause__, BrokenPipeError) and _reader_is_gone():
            return 0  # other code printed it, for example the help of a Twisted plugin
        from contextlib import suppress

        from tamed.ipc.fault import explain

        with suppress(BrokenPipeError):  # the status is that of the error
            print(*explain(error), sep="\n", file=sys.stderr)
        return status_of(error)


def _keep_signals() -> None:
    """Block the signals that end a container until there are handlers for them, which unblock all.

    The kernel drops a signal with the default action for pid 1, but keeps a blocked one: without this, a
    container that is stopped while it starts would run on until it is killed. SIGINT has Python's handler.
    """
    import signal

    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM))


def _begun(arguments: list[str]) -> int | Callable[[], NoReturn] | None:
    """Begin a daemon before the command line is read; return None in the process that must read it."""
    from tamed._os.interrupts import hold_interrupts, release_interrupts

    hold_interrupts()  # until the daemon can be waited for
    from tamed.cli.password import ask_secret
    from tamed.control.head_start import begin

    outcome = begin(arguments, ask_secret)
    if outcome is None or callable(outcome):
        release_interrupts()
        return outcome
    if outcome.text:  # otherwise the process that read the command line has printed what is wrong
        print(outcome.text, file=sys.stdout if outcome.ready else sys.stderr)
    return outcome.status


def _reader_is_gone() -> bool:
    """Return whether standard output or standard error is a pipe or a socket without a reader."""
    import select

    poll = select.poll()
    for stream in (sys.stdout, sys.stderr):
        poll.register(stream.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _report_lost_output(error: OSError) -> int:
    """Print why the output cannot be written, or a file cannot be used; return the exit status."""
    from tamed._os.text import shown
    from tamed.errors import from_os_error, status_of

    if error.filename is None:
        failure = from_os_error("cannot finish the command", error, "look at where its output goes")
    else:
        failure = from_os_error(f"cannot use {shown(str(error.filename))}", error)
    print("tamed:", failure, file=sys.stderr)
    return status_of(failure)


def _flush(stream: TextIO) -> None:
    """Flush a standard stream. If nothing can be written to it any more, send the rest to /dev/null."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
