"""What the operator wrote: targets, deployment files and settings, and the job they make."""

from tamed.config._deployment import Deployment, Entry
from tamed.config._env_file import read_env_file
from tamed.config._job import Job
from tamed.config._resolve import resolve
from tamed.config._settings import Daemon, Level, Log, Settings, names_file
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
    "names_file",
    "read_env_file",
    "resolve",
]
