"""``python -m tests.chaos``: chaos for a while, and the figures.

The exit status is 1 if anything was not as it must be. ``--seed`` repeats the choices of a run, though not
the moments in which they come.
"""

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import SystemRandom

from tests.chaos.conductor import run
from tests.chaos.referee import Referee
from tests.supervised import opened
from tests.supervised.opened import closed_directory


def main(words: Sequence[str]) -> int:
    """Run it; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600.0, help="how long, about (default: 600)")
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**6), help="of the choices")
    options = parser.parse_args(words)
    if os.geteuid() == 0 and closed_directory() is not None:  # so that the daemon can be another user
        os.execv(
            sys.executable, [sys.executable, opened.__file__, sys.executable, "-m", "tests.chaos", *words]
        )
    print(f"chaos for {options.seconds:g} seconds with seed {options.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="tamed-chaos-"))
    folder.chmod(0o755)
    referee = asyncio.run(run(folder, options.seconds, options.seed))
    report(referee)
    if referee.violations:
        print(f"what it left is in {folder}; again: --seed {options.seed}")
    else:
        shutil.rmtree(folder)
    return 1 if referee.violations else 0


def report(referee: Referee) -> None:
    """Print the figures, and what was wrong."""
    for name, count in sorted(referee.figures.items()):
        print(f"{count:8,}  {name}")
    for line in referee.violations:
        print(line)
    print("no violation" if not referee.violations else f"{referee.figures['violations']} violations")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
