import asyncio
import logging
import os
import resource
import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tamed.builtin.exec import Options, exec_
from tamed.builtin.programs.options import Command, Umask
from tamed.errors import (
    ApplicationFailed,
    ConfigurationError,
    DeadlinePassed,
    MissingInput,
    PermissionRefused,
    ServiceFailed,
)
from tamed.net.endpoint import Endpoint
from tamed.plugins.values import Duration, Size
from tamed.service.lifecycle import State
from tests.builtin.programs import (
    Marked,
    children_of,
    fork_server_pid,
    lines,
    living_children,
    nothing_left,
    open_descriptors,
    program_of,
    python,
    run,
    shell,
    until,
    wait_for,
)
from tests.patience import PATIENCE

pytestmark = pytest.mark.anyio

RESTARTS = int(os.environ.get("TAMED_TEST_RESTARTS", "30"))


@pytest.fixture(autouse=True)
def no_child_is_left() -> Iterator[None]:
    """Hold that this process has no more children at the end of a test."""
    before = living_children()
    yield
    wait_for("the end of the children", lambda: living_children() <= before)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do this")

IGNORES_TERM = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"

STUBBORN_FAMILY = f"""
import os, subprocess, sys
stubborn = [sys.executable, "-c", {IGNORES_TERM!r}]
subprocess.Popen(stubborn)
subprocess.Popen(stubborn, process_group=0)
subprocess.Popen(stubborn, start_new_session=True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv(sys.executable, stubborn)
    os._exit(0)
os.wait()
print("ready", flush=True)
{IGNORES_TERM}
"""


@pytest.fixture(autouse=True)
def everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Let tests read what programs print."""
    caplog.set_level(logging.INFO)


def logged(caplog: pytest.LogCaptureFixture, name: str) -> list[str]:
    """Return the messages of a logger."""
    return [record.getMessage() for record in caplog.records if record.name == name]


@pytest.mark.both_loops
async def test_output_is_logged_line_by_line_under_the_programs_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Both outputs in their order, also a line that never ends."""
    async with run(shell("echo one; echo two >&2; printf three")):
        await until("the output", lambda: len(logged(caplog, "exec.sh")) == 3)
    assert logged(caplog, "exec.sh") == ["one", "two", "three"]


async def test_long_lines_and_rubbish_are_made_harmless(caplog: pytest.LogCaptureFixture) -> None:
    """A line is cut at the limit; control characters and what is not UTF-8 are written out."""
    script = r"""printf '\033[2J\377\n'; printf '%040d\n' 0"""
    async with run(shell(script), line_limit=Size(32)):
        await until("the output", lambda: len(logged(caplog, "exec.sh")) == 3)
    assert logged(caplog, "exec.sh") == ["\\x1b[2J\\xff", "0" * 32 + " [...]", "0" * 8]


async def test_a_program_that_prints_without_end_does_not_hold_up_the_loop() -> None:
    """Other work goes on, and the stop too."""
    async with run(Command(("yes", "no rest"))):
        for _ in range(20):
            async with asyncio.timeout(PATIENCE):
                await asyncio.sleep(0)


async def test_a_program_that_ends_well_is_not_started_again(tmp_path: Path) -> None:
    """By default, its work is done then."""
    file = tmp_path / "runs"
    async with run(shell(f"echo run >> {file}")) as service:
        program = program_of(service)
        await until("its end", lambda: not children_of(fork_server_pid(service)))
        assert (lines(file), program.state, program.restarts) == (["run"], State.RUNNING, 0)


async def test_a_program_that_always_fails_is_given_up(tmp_path: Path) -> None:
    """After as many restarts as the policy allows, with growing pauses; the failure says how it ended."""
    file = tmp_path / "runs"
    service = run(
        shell(f"date +%s.%N >> {file}; exit 3"),
        restart_limit=3,
        restart_pause=Duration("50ms"),
        restart_pause_max=Duration("1s"),
    )
    with pytest.raises(ServiceFailed, match="ended with status 3"):
        async with service, asyncio.timeout(PATIENCE):
            await asyncio.Event().wait()
    times = [float(line) for line in lines(file)]
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert len(times) == 4
    assert all(pause > least for pause, least in zip(pauses, (0.045, 0.09, 0.18), strict=True))


async def test_a_status_that_means_success_is_no_failure(tmp_path: Path) -> None:
    """Which those are is an option."""
    async with run(shell("exit 3"), success=[0, 3]) as service:
        await until("its end", lambda: not children_of(fork_server_pid(service)))
        assert program_of(service).restarts == 0


async def test_a_program_that_fails_at_once_fails_the_start() -> None:
    """If it does not run for `ready-after`, no readiness is reported."""
    with pytest.raises(ServiceFailed, match="ended with status 4") as caught:
        async with run(shell("exit 4"), ready_after=Duration("10s")):
            pass
    assert caught.value.phase == "start"
    assert isinstance(caught.value.cause, ApplicationFailed)


async def test_a_program_that_does_its_work_and_ends_has_started() -> None:
    """Nobody waits for `ready-after` then."""
    async with asyncio.timeout(PATIENCE), run(shell("exit 0"), ready_after=Duration("10m")):
        pass


async def test_a_stubborn_program_is_killed_at_its_deadline_with_all_it_has_started(
    marked: Marked, caplog: pytest.LogCaptureFixture
) -> None:
    """This includes children in its group, in other groups and sessions, and an orphaned daemon."""
    service = run(python(STUBBORN_FAMILY), stop_timeout=Duration("300ms"), environment=marked.environment)
    with nothing_left(marked):
        async with service:
            await until("the family", lambda: "ready" in caplog.messages)
            assert len(marked.processes()) == 5
            loop = asyncio.get_running_loop()
            asked = loop.time()
        assert 0.3 <= loop.time() - asked < 5


async def test_the_stop_signal_is_the_programs_own(caplog: pytest.LogCaptureFixture) -> None:
    """It goes to the program alone, which sees to its children itself."""
    script = "trap 'echo quit; exit 0' QUIT; trap '' TERM; echo ready; while :; do sleep 0.01; done"
    async with run(shell(script), stop_signal=Options(command=Command(("x",))).stop_signal.parse("QUIT")):
        await until("the trap", lambda: "ready" in caplog.messages)
    assert logged(caplog, "exec.sh") == ["ready", "quit"]


async def test_what_a_program_leaves_behind_ends_with_it(marked: Marked, tmp_path: Path) -> None:
    """A daemon that it has started, too: else every restart would leave one more."""
    file = tmp_path / "runs"
    command = shell(f"setsid sleep 600 & echo run >> {file}; exit 1")
    service = run(command, environment=marked.environment, restart_pause=Duration("10ms"))
    with nothing_left(marked), pytest.raises(ServiceFailed):
        async with service, asyncio.timeout(PATIENCE):
            await asyncio.Event().wait()
    assert len(lines(file)) == 6


async def test_many_restarts_leave_nothing(marked: Marked) -> None:
    """No zombie, no orphan, no descriptor: a program that ends at once and leaves a child each time."""
    descriptors = open_descriptors()
    service = run(
        shell("sleep 600 & exit 0"),
        restart="always",
        restart_limit=0,
        restart_pause=Duration(0),
        restart_pause_max=Duration(0),
        environment=marked.environment,
    )
    with nothing_left(marked):
        async with service:
            program = program_of(service)
            await until("the restarts", lambda: program.restarts >= RESTARTS, patience=PATIENCE + RESTARTS)
            assert len(children_of(fork_server_pid(service))) <= 3  # one that runs, others that just ended
            assert len(marked.processes()) <= 3
    assert open_descriptors() < descriptors + 10  # the event loop may have made some of its own


@pytest.mark.both_loops
async def test_a_program_that_is_killed_is_started_again(caplog: pytest.LogCaptureFixture) -> None:
    """The log names the signal."""
    async with run(Command(("sleep", "600")), restart_pause=Duration(0)) as service:
        program = program_of(service)
        first = program.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until("another one", lambda: program.pid not in (None, first))
        assert "it was ended by SIGKILL" in caplog.text


async def test_a_program_dies_with_its_shim(marked: Marked) -> None:
    """Its processes are killed with it, and it is started again."""
    command = shell("setsid sleep 600 & sleep 600; true")
    async with run(command, environment=marked.environment, restart_pause=Duration(0)) as service:
        await until("the children", lambda: len(marked.processes()) == 3)
        before = set(marked.processes())
        (shim,) = children_of(fork_server_pid(service))
        os.kill(shim, signal.SIGKILL)
        await until("the new ones", lambda: len(set(marked.processes()) - before) == 3)
        await until("the end of the old ones", lambda: not before & set(marked.processes()))
    assert marked.processes() == []


async def test_programs_outlive_their_fork_server(marked: Marked) -> None:
    """It is replaced, and the programs are stopped as ever."""
    async with run(Command(("sleep", "600")), environment=marked.environment) as service:
        program, before = program_of(service), fork_server_pid(service)
        os.kill(before, signal.SIGKILL)
        await until("another fork server", lambda: fork_server_pid(service) not in (0, before))
        assert marked.processes() == [program.pid]
    assert marked.processes() == []


async def test_a_start_that_takes_too_long_leaves_nothing(marked: Marked) -> None:
    """A program that never says that it is ready is stopped at the deadline."""
    service = run(
        Command(("sleep", "600")),
        ready_notify=True,
        start_timeout=Duration("200ms"),
        environment=marked.environment,
    )
    with nothing_left(marked), pytest.raises(ServiceFailed) as caught:
        async with service:
            pass
    assert isinstance(caught.value.cause, DeadlinePassed)


async def test_a_program_says_that_it_is_ready(caplog: pytest.LogCaptureFixture) -> None:
    """By the notify protocol; its status is in the summary."""
    script = """
import os, socket, time
print("begun", flush=True)
sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sock.connect(chr(0) + os.environ["NOTIFY_SOCKET"][1:])
sock.send(b"STATUS=warming up")
sock.send(b"rubbish" + bytes(range(256)))
sock.send(b"STATUS=serving poems" + bytes([10]) + b"READY=1")
time.sleep(600)
"""
    async with run(python(script), ready_notify=True) as service:
        program = program_of(service)
        assert program.summary.endswith(f"pid {program.pid}, serving poems")


async def test_a_program_that_ends_before_it_is_ready_fails_the_start() -> None:
    """Also with success, as it has never been what it promised."""
    with pytest.raises(ServiceFailed, match="ended before it was ready"):
        async with run(shell("exit 0"), ready_notify=True):
            pass


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_a_program_is_ready_when_it_accepts(kind: str, tmp_path: Path) -> None:
    """At the address that is named, and not before."""
    address = f"unix:{tmp_path}/s" if kind == "unix" else "127.0.0.1:0"
    if kind == "tcp":
        probe = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        address = f"127.0.0.1:{probe.sockets[0].getsockname()[1]}"
        probe.close()
        await probe.wait_closed()
    make = (
        f"socket.AF_UNIX); s.bind('{tmp_path}/s')"
        if kind == "unix"
        else (f"); s.setsockopt(1, 2, 1); s.bind(('127.0.0.1', {address.rpartition(':')[2]}))")
    )
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    wait = f"open({str(pipe)!r}).read()"
    script = f"import socket, time; s = socket.socket({make}; {wait}; s.listen(); time.sleep(600)"
    events: list[str] = []

    async def let_listen() -> None:
        end = await asyncio.to_thread(os.open, pipe, os.O_WRONLY)  # the program has opened it, too
        events.append("listens")
        os.close(end)

    listening = asyncio.create_task(let_listen())
    async with run(python(script), ready_at=Endpoint.parse(address)):
        events.append("is ready")
        await listening
        assert events == ["listens", "is ready"]
        if kind == "tcp":
            _, writer = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))
        else:
            _, writer = await asyncio.open_unix_connection(f"{tmp_path}/s")
        writer.close()
        await writer.wait_closed()


LISTENER = """
import os, socket
assert os.environ["LISTEN_PID"] == str(os.getpid()), os.environ["LISTEN_PID"]
descriptors = sorted(map(int, os.listdir("/proc/self/fd")))[:-1]
print(os.environ["LISTEN_FDS"], os.environ["LISTEN_FDNAMES"], descriptors, flush=True)
server = socket.socket(fileno=3)
server.setblocking(True)
while True:
    client, _ = server.accept()
    client.sendall(f"{os.getpid()}".encode())
    client.close()
"""


@pytest.mark.both_loops
async def test_sockets_are_passed_as_systemd_does(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """From descriptor 3 on, with the program's own pid, its name, and nothing else open."""
    listen = [Endpoint.parse("127.0.0.1:0"), Endpoint.parse(f"unix:{tmp_path}/s")]
    async with run(python(LISTENER), listen=listen) as service:
        port = int(service["sockets"].summary.split(",")[0].rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert int(await reader.read()) == program_of(service).pid
        writer.close()
        await writer.wait_closed()
        name = service.name
        assert logged(caplog, f"exec.{name}") == [f"2 {name}:{name} [0, 1, 2, 3, 4]"]
    assert not (tmp_path / "s").exists()


async def test_clients_wait_while_a_program_is_restarted() -> None:
    """The socket is ours, so that none is refused."""
    async with run(
        python(LISTENER), listen=[Endpoint.parse("127.0.0.1:0")], restart_pause=Duration("200ms")
    ) as service:
        port = int(service["sockets"].summary.rpartition(":")[2])
        program = program_of(service)
        first = program.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until("its end", lambda: program.pid is None)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert int(await reader.read()) == program.pid
        writer.close()
        await writer.wait_closed()


async def test_directory_environment_umask_and_limits_are_the_programs(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables that were meant for Tamed are not handed on."""
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    monkeypatch.setenv("KEPT", "kept")
    script = 'pwd; umask; ulimit -n; ulimit -c; echo "$KEPT $VERSE ${NOTIFY_SOCKET-none}"'
    async with run(
        shell(script),
        directory=tmp_path,
        environment={"VERSE": "busy old fool"},
        pass_environment=["*"],
        umask=Umask.parse("0137"),
        limit={"nofile": Size(123), "core": Size(0)},
    ):
        await until("the output", lambda: len(logged(caplog, "exec.sh")) == 5)
    assert logged(caplog, "exec.sh") == [str(tmp_path), "0137", "123", "0", "kept busy old fool none"]


async def test_what_is_not_passed_is_not_there(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program gets what a login would set, what is named, and nothing else of Tamed's variables."""
    monkeypatch.setenv("DB_PASSWORD", "secret")
    monkeypatch.setenv("APP_ONE", "1")
    monkeypatch.setenv("LC_TIME", "C")
    async with run(Command(("env",)), pass_environment=["APP_*"], environment={"A": "1"}):
        await until("the output", lambda: any(line.startswith("A=1") for line in logged(caplog, "exec.env")))
        await until("all of it", lambda: len(logged(caplog, "exec.env")) >= 4)
    told = set(logged(caplog, "exec.env"))
    assert {"A=1", "APP_ONE=1", "LC_TIME=C", f"PATH={os.environ['PATH']}"} <= told
    names = {line.partition("=")[0] for line in told} - {"A", "APP_ONE"}
    allowed = {"PATH", "HOME", "LOGNAME", "USER", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR"}
    # Coverage has what is executed measured too.
    assert {name for name in names if not name.startswith(("LC_", "COVERAGE_"))} <= allowed


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"no_new_privileges": True}, "1"),
        ({}, "0"),
        pytest.param({"user": "daemon"}, "1", marks=needs_root),
        pytest.param({"user": "daemon", "no_new_privileges": False}, "0", marks=needs_root),
    ],
)
async def test_new_privileges(caplog: pytest.LogCaptureFixture, settings: dict[str, Any], told: str) -> None:
    """A program that has a user of its own gains no privileges by setuid programs, unless that is said."""
    async with run(shell("grep NoNewPrivs /proc/self/status"), **settings):
        await until("the output", lambda: len(logged(caplog, "exec.sh")) == 1)
    assert logged(caplog, "exec.sh")[0].split() == ["NoNewPrivs:", told]


@needs_root
async def test_a_program_runs_as_its_own_user(caplog: pytest.LogCaptureFixture) -> None:
    """With that user's groups, home and name, and cannot go back."""
    async with run(shell("id -un; id -gn; id -G; echo $USER $HOME"), user="daemon"):
        await until("the output", lambda: len(logged(caplog, "exec.sh")) == 4)
    assert logged(caplog, "exec.sh") == ["daemon", "daemon", "1", "daemon /usr/sbin"]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"command": Command(("no-such-program",))}, MissingInput, "cannot execute no-such-program"),
        ({"command": Command(("/etc/passwd",))}, PermissionRefused, "cannot execute /etc/passwd"),
        ({"directory": Path("/no/such")}, MissingInput, "change to the directory /no/such"),
    ],
)
async def test_a_program_that_cannot_be_run_fails_the_start(
    options: dict[str, object], error: type[Exception], words: str
) -> None:
    """The reason is what the system said, and at what."""
    settings = {"command": Command(("true",)), **options}
    command = settings.pop("command")
    assert isinstance(command, Command)
    with pytest.raises(ServiceFailed, match=words) as caught:
        async with run(command, **settings):
            pass
    assert isinstance(caught.value.cause, error)


async def test_a_limit_above_what_is_allowed_fails_the_start() -> None:
    """For who may not raise it, and for root beyond what the kernel has."""
    with pytest.raises(ServiceFailed, match="cannot limit nofile to"):
        async with run(Command(("true",)), limit={"nofile": Size(2**40)}):
            pass
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 2**40


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"listen": [Endpoint.parse("tls://:1?cert=/c")]}, "it must handle TLS"),
        ({"limit": {"nofiles": Size(1)}}, "did you mean 'nofile'"),
        ({"ready_notify": True, "ready_at": Endpoint.parse(":1")}, "exclude each other"),
        ({"ready_at": Endpoint.parse("systemd://x")}, "expected an address to connect to"),
        ({"restart_pause": Duration(9), "restart_pause_max": Duration(1)}, "first <= maximum"),
        ({"restart_limit": -1}, "limit >= 0"),
    ],
)
def test_options_are_checked_against_each_other(options: dict[str, object], words: str) -> None:
    """When they are given, not when the program is to run."""
    with pytest.raises(ValueError, match=words):
        Options(command=Command(("true",)), **options)  # type: ignore[arg-type]


def test_an_unknown_user_is_reported_when_the_service_is_made() -> None:
    """So that `tamed check` tells it."""
    with pytest.raises(ConfigurationError, match="no such user"):
        exec_(Options(command=Command(("true",)), user="no-such-user"))
