"""A secret that a deployment refers to, and where it must not be found."""

import json
from pathlib import Path

from tests.supervised.daemon import Tamed, wait_for

PLUGIN = """
import ctypes
import hashlib
import logging
from dataclasses import dataclass
from tamed import Service, option, plugin

@dataclass
class Options:
    password: str = option(secret=True)

class Vault(Service):
    def __init__(self, options):
        super().__init__("vault")
        self.options = options

    async def start(self):
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
    """Neither in the status, the log, the files of the run directory, nor in what ps(1) and /proc show."""
    secret, newer = "busy-old-fool", "unruly-sun"
    tamed.write("vault.py", PLUGIN)
    file = tamed.write("password", f"{secret}\n")
    tamed.write("verse.toml", '[services.vault]\nplugin = "vault"\npassword = "file:${PLACE}/password"\n')
    env = {"PLACE": str(tamed.folder)}
    daemon = tamed.start("--plugin-dir", tamed.folder, "verse.toml", env=env)
    daemon.expect_log("digest [0-9a-f]{64} Options")
    daemon.expect_log(r"connecting to db://me:\*\*\*@host")
    daemon.expect_log("dumpable: 0")  # no core dump has it, see prctl(2)
    before = daemon.log
    places = {"status": json.dumps(daemon.status()), "log": before}
    for pid in tamed.processes():
        for name in ("cmdline", "environ"):
            places[f"{pid}/{name}"] = Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace")
    for path in tamed.rundir.rglob("*"):
        if path.is_file():
            places[str(path)] = path.read_bytes().decode(errors="replace")
    assert len(places) > 6
    assert [place for place, text in places.items() if secret in text] == []
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


def _digests(log: str) -> list[str]:
    return [line.partition("digest ")[2].split()[0] for line in log.splitlines() if "digest " in line]
