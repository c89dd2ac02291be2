"""The command ``tamed roles``: the holder of each role. `tamed status` shows it in one line."""

import json
from collections.abc import Iterator
from typing import Any, Final

from tamed._os.text import shown_in_json
from tamed.cli._text import cell, shown_lines, table, uptime
from tamed.cli.instances import instance_of
from tamed.control.instances import status_of_instance

__all__ = ["role_lines", "roles"]

_ROLE: Final = ("ROLE", "STATE", "WORKER", "PID", "GENERATION", "SINCE", "TRANSITIONS", "VACANT", "STANDBY")
_VACANT: Final = 4  # exit status, the same as for a degraded daemon


def roles(name: str | None, rundir: str | None, as_json: bool) -> int:
    """Show the roles of an instance; return the exit status."""
    found = status_of_instance(instance_of(name, rundir))
    each = found["roles"]
    if as_json:
        print(shown_in_json(json.dumps(each, indent=2)))
    elif each:
        print(shown_lines(list(table(_ROLE, [_row(role) for role in each]))))
    else:
        print(f"no service of {cell(found['name'])} runs in one worker only")
    return _VACANT if any(_lacks_holder(role) for role in each) else 0


def _lacks_holder(role: dict[str, Any]) -> bool:
    return bool(role["state"] == "vacant" or role["trouble"])


def role_lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each role of a status."""
    for role in found["roles"]:
        for_how_long = f"for {uptime(role['age'])}"
        if role["state"] == "standby":
            yield f"role {cell(role['role'])}: on another machine, {cell(role['holder'])}, {for_how_long}"
        elif role["pid"] is None:
            yield f"role {cell(role['role'])}: no worker holds it {for_how_long}"
        else:
            stops = ", which is resigning it" if role["state"] == "resigning" else ""
            where = f"worker {role['worker']} (pid {role['pid']})"
            yield f"role {cell(role['role'])}: held by {where}{stops} {for_how_long}"


def _row(role: dict[str, Any]) -> tuple[str, ...]:
    holder = ("worker", "pid", "generation")
    return (
        cell(role["role"]),
        cell(f"{role['state']}: {role['holder']}" if role["holder"] else role["state"]),
        *("" if role[key] is None else str(role[key]) for key in holder),
        uptime(role["age"]),
        str(role["transitions"]),
        f"{role['vacant']:.1f} s",
        str(role["standby"]),
    )
