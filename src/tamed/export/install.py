"""Installing the units of a deployment on this machine, and removing them, by systemctl(1).

They belong to the system manager, or to that of a user. With ``--split``, there is a target, ``NAME.target``,
of which the services are part.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from tamed._os.identity import user_folder
from tamed.errors import (
    CannotCreate,
    MissingInput,
    PermissionRefused,
    SystemRefused,
    Unavailable,
    from_os_error,
)
from tamed.export.files import MadeFile, is_untouched, text_of, write_files

__all__ = ["Place", "Systemctl", "install", "place_of_system", "place_of_user", "systemctl", "uninstall"]

Systemctl = Callable[..., str]
"""Runs systemctl with these words and returns its output; raises SystemRefused with its error message."""

_WITHOUT_SESSION: Final = "log in as this user, or let root do: loginctl enable-linger USER"
"""How to get a user manager, which `su` and `sudo` do not start: loginctl(1)."""


class Place(NamedTuple):
    """The place for units: the folder of a manager's units, its systemctl, and the command for its log."""

    folder: Path
    run: Systemctl
    log: str = "journalctl"


def place_of_system() -> Place:
    """Return the place of units that an administrator installs: systemd.unit(5)."""

    def run(*words: str) -> str:
        if os.geteuid() != 0:
            what = f"cannot run systemctl {' '.join(words)}"
            raise PermissionRefused(what, "this user may not install units", "run it as root, or with --user")
        return systemctl(*words)

    return Place(Path("/etc/systemd/system"), run)


def place_of_user(environ: Mapping[str, str]) -> Place:
    """Return the place of the units of this user."""
    units = user_folder(environ, "XDG_CONFIG_HOME", ".config") / "systemd/user"
    return Place(units, lambda *words: systemctl("--user", *words), "journalctl --user")


def systemctl(*words: str) -> str:
    """Run systemctl."""
    what = f"cannot run systemctl {' '.join(words)}"
    program = shutil.which("systemctl", path="/usr/bin:/bin")
    if program is None:
        raise MissingInput(what, "it is not installed", "write the units with --to FOLDER")
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        why = (done.stderr or done.stdout).strip().partition("\n")[0]
        raise SystemRefused(what, why, _WITHOUT_SESSION if "--user" in words and "to bus" in why else "")
    return done.stdout.strip()


def install(files: Sequence[MadeFile], place: Place, name: str, *, force: bool = False) -> list[str]:
    """Write the units of a deployment, and start them now and at each boot.

    Return a line for each action. A running unit is restarted if its file has changed. Raises as
    `write_files` does, SystemRefused without systemd, CannotCreate if other services of the deployment are
    installed, and Unavailable, with the reason, if a unit does not start.
    """
    folder, run, log = place
    run("daemon-reload")  # first: without systemd nothing is written
    names = {file.name for file in files}
    if other := next((path for path in _services_of(name, folder) if path.name not in names), None):
        why = f"{other} is from an earlier installation with different units"
        raise CannotCreate(f"cannot install {name}", why, "remove it first, with --uninstall")
    written = write_files(files, folder, force=force)
    lines = [f"wrote {path}" for path in written]
    if written:
        run("daemon-reload")
    sockets_first = sorted(files, key=lambda file: not file.name.endswith(".socket"))
    for unit in (file.name for file in sockets_first):
        is_down = _property(run, unit, "ActiveState") in ("inactive", "failed")
        is_old = folder / unit in written and not is_down
        run("enable", "--quiet", unit)
        with suppress(SystemRefused):  # it is not loaded
            run("reset-failed", unit)  # resets the limit of starts in a period
        try:
            run("restart" if is_old else "start", unit)
        except SystemRefused as error:
            why = _property(run, unit, "StatusText") if unit.endswith(".service") else ""
            remedy = f"see {log} --unit {unit}"
            raise Unavailable(f"cannot start {unit}", why or error.why, remedy) from error
        lines.append(f"{'restarted' if is_old else 'started'} {unit}")
    return lines


def _property(run: Systemctl, name: str, which: str) -> str:
    return run("show", "--property", which, "--value", name)


def uninstall(name: str, place: Place, *, force: bool = False) -> list[str]:
    """Stop the units of a deployment, and remove them; return a line for each.

    Drop-in settings (``NAME.service.d``) stay. Raises MissingInput if there is none, and CannotCreate, before
    anything is done, if one was edited by hand, unless ``force`` is given.
    """
    folder, run, _ = place
    services = _services_of(name, folder)
    lines = [f"Service={service.name}" for service in services]
    paths = [*services, *(socket for line in lines for socket in _with_line(line, folder, "*.socket"))]
    if not paths:
        raise MissingInput(f"cannot uninstall {name}", f"there is no {folder / name}.service")
    for path in paths:
        if not force and not is_untouched(text_of(path) or ""):
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


def _services_of(name: str, folder: Path) -> list[Path]:
    """Return the target and the services of a deployment, or its one service."""
    own = [path for kind in ("target", "service") if text_of(path := folder / f"{name}.{kind}") is not None]
    return own + _with_line(f"PartOf={name}.target", folder, "*.service")


def _with_line(line: str, folder: Path, pattern: str) -> list[Path]:
    found = sorted(folder.glob(pattern))
    return [path for path in found if f"\n{line}\n" in (text_of(path) or "")]
