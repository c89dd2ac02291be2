"""The project that runs a deployment with Docker Compose or Podman: the Compose Specification.

The deployment file is in it, so the image needs only the files that the deployment refers to. Dollar signs
are doubled, because Compose expands them as variables.
"""

from collections.abc import Iterator

from tamed.export.container import RUN, RUNDIR, USER, Container, Resources
from tamed.export.files import MadeFile, Noted, Value, to_yaml

__all__ = ["project_of"]

_RUN_OPTIONS = f"mode=0755,uid={USER},gid={USER}"


def project_of(container: Container, image: str, resources: Resources, made_by: str) -> list[MadeFile]:
    """Return the project's file. Raises UsageError for invalid quantities."""
    facts = container.facts
    document: dict[str, Value] = {
        "name": facts.name,
        "services": {facts.name: _service(container, image, resources)},
        "configs": {"deployment": {"content": _literal(facts.text)}},
    }
    if facts.credentials:
        document["secrets"] = Noted(
            {name: {"file": f"./secrets/{name}"} for name in facts.credentials},
            f"The user {USER} must be able to read these files.",
        )
    return [MadeFile("compose.yaml", to_yaml(document), made_by)]


def _service(container: Container, image: str, resources: Resources) -> dict[str, Value]:
    facts = container.facts
    service: dict[str, Value] = {
        "image": image,
        "build": {"context": ".", "dockerfile": "Containerfile"},
        "command": [_literal(word) for word in container.command],
        "working_dir": str(facts.file.parent),
        "restart": "unless-stopped",
        "stop_grace_period": Noted(
            f"{container.stop_seconds}s", "Longest time of the daemon to drain and to stop."
        ),
        "healthcheck": _health_check(container),
        "user": f"{USER}:{USER}",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
    }
    if container.lowest_port is not None:
        service["sysctls"] = Noted(
            {"net.ipv4.ip_unprivileged_port_start": container.lowest_port},
            "Instead of a capability, to bind the port.",
        )
    if resources.cpus is not None:
        service["cpus"] = str(resources.cpus)
    if resources.bytes is not None:
        service["mem_limit"] = str(resources.bytes)
    service["environment"] = list(_environment(container))
    if container.ports:
        service["ports"] = [
            f"{port.number}:{port.number}/{port.protocol.lower()}" for port in container.ports
        ]
    service["tmpfs"] = [
        f"{RUN}:{_RUN_OPTIONS}",
        "/tmp",  # noqa: S108 - a file system of its own
        *(f"{folder}:{_RUN_OPTIONS}" for folder in container.folders if folder != "/tmp"),  # noqa: S108
    ]
    service["configs"] = [{"source": "deployment", "target": str(facts.file)}]
    if facts.credentials:
        service["secrets"] = list(facts.credentials)
    return service


def _health_check(container: Container) -> dict[str, Value]:
    facts = container.facts
    command = [container.command[0], "status", "--lines", "0", "--rundir", RUNDIR, facts.name]
    return {
        "test": ["CMD", *(_literal(word) for word in command)],
        "start_period": f"{facts.start_seconds}s",
        "start_interval": "2s",
        "interval": "15s",
        "timeout": "10s",
        "retries": 3,
    }


def _environment(container: Container) -> Iterator[Value]:
    """Yield ``NAME=VALUE``, or only the name of a variable from the environment of the compose command."""
    yield from (f"{name}={_literal(value)}" for name, value in container.environment.items())
    yield from container.facts.variables


def _literal(text: str) -> str:
    return text.replace("$", "$$")
