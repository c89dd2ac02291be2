"""The options that stand before TARGET, as all commands with a TARGET have them."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from tamed._trust import TRUST_WRITABLE
from tamed.config.settings import Daemon, Log
from tamed.plugins.describe import Option, describe
from tamed.plugins.discovery import plugin_folders

__all__ = ["ALIASES", "DAEMON_OPTIONS", "PLUGIN_DIR", "folders", "trust_if_told"]

DAEMON_OPTIONS: Final[tuple[tuple[str, tuple[Option, ...]], ...]] = (
    ("", describe(Daemon)),
    ("log-", describe(Log)),
)
"""The options of the tables ``[daemon]`` and ``[log]``, each with what stands before its name in the flag."""

ALIASES: Final = {"log-file": "--log"}
"""Other flags for some of them."""

PLUGIN_DIR: Final = "--plugin-dir"


def folders(named: Iterable[str]) -> tuple[Path, ...]:
    """Return the plugin folders: those named on the command line, and those of the environment."""
    return plugin_folders(named, os.environ)


def trust_if_told(daemon: Mapping[str, object]) -> None:
    """Heed ``--trust-writable`` from now on, here and in all processes of the daemon: files are read next."""
    if daemon.get("trust_writable"):
        os.environ[TRUST_WRITABLE] = "1"
