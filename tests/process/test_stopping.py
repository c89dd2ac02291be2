"""How a process ends: told to, by itself, or by force."""

import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tamed.testing.process import TamedProcess
from tests.process.clients import dial, read_all
from tests.process.conftest import READY, serving, told

Write = Callable[[str], Path]

SERVICES = """
class Noted(Service):
    async def start(self):
        pass
    async def stop(self):
        pass

application = Application("verse", Noted("first"), MultiService("group", Noted("second"), Noted("third")))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_in_reverse_order(application: Write, number: signal.Signals) -> None:
    """The log shows the order of starts and stops, and the status is 0."""
    with TamedProcess("run", application(SERVICES)) as process:
        process.expect(READY)
        process.signal(number)
        assert process.wait() == 0
    assert [line.partition(" INFO ")[2] for line in told(process.lines)] == [
        "tamed.service: started first",
        "tamed.service: started group/second",
        "tamed.service: started group/third",
        "tamed: verse is ready",
        f"tamed: {number.name}: stopping",
        "tamed.service: stopped group/third",
        "tamed.service: stopped group/second",
        "tamed.service: stopped first",
        "tamed: stopped",
    ]


def test_a_client_that_reads_on_gets_the_whole_poem(long_poem: Path) -> None:
    """Half of 16 MB read when Ctrl-C comes, a pause, and then the rest; nobody else is let in meanwhile."""
    poem = long_poem.read_bytes()
    with TamedProcess("run", "fastpoetry", "--port", "0", "--poem", long_poem) as process:
        address = serving(process)
        with dial(address) as client:
            read = bytearray()
            while len(read) < len(poem) // 2:
                read += client.recv(1 << 16)
            process.signal(signal.SIGINT)
            process.expect("SIGINT: stopping$")
            _wait_until_refused(address)
            read += read_all(client)
        assert read == poem
        assert process.wait() == 0
    assert "aborts connections that did not end" not in process.output


def test_a_client_that_is_silent_past_the_deadline_is_cut(long_poem: Path) -> None:
    """By a reset, and one warning names it; that it had to be cut is no failure of the application's."""
    arguments: list[str | Path] = [
        "--drain-timeout",
        "100ms",
        "fastpoetry",
        "--port",
        "0",
        "--poem",
        long_poem,
    ]
    with TamedProcess("run", *arguments) as process:
        address = serving(process)
        with dial(address) as client:
            assert client.recv(100)
            process.signal(signal.SIGTERM)
            host, port = client.getsockname()
            process.expect(
                rf"WARNING .*: fastpoetry/server aborts .* within 0.1 s: 1 connection \({host}:{port}\)$"
            )
            assert process.wait() == 0
            with pytest.raises(ConnectionResetError):
                read_all(client)


def test_a_second_interrupt_does_not_wait(long_poem: Path) -> None:
    """The process ends by the signal itself, so its parent sees the true wait status."""
    with TamedProcess("run", "fastpoetry", "--port", "0", "--poem", long_poem) as process:
        address = serving(process)
        with dial(address) as client:
            assert client.recv(100)
            process.signal(signal.SIGINT)
            process.expect("SIGINT: stopping$")
            process.signal(signal.SIGINT)
            assert process.wait() == -signal.SIGINT


@pytest.mark.parametrize("options", [[], ["--workers", "1"]], ids=["alone", "supervised"])
def test_terms_until_it_is_gone_change_nothing(application: Write, options: list[str]) -> None:
    """A SIGTERM may come at any moment, even while the interpreter ends: the status stays 0."""
    with TamedProcess("run", *options, application(SERVICES)) as process:
        process.expect("is ready")
        ended = threading.Event()

        def send() -> None:
            while not ended.wait(0.001):  # a faster sender would leave the process no time
                process.signal(signal.SIGTERM)

        sender = threading.Thread(target=send)
        sender.start()
        status = process.wait()
        ended.set()
        sender.join()
    assert status == 0, process.output


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_second_interrupt_ends_it_also_while_the_loop_is_blocked(application: Write, loop: str) -> None:
    """The event loop has no part in it."""
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    text = """
class Stuck(Service):
    async def stop(self):
        log.info("stuck")
        time.sleep(1000)

application = Application("verse", Stuck("stuck"))
"""
    with TamedProcess("run", "--loop", loop, application(text)) as process:
        process.expect(READY)
        process.signal(signal.SIGTERM)
        process.expect("app: stuck$")
        process.signal(signal.SIGTERM)  # systemd sends it to whoever was told already: it does not count
        process.signal(signal.SIGINT)
        assert process.wait() == -signal.SIGINT


THREAD = """
class Poll(Service):
    async def start(self):
        threading.Thread(target=threading.Event().wait, name="poll").start()
"""
LEFT = {
    "thread": (THREAD, "the thread poll"),
    "call": (
        """
class Poll(Service):
    async def run(self):
        await asyncio.to_thread(threading.Event().wait)
""",
        r"the thread \w+_0",
    ),
    "task": (
        """
class Poll(Service):
    async def start(self):
        self.task = asyncio.create_task(self.poll())
    async def poll(self):
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass
""",
        "the task Poll.poll",
    ),
}


@pytest.mark.parametrize("what", LEFT)
def test_a_thread_or_task_that_is_left_does_not_keep_it(
    application: Write, tmp_path: Path, what: str
) -> None:
    """It is named, and the process ends at the deadline of a stop, as if it had waited."""
    text, name = LEFT[what]
    file = application(f"import threading\n{text}\napplication = Application('verse', Poll('poll'))\n")
    pid_file = tmp_path / "pid"
    with TamedProcess("run", "--stop-timeout", "1s", "--pid-file", pid_file, file) as process:
        process.expect(READY)
        process.signal(signal.SIGTERM)
        process.expect("tamed: stopped$")
        process.expect(f"^tamed: the process waits for {name}: end each in the stop of its service")
        assert process.wait() == 0
    assert not pid_file.exists()


def test_a_thread_that_is_left_in_a_worker_is_named(application: Write) -> None:
    """Before the supervisor kills it, which a second interrupt has it do at once."""
    file = application(f"import threading\n{THREAD}\napplication = Application('verse', Poll('poll'))\n")
    with TamedProcess("run", "--workers", "1", file) as process:
        process.expect(r"app is ready: pid \d+$")
        process.signal(signal.SIGINT)
        process.expect("tamed: the process waits for the thread poll: end each in the stop of its service")
        process.signal(signal.SIGINT)
        assert process.wait() == -signal.SIGINT


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_name_service_that_does_not_answer_does_not_keep_it(application: Write, loop: str) -> None:
    """A client may be looking up its server's name when it is stopped."""
    text = """
import socket, threading
from tamed import ClientService

def look_up(*args, **kwargs):
    log.info("looking up")
    threading.Event().wait()

socket.getaddrinfo = look_up
application = Application("verse", ClientService("verse.test:1", asyncio.Protocol))
"""
    with TamedProcess("run", "--loop", loop, application(text)) as process:
        process.expect("looking up")
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
    assert "the process waits for" not in process.output


def test_a_thread_that_is_left_by_a_failed_start_does_not_keep_it(application: Write) -> None:
    """The status is that of the failure."""
    text = """
class Fails(Service):
    async def start(self):
        raise OSError("no verse")

application = Application("verse", Poll("poll"), Fails("fails"))
"""
    file = application(f"import threading\n{THREAD}{text}")
    with TamedProcess("run", "--stop-timeout", "1s", file) as process:
        process.expect("service fails failed in start: OSError: no verse$")
        assert process.wait() == 70


def test_an_interrupt_ends_it_while_it_waits_for_a_thread(application: Write) -> None:
    """By the signal, and without a traceback."""
    file = application(f"import threading\n{THREAD}\napplication = Application('verse', Poll('poll'))\n")
    with TamedProcess("run", file) as process:
        process.expect(READY)
        process.signal(signal.SIGTERM)
        process.expect("the process waits for the thread poll")
        process.signal(signal.SIGINT)
        assert process.wait() == -signal.SIGINT
    assert "Traceback" not in process.output


def test_quit_ends_it_at_once(tmp_path: Path) -> None:
    """Without stopping anything."""
    with TamedProcess("run", "fastpoetry", "--port", "0", cwd=tmp_path) as process:
        process.expect(READY)
        process.signal(signal.SIGQUIT)
        assert process.wait() == -signal.SIGQUIT


def test_a_start_can_be_stopped(application: Write) -> None:
    """What was started is stopped, and what was not is left alone; to be told to stop is no failure."""
    text = """
class Slow(Service):
    async def start(self):
        log.info("it takes its time")
        await asyncio.Event().wait()
    async def stop(self):
        log.info("wrong")

class First(Service):
    async def stop(self):
        log.info("first is stopped")

application = Application("verse", First("first"), Slow("slow"))
"""
    with TamedProcess("run", application(text)) as process:
        process.expect("it takes its time$")
        process.signal(signal.SIGTERM)
        process.expect("SIGTERM while starting: stopping$")
        process.expect("first is stopped$")
        assert process.wait() == 0
    assert "wrong" not in process.output
    assert "ready" not in process.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_loading_can_be_interrupted(application: Write, number: signal.Signals) -> None:
    """While code is imported the process ends by the signal, without a traceback."""
    text = "print('importing', flush=True)\ntime.sleep(1000)"
    with TamedProcess("run", application(text)) as process:
        process.expect("^importing$")
        process.signal(number)
        assert process.wait() == -number
    assert told(process.lines) == ["importing"]


def test_an_interrupt_that_python_ignores_is_not_lost(application: Write) -> None:
    """As in a callback of its import system, which each import may call."""
    text = """
import os, signal, weakref

def interrupt(_):
    os.kill(os.getpid(), signal.SIGINT)

reference = weakref.ref(Service(), interrupt)
application = Application("verse")
"""
    with TamedProcess("run", application(text)) as process:
        assert process.wait() == -signal.SIGINT
    assert "Exception ignored" in process.output
    assert "verse is ready" not in process.output


def test_an_interrupt_while_a_supervisor_is_loaded_is_no_traceback(
    application: Write, tmp_path: Path
) -> None:
    """It ends as if it had come later."""
    (tmp_path / "sitecustomize.py").write_text("""
import os, signal, sys
if "tamed.supervisor" in sys.orig_argv:
    os.kill(os.getpid(), signal.SIGINT)
    print("interrupted", flush=True)
""")
    file = application("application = Application('verse')")
    with TamedProcess("run", "--workers", "1", file, env={"PYTHONPATH": str(tmp_path)}) as process:
        process.expect("SIGINT: stopping$")
        assert process.wait() == 0
    assert "interrupted" in process.output
    assert "Traceback" not in process.output


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("class Last(Service):\n    async def run(self):\n        application.exit(3)", 3),
        ("class Last(Service):\n    async def run(self):\n        raise SystemExit(4)", 4),
        ("class Last(Service):\n    async def start(self):\n        raise SystemExit(5)", 5),
        ("class Last(Service):\n    async def start(self):\n        application.exit(6)", 6),
        ("class Last(Service):\n    async def start(self):\n        sys.exit()", 0),
    ],
)
def test_the_application_chooses_its_status(application: Write, text: str, status: int) -> None:
    """By ``application.exit`` or SystemExit, running or starting; what runs is stopped before."""
    text = f"""
class First(Service):
    async def stop(self):
        log.info("first is stopped")

{text}

application = Application("verse", First("first"), Last("last"))
"""
    with TamedProcess("run", application(text)) as process:
        assert process.wait() == status
    assert "app: first is stopped" in process.output
    assert "Traceback" not in process.output


def test_a_program_may_exit_while_it_is_loaded(application: Write) -> None:
    """The log names the file that called ``sys.exit``."""
    with TamedProcess("run", application("sys.exit(7)")) as process:
        assert process.wait() == 7
    (line,) = told(process.lines)
    assert re.search(r"INFO tamed: .*\.py, while it was loaded, asked to exit with status 7$", line)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_task_may_exit(application: Write, loop: str) -> None:
    """Services are stopped, the status is that of the task, and nothing else is said of it."""
    text = """
class Leaving(Service):
    async def start(self):
        self.task = asyncio.get_running_loop().create_task(self.leave())

    async def leave(self):
        await asyncio.sleep(0)
        sys.exit(7)

    async def stop(self):
        log.info("leaving is stopped")

application = Application("verse", Leaving("leaving"))
"""
    with TamedProcess("run", "--loop", loop, application(text)) as process:
        assert process.wait() == 7
    assert [line.partition(" ")[2] for line in told(process.lines)[-3:]] == [
        "INFO tamed: a task asked to exit with status 7",
        "INFO app: leaving is stopped",
        "INFO tamed.service: stopped leaving",
    ]


def test_a_plugin_may_exit_while_it_makes_its_service(tmp_path: Path) -> None:
    """The log names the plugin that called ``sys.exit``."""
    (tmp_path / "leaver.py").write_text(
        "import sys\nfrom tamed import plugin\n\n@plugin\ndef leaver():\n    sys.exit(7)\n"
    )
    with TamedProcess("run", "--plugin-dir", tmp_path, "leaver") as process:
        assert process.wait() == 7
    (line,) = told(process.lines)
    assert line.endswith("INFO tamed: plugin leaver, while making its service, asked to exit with status 7")


def test_a_service_that_fails_past_its_policy_ends_the_application(application: Write) -> None:
    """Its traceback is in the log each time, what runs is stopped, and the last line says why it ended."""
    text = """
class First(Service):
    async def stop(self):
        log.info("first is stopped")

class Failing(Service):
    restart = Restart("on-failure", limit=2, within=60, backoff=Backoff(first=0.001))
    async def run(self):
        await asyncio.sleep(0)
        raise KeyError("verse")

application = Application("verse", First("first"), Failing("failing"))
"""
    with TamedProcess("run", application(text)) as process:
        assert process.wait() == 70
    assert process.output.count("restarting it in") == 2
    assert process.output.count("Traceback") == 3
    assert "app: first is stopped" in process.output
    assert process.lines[-1] == "tamed: service failing failed in run: KeyError: 'verse'"


def test_a_stop_that_fails_is_reported_and_keeps_nothing_from_stopping(application: Write) -> None:
    """The process stops; its status is that of a failure."""
    text = """
class First(Service):
    async def stop(self):
        log.info("first is stopped")

class Failing(Service):
    async def stop(self):
        raise KeyError("verse")

application = Application("verse", First("first"), Failing("failing"))
"""
    with TamedProcess("run", application(text)) as process:
        process.expect(READY)
        process.signal(signal.SIGINT)
        assert process.wait() == 70
    assert "ERROR tamed.service: service failing failed in stop: KeyError: 'verse'" in process.output
    assert "app: first is stopped" in process.output
    assert process.lines[-1] == "tamed: service failing failed in stop: KeyError: 'verse'"


def _wait_until_refused(address: str) -> None:
    """Wait until nobody can connect any more."""
    while True:
        try:
            late = dial(address)
        except ConnectionError:  # refused; or reset, if it came while the socket was being closed
            return
        late.close()
