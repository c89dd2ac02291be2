"""The options of a daemon in the foreground, without workers."""

import gzip
import os
import signal
import socket
import stat
from pathlib import Path

from tests.supervised.daemon import NOBODY, POEM, Tamed, needs_root, read_poem, wait_for

CHATTY = """
import asyncio, logging
from tamed import Application, Service
log = logging.getLogger("app")

class Chatty(Service):
    async def run(self):
        for number in range(10**9):
            log.info("line %d", number)
            await asyncio.sleep(0.001)

application = Application("app", Chatty("chatty"))
"""


# What measures a process writes a file when it ends, which it cannot from within another root directory.
UNMEASURED = {"COVERAGE_PROCESS_START": "", "COVERAGE_PROCESS_CONFIG": ""}


def test_the_log_goes_to_a_file_and_is_rotated(tamed: Tamed) -> None:
    """Old files are compressed by a child, which is reaped, and USR1 reopens the file."""
    tamed.write("app.py", CHATTY)
    log = tamed.folder / "app.log"
    options = ["--log", "app.log", "--log-rotate", "2 kB", "--log-compress", "--log-keep", "100"]
    with tamed.foreground("run", *options, "app.py") as process:
        assert wait_for("compressed logs", lambda: unpacked(tamed.folder)).endswith(b"\n")
        log.rename(tamed.folder / "moved")
        process.signal(signal.SIGUSR1)
        wait_for("the new file", lambda: log.exists() and log.read_text())
        process.signal(signal.SIGINT)
        assert process.wait() == 0
        assert process.output == ""
    assert tamed.processes() == []


def unpacked(folder: Path) -> bytes:
    """Return what is in the second compressed log, if there is one that keeps its name meanwhile."""
    try:
        return b"".join(
            gzip.decompress(path.read_bytes()) for path in sorted(folder.glob("app.log.*.gz"))[1:2]
        )
    except FileNotFoundError:
        return b""


def test_the_pid_file_is_held_and_removed(tamed: Tamed) -> None:
    """A second daemon with the same pid file reports the running one, with status 75."""
    arguments = ["run", "--pid-file", "app.pid", "fastpoetry", "--port", "0"]
    with tamed.foreground(*arguments) as process:
        process.expect("is ready")
        assert (tamed.folder / "app.pid").read_text() == f"{process.pid}\n"
        done = tamed(*arguments)
        assert (done.status, done.err.count("\n")) == (75, 1)
        assert f"process {process.pid} runs" in done.err
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
    assert not (tamed.folder / "app.pid").exists()


@needs_root
def test_a_privileged_port_is_bound_before_root_is_given_up(public_tamed: Tamed) -> None:
    """Every thread of the process then runs as nobody; it writes its log, and removes its pid file."""
    folder = public_tamed.folder / "nobodys"
    folder.mkdir()
    os.chown(folder, NOBODY, NOBODY)
    options = ["--user", "nobody", "--log", str(folder / "log"), "--pid-file", str(folder / "pid")]
    socket_file = folder / "sock"
    target = ["fastpoetry", "--listen", f"unix:{socket_file}", "--poem", str(public_tamed.poem)]
    with public_tamed.foreground("run", *options, *target) as process:
        wait_for("the start", lambda: "is ready" in _text(folder / "log"))
        for task in Path(f"/proc/{process.pid}/task").iterdir():
            status = (task / "status").read_text()
            assert f"Uid:\t{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}\n" in status
            assert "CapEff:\t0000000000000000\n" in status
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(socket_file))
            assert sock.makefile("rb").read() == POEM
        assert (folder / "log").stat().st_uid == NOBODY
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
    assert sorted(path.name for path in folder.iterdir()) == ["log", "log.events"]


@needs_root
def test_a_process_is_shut_in_a_directory(public_tamed: Tamed) -> None:
    """Its services see this root directory; a later error is still reported in full."""
    cell = public_tamed.folder / "cell"
    cell.mkdir()
    (cell / "poem.txt").write_bytes(POEM)
    options = ["--chroot", "cell", "--user", "nobody"]
    with public_tamed.foreground(
        "run", *options, "fastpoetry", "--port", "0", "--poem", "/poem.txt"
    ) as process:
        port = int(process.expect(r"listening on 127\.0\.0\.1:(\d+)")[1])
        process.expect("is ready")
        assert Path(f"/proc/{process.pid}/root").readlink() == cell
        opened = [each.readlink() for each in Path(f"/proc/{process.pid}/fd").iterdir()]
        assert [each for each in opened if each.is_dir()] == []  # by which the cell could be left
        assert read_poem(port) == POEM
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
    done = public_tamed("run", *options, "fastpoetry", "--port", "0", "--poem", "/none.txt", env=UNMEASURED)
    assert done.status == 66
    assert done.err == (
        "tamed: service fastpoetry/poetry failed in start: cannot read the poem /none.txt: "
        "No such file or directory; use a readable file\n"
    )
    for option, remedy in (("--log", "log to stderr, the journal or syslog"), ("--pid-file", "leave it out")):
        done = public_tamed("run", *options, option, "file", "fastpoetry", "--port", "0")
        assert done.status == 78
        assert done.err.endswith(f"a way out of the new root directory; {remedy}\n")
    done = public_tamed("run", "--chroot", "/none", "fastpoetry", "--port", "0")
    assert done.status == 66
    assert done.err.endswith("tamed: cannot change the root directory to /none: No such file or directory\n")


def test_the_environment_file_is_read_before_all_else(tamed: Tamed) -> None:
    """Its variables are options, too, and have precedence over existing ones."""
    tamed.write("env", "# settings\n\nexport TAMED_LOG_FORMAT=json\nWORD='from the file'\nOTHER=\n")
    tamed.write(
        "app.py", "import os\nprint([os.environ['WORD'], os.environ['OTHER']])\nraise SystemExit(4)\n"
    )
    done = tamed("run", "--env-file", "env", "app.py", env={"WORD": "from outside"})
    assert (done.status, done.out) == (4, "['from the file', '']\n")
    with tamed.foreground("run", "--env-file", "env", "fastpoetry", "--port", "0") as process:
        process.expect('^{"time": .*"message": "fastpoetry is ready"')
    for line in ("no equals sign", "1=2", "secret word=x"):
        tamed.write("env", f"A=1\n{line}\n")
        done = tamed("check", "--env-file", "env", "fastpoetry")
        assert (done.status, done.err) == (78, "tamed: env:2: expected KEY=VALUE\n")


def test_the_umask_is_set(tamed: Tamed) -> None:
    """In the foreground it is inherited, unless an option sets it."""
    tamed.write("app.py", "import os\nprint(f'{os.umask(0):04o}')\nraise SystemExit(0)\n")
    before = os.umask(0o022)
    try:
        assert tamed("run", "app.py").out == "0022\n"
        assert tamed("run", "--umask", "077", "app.py").out == "0077\n"
    finally:
        os.umask(before)


def test_a_process_may_have_so_many_files_open(tamed: Tamed) -> None:
    """The limit applies to every process of a daemon."""
    tamed.write(
        "app.py",
        "import resource\nfrom tamed import Application\napplication = Application('app')\n"
        "print('limit', resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n",
    )
    with tamed.foreground("run", "--max-files", "99", "app.py") as process:
        process.expect("limit 99")
    daemon = tamed.start("--max-files", "98", "app.py")
    daemon.expect_log("limit 98")
    assert "Max open files            98 " in Path(f"/proc/{daemon.pid}/limits").read_text()
    assert stat.S_IMODE(daemon.log_file.stat().st_mode) == 0o640
    daemon.stop()


def test_a_terminal_that_goes_away_stops_it_in_order(tamed: Tamed) -> None:
    """The socket and the pid file are gone, as after any stop."""
    arguments = ["run", "--pid-file", "pid", "fastpoetry", "--listen", "unix:sock"]
    with tamed.foreground(*arguments) as process:
        process.expect("is ready")
        assert (tamed.folder / "sock").exists()
        process.signal(signal.SIGHUP)
        assert process.wait() == 0
    assert not (tamed.folder / "sock").exists()
    assert not (tamed.folder / "pid").exists()


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
