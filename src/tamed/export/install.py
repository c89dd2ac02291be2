"""Installing the units of a deployment on this machine, and removing them, by systemctl(1)."""

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from tamed.errors import (
    CannotCreate,
    MissingInput,
    PermissionRefused,
    SystemRefused,
    Unavailable,
    from_os_error,
)
from tamed.export.files import MadeFile, is_untouched, write_files

__all__ = ["SYSTEM_UNITS", "Systemctl", "install", "systemctl", "uninstall"]

SYSTEM_UNITS: Final = Path("/etc/systemd/system")
"""The folder of the units that an administrator has installed: systemd.unit(5)."""

Systemctl = Callable[..., str]
"""Runs systemctl with these words and returns its output, or raises SystemRefused with what it said."""


def systemctl(*words: str) -> str:
    """Run systemctl as root."""
    what = f"cannot run systemctl {' '.join(words)}"
    program = shutil.which("systemctl", path="/usr/bin:/bin")
    if program is None:
        raise MissingInput(what, "it is not installed", "write the units with --to FOLDER")
    if os.geteuid() != 0:
        raise PermissionRefused(what, "this user may not install units", "do it as root")
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemRefused(what, (done.stderr or done.stdout).strip().partition("\n")[0])
    return done.stdout.strip()


def install(
    files: Sequence[MadeFile], folder: Path = SYSTEM_UNITS, run: Systemctl = systemctl, *, force: bool = False
) -> list[str]:
    """Write units, have them started now and at each boot; return a line for each thing that was done.

    A unit that runs already is restarted if its file has changed. Raises as `write_files` does, SystemRefused
    if systemd is not there, and Unavailable, with the reason, if a unit does not start.
    """
    run("daemon-reload")  # first: without systemd nothing is written
    written = write_files(files, folder, force=force)
    lines = [f"wrote {path}" for path in written]
    if written:
        run("daemon-reload")
    for name in (file.name for file in _sockets_first(files)):
        is_old = folder / name in written and _property(run, name, "ActiveState") == "active"
        run("enable", "--quiet", name)
        try:
            run("restart" if is_old else "start", name)
        except SystemRefused as error:
            why = _property(run, name, "StatusText") if name.endswith(".service") else ""
            remedy = f"see journalctl --unit {name}"
            raise Unavailable(f"cannot start {name}", why or error.why, remedy) from error
        lines.append(f"{'restarted' if is_old else 'started'} {name}")
    return lines


def _property(run: Systemctl, name: str, which: str) -> str:
    return run("show", "--property", which, "--value", name)


def _sockets_first(files: Sequence[MadeFile]) -> list[MadeFile]:
    return sorted(files, key=lambda file: not file.name.endswith(".socket"))


def uninstall(
    name: str, folder: Path = SYSTEM_UNITS, run: Systemctl = systemctl, *, force: bool = False
) -> list[str]:
    """Stop the units of a deployment of this name, and remove them; return a line for each.

    Settings beside them (``NAME.service.d``) stay. Raises MissingInput if there is none, and CannotCreate,
    before anything is done, if one was edited by hand and ``force`` is not given.
    """
    service = folder / f"{name}.service"
    paths = [path for path in (service, *_sockets_of(service)) if path.exists()]
    if not paths:
        raise MissingInput(f"cannot uninstall {name}", f"there is no {service}")
    for path in paths:
        if not force and not is_untouched(path.read_text("utf-8", errors="replace")):
            why = "it was edited by hand, or not made by Tamed"
            raise CannotCreate(f"cannot remove {path}", why, "move it away, or pass --force")
    run("disable", "--quiet", "--now", *(path.name for path in paths))
    for path in paths:
        try:
            path.unlink()
        except OSError as error:
            raise from_os_error(f"cannot remove {path}", error) from error
    run("daemon-reload")
    return [f"removed {path}" for path in paths]


def _sockets_of(service: Path) -> list[Path]:
    """Return the socket units that start a service."""
    line = f"\nService={service.name}\n"
    found = sorted(service.parent.glob("*.socket"))
    return [path for path in found if line in path.read_text("utf-8", errors="replace")]
