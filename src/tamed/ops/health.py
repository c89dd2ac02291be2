"""Liveness, readiness and startup of the daemon: each a list of named checks, as in kube-apiserver.

``livez`` fails if a restart would help: the supervisor or every worker is blocked. It is independent of other
systems, and a daemon that starts or drains is alive. ``readyz`` fails if clients should go elsewhere;
the checks of services are part of it.
``startupz`` fails until the first start is done.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

from tamed._os.text import shown

__all__ = ["PROBES", "Check", "is_failed", "readyz", "report"]


class Check(NamedTuple):
    """A check; ``why`` is empty if it passes. One that ``degrades`` does not fail its probe."""

    name: str
    why: str = ""
    degrades: bool = False


Facts = Mapping[str, Any]
"""The supervisor's answer about the daemon's health."""


def _livez(facts: Facts) -> list[Check]:
    is_between = facts["phase"] != "running"
    why = "" if is_between or facts["beats"] else "no worker sends heartbeats"
    return [Check("supervisor"), Check("workers", why)]


def readyz(facts: Facts) -> list[Check]:
    """Return the checks of readiness."""
    started = "" if facts["phase"] != "starting" else "the daemon is starting"
    draining = "the daemon is stopping" if facts["is_draining"] else ""
    ready = "" if facts["ready"] else f"none of {facts['wanted']} is ready"
    if ready and facts["last_error"]:
        ready += f"; last error: {facts['last_error']}"
    return [
        Check("supervisor"),
        Check("started", started),
        Check("not-stopping", draining),
        Check("workers", ready),
        *(_of_service(each) for each in facts["checks"]),
    ]


def _of_service(summary: Mapping[str, Any]) -> Check:
    gates, asked = summary["gates"], summary["asked"]
    why = summary["why"] if asked else "there is no result yet"
    return Check(f"check/{summary['name']}", why, not gates)


def _startupz(facts: Facts) -> list[Check]:
    return readyz(facts)[:2]


PROBES: Final[Mapping[str, Callable[[Facts], list[Check]]]] = {
    "livez": _livez,
    "readyz": readyz,
    "startupz": _startupz,
}
"""The probes by their names."""


def is_failed(check: Check) -> bool:
    """Return whether a check fails its probe."""
    return bool(check.why) and not check.degrades


def report(
    probe: str, checks: Sequence[Check], *, verbose: bool, excluded: Collection[str] = ()
) -> tuple[bool, str]:
    """Return whether a probe passes, and its text: ``ok``, or a line for each check.

    ``excluded`` checks do not count. An unknown name among them is reported: it may be misspelled.
    """
    passes = not any(is_failed(check) for check in checks if check.name not in excluded)
    if passes and not verbose:
        return True, "ok"
    lines = [f"[+]{check.name} excluded: ok" if check.name in excluded else _line(check) for check in checks]
    if unknown := sorted({*excluded} - {check.name for check in checks}):
        lines.append(f"warn: no check has this name, so it is not excluded: {shown(', '.join(unknown))}")
    return passes, "\n".join([*lines, f"{probe} check {'passed' if passes else 'failed'}"]) + "\n"


def _line(check: Check) -> str:
    if not check.why:
        return f"[+]{check.name} ok"
    return (
        f"[!]{check.name} degraded: {check.why}" if check.degrades else f"[-]{check.name} failed: {check.why}"
    )
