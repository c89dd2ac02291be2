"""What a process writes, and where."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tamed.testing.process import TamedProcess
from tests.patience import PATIENCE
from tests.process.clients import SHIPPED, fetch
from tests.process.conftest import LISTENING, READY, run_tamed

LEAVING = """
import logging, warnings
from tamed import Application, Service

class Leaving(Service):
    async def start(self):
        print("asked for")
        logging.getLogger("a.b").debug("in detail")
        logging.getLogger("c").info("two\\nlines")
        warnings.warn("an old way", DeprecationWarning)
        try:
            1 / 0
        except ZeroDivisionError:
            logging.getLogger("c").exception("caught")
        application.exit()

application = Application("verse", Leaving("leaving"))
"""


@pytest.fixture
def leaving(tmp_path: Path) -> Path:
    """Write an application that logs, prints and leaves."""
    file = tmp_path / "leaving.py"
    file.write_text(LEAVING)
    return file


def test_the_log_goes_to_stderr_and_what_is_printed_to_stdout(leaving: Path) -> None:
    """Elsewhere than on a terminal a line begins with the time as in ISO 8601, with its offset."""
    done = run_tamed("run", leaving, cwd=leaving.parent)
    assert (done.returncode, done.stdout) == (0, "asked for\n")
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d"
    assert re.search(rf"^{time} INFO c: two$", done.stderr, re.MULTILINE)
    assert re.search(rf"^{time} ERROR c: caught$", done.stderr, re.MULTILINE)
    assert "ZeroDivisionError: division by zero" in done.stderr
    assert re.search(rf"^{time} INFO tamed: stopped$", done.stderr, re.MULTILINE)
    assert "in detail" not in done.stderr


def test_levels_are_set_for_all_loggers_or_for_one(leaving: Path) -> None:
    """A level for one logger counts for those below it."""
    levels = ["--log-level", "error", "--log-level", "a=debug"]
    done = run_tamed("run", *levels, leaving, cwd=leaving.parent)
    logged = [line.split(" ", 1)[1] for line in done.stderr.splitlines() if line.startswith("20")]
    assert logged == ["DEBUG a.b: in detail", "ERROR c: caught"]


def test_a_log_of_json_has_an_object_on_each_line(leaving: Path) -> None:
    """Whatever is in a message or a traceback."""
    done = run_tamed("run", "--log-format", "json", leaving, cwd=leaving.parent)
    lines = {line["message"]: line for line in map(json.loads, done.stderr.splitlines())}
    assert lines["two\nlines"].keys() == {"time", "level", "logger", "message", "pid", "service"}
    assert lines["two\nlines"]["logger"] == "c"
    assert lines["two\nlines"]["level"] == "INFO"
    assert "ZeroDivisionError" in lines["caught"]["traceback"]


def test_a_log_that_nobody_reads_stops_nothing() -> None:
    """After the reader of the log has closed it, the daemon still serves, and stops in order."""
    read, write = os.pipe()
    command = [sys.executable, "-m", "tamed", "run", "fastpoetry", "--port", "0"]
    with subprocess.Popen(command, stderr=write, stdout=write) as process:
        os.close(write)
        with os.fdopen(read) as log:
            address = ""
            for line in log:
                if found := re.search(LISTENING, line):
                    address = found[1]
                if re.search(READY, line):
                    break
        assert [fetch(address) for _ in range(3)] == [SHIPPED] * 3
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0


def test_a_process_of_the_tests_tells_what_it_has_written(leaving: Path) -> None:
    """``TamedProcess`` fails with the output when a line does not come, and when the process does not end."""
    with TamedProcess("run", leaving) as process:
        with pytest.raises(AssertionError, match=r"ended without a line with 'nothing':\n(.*\n)*.*asked for"):
            process.expect("nothing")
        assert process.wait() == 0
    with TamedProcess("run", "fastpoetry", "--port", "0", patience=0.01) as process:
        assert process.pid > 0
        with pytest.raises(AssertionError, match=r"^no line with 'nothing' within 0\.01 s:"):
            process.expect("nothing")
        with pytest.raises(AssertionError, match=r"^it does not end within 0\.01 s:"):
            process.wait()
