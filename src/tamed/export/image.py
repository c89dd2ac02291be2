"""The Containerfile of an image that runs a deployment, and the ignore file of its build.

There are two stages, so that the image has no compiler and no cache; both use the same base image, because
the environment of the first stage refers to its interpreter. Each package is installed with its hash.
"""

import json
from collections.abc import Iterator

from tamed.export.container import USER, Container
from tamed.export.files import MadeFile

__all__ = ["image_of"]

_BASE = "docker.io/library/python:3.13-slim"
_ENVIRONMENT = "/opt/tamed"
_IGNORED = (
    "# Secrets and build artefacts do not belong in an image.",
    ".*",
    "**/__pycache__",
    "**/*.key",
    "**/*.log",
    "**/*.pem",
    "secrets",
    "Containerfile",
    "compose.yaml",
    "venv",
)


def image_of(container: Container, made_by: str) -> list[MadeFile]:
    """Return the Containerfile and its ignore file, for the folder of the deployment file."""
    return [
        MadeFile("Containerfile", "\n".join([*_lines(container), ""]), made_by),
        MadeFile(".dockerignore", "\n".join([*_IGNORED, ""]), made_by),
    ]


def _lines(container: Container) -> Iterator[str]:
    facts = container.facts
    yield "# With a digest, the same file always makes the same image:"
    yield f"#   --build-arg BASE={_BASE}@sha256:..."
    yield f"ARG BASE={_BASE}"
    yield ""
    yield "FROM ${BASE} AS build"
    yield "WORKDIR /build"
    yield "# requirements.txt contains tamed[ops] and the packages of your code, each with its hash, made by"
    yield "#   uv pip compile --generate-hashes"
    yield "# Put wheels of packages that are in no index beside it."
    yield "COPY requirements.txt *.whl ./"
    yield f"RUN python3 -m venv {_ENVIRONMENT}"
    yield (
        f"RUN {_ENVIRONMENT}/bin/pip install --no-cache-dir --disable-pip-version-check"
        " --require-hashes --find-links . --requirement requirements.txt"
    )
    yield ""
    yield "FROM ${BASE}"
    yield f"COPY --from=build {_ENVIRONMENT} {_ENVIRONMENT}"
    yield f"COPY . {facts.file.parent}"
    variables = {"PATH": f"{_ENVIRONMENT}/bin:/usr/local/bin:/usr/bin:/bin", **container.environment}
    yield from (f"ENV {name}={json.dumps(value)}" for name, value in variables.items())
    yield f"WORKDIR {facts.file.parent}"
    yield f"USER {USER}:{USER}"
    for port in container.ports:
        yield f"EXPOSE {port.number}/{port.protocol.lower()}"
    yield f"EXPOSE {container.ops}/tcp"
    yield "STOPSIGNAL SIGTERM"
    yield f"CMD {json.dumps(list(container.command))}"
