"""What some of twistd's options do to the process, before the program is loaded."""

import atexit
import cProfile
import pdb
import pstats
import signal
import sys
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from twisted.python.reflect import namedAny
from twisted.python.util import spewer

from tamed.twisted._claim import claim_reactor
from tamed.twisted._logging import log_to_observer_of

__all__ = ["apply_twistd"]


def apply_twistd(effects: Mapping[str, Any]) -> None:
    """Do what the ``effects`` of a `Twistd` say.

    ``path`` are folders to import from, ``logger`` the name of a factory of log observers, ``profile`` the
    file for a profile of all that follows (as statistics with ``savestats``), ``spew`` traces every line, and
    ``debug`` opens the debugger at a SIGUSR2.
    """
    claim_reactor()
    sys.path[:0] = [folder for folder in effects["path"] if folder not in sys.path]
    if "logger" in effects:
        log_to_observer_of(namedAny(effects["logger"]))
    if "profile" in effects:
        _profile(Path(effects["profile"]), as_statistics=effects.get("savestats", False))
    if effects.get("spew"):
        threading.settrace(spewer)
        sys.settrace(spewer)
    if effects.get("debug"):
        signal.signal(signal.SIGUSR2, lambda *_: pdb.set_trace())


def _profile(file: Path, *, as_statistics: bool) -> None:
    profile = cProfile.Profile()
    atexit.register(partial(_save_profile, profile, file, as_statistics=as_statistics))
    profile.enable()


def _save_profile(profile: cProfile.Profile, file: Path, *, as_statistics: bool) -> None:
    profile.disable()
    if as_statistics:
        profile.dump_stats(file)
        return
    with file.open("w") as stream:
        pstats.Stats(profile, stream=stream).strip_dirs().sort_stats(-1).print_stats()
