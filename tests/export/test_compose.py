"""Projects for Docker Compose: what stands in them, and what the schema of the specification says of them."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.cli.conftest import Tamed
from tests.export.vault import VAULT

SCHEMA = Path(__file__).parent / "compose_spec" / "compose-spec.json"
VERSE = """
name = "verse"
[daemon]
drain-timeout = "90s"
[services.ecstasy]
plugin = "fastpoetry"
listen = ":80"
[services.science]
plugin = "fastpoetry"
listen = "unix:/srv/verse/poem.sock"
"""


def project(
    run: Tamed, folder: Path, text: str, *options: str | Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the project of a deployment, and its service."""
    (folder / "verse.toml").write_text(text)
    done = run("export", "compose", *options, folder / "verse.toml")
    assert done.status == 0, done
    found = yaml.safe_load(done.out)
    jsonschema.Draft7Validator(json.loads(SCHEMA.read_text())).validate(found)
    return found, found["services"]["verse"]


def test_the_specification_accepts_it(tamed: Tamed, tmp_path: Path) -> None:
    """The service is one user without capabilities on a read-only root, and has the time to drain."""
    options = ("--image", "registry/verse:1", "--cpu", "500m", "--memory", "256Mi")
    _, service = project(tamed, tmp_path, VERSE, *options)
    assert (service["image"], service["user"], service["read_only"]) == (
        "registry/verse:1",
        "65532:65532",
        True,
    )
    assert (service["cap_drop"], service["sysctls"]) == (["ALL"], {"net.ipv4.ip_unprivileged_port_start": 80})
    assert service["stop_grace_period"] == f"{90 + 30 + 20}s"
    assert (service["cpus"], service["mem_limit"]) == ("0.500", str(256 * 2**20))
    assert service["ports"] == ["80:80/tcp"]
    assert [each.partition(":")[0] for each in service["tmpfs"]] == ["/run", "/tmp", "/srv/verse"]
    assert service["healthcheck"]["test"][1:3] == ["tamed", "status"]


def test_the_deployment_is_in_it(tamed: Tamed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose reads its dollar signs as they are; secrets are files and variables of who starts it."""
    monkeypatch.setenv("VAULT_HOST", "vault.example")
    (tmp_path / "vault.py").write_text(VAULT)
    text = '[services.vault]\nplugin = "vault"\npassword = "credential:db"\ntoken = "env:TOKEN"\n'
    text += 'host = "${VAULT_HOST}"\n'
    found, service = project(tamed, tmp_path, text, "--plugin-dir", tmp_path)
    assert found["configs"]["deployment"]["content"].replace("$$", "$") == text
    assert "${VAULT_HOST}" not in found["configs"]["deployment"]["content"].replace("$$", "")
    assert service["configs"] == [{"source": "deployment", "target": "/app/verse.toml"}]
    assert {"TOKEN", "VAULT_HOST", "CREDENTIALS_DIRECTORY=/run/secrets"} <= set(service["environment"])
    assert (service["secrets"], found["secrets"]) == (["db"], {"db": {"file": "./secrets/db"}})
    assert "ports" not in service
