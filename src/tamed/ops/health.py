"""Liveness, readiness and startup of the daemon: each a list of named checks, as in kube-apiserver.

``livez`` fails if a restart would help: the supervisor or every worker is blocked. It is independent of other
systems, and a daemon that starts or drains is alive. ``readyz`` fails if clients should go elsewhere;
the checks of services are part of it.
``startupz`` fails until the first start is done.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from tamed._os.text import shown
from tamed.ops.source import NoAnswer, Source

__all__ = ["PROBES", "AgentCheck", "Check", "agent_line", "readyz", "report"]

_LONGEST: Final = 120  # characters of a reason
_LEAVING: Final = 1.0  # seconds for the balancer to close the connection


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


def _is_failed(check: Check) -> bool:
    """Return whether a check fails its probe."""
    return bool(check.why) and not check.degrades


def report(
    probe: str, checks: Sequence[Check], *, verbose: bool, excluded: Collection[str] = ()
) -> tuple[bool, str]:
    """Return whether a probe passes, and its text: ``ok``, or a line for each check.

    ``excluded`` checks do not count. An unknown name among them is reported: it may be misspelled.
    """
    passes = not any(_is_failed(check) for check in checks if check.name not in excluded)
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


class AgentCheck:
    """HAProxy's agent check, the handler of a stream server: a line for each connection.

    See ``agent-check`` in HAProxy's configuration manual. The words are those of `/readyz`: ``ready up``
    while it passes, ``drain`` while the daemon stops, ``down#REASON`` otherwise. ``ready`` is needed because
    a balancer keeps an instance drained until it receives that: the next instance at this address would get
    no clients. An unreachable agent changes nothing for the balancer, so it needs an ordinary check as well.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer, and wait until the balancer closes: unread data from it (``agent-send``) must not reset it.

        If the supervisor does not answer, there is no answer. The balancer then uses its ordinary check,
        which waits for several failures.
        """
        with suppress(NoAnswer):
            facts = await self._source.health()
            line = agent_line(readyz(facts), is_draining=facts["is_draining"])
            writer.write(line.encode(errors="replace"))
        with suppress(OSError, TimeoutError):
            if writer.can_write_eof():
                writer.write_eof()
            async with asyncio.timeout(_LEAVING):
                while await reader.read(1024):
                    continue


def agent_line(checks: Sequence[Check], *, is_draining: bool) -> str:
    """Return the answer for the checks of readiness."""
    if is_draining:
        return "drain\n"
    failed = [check for check in checks if _is_failed(check)]
    return f"down#{' '.join(failed[0].why.split())[:_LONGEST]}\n" if failed else "ready up\n"
