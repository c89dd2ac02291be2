"""Checking a job: its settings, its services and their addresses, without running or binding anything."""

from typing import Final

from tamed.config.job import Job
from tamed.config.load import load
from tamed.config.reading import Ask, Reading
from tamed.config.settings import Daemon, Log, Settings
from tamed.errors import ApplicationFailed, Errors, exit_code
from tamed.net.conflicts import conflicts
from tamed.service.application import Application

__all__ = ["check"]


_ENV_FILE: Final = {"env_file", "env-file", "TAMED_ENV_FILE"}


def check(job: Job, ask: Ask) -> Application:
    """Return the application of a job.

    Raises the first error that a run would raise before it listens, or `ConfigurationError` if two servers
    want the same address. The error has all the ``others``: a wrong setting in a deployment file does not
    hide wrong options of its services, unless their values are in an environment file.
    """
    errors = Errors()
    application = Application(job.target.name)
    for reading in _readings(job, ask, errors):
        with errors:
            application = _load(reading)
    for conflict in conflicts(application):
        errors.add(conflict)
    errors.raise_first()
    return application


def _load(reading: Reading) -> Application:
    """Load an application. ``sys.exit`` while loading would end a run silently; in a check it is an error."""
    try:
        return load(reading)
    except SystemExit as ended:
        raise ApplicationFailed(f"{ended.__notes__[0]}, with status {exit_code(ended)}") from None


def _readings(job: Job, ask: Ask, errors: Errors) -> list[Reading]:
    """Return the reading of a job; if its settings are invalid, one with the default settings."""
    job = job._replace(known=job.deployment())
    with errors:
        return [Reading.entering(job, ask)]
    if job.known is None or not _ENV_FILE.isdisjoint({*job.daemon, *job.known.daemon, *job.environ}):
        return []
    answers = dict.fromkeys(job.prompts(job.known), "")  # answers given before the error are lost
    return [Reading(job._replace(answers=answers), job.known, Settings(Daemon(), Log()))]
