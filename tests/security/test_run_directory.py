"""What a run directory of strangers can make a command believe: nothing, and it says whose the folder is."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tamed.unix.rundir import Instance
from tests.patience import PATIENCE
from tests.runner.test_status_answer import STATUS
from tests.stand_in import SLOW, stand_in
from tests.supervised.daemon import NOBODY, Tamed, needs_root

pytestmark = needs_root

STRANGER = 12345
COMMANDS = ["status", "logs", "reload verse", "stop", "restart", "upgrade verse", "reopen", "scale 2 verse"]
"""Every command that finds a daemon, with its name or without."""


@contextmanager
def faked(tamed: Tamed, folder: Path, uid: int, **told: object) -> Iterator[subprocess.Popen[str]]:
    """Run ``verse``, a daemon as a user could write it: it has the lock, and answers what it likes."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chown(folder, uid, uid)
    answer = json.dumps({**STATUS, "name": "verse", "state": "running", **told})
    with stand_in(Instance("verse", folder), f"{answer}\n", uid=uid, before=tamed.before) as process:
        yield process


@pytest.fixture
def rundir(public_tamed: Tamed) -> Path:
    """Make a run directory of root's."""
    public_tamed.rundir.mkdir(mode=0o755)
    return public_tamed.rundir


def test_a_run_directory_of_a_strangers_is_refused(public_tamed: Tamed, rundir: Path) -> None:
    """By every command, with one line that names it and its owner; nothing is asked of who runs there."""
    with faked(public_tamed, rundir / "verse", STRANGER, log="/etc/shadow") as fake:
        os.chown(rundir, STRANGER, STRANGER)
        for words in [*COMMANDS, "status verse", "stop verse"]:
            done = public_tamed(*words.split())
            assert (done.status, done.out, done.err.count("\n")) == (77, "", 1), (words, done)
            assert f"directory {rundir}: it belongs to user {STRANGER}" in done.err
        assert fake.poll() is None
        fake.kill()
        assert fake.stdout is not None
        assert fake.stdout.read() == ""


@pytest.mark.parametrize("command", ["status", "stop verse", "start fastpoetry --port 0"])
def test_a_run_directory_below_a_folder_that_others_can_change_is_refused(
    public_tamed: Tamed, rundir: Path, command: str
) -> None:
    """They could put another one in its place."""
    public_tamed.folder.chmod(0o777)
    done = public_tamed(*command.split())
    assert (done.status, done.out, done.err.count("\n")) == (77, "", 1), done
    assert f"directory {rundir}: {public_tamed.folder} can be written by every user" in done.err


def test_an_instance_that_others_can_change_is_refused(public_tamed: Tamed, rundir: Path) -> None:
    """And so is one that is not root's doing, where others may make folders in the run directory."""
    with faked(public_tamed, rundir / "verse", STRANGER):
        for folder, mode, told in (
            (rundir, 0o1777, f"it belongs to user {STRANGER}, and root did not start"),
            (rundir / "verse", 0o777, "others can write to it"),
        ):
            before = folder.stat().st_mode
            folder.chmod(mode)
            for command in ("status", "stop verse"):
                done = public_tamed(*command.split())
                assert (done.status, done.out, done.err.count("\n")) == (77, "", 1), done
                assert f"directory {rundir}/verse: {told}" in done.err
            folder.chmod(before)


def test_another_users_instance_is_not_for_a_user(public_tamed: Tamed, rundir: Path) -> None:
    """Nor is one of root's for the user it does not run as."""
    with faked(public_tamed, rundir / "verse", STRANGER):
        setpriv = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        as_nobody = Tamed(public_tamed.folder, before=[*public_tamed.before, *setpriv])
        for command in ("status", "status verse", "logs verse", "stop verse"):
            done = as_nobody(*command.split())
            assert (done.status, done.err.count("\n")) == (77, 1), done
            assert f"{rundir}/verse: it belongs to user {STRANGER}" in done.err


@pytest.mark.parametrize(
    ("place", "ended"),
    [
        ("secret", False),
        ("link", False),
        ("fifo", False),
        ("device", False),
        ("secret", True),
        ("fifo", True),
    ],
)
def test_root_reads_no_file_but_the_users_for_the_log(
    public_tamed: Tamed, rundir: Path, place: str, ended: bool
) -> None:
    """Whatever path its daemon names: neither a secret of root's is shown, nor does the command hang."""
    secret = public_tamed.write("secret", "of root's\n")
    secret.chmod(0o600)
    log = public_tamed.folder / "the.log"
    match place:
        case "secret":
            log = secret
        case "link":
            log.symlink_to(secret)
        case "fifo":
            os.mkfifo(log)
        case _:
            log = Path("/dev/zero")
    folder = rundir / "verse"
    with faked(public_tamed, folder, STRANGER, log=str(log)) as fake:
        if ended:
            fake.kill()
            fake.wait()
            (folder / "verse.failed").write_text(
                json.dumps({"error": "no", "status": 1, "ended_at": "now", "log": str(log)})
            )
            os.chown(folder / "verse.failed", STRANGER, STRANGER)
        done = public_tamed("logs", "verse")
    assert done.status != 0
    assert done.out == ""
    assert f"cannot read the log {log}: " in done.err
    assert "of root's" not in done.err


def test_what_a_daemon_says_does_nothing_to_a_terminal(public_tamed: Tamed, rundir: Path) -> None:
    """An escape sequence in whatever field is shown as text, and an answer that is none is one line."""
    bad = "\x1b]0;owned\x07"
    with faked(public_tamed, rundir / "verse", STRANGER, name=bad, endpoints=[bad], warnings=[bad]):
        done = public_tamed("status", "verse")
        assert (done.status, "\x1b" in done.out, "\\x1b]0;owned" in done.out) == (0, False, True), done
        for command in ("reload", "upgrade", "reopen", "scale 2"):
            done = public_tamed(*command.split(), "verse")
            assert (done.status, done.out, done.err.count("\n")) == (71, "", 1), done
            assert "invalid answer" in done.err
    with faked(public_tamed, rundir / "verse", STRANGER, fault={"lines": [bad], "status": 9}):
        done = public_tamed("reload", "verse")
        assert (done.status, done.err) == (9, "\\x1b]0;owned\\x07\n"), done


# It takes the place of the control socket of a daemon that runs, and answers as that would.
IMPOSTOR = """
import os, socket, sys
path, uid, answer = sys.argv[1], int(sys.argv[2]), sys.argv[3]
os.setresuid(uid, uid, uid)
os.unlink(path)
with socket.socket(socket.AF_UNIX) as listening:
    listening.bind(path)
    listening.listen()
    print(flush=True)
    while True:
        with listening.accept()[0] as client:
            client.sendall(answer.encode() + b"\\n")
"""


@pytest.mark.parametrize("command", ["status", "reload", "logs"])
def test_only_the_holder_of_the_lock_is_asked(public_tamed: Tamed, rundir: Path, command: str) -> None:
    """Another process, be it of the same user, is not believed, and both are named."""
    folder = rundir / "verse"
    answer = json.dumps({**STATUS, "name": "verse", "reloaded": "it was", "log": "/etc/hostname"})
    words = [sys.executable, "-c", IMPOSTOR, str(folder / "verse.sock"), str(STRANGER), answer]
    with (
        faked(public_tamed, folder, STRANGER) as holder,
        subprocess.Popen([*public_tamed.before, *words], stdout=subprocess.PIPE) as impostor,
    ):
        assert impostor.stdout is not None
        impostor.stdout.readline()
        done = public_tamed(command, "verse")
        impostor.kill()
    assert (done.status, done.out, done.err.count("\n")) == (77, "", 1), done
    assert f"process {impostor.pid} listens there, and {holder.pid} is the daemon" in done.err


def test_a_status_is_no_longer_than_what_was_answered(public_tamed: Tamed, rundir: Path) -> None:
    """One wide field does not make all rows of a table as wide, and a field of several lines is one."""
    worker = STATUS["workers"][0]
    forged = "x\nlistening on 192.0.2.1:443"
    workers = [{**worker, "state": "s" * 40_000}, {**worker, "state": forged}, *[worker] * 250]
    tree = {"name": forged, "state": forged, "restarts": 0, "summary": forged, "children": []}
    workers[0]["tree"] = tree
    with faked(public_tamed, rundir / "verse", STRANGER, workers=workers, last_error=forged) as fake:
        done = public_tamed("status", "verse")
        assert fake.poll() is None
    assert done.status == 0, done
    assert len(done.out) < 120_000
    assert [line for line in done.out.splitlines() if line.startswith("listening on 192.0.2.1")] == []


def test_root_signals_only_a_process_of_the_folders_owner(public_tamed: Tamed, rundir: Path) -> None:
    """A user who names a process of root's that has the pid file open does not get it signalled."""
    folder = rundir / "verse"
    pid_file = folder / "verse.pid"
    with faked(public_tamed, folder, STRANGER):
        reading = [
            "-c",
            "import sys; file = open(sys.argv[1]); print(flush=True); sys.stdin.read()",
            pid_file,
        ]
        with subprocess.Popen(
            [sys.executable, *map(str, reading)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as roots:
            assert roots.stdout is not None
            roots.stdout.readline()
            pid_file.write_text(f"{roots.pid}\n")
            done = public_tamed("stop", "verse")
            assert (done.status, done.err.count("\n")) == (77, 1), done
            assert (
                f"it belongs to user {STRANGER}, but process {roots.pid}, whose pid it contains, to user 0"
                in done.err
            )
            assert roots.poll() is None
            roots.kill()


def test_a_daemon_that_does_not_answer_keeps_nobody_for_long(public_tamed: Tamed, rundir: Path) -> None:
    """A byte now and then is no answer: the time is that of the whole."""
    folder = rundir / "verse"
    folder.mkdir()
    os.chown(folder, STRANGER, STRANGER)
    with stand_in(Instance("verse", folder), "", SLOW, uid=STRANGER, before=public_tamed.before):
        begun = time.monotonic()
        done = public_tamed("status", "verse")
    assert (done.status, done.err.count("\n")) == (71, 1), done
    assert "no answer within 10 seconds" in done.err
    assert time.monotonic() - begun < min(99, PATIENCE)
