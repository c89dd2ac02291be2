"""A secret that a person is asked for on a terminal, and where it must not be found."""

import os
import pty
import re
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.supervised.daemon import Daemon, Tamed, wait_for

SECRET = "busy-old-fool"
PLUGIN = """
import ctypes
import hashlib
from dataclasses import dataclass

from tamed import Service, option, plugin

@dataclass
class Options:
    password: str = option(secret=True)

@plugin
def vault(options: Options) -> Service:
    print("digest", hashlib.sha256(options.password.encode()).hexdigest(), ctypes.CDLL(None).prctl(3))
    return Service("vault")
"""
DEPLOYMENT = '[daemon]\nworkers = 2\n[services.vault]\nplugin = "vault"\npassword = "prompt:"\n'


class Terminal:
    """A command in a session on a terminal of its own; ``shown`` is what is on the screen."""

    def __init__(self, tamed: Tamed, *words: str) -> None:
        command = [sys.executable, "-m", "tamed", *words]
        self.pid, self._descriptor = pty.fork()
        if self.pid == 0:
            try:
                os.chdir(tamed.folder)
                os.execve(command[0], command, {**tamed.environment(), "TAMED_PLUGIN_PATH": "."})
            finally:
                os._exit(127)
        self.shown = ""

    def expect(self, pattern: str) -> str:
        """Read until this is on the screen."""
        while (found := re.search(pattern, self.shown)) is None:
            assert self._read(), self.shown
        return found[0]

    def type(self, text: str) -> None:
        """Type a line."""
        os.write(self._descriptor, f"{text}\n".encode())

    def status(self) -> int:
        """Read to the end, and return the exit status."""
        while self._read():
            pass
        os.close(self._descriptor)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _read(self) -> bool:
        try:
            text = os.read(self._descriptor, 4096)
        except OSError:  # nothing has it open any more
            return False
        self.shown += text.decode()
        return bool(text)


def asked(tamed: Tamed, *words: str, answer: str = SECRET) -> Terminal:
    """Run a command, and answer the question that it asks."""
    terminal = Terminal(tamed, *words)
    terminal.expect(r"vault\.password: ")
    terminal.type(answer)
    return terminal


def digests(log: str) -> list[str]:
    """Return the digest of the secret that each worker has got, which may leave no core dump."""
    return re.findall(r"digest ([0-9a-f]{64}) 0$", log, re.MULTILINE)


def test_an_answer_is_kept_over_reloads_and_is_in_no_file(tamed: Tamed) -> None:
    """Each generation of workers gets it, also that of an upgrade; a restart asks again, before it stops."""
    tamed.write("vault.py", PLUGIN)
    tamed.write("verse.toml", DEPLOYMENT)
    started = asked(tamed, "start", "verse.toml")
    assert started.status() == 0, started.shown
    pid = int(re.findall(r"pid (\d+)", started.shown)[0])
    daemon = Daemon(tamed, "verse", pid, [])
    for command, generations in (("reload", 2), ("upgrade", 3)):
        assert tamed(command, "verse").status == 0
        wait_for("the digests", lambda: len(digests(daemon.log)) == 2 * generations)  # noqa: B023
    assert len(set(digests(daemon.log))) == 1
    assert [place for place, text in places(tamed).items() if SECRET in text] == []
    refused = tamed("restart", "verse", start_new_session=True)
    assert refused.status == 64
    assert "cannot prompt for vault.password: there is no terminal" in refused.err
    assert daemon.status()["pid"] == daemon.pid
    restarted = asked(tamed, "restart", "verse", answer="unruly-sun")
    assert restarted.status() == 0, restarted.shown
    wait_for("the new digests", lambda: len(set(digests(daemon.log))) == 2)
    assert SECRET not in started.shown + restarted.shown + daemon.log
    assert tamed("stop", "verse").status == 0


def places(tamed: Tamed) -> dict[str, str]:
    """Return what others can read: files of the daemon, command lines and environments of its processes."""
    files = [file for file in (*tamed.rundir.rglob("*"), *tamed.logs.rglob("*")) if file.is_file()]
    files += [Path(f"/proc/{pid}/{name}") for pid in tamed.processes() for name in ("cmdline", "environ")]
    found: dict[str, str] = {}
    for file in files:
        with suppress(ProcessLookupError, FileNotFoundError):  # a process of the last generation has ended
            found[str(file)] = file.read_bytes().decode(errors="replace")
    return found


def test_a_process_alone_asks_for_an_option_of_the_command_line(tamed: Tamed) -> None:
    """The word for it is no secret; an empty answer is none."""
    tamed.write("vault.py", PLUGIN)
    words = ("run", "vault", "--password", "prompt:")
    running = asked(tamed, *words)
    running.expect(r"digest [0-9a-f]{64} ")
    running.expect("is ready")
    running.type("\x03")
    assert running.status() == 0, running.shown
    assert SECRET not in running.shown
    empty = asked(tamed, *words, answer="")
    assert empty.status() == 64
    assert "no secret for vault.password: it is empty" in empty.shown


@pytest.mark.parametrize(("key", "number"), [("\x03", signal.SIGINT), ("\x1c", signal.SIGQUIT)])
def test_an_interrupt_at_the_question_ends_the_start(tamed: Tamed, key: str, number: signal.Signals) -> None:
    """The command has the terminal; the other processes end with it."""
    tamed.write("vault.py", PLUGIN)
    tamed.write("verse.toml", DEPLOYMENT)
    interrupted = asked(tamed, "start", "verse.toml", answer=key)
    assert interrupted.status() == -number, interrupted.shown
    assert "Traceback" not in interrupted.shown
    assert tamed.left() == {}


def test_it_is_refused_without_a_terminal(tamed: Tamed) -> None:
    """Standard input is not asked: it may be anything."""
    tamed.write("vault.py", PLUGIN)
    tamed.write("verse.toml", DEPLOYMENT)
    for command in ("run", "start", "check"):
        done = tamed(command, "--plugin-dir", tamed.folder, "verse.toml", start_new_session=True)
        assert done.status == 64, done
        assert done.err == (
            "tamed: cannot prompt for vault.password: there is no terminal;"
            " run it on a terminal, or use file:PATH, credential:NAME or env:NAME\n"
        )
    done = tamed("export", "systemd", "--plugin-dir", tamed.folder, "verse.toml")
    assert done.status == 78
    assert "services.vault.password: there was no prompt for it" in done.err
