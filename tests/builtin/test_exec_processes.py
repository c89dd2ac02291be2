"""`exec` in real processes of Tamed: in order, killed, as a daemon, with nginx, and with a Tamed in it."""

import os
import re
import shutil
import signal
import socket
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tamed.testing.process import TamedProcess
from tests.builtin.programs import Marked, as_text, lines, nothing_left, shell, wait_for
from tests.process.conftest import told
from tests.supervised.daemon import Tamed, command_of, read_poem

FOR_EVER = "while :; do sleep 0.01; done"
FAMILY = f"trap '' HUP; setsid sleep 600 & echo up; {FOR_EVER}"


@pytest.fixture
def tamed(tmp_path: Path) -> Iterator[Tamed]:
    """The command, with a run directory of its own; nothing that it starts outlives the test."""
    made = Tamed(tmp_path)
    yield made
    made.close()


def free_port() -> int:
    """Return a port that was free a moment ago, for a program that cannot be given a socket."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def test_a_deployment_starts_its_programs_in_order_and_stops_them_in_reverse(
    tmp_path: Path, marked: Marked
) -> None:
    """Each after the one before it is ready, or gone."""
    script = f"trap 'sleep 0.1; echo {{0}} down >> told; exit' TERM; echo {{0}} up >> told; {FOR_EVER}"
    tables = "".join(
        f"[services.{name}]\nplugin = 'exec'\ncommand = '''{as_text(shell(script.format(name)))}'''\n"
        "directory = '.'\nready-after = '100ms'\npass-environment = ['TAMED_TEST_MARK']\n"
        for name in ("one", "two", "three")
    )
    (tmp_path / "all.toml").write_text(tables)
    with nothing_left(marked), TamedProcess("run", tmp_path / "all.toml", env=marked.environment) as process:
        process.expect("is ready$")
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
    assert lines(tmp_path / "told") == [
        *("one up", "two up", "three up"),
        *("three down", "two down", "one down"),
    ]


def test_a_terminals_interrupt_does_not_reach_the_programs(marked: Marked) -> None:
    """They are in sessions of their own, and Tamed stops them as ever: by the signal that they expect."""
    script = f"trap 'echo interrupted' INT; trap 'echo terminated; exit' TERM; echo up; {FOR_EVER}"
    with TamedProcess(
        "run", "exec", *marked.passed, "--command", as_text(shell(script)), env=marked.environment
    ) as process:
        process.expect("up$")
        process.expect("is ready$")
        process.signal(signal.SIGINT)
        process.expect("exec.sh: terminated$")
        assert process.wait() == 0
    assert "interrupted" not in process.output


def test_programs_are_stopped_when_tamed_is_killed(marked: Marked) -> None:
    """With all that they have started, and fork server and shims go too."""
    with TamedProcess(
        "run", "exec", *marked.passed, "--command", as_text(shell(FAMILY)), env=marked.environment
    ) as process:
        process.expect("up$")
        assert len(marked.processes()) > 4
        process.signal(signal.SIGKILL)
        process.wait()
        wait_for("the end of all", lambda: not marked.processes())


def test_programs_of_a_killed_worker_are_stopped_and_started_again(tamed: Tamed) -> None:
    """The worker that takes its place begins anew; the daemon leaves nothing behind."""
    script = f"echo up >> {tamed.folder}/told; setsid sleep 600 & exec sleep 600"
    daemon = tamed.start("--workers", "1", "exec", "--ready-after", "0s", "--command", as_text(shell(script)))
    wait_for("the program", lambda: lines(tamed.folder / "told") == ["up"])
    before = {pid for pid in tamed.processes() if "sleep" in command_of(pid)}
    (worker,) = daemon.workers()
    os.kill(worker, signal.SIGKILL)
    daemon.wait_workers(1, without=[worker])
    wait_for("another program", lambda: lines(tamed.folder / "told") == ["up", "up"])
    wait_for("the end of the first", lambda: not before & set(tamed.processes()))
    daemon.stop()


def test_a_program_that_cannot_start_is_reported_on_the_terminal(tamed: Tamed) -> None:
    """In one line, with a status that says so, and nothing is left."""
    done = tamed("start", "exec", "--command", "no-such-program")
    assert done.status == 66
    assert "cannot execute no-such-program: No such file or directory" in done.err
    assert tamed.left() == {}


def test_a_tamed_runs_in_a_tamed(tamed: Tamed) -> None:
    """With the socket of the outer one, and says by the notify protocol when it is ready."""
    inner = f"{sys.executable} -m tamed run fastpoetry --poem {tamed.poem} --listen systemd://"
    arguments = ["exec", "--ready-notify", "--listen", "127.0.0.1:0", "--command", inner]
    with tamed.foreground("run", *arguments) as process:
        port = int(process.expect(r"listening on 127.0.0.1:(\d+)")[1])
        process.expect("exec is ready$")
        assert read_poem(port) == tamed.poem.read_bytes()
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
    assert "stopped" in process.output
    assert tamed.left() == {}


def test_the_example_runs(tmp_path: Path) -> None:
    """A program that is watched, and one for each connection."""
    examples = tmp_path / "examples"
    shutil.copytree(Path(__file__).parents[2] / "examples", examples)
    file = examples / "exec" / "programs.toml"
    file.write_text(file.read_text().replace("localhost:10002", "127.0.0.1:0"))
    with TamedProcess("run", file) as process:
        port = int(process.expect(r"listening on 127.0.0.1:(\d+)")[1])
        process.expect("is ready$")
        assert read_poem(port) == (examples / "poetry" / "science.txt").read_bytes()
        process.expect("exec.ticker: .*:")
        process.signal(signal.SIGTERM)
        assert process.wait() == 0


NGINX = """
pid {folder}/nginx.pid;
error_log stderr;
worker_processes 2;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    server {{ listen 127.0.0.1:{port}; location / {{ return 200 "busy old fool"; }} }}
}}
"""


@pytest.mark.parametrize("passed", [False, True], ids=["its own socket", "our socket"])
def test_nginx_runs(tmp_path: Path, marked: Marked, *, passed: bool) -> None:
    """It serves; a worker of it that is killed is its own to replace; all of it stops, and none is left.

    nginx takes sockets by a variable of its own, ``NGINX``.
    """
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if nginx is None:
        pytest.skip("nginx is not installed")
    port = free_port()
    (tmp_path / "nginx.conf").write_text(NGINX.format(folder=tmp_path, port=port))
    command = f"{nginx} -c {tmp_path}/nginx.conf -e stderr -g 'daemon off;'"
    own = ["--listen", f"127.0.0.1:{port}", "--environment", "NGINX=3;"] if passed else []
    arguments = [
        "exec",
        *own,
        "--ready-at",
        f"127.0.0.1:{port}",
        "--stop-signal",
        "QUIT",
        "--command",
        command,
    ]
    with nothing_left(marked), TamedProcess("run", *arguments, env=marked.environment) as process:
        process.expect("is ready$")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
            assert answer.read() == b"busy old fool"
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
    assert told(process.lines)[-1].endswith("stopped")
    assert re.search(r"inherited", process.output) is None or passed
