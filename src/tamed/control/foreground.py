"""Running a job in the foreground: alone in this process, or with this process as its supervisor."""

from typing import TYPE_CHECKING

from tamed.config.identity import becomes_another, identity_of
from tamed.config.job import Job
from tamed.config.reading import Ask, Reading

if TYPE_CHECKING:
    from tamed.worker.life import Ending

__all__ = ["run"]


def run(job: Job, ask: Ask, *, may_fork: bool = False) -> "Ending":
    """Run a job in the foreground; return how it ended, or raise the TamedError of its failure.

    ``ask`` prompts for the secrets that the options refer to as ``prompt:``.

    If the settings need a supervisor, this process becomes the supervisor. So it does if root runs a job as
    another user: root must not load code of that user, so a worker loads it. With another root directory,
    there is only this process.
    """
    reading = Reading.entering(job, ask)
    daemon = reading.settings.daemon
    if daemon.is_supervised or (daemon.chroot is None and becomes_another(identity_of(daemon))):
        from tamed.control.launch import supervise_here  # each loads modules that the other must not load

        supervise_here(reading, may_fork=may_fork)
    from tamed.worker.alone import run

    return run(reading)
