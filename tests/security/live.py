"""What processes are and have, as the kernel tells it (proc(5)), and what another user can do about them."""

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.patience import PATIENCE
from tests.supervised.daemon import Tamed

CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
STRANGER = 1
"""A user who has nothing to do with a daemon: `daemon`, in Debian."""


class Descriptor(NamedTuple):
    """What a process has open under a number."""

    number: int
    target: str
    status: os.stat_result
    flags: int

    @property
    def is_directory(self) -> bool:
        """Whether it is a way to files."""
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_file(self) -> bool:
        """Whether it is a file on a disk."""
        return stat.S_ISREG(self.status.st_mode)

    @property
    def can_read(self) -> bool:
        """Whether it was opened for reading."""
        return self.flags & os.O_ACCMODE != os.O_WRONLY


def status_of(pid: int, thread: int | None = None) -> dict[str, str]:
    """Return the lines of the status of a process, or of a thread, by their names."""
    text = Path(f"/proc/{pid}/task/{thread or pid}/status").read_text()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def threads(pid: int) -> list[dict[str, str]]:
    """Return the status of each thread of a process."""
    return [status_of(pid, int(each.name)) for each in Path(f"/proc/{pid}/task").iterdir()]


def is_root(pid: int) -> bool:
    """Tell whether any of its users is root."""
    return "0" in status_of(pid)["Uid"].split()


def session(pid: int) -> int:
    """Return the session that a process is in."""
    return int(_stat(pid)[3])


def terminal(pid: int) -> int:
    """Return the number of the controlling terminal; 0 if there is none."""
    return int(_stat(pid)[4])


def words(pid: int) -> list[str]:
    """Return the words of its command; one empty word for a zombie, or when it is gone."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        command = b""
    return command.rstrip(b"\0").decode().split("\0")


def role(pid: int) -> str:
    """Return the module of ours that it runs, without its package; or the program; nothing when it has ended.

    A template runs the module of the workers that it forks.
    """
    said = words(pid)
    if "-m" not in said:
        return said[0]
    module = said[said.index("-m") + 1].rpartition(".")[2]
    return "template" if (module, said[-1]) == ("worker", "template") else module


def environment(pid: int) -> dict[str, str]:
    """Return the environment that it was executed with."""
    lines = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return {name: value for name, equals, value in (line.partition("=") for line in lines) if equals}


def descriptors(pid: int) -> list[Descriptor]:
    """Return all that it has open."""
    return sorted(_descriptors(pid))


def _descriptors(pid: int) -> Iterator[Descriptor]:
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            information = Path(f"/proc/{pid}/fdinfo/{link.name}").read_text()
            flags = next(line for line in information.splitlines() if line.startswith("flags:"))
            yield Descriptor(int(link.name), str(link.readlink()), link.stat(), int(flags.split()[1], 8))
        except FileNotFoundError:  # it was closed just now
            continue


def sockets_without_a_name() -> set[str]:
    """Return the unix sockets that nobody can connect to, as descriptors show them: those of pairs."""
    lines = [line.split(None, 7) for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return {f"socket:[{line[6]}]" for line in lines if len(line) == 7}


# Port, state and inode. 06 is TIME_WAIT: there may be thousands of those, and nobody has one open.
_TCP = re.compile(r"^ *\d+: \w+:(\w{4}) \S+ (?!06)\w\w(?: +\S+){5} +(\d+)", re.MULTILINE)


def tcp_ports() -> dict[str, int]:
    """Return the own port of each TCP socket that listens or is connected, by how descriptors show it."""
    tables = (Path(f"/proc/net/{table}").read_text() for table in ("tcp", "tcp6"))
    return {f"socket:[{row[2]}]": int(row[1], 16) for text in tables for row in _TCP.finditer(text)}


def memory(pid: int) -> int:
    """Return how many bytes of memory a process has of its own."""
    return 1024 * int(status_of(pid)["RssAnon"].split()[0])


def by_user(tamed: Tamed, uid: int, program: str, *arguments: object) -> Any:
    """Have another user run a Python program, which prints JSON; return what it prints.

    It has this interpreter, and none of root's groups and capabilities.
    """
    become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--inh-caps=-all"]
    command = [*tamed.before, *become, sys.executable, "-I", "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return json.loads(done.stdout)


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
