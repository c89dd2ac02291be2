"""The schema of deployment files: what an editor offers, and what a validator says."""

import json
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tamed.config.settings import Daemon, Log
from tamed.plugins.describe import describe
from tests.cli.conftest import Tamed
from tests.structure.source import ROOT

VERSE = ROOT / "examples" / "verse" / "verse.toml"
PYTHON = "/usr/bin/python3"
"""The interpreter of the system, which may have a validator; it is none of our dependencies."""


def validator_is_there() -> bool:
    """Return whether the system's Python has jsonschema."""
    command = [PYTHON, "-c", "import jsonschema"]
    return Path(PYTHON).exists() and subprocess.run(command, check=False, capture_output=True).returncode == 0


def are_valid(schema: str, *deployments: str) -> list[bool]:
    """Validate deployments with a validator of others."""
    program = (
        "import json, sys, jsonschema\n"
        "schema, deployments = json.load(sys.stdin)\n"
        "jsonschema.Draft202012Validator.check_schema(schema)\n"
        "validator = jsonschema.Draft202012Validator(schema)\n"
        "print(json.dumps([validator.is_valid(each) for each in deployments]))\n"
    )
    given = json.dumps([json.loads(schema), [tomllib.loads(text) for text in deployments]])
    done = subprocess.run(
        [PYTHON, "-I", "-c", program], input=given, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    valid: list[bool] = json.loads(done.stdout)
    return valid


def keys_of(schema: Mapping[str, Any]) -> set[str]:
    """Return the keys of a table that are not only another spelling."""
    return {key for key, value in schema["properties"].items() if not value.get("deprecated")}


def test_it_has_the_keys_of_the_settings(tamed: Tamed) -> None:
    """Each has its help text as its description."""
    schema = json.loads(tamed("schema").out)["properties"]
    for name, kind in (("daemon", Daemon), ("log", Log)):
        assert keys_of(schema[name]) == {option.key for option in describe(kind)}
        described = {key: schema[name]["properties"][key]["description"] for key in keys_of(schema[name])}
        assert described == {option.key: option.help for option in describe(kind)}
    assert schema["daemon"]["properties"]["max-files"] == {
        "type": "integer",
        "minimum": 32,
        "description": "Limit of open files for each process.",
    }
    assert schema["log"]["properties"]["format"]["enum"] == ["auto", "human", "plain", "json"]


def test_with_a_file_it_has_the_options_of_its_plugins(tamed: Tamed, tmp_path: Path) -> None:
    """A plugin of the user's own as well."""
    (tmp_path / "ode.py").write_text(
        "from dataclasses import dataclass\n"
        "from tamed import Service, option, plugin\n"
        "@dataclass\n"
        "class Options:\n"
        "    rhymes: dict[str, int] = option({}, 'Rhymes.')\n"
        "    key: str = option('k', 'Key.', secret=True)\n"
        "@plugin\n"
        "def ode(options: Options) -> Service:\n"
        "    return Service()\n"
    )
    (tmp_path / "verse.toml").write_text('[services.a]\nplugin = "ode"\n')
    done = tamed("schema", "--plugin-dir", tmp_path, tmp_path / "verse.toml")
    (known,) = json.loads(done.out)["$defs"]["service"]["oneOf"][1:-1]
    assert known["properties"] == {
        "plugin": {"const": "ode"},
        "only": {
            "enum": ["host", "cluster"],
            "description": "Run it in one worker at a time: of this daemon (host), or of a fleet (cluster).",
        },
        "rhymes": {
            "type": "object",
            "additionalProperties": {"type": "integer"},
            "description": "Rhymes.",
        },
        "key": {"type": "string", "description": "Key."},
    }


@pytest.mark.skipif(not validator_is_there(), reason=f"{PYTHON} has no jsonschema")
def test_a_validator_agrees_with_tamed(tamed: Tamed, tmp_path: Path) -> None:
    """Values that Tamed accepts are valid, and values of a wrong type are not."""
    text = VERSE.read_text("utf-8")
    schema = tamed("schema", VERSE).out
    assert are_valid(tamed("schema").out, text) == [True]
    daemon = '[daemon]\nworkers = "auto"\nmax_files = 100\nstart-timeout = 5\ndrain-timeout = "1m"\n'
    log = '[log]\nlevel = ["info", "tamed.net=debug"]\nformat = "json"\n'
    service = '[services.a]\nplugin = "fastpoetry"\nlisten = "localhost:1"\n'
    right = (
        text,
        daemon + log + service,
        '[services.a]\nplugin = "another"\nanything = 1\n',
        '[services.a]\napplication = "app.py"\n',
    )
    wrong = (
        'nmae = "x"\n' + service,
        daemon.replace("workers", "wokers") + service,
        daemon.replace("100", "1") + service,
        daemon.replace("100", '"100"') + service,
        log.replace('"json"', '"xml"') + service,
        service.replace("listen", "lisen"),
        service + 'application = "app.py"\n',
        "[services]\n",
        daemon,
    )
    found = are_valid(schema, *right, *wrong)
    assert found == [True] * len(right) + [False] * len(wrong)
