"""Programs of any kind, run and watched by services; the processes that keep them are in ``keeper``."""

from tamed.builtin.programs._handover import Handover
from tamed.builtin.programs._options import Command, ProgramOptions, Signal, Umask
from tamed.builtin.programs._output import Lines, Output
from tamed.builtin.programs._process import Ending, Process
from tamed.builtin.programs._readiness import Accepts, Notifies, Readiness, RunsFor
from tamed.builtin.programs._service import ProgramService
from tamed.builtin.programs._session import Sessions, connection_variables
from tamed.builtin.programs._warden import Warden

__all__ = [
    "Accepts",
    "Command",
    "Ending",
    "Handover",
    "Lines",
    "Notifies",
    "Output",
    "Process",
    "ProgramOptions",
    "ProgramService",
    "Readiness",
    "RunsFor",
    "Sessions",
    "Signal",
    "Umask",
    "Warden",
    "connection_variables",
]
