"""What the operator wrote: targets, deployment files and settings, and the job they make."""

from tamed.config._deployment import Deployment, Entry
from tamed.config._job import Job
from tamed.config._settings import Daemon, Level, Log, Settings
from tamed.config._target import Target, TargetKind

__all__ = [
    "Daemon",
    "Deployment",
    "Entry",
    "Job",
    "Level",
    "Log",
    "Settings",
    "Target",
    "TargetKind",
]
