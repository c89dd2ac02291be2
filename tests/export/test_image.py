"""Containerfiles: what stands in them. What their steps make is tested in ``tests/system``."""

import json
from pathlib import Path

from tests.cli.conftest import Tamed


def test_the_image_runs_what_the_deployment_says(tamed: Tamed, tmp_path: Path) -> None:
    """Two stages, packages with hashes, one user, and the command of the deployment."""
    (tmp_path / "verse.toml").write_text('[services.ecstasy]\nplugin = "fastpoetry"\nlisten = ":8000"\n')
    done = tamed("export", "container", tmp_path / "verse.toml", "--to", tmp_path)
    assert (done.status, done.err) == (0, ""), done
    lines = (tmp_path / "Containerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("FROM")] == ["FROM ${BASE} AS build", "FROM ${BASE}"]
    assert "--require-hashes" in next(line for line in lines if "pip install" in line)
    assert "COPY . /app" in lines
    assert [line for line in lines if line.startswith(("USER", "EXPOSE"))] == [
        "USER 65532:65532",
        "EXPOSE 8000/tcp",
        "EXPOSE 9321/tcp",
    ]
    command = json.loads(lines[-1].removeprefix("CMD "))
    assert (command[0], command[-1]) == ("tamed", "/app/verse.toml")
    assert "secrets" in (tmp_path / ".dockerignore").read_text().splitlines()
    assert tamed("export", "container", tmp_path / "verse.toml", "--to", tmp_path, "--check").status == 0


def test_a_build_leaves_no_file_of_its_own_out(tamed: Tamed, tmp_path: Path) -> None:
    """The files that the first stage copies are not ignored."""
    (tmp_path / "verse.toml").write_text('[services.ecstasy]\nplugin = "fastpoetry"\nlisten = ":8000"\n')
    assert tamed("export", "container", tmp_path / "verse.toml", "--to", tmp_path).status == 0
    ignored = (tmp_path / ".dockerignore").read_text().splitlines()
    assert not {"*.whl", "requirements.txt", "verse.toml"} & set(ignored)
