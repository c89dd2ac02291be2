"""What each process of a daemon is, and has, once root has given it to a user: nothing of root's."""

import os
import pwd
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.patience import PATIENCE
from tests.security import live
from tests.supervised.daemon import NOBODY, Daemon, Tamed, is_there, needs_root, wait_for

pytestmark = needs_root

WORDS = [["start", "--preload"], ["run", "--workers", "2", "--reload"]]
OWN = re.compile(r"/dev/null|pipe:\[\d+\]|anon_inode:(\[(eventpoll|eventfd|io_uring|pidfd)\]|inotify)")
LOGIN = {"SSH_AUTH_SOCK": "/root/agent", "XDG_RUNTIME_DIR": "/run/user/0", "NOTIFY_SOCKET": "@none"}

# It fills a log.
PRINTING = """
import asyncio, logging
from tamed import Application, Service

class Printer(Service):
    async def run(self):
        while True:
            for _ in range(500):
                logging.getLogger("app").info("x" * 1000)
            await asyncio.sleep(0)

application = Application("app", Printer("printer"))
"""

# A server, a program that runs, and programs that run for each client.
DEPLOYMENT = """
name = "app"

[services.server]
plugin = "fastpoetry"
port = 0

[services.program]
plugin = "exec"
command = "sleep 1h"
ready-after = "10ms"
pass-environment = ["TAMED_TEST"]

[services.programs]
plugin = "inetd"
listen = "127.0.0.1:0"
command = "sleep 1h"
pass-environment = ["TAMED_TEST"]
"""


@contextmanager
def running(tamed: Tamed, command: list[str], *options: str) -> Iterator[Daemon]:
    """Run the deployment for nobody, in one of the ways; give the daemon, whose commands find it."""
    tamed.write("app.toml", DEPLOYMENT)
    log = [] if command[0] == "run" else ["--log-rotate", "1 MB", "--log-compress"]
    arguments = [*command, "--user", "nobody", "--name", "app", *log, *options, "app.toml"]
    with tamed.popen(*arguments, env=LOGIN, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "app is ready" in line)
        pid = int(line.split("pid ")[1].partition(",")[0])
        daemon = Daemon(tamed, "app", pid, line.strip().partition("listening on ")[2].split(", "))
        yield daemon
        daemon.stop()


def addresses(daemon: Daemon) -> set[int]:
    """Return its ports."""
    return {int(address.rpartition(":")[2]) for address in daemon.addresses}


def check(daemon: Daemon, pid: int, own: set[str] | None = None) -> str:
    """Hold that a process has nothing of root's; return what it is for. ``own`` is what `own_sockets` is."""
    for thread in live.threads(pid):
        assert thread["Uid"].split() == [str(NOBODY)] * 4
        assert set(thread["Gid"].split()) == {str(NOBODY)}
        assert set(thread["Groups"].split()) <= {str(NOBODY)}
        assert {thread[name] for name in live.CAPABILITIES} == {"0" * 16}
        assert thread["NoNewPrivs"] == "1"
    assert live.terminal(pid) == 0
    assert Path(f"/proc/{pid}/root").readlink() == Path("/")
    assert Path(f"/proc/{pid}/cwd").readlink() == daemon.tamed.folder
    role = live.role(pid)
    is_supervisor = role == "supervisor"
    if not is_supervisor:
        environment = live.environment(pid)
        assert environment["USER"] == environment["LOGNAME"] == "nobody"
        assert environment["HOME"] == pwd.getpwnam("nobody").pw_dir
        assert not environment.keys() & LOGIN.keys()
        assert live.session(pid) != os.getsid(0)
    if own is None or strange(daemon, pid, own, is_supervisor=is_supervisor):

        def look_again() -> bool:
            return not strange(daemon, pid, own_sockets(daemon), is_supervisor=is_supervisor)

        wait_for("what is known alone", look_again)
    return role


def own_sockets(daemon: Daemon) -> set[str]:
    """Return the sockets that any process of a daemon may have."""
    served = {target for target, port in live.tcp_ports().items() if port in addresses(daemon)}
    return served | live.sockets_without_a_name()


def strange(daemon: Daemon, pid: int, own: set[str], *, is_supervisor: bool) -> list[live.Descriptor]:
    """Return what a process has open that it should not. What it is just about to close is among it."""
    folders = (str(daemon.folder), str(daemon.log_file.parent))

    def is_known(each: live.Descriptor) -> bool:
        if each.is_directory or each.is_file:
            return is_supervisor and each.status.st_uid == NOBODY and each.target.startswith(folders)
        if each.target.startswith("socket:"):  # a supervisor has others: its name, and where it is asked
            return is_supervisor or each.target in own
        return OWN.fullmatch(each.target) is not None

    return [each for each in live.descriptors(pid) if not is_known(each)]


def look(daemon: Daemon) -> list[str]:
    """Check all processes that there are; return what they are for."""
    found = []
    own = own_sockets(daemon)  # once, as there may be thousands on the machine
    for pid in daemon.tamed.processes():
        try:
            if live.role(pid) not in ("", "tamed"):  # else it is a command of root's that waits
                found.append(check(daemon, pid, own))
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
    return sorted(found)


def roles(daemon: Daemon) -> list[str]:
    """Return what all processes are for that there are, a command of root's that waits left out."""
    found = []
    for pid in daemon.tamed.processes():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            found.append(live.role(pid))
    return sorted(role for role in found if role not in ("", "tamed"))


def expect(daemon: Daemon, expected: Iterable[str]) -> None:
    """Wait until there are these processes, and check each; to check them all the while would take long."""
    wanted = sorted(expected)
    wait_for("what there is to be", lambda: roles(daemon) == wanted and look(daemon) == wanted)


@pytest.mark.parametrize("command", WORDS, ids=" ".join)
def test_no_process_has_anything_of_roots(public_tamed: Tamed, command: list[str]) -> None:
    """Users, groups, capabilities, descriptors, terminal, environment; also of what replaces one or helps.

    What helps reads the files, watches them, or tries a new program out.
    """
    with running(public_tamed, command) as daemon:
        count = 2 if "--workers" in command else 1
        parts = ["supervisor", *["template"] * ("--preload" in command or count > 1)]
        parts += ["watcher"] * ("--reload" in command)
        workers = ["worker"] * count
        # Each program has a shim, a fork of the fork server: one of those for each of the two services.
        programs = ["sleep", "shim", "shim", "shim"] * count
        expected = [*parts, *workers, *programs]
        expect(daemon, expected)
        with socket.create_connection(("127.0.0.1", daemon_port(daemon)), timeout=PATIENCE):
            expect(daemon, [*expected, "sleep", "shim"])
        victims = daemon.workers()
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        daemon.wait_workers(count, without=victims)
        expect(daemon, expected)
        for word, helper in (("reload", "planner"), ("upgrade", "trial")):
            give(daemon, word, helper)
            expect(daemon, expected)


def daemon_port(daemon: Daemon) -> int:
    """Return the port where programs run for clients, which is the last."""
    return int(daemon.addresses[-1].rpartition(":")[2])


def give(daemon: Daemon, word: str, helper: str) -> None:
    """Give a command until a child of the supervisor was seen that helps meanwhile, and check it."""
    listing = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children")
    checked: set[int] = set()
    while not checked:
        with daemon.tamed.popen(word, "app") as command:
            while command.poll() is None:
                with suppress(subprocess.TimeoutExpired):  # a look takes other processes some of their time
                    command.wait(0.01)
                for pid in map(int, listing.read_text().split()):
                    try:
                        if live.role(pid) == helper and check(daemon, pid):
                            checked.add(pid)
                    except (FileNotFoundError, ProcessLookupError):
                        continue  # it has ended, or is about to be executed
            assert command.returncode == 0


def test_what_compresses_a_log_has_nothing_of_roots(public_tamed: Tamed) -> None:
    """It has the two files, and no folder."""
    public_tamed.write("app.py", PRINTING)
    daemon = public_tamed.start("--user", "nobody", "--log-rotate", "8 MB", "--log-compress", "app.py")
    listing = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children")

    def compressor() -> int:
        pids = map(int, listing.read_text().split())
        return next((pid for pid in pids if is_there(pid) and live.words(pid) == own), 0)

    def has_two_files() -> bool:
        """Whether it is there, and its user's, and has let go of all else that its parent has open."""
        if not (pid := compressor()):
            return False
        try:
            (thread,) = live.threads(pid)
            opened = [each for each in live.descriptors(pid) if each.number > 2]
        except (FileNotFoundError, ProcessLookupError):
            return False
        assert thread["Uid"].split() == [str(NOBODY)] * 4
        assert {thread[name] for name in live.CAPABILITIES} == {"0" * 16}
        return [each.status.st_uid for each in opened if each.is_file] == [NOBODY] * 2 and len(opened) == 2

    own = live.words(daemon.pid)
    wait_for("a compressor", has_two_files)
    assert public_tamed("stop").status == 0


# It has root's session keyring in reach if it is nobody's but that of a login: it looks for a key of root's.
SEEKING = """
import ctypes, os
from tamed import Application, Service

keyctl = ctypes.CDLL(None, use_errno=True).syscall
SEARCH, READ, SESSION = 10, 11, -3
key = int(open("key").read())

class Seeker(Service):
    async def start(self):
        found = keyctl(250, SEARCH, SESSION, b"user", b"of-root", 0) == key
        read = keyctl(250, READ, key, ctypes.create_string_buffer(100), 100) > 0
        print("found" if found else "not found", "read" if read else "not read", flush=True)

application = Application("app", Seeker("seeker"))
"""

# A login, with a key in its session keyring: session-keyring(7).
LOGGING_IN = """
import ctypes, os, sys

keyctl = ctypes.CDLL(None, use_errno=True).syscall
assert keyctl(250, 1, None) > 0
key = keyctl(248, b"user", b"of-root", b"secret", 6, -3)
assert key > 0, os.strerror(ctypes.get_errno())
open("key", "w").write(str(key))
os.execvp(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="it has the numbers of this machine's calls")
@pytest.mark.parametrize("options", [(), ("--chroot", "/"), ("--workers", "2")], ids=" ".join)
def test_keys_of_roots_session_are_out_of_reach(public_tamed: Tamed, options: tuple[str, ...]) -> None:
    """What root's login has in its keyring can neither be found nor read."""
    public_tamed.write("app.py", SEEKING)
    public_tamed.before = [sys.executable, "-c", LOGGING_IN, *public_tamed.before]
    with public_tamed.foreground("run", *options, "--user", "nobody", "app.py") as process:
        assert process.expect(r"(not )?found (not )?read")[0] == "not found not read"
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
