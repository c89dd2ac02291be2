"""Finding and ending the daemons of a run directory. The daemons here do nothing but hold their pid file."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tamed.control.instances import find_instance, status_of_instance, stop_instance
from tamed.control.launch import restart_instance
from tamed.errors import MissingInput, PermissionRefused, SystemRefused, Unavailable, UsageError
from tamed.unix.pidfile import PidFile
from tamed.unix.rundir import Instance, RunDirectory
from tests.patience import PATIENCE
from tests.runner.test_status_answer import STATUS
from tests.stand_in import ENDLESS, stand_in

Daemon = Callable[..., tuple[Instance, subprocess.Popen[str]]]


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    """A run directory in which nothing runs."""
    return RunDirectory(tmp_path / "run")


@pytest.fixture
def held(directory: RunDirectory) -> Iterator[Callable[[str], Instance]]:
    """A factory of running instances: this process holds their pid files."""
    with ExitStack() as stack:

        def make(name: str) -> Instance:
            instance = directory.create(name)
            stack.enter_context(PidFile.acquire(instance.pid_file))
            return instance

        yield make


@pytest.fixture
def daemon(directory: RunDirectory) -> Iterator[Daemon]:
    """A factory of processes that hold the pid file of an instance and ignore the given signals."""
    with ExitStack() as stack:

        def make(*deaf: signal.Signals) -> tuple[Instance, subprocess.Popen[str]]:
            instance = directory.create("poetry")
            return instance, stack.enter_context(stand_in(instance, deaf=deaf))

        yield make


def _note_nothing(status: dict[str, Any]) -> None:
    """Ignore a status."""


def test_the_only_one_need_not_be_named(directory: RunDirectory, held: Callable[[str], Instance]) -> None:
    """If one instance runs, it is chosen."""
    instance = held("poetry")
    assert find_instance(directory, None) == find_instance(directory, "poetry") == instance


def test_of_several_one_must_be_named(directory: RunDirectory, held: Callable[[str], Instance]) -> None:
    """The error lists their names."""
    held("poetry")
    second = held("prose")
    with pytest.raises(UsageError, match="several instances run: poetry, prose; name one of them"):
        find_instance(directory, None)
    assert find_instance(directory, "prose") == second


def test_where_nothing_runs_nothing_is_found(directory: RunDirectory) -> None:
    """A name makes no difference if no instance runs."""
    with pytest.raises(Unavailable, match="there is no instance in"):
        find_instance(directory, None)
    with pytest.raises(Unavailable, match="poetry is not running; nothing runs in"):
        find_instance(directory, "poetry")


def test_another_name_is_not_found(directory: RunDirectory, held: Callable[[str], Instance]) -> None:
    """The error lists the running instances."""
    held("poetry")
    with pytest.raises(Unavailable, match=r"^poem is not running; running: poetry$"):
        find_instance(directory, "poem")


def test_one_that_does_not_answer_has_no_status(held: Callable[[str], Instance]) -> None:
    """For example, it runs in the foreground without a control socket."""
    with pytest.raises(MissingInput, match=r"poetry\.sock"):
        status_of_instance(held("poetry"), timeout=1.0)


def test_what_does_not_run_cannot_be_stopped(directory: RunDirectory) -> None:
    """This includes an instance with a stale pid file."""
    instance = directory.create("poetry")
    with pytest.raises(Unavailable, match="poetry is not running"):
        stop_instance(instance, timeout=None, force=False, progress=_note_nothing)
    instance.pid_file.write_text(f"{os.getpid()}\n")
    with pytest.raises(Unavailable, match="poetry is not running"):
        stop_instance(instance, timeout=None, force=False, progress=_note_nothing)


def test_one_that_is_asked_to_stop_does(daemon: Daemon) -> None:
    """The instance gets a TERM, and the command waits for its end."""
    instance, process = daemon()
    assert stop_instance(instance, timeout=None, force=False, progress=_note_nothing)
    assert process.wait(PATIENCE) == -signal.SIGTERM


def test_one_that_does_not_stop_is_left_or_ended(daemon: Daemon) -> None:
    """With ``force``, the instance is killed; otherwise it is left running."""
    instance, process = daemon(signal.SIGTERM)
    assert not stop_instance(instance, timeout=0.0, force=False, progress=_note_nothing)
    assert process.poll() is None
    assert stop_instance(instance, timeout=0.0, force=True, progress=_note_nothing)
    assert process.wait(PATIENCE) == -signal.SIGQUIT


def test_who_waits_sees_how_it_stands(directory: RunDirectory) -> None:
    """The status of a stopping instance is requested from time to time, until it has ended."""
    seen: list[dict[str, Any]] = []

    def look(status: dict[str, Any]) -> None:
        seen.append(status)
        process.kill()

    instance = directory.create("poetry")
    with stand_in(instance, f"{json.dumps(STATUS)}\n", deaf=[signal.SIGTERM]) as process:
        assert stop_instance(instance, timeout=None, force=False, progress=look)
        assert process.stdout is not None
        assert process.stdout.readline() == '{"command": "status"}\n'
    assert seen == [STATUS]


@pytest.mark.parametrize("answer", ["{}", "[]", '{"state": 3}', "x" * 100], ids=str)
def test_an_answer_that_is_none_is_one_line(directory: RunDirectory, answer: str) -> None:
    """An invalid answer is an error of one line, whichever process listens."""
    instance = directory.create("poetry")
    with stand_in(instance, f"{answer}\n"), pytest.raises(SystemRefused, match="invalid answer"):
        status_of_instance(instance)


def test_an_answer_without_an_end_is_not_read_to_one(directory: RunDirectory) -> None:
    """Reading ends at the limit of an answer."""
    instance = directory.create("poetry")
    told = "longer than 16777216 bytes"
    with stand_in(instance, "", ENDLESS), pytest.raises(SystemRefused, match=told):
        status_of_instance(instance, timeout=PATIENCE)


def test_who_listens_must_be_who_holds_the_pid_file(daemon: Daemon) -> None:
    """No request is sent to a process that does not hold the pid file."""
    instance, process = daemon()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(instance.socket))
        listening.listen()
        told = f"process {os.getpid()} listens there, and {process.pid} is the daemon"
        with pytest.raises(PermissionRefused, match=told):
            status_of_instance(instance)
        with listening.accept()[0] as client:
            assert client.recv(99) == b""


def test_a_socket_at_which_nobody_listens_yet_is_asked_again(held: Callable[[str], Instance]) -> None:
    """The socket was removed, and is being created again."""
    with socket.socket(socket.AF_UNIX) as bound, ThreadPoolExecutor() as threads:
        glances = 0

        def answer() -> None:
            with bound.accept()[0] as client:
                client.makefile().readline()
                client.sendall(json.dumps(STATUS).encode() + b"\n")

        class Swept(Instance):
            def holder(self) -> int | None:
                nonlocal glances
                glances += 1
                if glances == 2:
                    bound.listen()
                    threads.submit(answer)
                return super().holder()

        instance = Swept("poetry", held("poetry").directory)
        bound.bind(str(instance.socket))
        assert status_of_instance(instance, PATIENCE) == STATUS
    assert glances == 2


def test_without_a_plan_nothing_is_stopped(daemon: Daemon) -> None:
    """An instance that cannot be started again is not stopped."""
    instance, process = daemon()
    with pytest.raises(MissingInput, match="cannot start poetry again"):
        restart_instance(instance, _note_nothing, str, lambda _: None)
    assert process.poll() is None
