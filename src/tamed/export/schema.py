"""The JSON Schema of deployment files, for editors and for checks: made from the options' declarations."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tamed.config.deployment import Deployment
from tamed.config.settings import Daemon, Log
from tamed.plugins.describe import Option, describe
from tamed.plugins.discovery import find

__all__ = ["schema_text"]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_ONLY = {
    "only": {
        "enum": ["host", "cluster"],
        "description": "Run it in one worker at a time: of this daemon (host), or of a fleet (cluster).",
    }
}
_APPLICATION = "An application file, or PACKAGE.MODULE:VARIABLE."


def schema_text(file: Path | None = None, plugin_dirs: Iterable[Path] = ()) -> str:
    """Return the schema of deployment files as JSON.

    With a ``file``, its plugins are imported, and a service of one of them has the options of that plugin
    only. Raises as `Deployment.read` and `find` do.
    """
    deployment = None if file is None else Deployment.read(file)
    entries = () if deployment is None else deployment.services
    used = sorted({entry.plugin for entry in entries if entry.plugin is not None})
    plugins = {name: find(name, tuple(plugin_dirs)).describe() for name in used}
    schema = {
        "$schema": _DIALECT,
        "title": "A deployment file of Tamed" + (f", with {', '.join(used)}" if used else ""),
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "description": "Name of the application."},
            "daemon": _table(describe(Daemon), "How the daemon runs."),
            "log": _table(describe(Log), "Which records are logged, where, and in which format."),
            "services": {
                "type": "object",
                "minProperties": 1,
                "propertyNames": {"pattern": r"^\w[\w-]*$"},
                "additionalProperties": {"$ref": "#/$defs/service"},
            },
        },
        "required": ["services"],
        "additionalProperties": False,
        "$defs": {"service": _service(plugins)},
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _table(options: Iterable[Option], description: str) -> dict[str, Any]:
    return {
        "type": "object",
        "description": description,
        "properties": _properties(options),
        "additionalProperties": False,
    }


def _properties(options: Iterable[Option]) -> dict[str, Any]:
    """Return the properties of a table with these options, each in both spellings of its key."""
    properties: dict[str, Any] = {}
    for option in options:
        properties[option.key] = schema = option.schema()
        if option.name != option.key:
            properties[option.name] = {**schema, "deprecated": True}
    return properties


def _service(plugins: dict[str, tuple[Option, ...]]) -> dict[str, Any]:
    """Return the schema of a service: an application, one of the known plugins, or another plugin."""
    application = {
        "properties": {"application": {"type": "string", "description": _APPLICATION}, **_ONLY},
        "required": ["application"],
        "additionalProperties": False,
    }
    other = {
        "properties": {"plugin": {"type": "string", "not": {"enum": list(plugins)}}, **_ONLY},
        "required": ["plugin"],
        "not": {"required": ["application"]},
    }
    known = [
        {
            "properties": {"plugin": {"const": name}, **_ONLY, **_properties(options)},
            "required": ["plugin"],
            "additionalProperties": False,
        }
        for name, options in plugins.items()
    ]
    return {"type": "object", "oneOf": [application, *known, other]}
