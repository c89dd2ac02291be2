"""An application of 500 series, and what counting costs: ``metrics.py one | tamed | files``.

As an application file of Tamed's it serves a poem and has 500 series. As a program it prints the nanoseconds
of CPU time that an increment takes, with the values of ``prometheus_client`` for one process, with Tamed's in
shared memory, and with those of its multiprocess mode.
"""

import os
import sys
import time

from prometheus_client import Counter

from tamed import Application, ReplyServer

SERIES = 500
_TIMES = 300_000

if __name__ != "__main__":
    counters = [Counter(f"served_{number}", "Served requests.") for number in range(SERIES)]
    for counter in counters:
        counter.inc()
    port = os.environ["BENCH_PORT"]
    application = Application("metrics", ReplyServer(f"127.0.0.1:{port}", lambda _: b"counted"))


def _increment() -> float:
    """Return the nanoseconds of the quickest of several rounds."""
    counter = Counter("done", "Done jobs.")
    quickest = float("inf")
    for _ in range(7):
        begin = time.process_time_ns()
        for _ in range(_TIMES):
            counter.inc()
        quickest = min(quickest, (time.process_time_ns() - begin) / _TIMES)
    return quickest


if __name__ == "__main__":
    if sys.argv[1] == "tamed":
        from tamed.metrics.table import create
        from tamed.metrics.values import Values

        values = Values()
        values.adopt()
        values.move(create())
    print(_increment())
