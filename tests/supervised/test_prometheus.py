"""Debian's Prometheus, which scrapes a daemon: what an operator can ask it after a reload and a death."""

import json
import os
import re
import shutil
import signal
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

import pytest

from tests.patience import PATIENCE
from tests.supervised.daemon import Tamed, wait_for
from tests.supervised.test_ops import APPLICATION, be_served

pytestmark = pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")

CONFIGURATION = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: verse
    static_configs: [{{targets: ["{target}"]}}]
"""


class Prometheus:
    """A Prometheus, to be queried."""

    def __init__(self, address: str) -> None:
        self._address = address

    def value(self, query: str) -> float | None:
        """Return the value of a query at this moment; None if it has none yet, or Prometheus is not ready."""
        url = f"http://{self._address}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                found = json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != HTTPStatus.SERVICE_UNAVAILABLE:
                raise
            return None
        return float(found[0]["value"][1]) if found else None

    def expect(self, query: str, value: float) -> None:
        """Wait until a query has this value."""
        wait_for(f"{query} to be {value}", lambda: self.value(query) == value)


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    """Start one, which scrapes this address; it takes a free port, and logs which."""
    configuration = folder / "prometheus.yml"
    configuration.write_text(CONFIGURATION.format(target=target))
    log = folder / "prometheus.log"
    files = (f"--config.file={configuration}", f"--storage.tsdb.path={folder / 'data'}")
    with log.open("wb") as file:
        command = ["prometheus", *files, "--web.listen-address=127.0.0.1:0"]
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        pattern = r'msg="Listening on" address=(\S+)'
        found = wait_for("its address", lambda: re.search(pattern, log.read_text()))
        made = Prometheus(found[1])
        wait_for("the first scrape", lambda: made.value("up") == 1)
        yield made
    finally:
        process.terminate()
        process.wait(PATIENCE)


def test_prometheus_shows_a_reload_and_a_death(tamed: Tamed, tmp_path: Path) -> None:
    """As increases of counters, beside what the application has counted, which neither changes."""
    tamed.write("counting.py", APPLICATION)
    daemon = tamed.start("--workers", "2", "--ops", "127.0.0.1:0", "counting.py")
    target = daemon.expect_log(r"\d INFO tamed.net: listening on (127.0.0.1:\d+)")[1]
    (tmp_path / "prometheus").mkdir()
    with prometheus(tmp_path / "prometheus", target) as server:
        be_served(tamed.folder, 5)
        server.expect('served_total{kind="a"}', 5)
        server.expect('tamed_workers{state="ready"}', 2)
        assert server.value("changes(tamed_generation[1h])") == 0
        assert tamed("reload", daemon.name).status == 0
        server.expect("changes(tamed_generation[1h])", 1)
        server.expect('tamed_reload_seconds_count{result="ok"}', 1)
        [lost, _] = daemon.workers()
        os.kill(lost, signal.SIGKILL)
        query = 'tamed_worker_ends_total{reason="SIGKILL"} - min_over_time(tamed_worker_ends_total[1h])'
        server.expect(query, 1)
        server.expect("tamed_worker_restarts_total", 1)
        wait_for("the increase", lambda: server.value("increase(tamed_worker_restarts_total[1h]) > 0"))
        be_served(tamed.folder, 5)
        server.expect('served_total{kind="a"}', 10)
        assert server.value("resets(served_total[1h])") == 0
    daemon.stop()
