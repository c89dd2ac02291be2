"""Reload, upgrade and scaling with real processes, under a load that detects each failure."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import pytest
import trustme

from bench.load import Load
from tamed.config.settings import Daemon as Settings
from tests.patience import PATIENCE, ROUNDS
from tests.supervised.daemon import (
    POEM,
    Daemon,
    Done,
    Tamed,
    is_there,
    read_poem,
    wait_for,
)
from tests.supervised.talk import APPLICATION, connected, finish

PASSES = max(1, ROUNDS // 3)  # of what has several changes in it
RATE = 500 if ROUNDS == 1 else 0
"""Clients a second: some while each worker comes or goes; in the long run as many as there can be."""


@pytest.fixture
def poem(tamed: Tamed) -> Path:
    """A copy of the poem, for comparison."""
    good = tamed.folder / "good.txt"
    good.write_bytes(tamed.poem.read_bytes())
    return good


@contextmanager
def unnoticed(daemon: Daemon, poem: Path, what: str) -> Iterator[None]:
    """Connect clients all the time, none of which may fail whatever happens."""
    address = daemon.addresses[0]
    target = address.removeprefix("unix:") if address.startswith("unix:") else ("127.0.0.1", daemon.port)
    with Load(target, expect=[poem], rate=RATE).start() as load:
        yield
    assert load.result.failures == 0, (what, load.result)
    assert load.result.ok > 20, (what, load.result)


def reload(daemon: Daemon) -> Done:
    """Reload, which must succeed."""
    done = daemon.tamed("reload", daemon.name)
    assert done.status == 0, done
    return done


@pytest.mark.unmeasured
def test_no_client_notices_a_reload_of_one_worker_at_a_unix_socket(tamed: Tamed, poem: Path) -> None:
    """No client fails, although there is no other worker; the next test tries several, and TCP."""
    listen = ("--listen", f"unix:{tamed.folder}/socket")
    daemon = tamed.start("--log-level", "warning", "fastpoetry", "--poem", tamed.poem, *listen)
    with unnoticed(daemon, poem, "a reload"):
        for _ in range(ROUNDS):
            reload(daemon)
    assert daemon.status()["generation"] == 1 + ROUNDS
    daemon.stop()


@pytest.mark.unmeasured
def test_no_client_notices_a_change(tamed: Tamed, poem: Path) -> None:
    """No client fails during a reload that fails, and the reason is reported; nor during one that works.

    Nor during an upgrade, in which the process keeps its pid and its resources; nor when the daemon scales up
    and down, by command and by signal.
    """
    daemon = tamed.start_poetry("--workers", "2", "--log-level", "warning")
    with unnoticed(daemon, poem, "reloads"):
        for _ in range(ROUNDS):
            tamed.poem.unlink()
            done = tamed("reload")
            assert (done.status, done.out) == (66, "")
            assert done.err.startswith(
                "tamed: service fastpoetry/poetry failed in start: cannot read the poem"
            )
            tamed.poem.write_bytes(poem.read_bytes())
            reload(daemon)
    with unnoticed(daemon, poem, "upgrades"):
        for number in range(ROUNDS):
            done = tamed("upgrade")
            told = f"fastpoetry was upgraded: generation {2 * ROUNDS + number + 2}, 2 workers\n"
            assert done == (0, told, "")
    assert daemon.status()["pid"] == daemon.pid
    assert (daemon.folder / "fastpoetry.pid").read_text() == f"{daemon.pid}\n"
    assert tamed("start", "--name", "fastpoetry", "fastpoetry").status == 75
    with unnoticed(daemon, poem, "scaling"):
        for _ in range(PASSES):
            for count in (4, 1, 2):
                assert tamed("scale", str(count)).status == 0
                daemon.wait_workers(count)
            daemon.signal(signal.SIGTTIN)
            daemon.wait_workers(3)
            daemon.signal(signal.SIGTTOU)
            daemon.wait_workers(2)
    daemon.stop()


@pytest.mark.unmeasured
def test_no_client_notices_a_reload_of_a_tls_server(tamed: Tamed) -> None:
    """No client fails, and the certificate is another one afterwards."""
    first, second = trustme.CA(), trustme.CA()
    pem = tamed.folder / "server.pem"
    first.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(pem))
    daemon = tamed.start(
        "--workers", "2", "fastpoetry", "--poem", tamed.poem, "--listen", f"tls://localhost:0?cert={pem}"
    )
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for ca in (first, second):
        ca.configure_trust(trusting)
    heard: list[bytes] = []
    is_over = threading.Event()

    def listen() -> None:
        while not is_over.is_set():
            heard.append(_read_tls(daemon.port, trusting))

    threads = [threading.Thread(target=listen) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        second.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(pem))
        for _ in range(ROUNDS):
            reload(daemon)
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    assert set(heard) == {POEM}
    only_new = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    second.configure_trust(only_new)
    assert _read_tls(daemon.port, only_new) == POEM
    daemon.stop()


def _read_tls(port: int, context: ssl.SSLContext) -> bytes:
    """Read the poem; return an error as its text."""
    try:
        with (
            socket.create_connection(("localhost", port), timeout=PATIENCE) as sock,
            context.wrap_socket(sock, server_hostname="localhost") as secure,
        ):
            return secure.makefile("rb").read()
    except OSError as error:
        return repr(error).encode()


def test_no_client_notices_recycling(tamed: Tamed, poem: Path) -> None:
    """Workers that have reached their limit are replaced before they leave."""
    limit = ["--max-connections-per-worker", "200"]
    daemon = tamed.start_poetry("--workers", "2", "--log-level", "warning", *limit)
    with unnoticed(daemon, poem, "recycling"):
        for _ in range(PASSES):
            daemon.wait_workers(2, without=daemon.workers())
    daemon.expect_log(r"worker \d+ has served \d+ connections: replacing it")
    daemon.stop()


def test_a_client_that_is_silent_at_the_reload_is_answered_by_the_old_worker(tamed: Tamed) -> None:
    """New workers serve meanwhile, and the status shows both generations.

    The same client outlives an upgrade, and the output of its worker is in the log.
    """
    tamed.write("app.py", APPLICATION)
    daemon = tamed.start("app.py")
    with connected(daemon.port) as (worker, sock):
        reload(daemon)
        with connected(daemon.port) as (other, another):
            assert other != worker
            assert finish(another) == b"poem"
        states = {each["pid"]: (each["generation"], each["state"]) for each in daemon.status()["workers"]}
        assert states == {worker: (1, "draining"), other: (2, "ready")}
        daemon.signal(signal.SIGUSR2)
        daemon.expect_log("generation 3")
        assert finish(sock, b"print") == b"poem"
    daemon.expect_log(rf"output\[{worker}\]: printed\n")
    wait_for("the end of the old worker", lambda: not is_there(worker))
    daemon.stop()


def test_after_a_reload_every_client_gets_the_new_poem(tamed: Tamed) -> None:
    """Before the reload, every client gets the old content: the change happens once."""
    daemon = tamed.start_poetry("--workers", "2")
    heard: list[bytes] = []
    is_over = threading.Event()

    def listen() -> None:
        while not is_over.is_set():
            heard.append(read_poem(daemon.port))

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        old, new = tamed.poem.read_bytes(), b"a new poem\n"
        wait_for("clients", lambda: len(heard) > 10)
        tamed.poem.write_bytes(new)
        reload(daemon)
        assert read_poem(daemon.port) == new
        count = len(heard)
        wait_for("clients", lambda: len(heard) > count + 10)
    finally:
        is_over.set()
        thread.join()
    change = heard.index(new)
    assert set(heard[:change]) == {old}
    assert set(heard[change:]) == {new}
    daemon.stop()


DEPLOYMENT = """
name = "verse"
[services.a]
plugin = "fastpoetry"
listen = [{listen}]
"""


def test_a_reload_takes_what_the_files_say(tamed: Tamed) -> None:
    """It adds, keeps and removes endpoints, and changes the number of workers and the log at once.

    A mistake gives the error of `tamed check`; an endpoint that cannot be bound fails the reload before it
    changes anything. A kept endpoint is never closed; a removed one is closed after its last client. Fixed
    settings need a restart. SIGHUP reloads as the command does.
    """
    paths = [tamed.folder / name for name in ("kept", "gone", "added")]
    kept, gone, added = (f"unix:{path}" for path in paths)

    def write(*listen: str, more: str = "") -> Path:
        endpoints = ", ".join(f'"{each}"' for each in listen)
        return tamed.write("verse.toml", DEPLOYMENT.format(listen=endpoints) + more)

    daemon = tamed.start(write(kept, gone, more='[daemon]\nworkers = 1\n[log]\nfile = "first.log"\n'))
    inode, workers = paths[0].stat().st_ino, daemon.workers()

    file = write(kept, gone, more='pome = "x"\n')
    done = tamed("reload")
    assert (done.status, done.err) == (78, tamed("check", file).err)
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        write(kept, taken)
        done = tamed("reload")
    assert done.status == 69
    assert f"{taken} is in use" in done.err
    assert (daemon.workers(), daemon.status()["endpoints"]) == (workers, [kept, gone])

    more = '[daemon]\nworkers = 2\numask = "0077"\n[log]\nfile = "second.log"\nformat = "json"\n'
    write(kept, added, more=more)
    daemon.signal(signal.SIGHUP)
    second = tamed.folder / "second.log"
    wait_for("the reload", lambda: second.exists() and '"verse was reloaded: ' in second.read_text())
    assert '"verse was reloaded: generation 4, 2 workers"' in second.read_text()  # two have failed
    assert (
        "WARNING tamed: umask has changed and needs a restart\n" in (tamed.folder / "first.log").read_text()
    )
    assert len(daemon.workers()) == 2
    assert paths[0].stat().st_ino == inode
    assert daemon.status()["endpoints"] == [kept, added]
    for path in (paths[0], paths[2]):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            assert sock.makefile("rb").read()
    wait_for("the end of the socket", lambda: not paths[1].exists())
    daemon.stop()
    assert not any(path.exists() for path in paths)


def test_a_start_timeout_holds_for_the_generation_that_is_read_with_it(tamed: Tamed) -> None:
    """One that is too short fails that reload, and neither the next one, nor an upgrade."""
    listen = f'"unix:{tamed.folder}/socket"'

    def write(timeout: str) -> Path:
        more = f'[daemon]\nstart-timeout = "{timeout}"\n'
        return tamed.write("verse.toml", DEPLOYMENT.format(listen=listen) + more)

    daemon = tamed.start(write("5m"))
    workers = daemon.workers()
    for command in ("reload", "reload", "upgrade"):
        write("1ms")
        done = tamed(command)
        assert (done.status, done.out) == (70, "")
        assert done.err.startswith("tamed: it was not ready after 0.001 s: ")
        assert daemon.workers() == workers
    write("4m")
    reload(daemon)
    assert daemon.workers() != workers
    daemon.stop()


@pytest.mark.parametrize(
    ("more", "status", "why"),
    [
        (
            'env-file = "gone"',
            66,
            "cannot read the environment file {folder}/gone: No such file or directory",
        ),
        ('env-file = "wrong"', 78, "{folder}/wrong:1: expected KEY=VALUE"),
        ('user = "no such user"', 78, "user no such user: the system has no such user"),
    ],
)
def test_a_reload_refuses_what_a_restart_would_refuse(tamed: Tamed, more: str, status: int, why: str) -> None:
    """It fails as the restart does, with one line, and the daemon goes on."""
    text = f'name = "verse"\n[services.a]\nplugin = "fastpoetry"\nlisten = ["unix:{tamed.folder}/socket"]\n'
    daemon = tamed.start(tamed.write("verse.toml", text))
    workers = daemon.workers()
    tamed.write("wrong", "no variable\n")
    tamed.write("verse.toml", f"{text}[daemon]\n{more}\n")
    done = tamed("reload")
    assert (done.status, done.out, done.err.count("\n")) == (status, "", 1)
    assert why.format(folder=tamed.folder) in done.err
    assert tamed("restart", "verse") == done
    assert daemon.workers() == workers
    tamed.write("verse.toml", text)
    reload(daemon)
    daemon.stop()


FIXED = {
    "user": '"root"',
    "group": '"root"',
    "keep-capability": '["CAP_NET_BIND_SERVICE"]',
    "prepare-as-root": "true",
    "umask": '"0077"',
    "max-files": "100",
    "pid-file": '"second.pid"',
    "ops": '"unix:ops"',
    "ops-agent": '"unix:agent"',
    "ops-host": '["verse"]',
    "env-file": '"env"',
    "trust-writable": "true",
}
"""The options of the daemon that need a restart, each with another value than the default."""

MOVED = {"name": '"poem"', "rundir": '"elsewhere"'}
"""Those that need a stop and a start, since by them the commands find the instance."""

RELOADED = {
    "service": '["a"]',
    "workers": "2",
    "yes": "true",
    "watchdog": '"20s"',
    "preload": "true",
    "reload": "true",
    "max-connections-per-worker": "1000000",
    "max-worker-age": '"1d"',
    "max-worker-memory": '"1 GB"',
    "cluster": '"etcd://127.0.0.1:1"',
    "cluster-lease": '"20s"',
    "loop": '"asyncio"',
    "directory": '"."',
    "start-timeout": '"4m"',
    "drain-timeout": '"20s"',
    "stop-timeout": '"40s"',
    "stop-delay": '"1ms"',
}
"""Those that a new generation uses."""


def test_each_option_takes_effect_at_a_reload_or_is_a_warning(tamed: Tamed) -> None:
    """The warnings are repeated by each reload, until the options are as they were."""
    text = f'name = "verse"\n[services.a]\nplugin = "fastpoetry"\nlisten = ["unix:{tamed.folder}/socket"]\n'
    tamed.write("env", "A=1\n")

    def write(options: dict[str, str]) -> Path:
        lines = (f"{name} = {value}\n" for name, value in options.items())
        return tamed.write("verse.toml", f"{text}[daemon]\n{''.join(lines)}")

    first = {"rundir": f'"{tamed.rundir}"', "name": '"verse"'}
    environ = {name: value for name, value in tamed.environment().items() if name != "TAMED_RUNDIR"}
    start = [sys.executable, "-m", "tamed", "start", str(write(first))]
    subprocess.run(start, env=environ, capture_output=True, timeout=PATIENCE, check=True)
    daemon = Daemon(tamed, "verse", int((tamed.rundir / "verse" / "verse.pid").read_text()), [])
    names = {field.name.replace("_", "-") for field in fields(Settings)}
    assert {*FIXED, *MOVED, *RELOADED, "chroot"} == names  # the last one is refused with workers
    warnings = {f"warning: {name} has changed and needs a restart" for name in FIXED}
    warnings |= {f"warning: {name} has changed and needs a stop and a start" for name in MOVED}
    for _ in range(2):
        write({**FIXED, **MOVED, **RELOADED})
        assert {*reload(daemon).out.splitlines()[1:]} == warnings
    write(first | RELOADED)
    assert reload(daemon).out.count("\n") == 1
    write({"chroot": '"/"'})
    assert tamed("reload").status == 78
    write(first)
    assert reload(daemon).out.count("\n") == 1
    daemon.stop()


def test_a_restart_keeps_the_name_and_the_run_directory(tamed: Tamed) -> None:
    """It warns of them in the words of a reload, and each later reload still does."""
    text = f'name = "verse"\n[services.a]\nplugin = "fastpoetry"\nlisten = ["unix:{tamed.folder}/socket"]\n'
    environ = {name: value for name, value in tamed.environment().items() if name != "TAMED_RUNDIR"}

    def run(*words: str) -> str:
        """Run the command without the variable, which overrides the file."""
        command = [sys.executable, "-m", "tamed", *words]
        out = subprocess.check_output(
            command, cwd=tamed.folder, env=environ, stderr=subprocess.STDOUT, timeout=PATIENCE
        )
        return out.decode()

    tamed.write("verse.toml", f'{text}[daemon]\nrundir = "{tamed.rundir}"\n')
    run("start", "verse.toml")
    place = ("--rundir", str(tamed.rundir), "verse")
    assert run("restart", *place).count("\n") == 1
    moved = "".join(f"{name} = {value}\n" for name, value in MOVED.items())
    tamed.write("verse.toml", f"{text}[daemon]\n{moved}")
    warnings = "".join(f"warning: {name} has changed and needs a stop and a start\n" for name in MOVED)
    for command in ("restart", "reload", "restart"):
        assert run(command, *place).partition("\n")[2] == warnings
    run("stop", *place)


def test_a_run_directory_of_the_environment_is_no_other_one(tamed: Tamed) -> None:
    """The start has had it from the variable, and the other commands have it as an option."""
    daemon = tamed.start_poetry()
    for command in ("restart", "reload", "restart"):
        done = tamed(command, "--rundir", tamed.rundir, daemon.name, env={"TAMED_RUNDIR": ""})
        assert (done.status, done.out.count("\n"), done.err) == (0, 1, "")
    assert tamed("stop").status == 0


def test_trust_that_is_taken_back_takes_a_restart(tamed: Tamed) -> None:
    """The start has put it into the environment, which overrides the file."""
    text = f'name = "verse"\n[services.a]\nplugin = "fastpoetry"\nlisten = ["unix:{tamed.folder}/socket"]\n'
    daemon = tamed.start(tamed.write("verse.toml", f"{text}[daemon]\ntrust-writable = true\n"))
    assert reload(daemon).out.count("\n") == 1
    tamed.write("verse.toml", text)
    assert reload(daemon).out.endswith("\nwarning: trust-writable has changed and needs a restart\n")
    daemon.stop()


def _hear_out(sock: socket.socket, path: Path) -> bytes:
    sock.settimeout(PATIENCE)
    sock.connect(str(path))
    return sock.recv(65536)


def test_a_unix_socket_whose_file_is_gone_is_bound_anew(tamed: Tamed) -> None:
    """Clients can connect again, and connected ones are still served: after each of several changes.

    If another program holds a socket there, the reload fails with the reason, and the socket stays.
    """
    path = tamed.folder / "us.sock"
    tamed.write("app.py", APPLICATION.replace('"127.0.0.1:0"', f'"unix:{path}"'))
    daemon = tamed.start("app.py")
    for command, in_its_place in (("reload", "nothing"), ("upgrade", "a dead socket")):
        with socket.socket(socket.AF_UNIX) as early, socket.socket(socket.AF_UNIX) as late:
            assert _hear_out(early, path)
            path.unlink()
            if in_its_place == "a dead socket":
                with socket.socket(socket.AF_UNIX) as dead:
                    dead.bind(str(path))
            assert tamed(command).status == 0
            assert _hear_out(late, path), (command, in_its_place)
            assert finish(early) == finish(late) == b"poem"
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        done = tamed("reload")
        assert (done.status, done.err.count("\n")) == (69, 1), done
        assert "a running process holds this socket" in done.err
        daemon.stop()
        assert path.is_socket()


BAD_CODE = [
    ("application = 3", "application"),
    ("def f(:", "SyntaxError"),
    ("import os; os._exit(9)", "ended with status 9 before it was ready"),
]


def test_bad_code_never_replaces_good_code(tamed: Tamed) -> None:
    """Any error in the new code fails the reload."""
    app = tamed.write("app.py", APPLICATION)
    daemon = tamed.start(app)
    workers = daemon.workers()
    for text, why in BAD_CODE:
        app.write_text(text)
        done = tamed("reload")
        assert (done.status, done.out) == (70, ""), text
        assert why in done.err
        assert daemon.workers() == workers
        with connected(daemon.port) as (_, sock):
            assert finish(sock) == b"poem"
    daemon.stop()


def test_a_stop_during_a_reload_stops(tamed: Tamed) -> None:
    """Old and new workers stop, and the caller of the reload gets an answer; the log has no error."""
    app = tamed.write("app.py", APPLICATION)
    daemon = tamed.start(app)
    app.write_text("import time; time.sleep(3600)")
    with tamed.begin("reload") as command:
        wait_for("a new worker", lambda: len(daemon.status()["workers"]) == 2)
        assert tamed("stop").status == 0
        _, err = command.communicate(timeout=PATIENCE)
    assert (command.returncode, err) == (69, "tamed: app stops\n")
    assert tamed.left() == {}
    assert "the reload was cancelled: app stops" in daemon.log
    assert "ERROR" not in daemon.log


# Stops.


@pytest.mark.unmeasured
@pytest.mark.parametrize("options", [[], ["--workers", "2"]], ids=["alone", "supervised"])
def test_a_stop_under_load_resets_nobody(tamed: Tamed, poem: Path, options: list[str]) -> None:
    """Accepted clients are served, and later ones are refused."""
    words = [*options, "--name", "poetry", "--log-level", "fastpoetry=warning", "fastpoetry"]
    served = 0
    for _ in range(ROUNDS):
        with tamed.begin("run", *words, "--listen", "127.0.0.1:0", "--poem", str(poem)) as process:
            assert process.stderr is not None
            told = next(line for line in process.stderr if "listening on" in line)
            port = int(told.rpartition(":")[2])
            with Load(("127.0.0.1", port), expect=[poem]).start() as load:
                for _ in range(200):  # among them
                    assert read_poem(port) == POEM
                process.terminate()
                assert process.wait(PATIENCE) == 0
        result = load.result
        assert result.failures - result.refused - result.timeouts == 0, result
        served += result.ok
    assert served > 100


# Upgrades.


def test_an_upgrade_to_a_program_that_fails_changes_nothing(tamed: Tamed) -> None:
    """The upgrade works when the program is repaired."""
    folder = tamed.folder / "broken"
    daemon = tamed.start_poetry(env={"PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"})
    workers = daemon.workers()
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("import os; os._exit(3)")
    done = tamed("upgrade")
    told = "tamed: the new program does not start (exit code 3); see its output in the log\n"
    assert done == (70, "", told)
    assert (daemon.status()["pid"], daemon.workers()) == (daemon.pid, workers)
    (folder / "sitecustomize.py").unlink()
    assert tamed("upgrade").status == 0
    daemon.stop()


def test_a_signal_during_an_upgrade_is_not_lost(tamed: Tamed) -> None:
    """A stop at any time stops the daemon and leaves nothing."""
    for delay in [0.0, 0.1, 0.2, 0.05, 0.15, 0.3, 0.4, 0.01][: 1 + ROUNDS]:
        daemon = tamed.start_poetry()
        daemon.signal(signal.SIGUSR2)
        time.sleep(delay)  # to hit different moments of it
        daemon.signal(signal.SIGTERM)
        daemon.wait_gone()
        wait_for("the end of all", lambda: tamed.left() == {})
