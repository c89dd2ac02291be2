"""Running any program as a service: beside supervisord."""

import shlex
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.compare import Comparison, Contestant, Figure, Figures
from bench.measures.start import wait_for_poem
from bench.peers import minimal
from bench.process import BIN, Process, command, tamed

__all__ = ["programs_kept"]

_SUPERVISORD = """
[supervisord]
nodaemon=true
user=root
logfile={folder}/log
pidfile={folder}/pid
[program:poetry]
command={words}
startsecs=0
"""


def _supervisord(folder: Path) -> Process:
    program = minimal()
    configuration = folder / "supervisord.conf"
    configuration.write_text(_SUPERVISORD.format(folder=folder, words=" ".join(program.words)))
    return Process(command(BIN / "supervisord", "-c", configuration), program.port)


def _tamed(_: Path) -> Process:
    program = minimal()
    words = tamed("run", "exec", "--command", shlex.join(program.words), "--ready-after", "0s")
    return Process(words, program.port)


def _measure(start: Callable[[Path], Process]) -> Figures:
    with tempfile.TemporaryDirectory() as folder, start(Path(folder)) as server:
        assert server.port is not None
        wait_for_poem(server.port)
        return {"memory": server.memory(), "exit": server.stop()}


def programs_kept() -> Comparison:
    """Return the comparison of what keeps one C server running."""
    return Comparison(
        "exec",
        "Keeping another program running",
        {
            "memory": Figure("proportional memory (PSS), the program's included", "MB", 1e-6, 1, exact=True),
            "exit": Figure("SIGTERM to exit", "ms", 1e3, 0),
        },
        [
            Contestant("tamed", partial(_measure, _tamed)),
            Contestant("supervisord", partial(_measure, _supervisord)),
        ],
    )
