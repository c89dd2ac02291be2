"""What the operator wrote: targets, deployment files and settings, and the job they make.

The names are loaded when they are first asked for (PEP 562): who reads a job need not load what runs it.
"""

from typing import TYPE_CHECKING

from tamed._lazy import lazy_face

if TYPE_CHECKING:
    from tamed.config._deployment import Deployment, Entry
    from tamed.config._env_file import read_env_file
    from tamed.config._job import Job
    from tamed.config._load import load
    from tamed.config._reading import Reading
    from tamed.config._resolve import resolve
    from tamed.config._settings import Daemon, Level, Log, Settings, names_file
    from tamed.config._target import Target, TargetKind
    from tamed.config._twisted import check_words

__all__ = [
    "Daemon",
    "Deployment",
    "Entry",
    "Job",
    "Level",
    "Log",
    "Reading",
    "Settings",
    "Target",
    "TargetKind",
    "check_words",
    "load",
    "names_file",
    "read_env_file",
    "resolve",
]

if not TYPE_CHECKING:
    __getattr__ = lazy_face(
        __name__,
        {
            "Daemon": "._settings",
            "Deployment": "._deployment",
            "Entry": "._deployment",
            "Job": "._job",
            "Level": "._settings",
            "Log": "._settings",
            "Reading": "._reading",
            "Settings": "._settings",
            "Target": "._target",
            "TargetKind": "._target",
            "check_words": "._twisted",
            "load": "._load",
            "names_file": "._settings",
            "read_env_file": "._env_file",
            "resolve": "._resolve",
        },
    )


def __dir__() -> list[str]:
    return __all__
