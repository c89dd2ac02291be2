"""The open descriptors of a daemon's processes: always the same, after any operation."""

import os
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path

from tests.supervised.daemon import Daemon, Tamed, is_there, read_poem, wait_for
from tests.supervised.talk import APPLICATION, connected, finish


def opened(pid: int) -> Counter[str]:
    """Return the number of a process's descriptors of each kind: sockets, pipes, or a file's name."""
    kinds = Counter[str]()
    with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
        for each in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # it was just about to be closed
                kinds[str(each.readlink()).partition(":[")[0]] += 1
    return kinds


class Household:
    """The processes of a daemon, and their descriptors after its start."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.count = len(daemon.tamed.processes())
        self.roles = self.look()

    def look(self) -> dict[str, list[Counter[str]]]:
        """Return the descriptors of the supervisor, the workers and the template."""
        workers = self.daemon.workers()
        others = set(self.daemon.tamed.processes()) - {*workers, self.daemon.pid}
        roles = {"supervisor": [self.daemon.pid], "worker": workers, "template": sorted(others)}
        return {role: [opened(pid) for pid in pids] for role, pids in roles.items()}

    def expect_same(self) -> None:
        """Wait until each process has the same descriptors as its kind had at first."""
        wait_for("the end of others", lambda: len(self.daemon.tamed.processes()) == self.count)
        try:
            wait_for("the same descriptors", lambda: self.look() == self.roles)
        except AssertionError:
            assert self.look() == self.roles
            raise


def test_a_worker_has_the_same_descriptors_however_it_was_started(tamed: Tamed) -> None:
    """With the daemon, in the place of another one, and by a reload."""
    daemon = tamed.start("--workers", "2", tamed.write("app.py", APPLICATION))
    household = Household(daemon)
    victims = daemon.workers()[:1]
    os.kill(victims[0], signal.SIGKILL)
    daemon.wait_workers(2, without=victims)
    household.expect_same()
    assert tamed("reload").status == 0
    household.expect_same()
    daemon.stop()


def test_every_process_has_the_same_descriptors_whatever_was_before(tamed: Tamed) -> None:
    """The descriptors are the same after replacements, reloads and upgrades, also failed ones."""
    app = tamed.write("app.py", APPLICATION)
    daemon = tamed.start("--workers", "2", "--preload", app)
    household = Household(daemon)
    assert household.roles["worker"][0] == household.roles["worker"][1]
    for words in (("reload",), ("upgrade",)):
        assert tamed(*words).status == 0
        victims = daemon.workers()
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        daemon.wait_workers(2, without=victims)
        household.expect_same()
    app.write_text("syntax error")
    assert tamed("upgrade").status == 70  # with a reload in it
    app.write_text(APPLICATION)
    assert tamed("upgrade").status == 0
    household.expect_same()
    daemon.stop()


def test_no_orphan_listens_after_an_upgrade_whose_reload_failed(tamed: Tamed) -> None:
    """The new program supervises the old workers, and replaces one of them.

    A later worker holds no other channel: all workers notice the end of the supervisor.
    """
    app = tamed.write("app.py", APPLICATION)
    daemon = tamed.start("--workers", "3", app)
    workers = daemon.workers()
    app.write_text("syntax error")
    done = tamed("upgrade")
    assert (done.status, "SyntaxError" in done.err) == (70, True), done
    assert daemon.workers() == workers
    app.write_text(APPLICATION)
    os.kill(workers[0], signal.SIGKILL)
    workers = daemon.wait_workers(3, without=workers[:1])
    with connected(daemon.port) as (worker, sock):
        daemon.signal(signal.SIGKILL)
        others = [pid for pid in workers if pid != worker]
        wait_for("the end of the others", lambda: not any(map(is_there, others)))
        assert finish(sock) == b"poem"
    wait_for("the end of all", lambda: tamed.processes() == [])
    after = tamed.start("--name", "app", "fastpoetry", "--port", str(daemon.port), "--poem", tamed.poem)
    assert read_poem(after.port)
    after.stop()
