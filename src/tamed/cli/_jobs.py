"""What is done with a job, once the command line has been read."""

import sys
from collections.abc import Callable, Mapping
from typing import Final

from tamed.config.job import Job

__all__ = ["JOBS", "run_job", "start_job"]


def run_job(job: Job) -> int:
    """Run a job in the foreground; return its exit status."""
    from tamed.runner import run  # not above: help and completion need not load the event loop

    return run(job._replace(argv=tuple(sys.argv))).status


def start_job(job: Job) -> int:
    """Start a job as a daemon, say what became of it, and return the status that tells."""
    from tamed.runner import start

    report = start(job._replace(argv=tuple(sys.argv), detached=True))
    print(report.text, file=sys.stdout if report.ready else sys.stderr)
    return report.status


JOBS: Final[Mapping[str, Callable[[Job], int]]] = {"run": run_job, "start": start_job}
"""The commands that take a job and do nothing else, by their names."""
