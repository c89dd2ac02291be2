"""What a worker imports after its fork: only what its template may not load.

A module that each worker imports for itself takes time and memory of each.
"""

import pytest

from tests.supervised.daemon import Tamed, read_poem

# Python imports it when an interpreter starts.
STARTED = """
import os, sys

def note():
    sys.modules_at_fork = set(sys.modules)

os.register_at_fork(after_in_child=note)
"""

ANSWER = """
import sys
from tamed import ReplyServer, StreamServer

async def answer(reader, writer):
    writer.write(" ".join(sys.modules.keys() - sys.modules_at_fork).encode())

def server():
    return StreamServer("localhost:0", answer)
"""

APPLICATION = """
from tamed import Application
from answer import server

application = Application("app", server())
"""

PLUGIN = """
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from tamed import Duration, Size, StreamServer, option, plugin
from answer import server

@dataclass
class Options:
    wait: Duration = option(Duration("30s"), "A time.")
    most: Size = option(Size("3MB"), "A size.")
    part: float = option(0.5, "A number.")
    kind: Literal["one", "other"] = option("one", "A choice.")
    file: Path | None = option(None, "A path.")

@plugin
def given(options: Options) -> StreamServer:
    'Tells what was imported.'
    return server()
"""

DEPLOYMENT = """
name = "app"

[services.one]
application = "app.py"

[services.other]
plugin = "given"
wait = "3s"
file = "app.py"
"""

FILE = {"app", "answer"}
CASES: dict[str, set[str]] = {
    "app.py": FILE,
    "--plugin-dir . given --most 2MB --kind other": {"tamed_plugin_given", "answer"},
    "--preload app.py": set(),
    # Nobody asks the cluster: there is no role.
    "--plugin-dir . --ops unix:ops.sock --max-worker-age 1h --cluster etcd://127.0.0.1:2379 app.toml": {
        "tamed_plugin_given",
        *FILE,
    },
}


@pytest.mark.unmeasured  # what measures a process is imported in it
@pytest.mark.parametrize(("words", "own"), CASES.items(), ids=CASES)
def test_a_worker_imports_the_application_only(tamed: Tamed, words: str, own: set[str]) -> None:
    """Until it has served a client it has imported nothing else: its template had all of it."""
    for name, text in {
        "sitecustomize.py": STARTED,
        "answer.py": ANSWER,
        "app.py": APPLICATION,
        "given.py": PLUGIN,
        "app.toml": DEPLOYMENT,
    }.items():
        tamed.write(name, text)
    daemon = tamed.start("--workers", "1", *words.split(), env={"PYTHONPATH": str(tamed.folder)})
    assert set(read_poem(daemon.port).decode().split()) == own
    daemon.stop()
