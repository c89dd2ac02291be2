"""The environment file of a run: its variables are there before anything else is."""

import os

from tamed._trust import TRUST_WRITABLE
from tamed.config.deployment import Deployment, read_env_file
from tamed.config.job import Job

__all__ = ["enter_environment"]


def enter_environment(job: Job, deployment: Deployment | None) -> Job:
    """Take the variables of ``--env-file`` into this process; return the job as it is with them.

    They go before what is in the environment: they were written down for this very program. Workers inherit
    them, and do not read the file, which may be for root alone.
    """
    daemon = job.settings(deployment).daemon
    if daemon.trust_writable:
        os.environ[TRUST_WRITABLE] = "1"
    file = daemon.env_file
    if file is None:
        return job
    os.environ.update(read_env_file(file))
    return job._replace(environ=os.environ)
