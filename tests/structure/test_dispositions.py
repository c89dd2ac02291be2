"""What tests start ignores no signal, however the run was started."""

import re
import signal
import subprocess
import sys

from tests.patience import PATIENCE


def test_what_a_test_starts_ignores_nothing() -> None:
    """A process that a test starts has the default dispositions."""
    told = subprocess.run(["cat", "/proc/self/status"], stdout=subprocess.PIPE, text=True, check=True).stdout
    ignored = re.search(r"^SigIgn:\s*(\w+)$", told, re.MULTILINE)
    assert ignored is not None
    # 32 and 33 are the C library's own (signal(7)): no program can set them; what started us may ignore them.
    numbers = {number for number in signal.valid_signals() if int(ignored[1], 16) >> (number - 1) & 1}
    assert numbers == set()


def test_nor_where_the_run_ignores_signals() -> None:
    """It has them too where the run was started as by ``nohup`` and ``&`` in a script."""
    this = test_what_a_test_starts_ignores_nothing
    script = f"import tests.conftest; from {this.__module__} import {this.__name__} as test; test()"
    run = [sys.executable, "-c", script]
    done = subprocess.run(
        ["sh", "-c", 'trap "" HUP INT QUIT TERM CHLD; exec "$@"', "sh", *run],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
