"""Metrics of prometheus_client in a worker's table."""

import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from tamed.metrics.table import Family, Series, TableReader, create
from tamed.metrics.values import Value, Values
from tests.patience import PATIENCE, ROUNDS

THREADS = 8
TIMES = 4_000
BELOW, ABOVE = struct.unpack("=dd", bytes([0x11] * 8 + [0x22] * 8))  # no byte is in both


@pytest.fixture
def memory() -> Iterator[int]:
    """The descriptor of a table."""
    descriptor = create()
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def values(memory: int) -> Values:
    """Values that are kept in the table."""
    values = Values()
    values.move(os.dup(memory))
    return values


def counter(values: Values, name: str = "jobs", kind: str = "counter") -> Value:
    """Return the value of a series without labels."""
    return values.value(kind, name, name, (), (), "what it is", "sum" if kind == "gauge" else "")


def test_threads_count_exactly(values: Values, memory: int) -> None:
    """Eight threads add to one value, and none of it is lost."""
    value = counter(values)

    def count() -> None:
        for _ in range(TIMES):
            value.inc(1)

    threads = [threading.Thread(target=count) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert TableReader(memory).read() == [THREADS * TIMES, 0.0]


def test_threads_make_each_series_once(values: Values, memory: int) -> None:
    """Threads that make the same series at once get the same value, in one row."""
    barrier = threading.Barrier(THREADS)
    made: list[Value] = []

    def make() -> None:
        barrier.wait(PATIENCE)
        made.extend(counter(values, f"jobs{i}") for i in range(50))

    threads = [threading.Thread(target=make) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 50
    assert len(TableReader(memory).read()) == 100


def test_reset_counter_does_not_go_back(values: Values, memory: int) -> None:
    """Resetting a counter begins anew for the process that asks, and goes on for all others."""
    value = counter(values)
    value.inc(5)
    value.set(0)
    value.inc(2)
    assert value.get() == 2
    assert TableReader(memory).read()[0] == 7


def test_gauge_goes_back(values: Values, memory: int) -> None:
    """A gauge is what it was set to last, with the time if that counts."""
    value = counter(values, kind="gauge")
    value.set(5, timestamp=3.0)
    value.set(2, timestamp=4.0)
    assert value.get() == 2
    assert TableReader(memory).read() == [2.0, 4.0]


def test_replaced_info_has_no_value(values: Values, memory: int) -> None:
    """Only the last texts of an info have the value 1, also if they were there before."""
    for version in ("1", "2", "1"):
        values.inform("build", (("of", "tamed"),), {"version": version}, "what runs")
    reader = TableReader(memory)
    assert reader.read()[::2] == [1.0, 0.0]
    family = Family("build", "info")
    assert reader.series[0] == Series(family, "build_info", (("of", "tamed"), ("version", "1")))


def test_forked_child_counts_for_itself(values: Values, memory: int) -> None:
    """What a child counts that the application forks does not change what its parent has counted."""
    script = """
import os, sys
from tamed._os.fork import guard_forks
from tamed.metrics.values import Values
guard_forks()
values = Values()
values.move(os.dup(int(sys.argv[1])))
value = values.value("counter", "jobs", "jobs", (), (), "")
value.inc(3)
if os.fork() == 0:
    value.inc(10)
    os._exit(value.get() != 13 or os.path.exists("/proc/self/fd") and any(
        "tamed-metrics" in os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if fd != sys.argv[1] and os.path.lexists(f"/proc/self/fd/{fd}")
    ))
pid, status = os.wait()
value.inc(1)
sys.exit(status)
"""
    subprocess.run(
        [sys.executable, "-c", script, str(memory)], pass_fds=[memory], check=True, timeout=PATIENCE
    )
    assert TableReader(memory).read()[0] == 4


@pytest.mark.parametrize("when", ["before", "after"])
def test_metrics_of_the_library_are_in_the_table(memory: int, when: str) -> None:
    """All kinds of metrics are in the table, also if a library had loaded prometheus_client before."""
    script = """
import os, sys
if sys.argv[2] == "after":
    import prometheus_client
from tamed.metrics.values import Values
values = Values()
values.adopt()
from prometheus_client import Counter, Gauge, Histogram, Info, Summary
Counter("jobs", "done jobs", ["kind"]).labels("a").inc(2)
values.move(os.dup(int(sys.argv[1])))
Gauge("level", "a level", multiprocess_mode="livemax").set(4)
Gauge("called", "a function", multiprocess_mode="sum").set_function(lambda: 1)
Summary("size", "a size").observe(3)
Histogram("took", "seconds", buckets=[1]).observe(0.5)
Info("build", "what runs").info({"version": "1"})
import inspect, prometheus_client.values
assert "MutexValue" in inspect.getsource(prometheus_client.values)
os.kill(os.getpid(), 9)
"""
    process = subprocess.run(
        [sys.executable, "-c", script, str(memory), when], pass_fds=[memory], check=False, timeout=PATIENCE
    )
    assert process.returncode == -signal.SIGKILL
    reader = TableReader(memory)
    found = dict(zip(reader.series, reader.read()[::2], strict=True))
    assert str(found.pop(Series(Family("called", "gauge", "sum"), "called", ()))) == "nan"
    assert found == {
        Series(Family("jobs", "counter"), "jobs_total", (("kind", "a"),)): 2.0,
        Series(Family("level", "gauge", "livemax"), "level", ()): 4.0,
        Series(Family("size", "summary"), "size_count", ()): 1.0,
        Series(Family("size", "summary"), "size_sum", ()): 3.0,
        Series(Family("took", "histogram"), "took_sum", ()): 0.5,
        Series(Family("took", "histogram"), "took_bucket", (("le", "1.0"),)): 1.0,
        Series(Family("took", "histogram"), "took_bucket", (("le", "+Inf"),)): 0.0,
        Series(Family("build", "info"), "build_info", (("version", "1"),)): 1.0,
    }


def test_librarys_own_multiprocess_mode_is_left_alone(memory: int) -> None:
    """If the environment asks for the multiprocess mode of prometheus_client, it is left as it is."""
    script = """
import sys
from tamed.metrics.values import Values
Values().adopt()
import prometheus_client.values
assert prometheus_client.values.ValueClass.__name__ == "MmapedValue"
"""
    environ = os.environ | {"PROMETHEUS_MULTIPROC_DIR": "/nonexistent"}
    subprocess.run([sys.executable, "-c", script], env=environ, check=True, timeout=PATIENCE)


def test_value_is_never_read_torn(memory: int) -> None:
    """A reader beside a writer sees each value whole, although all of its bytes change each time."""
    script = """
import os, sys
from tamed.metrics.values import Values
values = Values()
values.move(os.dup(int(sys.argv[1])))
value = values.value("gauge", "level", "level", (), (), "", "max")
while True:
    value.set(BELOW)
    value.set(ABOVE)
""".replace("BELOW", repr(BELOW)).replace("ABOVE", repr(ABOVE))
    with subprocess.Popen([sys.executable, "-c", script, str(memory)], pass_fds=[memory]) as process:
        try:
            reader = TableReader(memory)
            while sum(reader.read()) == 0:  # it has not begun
                pass
            seen = {sum(reader.read()) for _ in range(20_000 * ROUNDS)}
        finally:
            process.kill()
    assert seen <= {BELOW, ABOVE}
