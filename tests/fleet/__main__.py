"""``python -m tests.fleet``: faults at random in a fleet of three hosts and the servers of an engine.

The exit status is 1 if anybody acted with an old token, or nobody acts any more. ``--seed`` repeats the
choices of a run, though not the moments in which they come.
"""

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from random import Random, SystemRandom

from tests.fleet.engines import ENGINES
from tests.fleet.faults import FAULTS, Fault
from tests.fleet.hosts import LEASE, Fleet, can_run
from tests.fleet.referee import Referee
from tests.supervised.daemon import wait_for

_CALM = 2 * LEASE  # seconds after a fault in which the next holder comes


def run(folder: Path, engine: str, seconds: float, seed: int, drift: float = 0) -> Referee:
    """Do it all for so many seconds; return the referee."""
    with closing(Fleet(folder, engine, drift)) as fleet:
        fleet.start()
        with closing(Referee(fleet.actions)) as referee:
            _break(fleet, referee, seconds, Random(seed))
            for host in fleet.hosts:
                host.command("stop", "app")
            referee.read()
    return referee


def _break(fleet: Fleet, referee: Referee, seconds: float, random: Random) -> None:
    end = time.monotonic() + seconds
    left: list[Fault] = []
    while time.monotonic() < end:
        left = left or random.sample(FAULTS, len(FAULTS))
        fault = left.pop()
        referee.began()
        last = referee.last
        assert last is not None
        print(f"{end - time.monotonic():6.0f}  {fault.__doc__}", flush=True)
        fault(fleet, last, random)
        time.sleep(_CALM)
        for host in fleet.hosts:
            host.start()
        wait_for("an action", referee.has_seen_more)
        referee.ended((fault.__doc__ or "").rstrip("."))


def main(words: Sequence[str]) -> int:
    """Run it; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fleet", description=__doc__.partition("\n")[0])
    parser.add_argument("--engine", choices=ENGINES, default="etcd", help="whose servers (default: etcd)")
    parser.add_argument("--seconds", type=float, default=300.0, help="how long, about (default: 300)")
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**6), help="of the choices")
    parser.add_argument("--drift", type=float, default=0, help="percent by which two hosts' clocks are wrong")
    options = parser.parse_args(words)
    if why := can_run(options.engine):
        print(f"cannot run: {why}")
        return 1
    print(
        f"a fleet with {options.engine} for {options.seconds:g} seconds with seed {options.seed}", flush=True
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that it ends what it has started
    folder = Path(tempfile.mkdtemp(prefix="tamed-fleet-"))
    referee = run(folder, options.engine, options.seconds, options.seed, options.drift)
    print(f"\n{'without a holder, lease of ' + format(LEASE, 'g') + ' s':56} times   median     worst")
    print("\n".join(referee.table()))
    print(f"{referee.count} actions by {len(referee.tokens)} holders, {len(referee.stale)} with an old token")
    for action in referee.stale[:10]:
        print(f"with an old token: {action}")
    if referee.stale:
        print(f"what it left is in {folder}; again: --engine {options.engine} --seed {options.seed}")
    else:
        shutil.rmtree(folder)
    return 1 if referee.stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
