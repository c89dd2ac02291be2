"""The daemon's status as the endpoint shows it: JSON with a version, and text for people."""

from typing import Any, Final

from tamed._os.text import counted, shown

__all__ = ["SCHEMA_VERSION", "status_text", "to_public"]

SCHEMA_VERSION: Final = 1
"""The version of the JSON. It increases when a field changes its meaning or is removed."""

_OWN: Final = ("answer", "descriptors")


def to_public(status: dict[str, Any], now: str) -> dict[str, Any]:
    """Return the supervisor's answer with the version and the time, an RFC 3339 text."""
    fields = {name: value for name, value in status.items() if name not in _OWN}
    return {"schema_version": SCHEMA_VERSION, "time": now, **fields}


def status_text(status: dict[str, Any]) -> str:
    """Return the status for a person: the daemon, its endpoints, its workers and their services."""
    lines = [_daemon_line(status)]
    lines += [f"listening on {each}" for each in status["endpoints"]]
    lines += [
        f"the certificate of {each['endpoint']} ends {each['ends'] or 'at an unknown time'}: {each['file']}"
        for each in status["certificates"]
    ]
    lines += [
        f"the check of {each['name']} fails: {each['why']}" for each in status["checks"] if each["failing"]
    ]
    if status["last_error"]:
        lines.append(f"last error, {status['last_error_at']}: {status['last_error']}")
    lines += [_role_line(role) for role in status["roles"]]
    for worker in status["workers"]:
        lines.append(_worker_line(worker))
        if "tree" in worker:
            lines += _tree_lines(worker["tree"], 1)
    return "\n".join(shown(line) for line in lines) + "\n"


def _daemon_line(status: dict[str, Any]) -> str:
    return (
        f"{status['name']} is {status['state']}: pid {status['pid']}, up {status['uptime']:.0f} s, "
        f"generation {status['generation']}, {status['ready']} of {status['wanted']} workers ready, "
        f"{counted(status['restarts'], 'restart')}"
    )


def _role_line(role: dict[str, Any]) -> str:
    if role["state"] == "standby":
        return f"role {role['role']} is on another machine, {role['holder']}, for {role['age']:.0f} s"
    if role["pid"] is None:
        return f"role {role['role']} is vacant for {role['age']:.0f} s"
    stops = ", which is resigning it" if role["state"] == "resigning" else ""
    return f"role {role['role']} is held by worker {role['worker']} (pid {role['pid']}){stops}"


def _worker_line(worker: dict[str, Any]) -> str:
    memory = worker["memory"]
    size = "" if memory is None else f", {memory / 2**20:.0f} MiB"
    connections = f", {counted(worker['connections'], 'connection')}" if "connections" in worker else ""
    return (
        f"worker {worker['number']} (pid {worker['pid']}, generation {worker['generation']}) is "
        f"{worker['state']}, up {worker['uptime']:.0f} s{size}{connections}"
    )


def _tree_lines(tree: dict[str, Any], depth: int) -> list[str]:
    text = f"{'  ' * depth}{tree['name']}: {tree['state']}"
    if tree["restarts"]:
        text += f", {counted(tree['restarts'], 'restart')}"
    if tree["summary"]:
        text += f", {tree['summary']}"
    return [text, *(line for child in tree["children"] for line in _tree_lines(child, depth + 1))]
