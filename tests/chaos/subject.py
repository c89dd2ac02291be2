"""The daemon that chaos is made with: its files, its processes, and the commands that it is given."""

import asyncio
import contextlib
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random, SystemRandom
from typing import Any, NamedTuple

import trustme

from tests.patience import PATIENCE
from tests.supervised.daemon import NOBODY, Done, Tamed, is_there
from tests.supervised.opened import closed_directory

NAME = "chaos"
WATCHDOG = 8.0  # seconds

# Each program answers with who it is, and logs a line for it first: so a client knows which line must be in
# the log. The lines of one process are numbered, and as long as their number says.
_LINES = """
import logging, os, secrets

class Lines:
    pid = 0
    def greeting(self):
        if self.pid != os.getpid():
            self.pid, self.count = os.getpid(), 0
            self.name = f"{KIND}-{os.getpid()}-{secrets.token_hex(4)}"
        self.count += 1
        logging.getLogger("chaos").info("<%s %d %s>", self.name, self.count, "x" * (self.count % 200))
        return f"{self.pid} {VERSION} {self.name} {self.count}"

lines = Lines()
"""

_TALK = """
import subprocess
from tamed import Application, Service, StreamServer

async def talk(reader, writer):
    writer.write(f"{lines.greeting()}\\n".encode())
    await writer.drain()
    writer.write(await reader.readline())

class Child(Service):
    async def start(self):
        self.process = subprocess.Popen(["sleep", "3600"])
    async def stop(self):
        self.process.terminate()
        self.process.wait()

application = Application("talk", *[StreamServer(each, talk) for each in LISTEN], Child("child"))
"""

_TAC = """
from twisted.application import internet, service
from twisted.internet import protocol
from twisted.protocols.basic import LineOnlyReceiver

class Talk(LineOnlyReceiver):
    delimiter = b"\\n"
    def connectionMade(self):
        self.sendLine(lines.greeting().encode())
    def lineReceived(self, line):
        self.sendLine(line)
        self.transport.loseConnection()

application = service.Application("talk")
factory = protocol.Factory.forProtocol(Talk)
internet.TCPServer(PORT, factory, interface="127.0.0.1").setServiceParent(application)
"""

_WEB = """
async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = f"{lines.greeting()}\\n{scope['path']}\\n".encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""

_DEPLOYMENT = """
name = "{name}"
[services.talk]
application = "talk.py"
[services.web]
plugin = "web"
app = "chaos_web:application"
app-dir = "."
listen = ["127.0.0.1:{web}"]
access-log = false
[services.twisted]
application = "talk.tac"
[daemon]
workers = {workers}
preload = {preload}
watchdog = "{watchdog:g}s"
start-timeout = "25s"
{user}
[log]
file = "disk/chaos.log"
rotate = "200 KB"
keep = 3
max-use = "1 MB"
"""

_BAD_HOOK = """
from tamed import Application, Service
class Bad(Service):
    async def start(self):
        raise RuntimeError("a hook that fails")
application = Application("talk", Bad("bad"))
"""

# What breaks a release: the file, and what is in it instead; None if it is not there.
_BREAKAGES = (
    ("talk.py", "def unfinished(:\n"),
    ("talk.py", "raise RuntimeError('a bad release')\n"),
    ("talk.py", "import os; os._exit(3)\n"),
    ("talk.py", "raise SystemExit(3)\n"),
    ("talk.py", "application = None\n"),
    ("talk.tac", "import no_such_module\n"),
    ("chaos_web.py", "1 / 0\n"),
    ("chaos.toml", "[services.talk"),
    ("chaos.toml", "[daemon]\nworkesr = 3\n"),
    ("chaos.toml", None),
    ("talk.py", None),
    ("talk.py", _BAD_HOOK),
)


class Setting(NamedTuple):
    """How one daemon is started. ``is_dropped`` says that it runs as another user than root."""

    workers: int
    preload: bool
    is_dropped: bool

    def __str__(self) -> str:
        return f"{self.workers} workers{', preloaded' * self.preload}{', as another user' * self.is_dropped}"


class Process(NamedTuple):
    """A process of the daemon's: ``kind`` is what it does."""

    pid: int
    parent: int
    kind: str


def why_no_other_user() -> str:
    """Return why the daemon cannot run as another user; empty if it can."""
    if os.geteuid() != 0:
        return "only root can become another user"
    code = Path(__file__).resolve()
    if any(not folder.stat().st_mode & 0o001 for folder in (*code.parents, Path(sys.prefix))):
        return f"other users cannot reach {code.parent}"
    return f"other users cannot reach {sys.base_prefix}" if closed_directory() else ""


class Subject:
    """One daemon in a folder of its own, which serves on every kind of endpoint."""

    def __init__(self, folder: Path, setting: Setting) -> None:
        folder.mkdir(mode=0o755)
        self.folder = folder
        self.setting = setting
        self.tamed = Tamed(folder)
        self.disk = folder / "disk"
        self.unix = folder / "sockets" / "talk"
        self.certificate = folder / "server.pem"
        self.authority = trustme.CA()
        self.ports = dict(zip(("tcp", "tls", "web", "twisted"), _free_ports(4), strict=True))
        self.pid = 0
        self.workers: int | None = setting.workers  # None if nobody knows what came of the last order
        for made in (self.disk, self.unix.parent):
            made.mkdir()
            self._give(made)
        self.tamed.rundir.mkdir(mode=0o755)
        self.authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
            str(self.certificate)
        )
        self.certificate.chmod(0o644)

    @property
    def log(self) -> Path:
        """The log file."""
        return self.disk / "chaos.log"

    @property
    def instance(self) -> Path:
        """The instance's folder in the run directory."""
        return self.tamed.rundir / NAME

    @property
    def plan(self) -> Path:
        """The file by which it is started again."""
        folder = self.tamed.rundir / ".plans" if self.setting.is_dropped else self.instance
        return folder / f"{NAME}.plan"

    def write(self, version: int) -> None:
        """Put a good release in place."""
        listen = [
            f"127.0.0.1:{self.ports['tcp']}",
            f"tls://127.0.0.1:{self.ports['tls']}?cert={self.certificate}",
            f"unix:{self.unix}?mode=0666",
        ]
        constants = {
            "talk.py": f"LISTEN = {listen!r}\n{_TALK}",
            "talk.tac": f"PORT = {self.ports['twisted']}\n{_TAC}",
            "chaos_web.py": _WEB,
        }
        for file, text in constants.items():
            kind = file.partition(".")[2] if file != "chaos_web.py" else "web"
            self._replace(file, f"VERSION = {version}\nKIND = {kind!r}\n{_LINES}\n{text}")
        deployment = _DEPLOYMENT.format(
            name=NAME,
            web=self.ports["web"],
            workers=self.setting.workers,
            preload=str(self.setting.preload).lower(),
            watchdog=WATCHDOG,
            user=f'user = "{NOBODY}"' if self.setting.is_dropped else 'user = "root"' * (os.geteuid() == 0),
        )
        self._replace("chaos.toml", deployment)

    def damage(self, random: Random) -> str:
        """Break the release that is in place; return how."""
        file, text = random.choice(_BREAKAGES)
        if text is None:
            (self.folder / file).unlink()
            return f"no {file}"
        self._replace(file, text)
        return f"{file}: {text.splitlines()[-1]}"

    async def command(self, *words: str) -> Done:
        """Give a command, and wait for its end. One that hangs raises TimeoutError, and is killed."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tamed",
            *words,
            cwd=self.folder,
            env=self.tamed.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode is not None
        return Done(process.returncode, out.decode(), err.decode())

    def adopt(self, done: Done) -> None:
        """Take the daemon that a command has started for the one in hand, with the workers of its files."""
        if found := re.search(r" is ready: pid (\d+)", done.out):
            self.pid, self.workers = int(found[1]), self.setting.workers

    def processes(self) -> list[Process]:
        """Return all that comes of the daemon and is there, but no command that was given to it."""
        found: dict[int, Process] = {}
        for pid in sorted(self.tamed.processes()):
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
                parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
                if words[1:3] != ["-m", "tamed"] or pid == self.pid:
                    found[pid] = Process(pid, parent, _kind(words))
        workers = {pid for pid, each in found.items() if each.kind in ("worker", "template")}
        return [
            each._replace(kind="child") if each.parent in workers and each.kind == "other" else each
            for each in found.values()
        ]

    @property
    def is_there(self) -> bool:
        """Whether the supervisor is."""
        return self.pid > 0 and is_there(self.pid)

    def ports_in_use(self) -> list[int]:
        """Return the ports on which somebody listens."""
        return [port for port in self.ports.values() if not _is_free(port)]

    def limit(self, pids: Iterable[int], name: str, value: int | None = None) -> None:
        """Set what processes may have of something, or give them the usual. It takes their own user."""
        kind = resource.RLIMIT_NOFILE if name == "nofile" else resource.RLIMIT_NPROC
        usual, most = resource.getrlimit(kind)
        user: dict[str, Any] = {}
        if self.setting.is_dropped:
            user = {"user": NOBODY, "group": NOBODY, "extra_groups": ()}
        for pid in pids:
            command = ["prlimit", f"--pid={pid}", f"--{name}={usual if value is None else value}:{most}"]
            subprocess.run(command, check=False, timeout=PATIENCE, stderr=subprocess.DEVNULL, **user)

    def mount(self) -> None:
        """Put a small disk where the log is."""
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m,mode=0755", "chaos", self.disk],
            check=True,
            timeout=PATIENCE,
        )
        self._give(self.disk)

    def unmount(self) -> None:
        """Take the disk away, whoever uses it."""
        subprocess.run(
            ["umount", "--lazy", self.disk], check=False, timeout=PATIENCE, stderr=subprocess.DEVNULL
        )

    def sweep(self) -> None:
        """Remove what is in the run directory, as a sweeper of ``/tmp`` does.

        One who has dropped privileges could not make its folder anew in a directory of root's, so there only
        the files go.
        """
        for path in self.instance.iterdir() if self.setting.is_dropped else self.tamed.rundir.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def end(self) -> None:
        """End all that is there by force, but no command."""
        while found := self.processes():
            for process in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End what is left, commands too, and take the disk away."""
        self.tamed.close()
        if self.disk.is_mount():
            self.unmount()

    def _replace(self, file: str, text: str) -> None:
        """Write a file as an editor does: under another name first."""
        new = self.folder / f".{file}.new"
        new.write_text(text)
        new.replace(self.folder / file)

    def _give(self, folder: Path) -> None:
        if self.setting.is_dropped:
            os.chown(folder, NOBODY, NOBODY)


def _kind(words: list[str]) -> str:
    modules = [word.rpartition(".")[2] for word in words if word.startswith("tamed.")]
    if modules[:1] == ["worker"] and "template" in words:
        return "template"
    return modules[0] if modules else "other"


def _free_ports(count: int) -> Iterator[int]:
    """Return ports that nobody gets by chance: from below those that the system gives to clients."""
    random = SystemRandom()  # two runs with one seed must not want the same ones
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while count:
        port = random.randrange(lowest // 2, lowest)
        if _is_free(port):
            count -= 1
            yield port


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
