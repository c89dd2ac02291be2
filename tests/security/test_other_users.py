"""Who may look into the processes of a daemon, stop them and take what they have: root, and nobody before."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.security import live
from tests.security.test_while_root import roots_processes
from tests.supervised.daemon import NOBODY, Daemon, Tamed, needs_root, wait_for

pytestmark = needs_root

# It tries all that one user can do to a process of another one, and tells what has succeeded.
TRYING = """
import ctypes, json, os, signal, sys

libc = ctypes.CDLL(None, use_errno=True)
PTRACE_SEIZE, PTRACE_DETACH = 0x4206, 17
done = []

def tried(name, call):
    try:
        call()
    except OSError:
        return
    done.append(name)

def called(number):
    if number < 0:
        raise OSError(ctypes.get_errno(), "")
    return number

def take(pid):
    with open(os.pidfd_open(pid)) as handle:
        called(libc.syscall(438, handle.fileno(), 0, 0))  # pidfd_getfd(2)

pid = int(sys.argv[1])
for name in ("environ", "maps", "mem", "auxv", "io", "stack", "syscall"):
    tried(name, lambda: open(f"/proc/{pid}/{name}", "rb").read(1))
tried("fd", lambda: os.listdir(f"/proc/{pid}/fd"))
for name in ("cwd", "root", "exe"):
    tried(name, lambda: os.readlink(f"/proc/{pid}/{name}"))
tried("ptrace", lambda: called(libc.ptrace(PTRACE_SEIZE, pid, None, None)))
if "ptrace" not in done:  # else it would have to be stopped first, to be let go
    tried("getfd", lambda: take(pid))
    tried("limits", lambda: __import__("resource").prlimit(pid, 7))
    tried("priority", lambda: os.setpriority(os.PRIO_PROCESS, pid, 19))
    tried("affinity", lambda: os.sched_setaffinity(pid, {0}))
    for number in signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP, signal.SIGUSR1, 0:
        if len(sys.argv) > 2:
            tried(f"signal {number}", lambda: os.kill(pid, number))
print(json.dumps(done))
"""


def done_to(tamed: Tamed, uid: int, pid: int, *more: str) -> Any:
    """Return what a user can do to a process; with one more word, signals are sent too."""
    return live.by_user(tamed, uid, TRYING, pid, *more)


def test_a_process_that_is_root_is_out_of_its_users_reach(public_tamed: Tamed, home: Path) -> None:
    """While it binds for the user it can be neither read nor traced, and gets no signal of that user's."""
    with public_tamed.popen("start", "--user", "nobody", "app.py", cwd=home) as command:
        wait_for("the application", (home / "uids").exists)
        roots = [*roots_processes(public_tamed), command.pid]
        assert {live.role(pid) for pid in roots} == {"supervisor", "tamed"}
        assert {pid: done_to(public_tamed, NOBODY, pid, "signals") for pid in roots} == {
            pid: [] for pid in roots
        }
        (home / "go").touch()
        assert command.wait() == 0
    assert public_tamed("stop").status == 0


def test_a_supervisor_is_not_traced_by_its_user(public_tamed: Tamed) -> None:
    """Also after an upgrade, for which it executes a program."""
    daemon = public_tamed.start_poetry("--user", "nobody")
    usual = {"limits", "priority", "affinity"}  # it is that user's, so these are
    assert set(done_to(public_tamed, NOBODY, daemon.pid)) <= usual
    assert public_tamed("upgrade").status == 0
    assert set(done_to(public_tamed, NOBODY, daemon.pid)) <= usual
    daemon.stop()


@pytest.mark.parametrize("user", [[], ["--user", "nobody"]], ids=["root", "nobody"])
def test_no_other_user_can_do_anything_to_any_process(public_tamed: Tamed, user: list[str]) -> None:
    """Of supervisor, template, worker, fork server, shim and program nothing is read, traced or signalled.

    Neither log, plan and control socket can be opened, nor can anything be put among the files.
    """
    public_tamed.write(
        "app.toml",
        'name = "app"\n[services.program]\nplugin = "exec"\ncommand = "sleep 1h"\n'
        'ready-after = "10ms"\npass-environment = ["TAMED_TEST"]\n',
    )
    daemon = public_tamed.start("--preload", *user, "app.toml")
    learns_the_pid_alone(daemon)
    pids = public_tamed.processes()
    assert {live.role(pid) for pid in pids} == {"supervisor", "template", "worker", "shim", "sleep"}
    found = {pid: done_to(public_tamed, live.STRANGER, pid, "signals") for pid in pids}
    assert found == {pid: [] for pid in pids}
    daemon.stop()


# What another user can find of a daemon: it tries to open, and to list, whatever is there, and to connect.
LOOKING = """
import json, os, socket, sys

found = {"read": [], "written": [], "connected": []}
for folder in sys.argv[1:]:
    for place, _, files in os.walk(folder):
        for path in (os.path.join(place, name) for name in files):
            for how, key in ((os.O_RDONLY, "read"), (os.O_WRONLY, "written")):
                try:
                    os.close(os.open(path, how))
                except OSError:
                    continue
                found[key].append(os.path.basename(path))
            with socket.socket(socket.AF_UNIX) as sock:
                try:
                    sock.connect(path)
                except OSError:
                    continue
                found["connected"].append(os.path.basename(path))
        try:
            open(os.path.join(place, "new"), "w")
        except OSError:
            continue
        found["written"].append(place)
print(json.dumps(found))
"""


def learns_the_pid_alone(daemon: Daemon) -> None:
    """Hold that another user can read the pid file of a daemon, and no other file."""
    folders = (daemon.tamed.rundir, daemon.tamed.logs)
    names = {path.name for folder in folders for path in folder.rglob("*") if not path.is_dir()}
    assert names == {f"app.{kind}" for kind in ("pid", "plan", "sock", "log", "log.events")}
    found = live.by_user(daemon.tamed, live.STRANGER, LOOKING, *folders)
    assert found == {"read": ["app.pid"], "written": [], "connected": []}
    for pid in (daemon.pid, *daemon.workers()):  # whose memory no file of others' shows
        assert "/dev/shm/" not in Path(f"/proc/{pid}/maps").read_text()


# It does what it can to what it can reach: the lock of a file that it may read, and a name that has no file.
DISTURBING = """
import fcntl, json, os, socket, struct, sys, time

opened = [os.open(path, os.O_RDONLY) for path in sys.argv[2:]]
for descriptor in opened:
    for number in (1, 2):  # claim and life, or both: whichever it can have
        lock = struct.pack("hhqqi0q", fcntl.F_RDLCK, 0, number - 1, 1, 0)
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)
        except OSError:
            continue
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        continue
names = [line.split()[-1] for line in open("/proc/net/unix") if sys.argv[1] in line and "@" in line]
waiting = []
for name in names:
    for _ in range(200):
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        if sock.connect_ex(b"\\0" + name[1:].encode()) == 0:
            waiting.append(sock)
print(json.dumps({"names": len(names), "connections": len(waiting)}), flush=True)
sys.stdin.read()
"""


@contextmanager
def stranger_who_disturbs(tamed: Tamed, daemon: Daemon, pid_file: Path) -> Iterator[None]:
    """Have another user hold what it can of a daemon."""
    become = ["setpriv", f"--reuid={live.STRANGER}", f"--regid={live.STRANGER}", "--clear-groups"]
    command = [
        *tamed.before,
        *become,
        sys.executable,
        "-I",
        "-c",
        DISTURBING,
        str(daemon.folder),
        str(pid_file),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"{")
        yield
        process.communicate()


def test_another_user_blocks_no_command(public_tamed: Tamed) -> None:
    """Whatever a stranger holds that it may open or connect to: commands answer, and a start succeeds."""
    daemon = public_tamed.start_poetry("--user", "nobody")
    pid_file = daemon.folder / "fastpoetry.pid"
    with stranger_who_disturbs(public_tamed, daemon, pid_file):
        assert daemon.status()["pid"] == daemon.pid
        os.kill(daemon.pid, 9)
        daemon.wait_gone()
        wait_for("the end of all", lambda: not public_tamed.processes())
        assert pid_file.exists()
    with stranger_who_disturbs(public_tamed, daemon, pid_file):  # now that nobody else has the lock
        again = public_tamed.start_poetry("--user", "nobody")
        assert public_tamed("restart").status == 0
        assert public_tamed("stop").status == 0
        again.wait_gone()
