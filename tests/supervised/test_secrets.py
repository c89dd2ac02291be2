"""A secret that a deployment refers to, and where it must not be found."""

import json
from collections.abc import Iterator
from pathlib import Path

from tests.supervised.daemon import Daemon, Tamed, wait_for
from tests.supervised.test_ops import get

# It tells its secret wherever an application can say something.
PLUGIN = """
import asyncio
import ctypes
import hashlib
import logging
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import Counter

from tamed import Service, option, plugin

OPENED = Counter("opened", "How often it was opened.", ["password"])

@dataclass
class Options:
    password: str = option(secret=True)

class Vault(Service):
    check_interval = 0.1

    def __init__(self, options):
        super().__init__("vault")
        self.options = options

    @property
    def summary(self):
        return f"behind {self.options.password}"

    async def check(self):
        raise ConnectionError(f"unreachable by {self.options.password}")

    async def run(self):
        asyncio.current_task().set_name(f"task {self.options.password}")
        waiting = threading.Event()
        threading.Thread(target=waiting.wait, name=f"thread {self.options.password}", daemon=True).start()
        while True:
            with suppress(FileNotFoundError):
                Path("crash").unlink()  # which succeeds in one worker only
                break
            await asyncio.sleep(0.05)
        raise ConnectionError(f"lost {self.options.password}")

    async def start(self):
        OPENED.labels(self.options.password).inc()
        log.warning("connecting to db://me:%s@host", self.options.password)
        print("dumpable:", ctypes.CDLL(None).prctl(3))
        if "broken" in self.options.password:
            raise ConnectionError(f"refused for {self.options.password}")
        print("digest", hashlib.sha256(self.options.password.encode()).hexdigest(), self.options)

log = logging.getLogger("vault")

@plugin
def vault(options: Options) -> Service:
    return Vault(options)
"""


def test_it_is_nowhere_but_in_the_worker(tamed: Tamed) -> None:
    """Neither in the output of a command, the endpoint, a file of Tamed, nor in what ps(1) and /proc show."""
    secret, newer = "busy-old-fool", "unruly-sun"
    tamed.write("vault.py", PLUGIN)
    file = tamed.write("password", f"{secret}\n")
    text = '[services.vault]\nplugin = "vault"\npassword = "file:${PLACE}/password"\n'
    tamed.write("verse.toml", f'[daemon]\nworkers = 2\nops = "unix:ops.sock"\n{text}')
    env = {"PLACE": str(tamed.folder), "TAMED_PLUGIN_PATH": str(tamed.folder)}
    daemon = tamed.start("verse.toml", env=env)
    daemon.expect_log("digest [0-9a-f]{64} Options")
    daemon.expect_log(r"connecting to db://me:\*\*\*@host")
    daemon.expect_log("dumpable: 0")  # no core dump has it, see prctl(2)
    tamed.write("crash", "")
    daemon.expect_log(r"lost \*\*\*")
    wait_for("another worker", lambda: daemon.status()["restarts"] == 1)
    daemon.wait_workers(2)
    wait_for("checks", lambda: "unreachable" in json.dumps(daemon.status()))
    places = dict(_places(daemon, env))
    assert [place for place, text in places.items() if secret in text] == []
    for place, told in (
        ("check", "Vault behind ***"),
        ("status", "unreachable by ***"),
        ("stacks", "thread ***"),
        ("stacks", "task ***"),
        ("why", "***"),
        ("/status", "unreachable by ***"),
        ("/metrics", 'opened_total{password="***"} '),
    ):
        assert told in places[place], (place, places[place])
    file.write_text(newer)
    assert tamed("reload", env=env).status == 0
    wait_for("another digest", lambda: len(set(_digests(daemon.log))) == 2)
    daemon.stop()


def test_an_error_with_it_does_not_show_it(tamed: Tamed) -> None:
    """Neither on the terminal nor in the log, with workers and without."""
    tamed.write("vault.py", PLUGIN)
    tamed.write("password", "broken-old-fool")
    tamed.write("verse.toml", '[services.vault]\nplugin = "vault"\npassword = "file:password"\n')
    for command in ("start", "run"):
        done = tamed(command, "--plugin-dir", tamed.folder, "verse.toml")
        assert done.status != 0
        assert "refused for ***" in done.err
        assert "broken-old" not in done.out + done.err
    for path in tamed.logs.rglob("*"):
        assert not path.is_file() or "broken-old" not in path.read_text()


def _places(daemon: Daemon, env: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the places that others can see, and the text of each."""
    tamed = daemon.tamed
    yield "log", daemon.log
    for command in ("status", "logs", "events", "why", "stacks", "roles"):
        yield command, tamed(command, daemon.name, env=env).out
    for words in (("check",), ("export", "kubernetes")):
        done = tamed(*words, "verse.toml", env=env)
        assert done.status == 0, done
        yield words[-1], done.out + done.err
    for path in ("/", "/status", "/metrics", "/readyz?verbose"):
        yield path, get(tamed.folder / "ops.sock", path)[1]
    for pid in tamed.processes():
        for name in ("cmdline", "environ"):
            yield f"{pid}/{name}", Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace")
    for file in (*tamed.rundir.rglob("*"), *tamed.logs.rglob("*")):
        if file.is_file():
            yield str(file), file.read_bytes().decode(errors="replace")


def _digests(log: str) -> list[str]:
    return [line.partition("digest ")[2].split()[0] for line in log.splitlines() if "digest " in line]
