"""Manifests for Kubernetes: what stands in them, and what the schemas of its API say of them."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_validate.utils import all_versions, validate
from packaging.version import Version

from tests.cli.conftest import Tamed
from tests.export.vault import VAULT

VERSE = """
name = "verse"
[daemon]
workers = 2
user = "poet"
prepare-as-root = true
reload = true
ops = "127.0.0.1:9000"
start-timeout = "5m"
drain-timeout = "90s"
pid-file = "/srv/verse/verse.pid"
[log]
file = "/var/log/verse.log"
[services.ecstasy]
plugin = "fastpoetry"
port = 80
listen = ":80"
[services.science]
plugin = "fastpoetry"
listen = "localhost:10001"
[services."to_a_friend_in_London"]
plugin = "fastpoetry"
listen = "unix:/srv/verse/poem.sock"
"""
POEM = '[services.ecstasy]\nplugin = "fastpoetry"\nlisten = ":80"\n'
NEWEST = sorted(set(all_versions()), key=Version)[-3:]


def verse(folder: Path, text: str = VERSE) -> Path:
    """Write a deployment; return its file."""
    file = folder / "verse.toml"
    file.write_text(text)
    return file


def manifests(run: Tamed, file: Path, *options: str | Path) -> dict[str, Any]:
    """Return the manifests of a deployment, by kind."""
    done = run("export", "kubernetes", *options, file)
    assert done.status == 0, done
    return {each["kind"]: each for each in yaml.safe_load_all(done.out)}


def pod_of(found: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the specification of the pods and of their container."""
    pod = found["Deployment"]["spec"]["template"]["spec"]
    return pod, pod["containers"][0]


@pytest.mark.parametrize("version", NEWEST)
def test_the_api_accepts_them(tamed: Tamed, tmp_path: Path, version: str) -> None:
    """They have no field that the API does not have, and no value of a wrong type."""
    options = ("--connections", "100", "--cpu", "500m", "--memory", "256Mi")
    found = manifests(tamed, verse(tmp_path), *options)
    assert len(found) == 6
    for each in found.values():
        validate(each, version, strict=True)


def test_the_command_fits_a_container(tamed: Tamed, tmp_path: Path) -> None:
    """It overrides what a container cannot have, and probes reach the operations endpoint."""
    pod, container = pod_of(manifests(tamed, verse(tmp_path), "--image", "registry/verse:1"))
    assert container["image"] == "registry/verse:1"
    assert container["command"] == [
        *("tamed", "run", "--name", "verse", "--rundir", "/run/tamed", "--ops", ":9000"),
        *(
            "--stop-delay",
            "10s",
            "--log-file",
            "stderr",
            "--user=",
            "--no-prepare-as-root",
            "/app/verse.toml",
        ),
    ]
    assert {each["name"]: each["containerPort"] for each in container["ports"]} == {
        "ecstasy": 80,
        "ops": 9000,
    }
    assert {each["mountPath"] for each in container["volumeMounts"]} == {
        "/app/verse.toml",
        "/run",
        "/srv/verse",
        "/tmp",
    }
    assert pod["securityContext"]["sysctls"] == [
        {"name": "net.ipv4.ip_unprivileged_port_start", "value": "80"}
    ]


def test_times_follow_from_the_settings(tamed: Tamed, tmp_path: Path) -> None:
    """A pod has as long to start and to stop as the daemon takes, and the time that others need to notice."""
    pod, container = pod_of(manifests(tamed, verse(tmp_path)))
    assert pod["terminationGracePeriodSeconds"] == 10 + 90 + 30 + 20
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 320
    own = VERSE.replace("reload = true", 'stop-delay = "1m"')
    pod, container = pod_of(manifests(tamed, verse(tmp_path, own)))
    assert pod["terminationGracePeriodSeconds"] == 60 + 90 + 30 + 20
    assert "--stop-delay" not in container["command"]


def test_what_a_container_does_not_have_is_reported(tamed: Tamed, tmp_path: Path) -> None:
    """Each warning has the line, and the manifests are made all the same."""
    done = tamed("export", "kubernetes", verse(tmp_path))
    file = tmp_path / "verse.toml"
    told = [line.removeprefix(f"warning: {file}:").split(" ")[:2] for line in done.err.splitlines()]
    assert told == [
        ["5:", "daemon.user"],
        ["6:", "daemon.prepare-as-root"],
        ["7:", "daemon.reload"],
        ["13:", "log.file"],
        ["8:", "daemon.ops"],
        ["20:", "services.science.listen:"],
        ["23:", "services.to_a_friend_in_London.listen:"],
    ]
    checked = tamed("check", "--for", "kubernetes", "--user", "", file)
    assert (checked.status, checked.err) == (0, done.err)
    assert checked.out.startswith("verse ")
    assert tamed("check", "--for", "systemd", file).err == ""
    assert tamed("check", "--for", "compose", "fastpoetry").status == 64


def test_one_of_a_host_is_one_of_each_pod(tamed: Tamed, tmp_path: Path) -> None:
    """The warning has the line, however the file is written, and the number of pods."""
    lines = ["services.'ode'.plugin = \"fastpoetry\"", *POEM.splitlines(), 'only = "host"']
    file = verse(tmp_path, "\n".join(lines))
    done = tamed("export", "kubernetes", file)
    assert (
        f"warning: {file}:5: services.ecstasy.only: one runs in each pod, up to 2 at a time,"
        ' and one more during an update; only = "cluster" runs one in all of them\n'
    ) in done.err
    assert f"warning: {file}:1: services.ode.plugin: localhost:10000 is not accessible" in done.err
    assert (
        "up to 7 at a time"
        in tamed("export", "kubernetes", "--connections", "9", "--max-replicas", "7", file).err
    )
    assert "services.ecstasy.only" in tamed("check", "--for", "kubernetes", file).err
    assert "services.ecstasy.only" not in tamed("check", "--for", "compose", file).err


def test_folders_of_plugins_are_in_the_image(tamed: Tamed, tmp_path: Path) -> None:
    """One beside the deployment file is beside it there; another one is a warning."""
    own, other = tmp_path / "app" / "plugins", tmp_path / "other"
    for folder in (own, other):
        folder.mkdir(parents=True)
    (own / "vault.py").write_text(VAULT)
    file = verse(
        tmp_path / "app", '[services.vault]\nplugin = "vault"\npassword = "credential:db"\ntoken = "env:T"\n'
    )
    done = tamed("export", "kubernetes", "--plugin-dir", own, "--plugin-dir", other, file)
    objects = {each["kind"]: each for each in yaml.safe_load_all(done.out)}
    command = pod_of(objects)[1]["command"]
    assert command[-5:] == ["--plugin-dir", "/app/plugins", "--plugin-dir", str(other), "/app/verse.toml"]
    assert done.err == (
        f"warning: the folder of plugins {other} is not beside the deployment file: the image must have it\n"
    )


def test_secrets_are_references(tamed: Tamed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifests refer to a Secret that they do not contain, and have none of its values."""
    monkeypatch.setenv("VAULT_HOST", "vault.example")
    (tmp_path / "vault.py").write_text(VAULT)
    text = 'password = "credential:db"\ntoken = "env:TOKEN"\nhost = "${VAULT_HOST}"\n'
    file = verse(tmp_path, f'[services.vault]\nplugin = "vault"\n{text}')
    found = manifests(tamed, file, "--plugin-dir", tmp_path)
    pod, container = pod_of(found)
    variables = {each["name"]: each for each in container["env"]}
    for name in ("TOKEN", "VAULT_HOST"):
        assert variables[name]["valueFrom"] == {"secretKeyRef": {"name": "verse", "key": name}}
    secret = next(each["secret"] for each in pod["volumes"] if each["name"] == "credentials")
    assert (secret["secretName"], secret["items"]) == ("verse", [{"key": "db", "path": "db"}])
    mount = next(each for each in container["volumeMounts"] if each["name"] == "credentials")
    assert mount["mountPath"] == variables["CREDENTIALS_DIRECTORY"]["value"]
    assert "Service" not in found  # nothing listens
    assert "vault.example" not in str(found)
    validate(found["Deployment"], NEWEST[-1], strict=True)


@pytest.mark.parametrize("secret", [False, True])
def test_roles_of_the_cluster_have_an_account(tamed: Tamed, tmp_path: Path, secret: bool) -> None:
    """Pods whose roles are Leases have an account that may take them, and its token."""
    text = f'name = "verse"\n[daemon]\ncluster = "kubernetes:fleet"\n{POEM}only = "cluster"\n'
    if secret:
        (tmp_path / "vault.py").write_text(VAULT)
        text += (
            '[services.vault]\nplugin = "vault"\npassword = "credential:db"\ntoken = "env:T"\nhost = "h"\n'
        )
    found = manifests(tamed, verse(tmp_path, text), "--plugin-dir", tmp_path)
    for each in found.values():
        validate(each, NEWEST[-1], strict=True)
    (rule,) = found["Role"]["rules"]
    assert rule["verbs"] == ["get", "create", "update"]
    name = found["ServiceAccount"]["metadata"]["name"]
    assert found["RoleBinding"]["roleRef"]["name"] == found["Role"]["metadata"]["name"]
    assert found["RoleBinding"]["subjects"] == [
        {"kind": "ServiceAccount", "name": name, "namespace": "fleet"}
    ]
    pod, container = pod_of(found)
    assert pod["serviceAccountName"] == name
    assert pod["automountServiceAccountToken"] is False
    (volume,) = (each for each in pod["volumes"] if each["name"] == "credentials")
    sources = volume["projected"]["sources"]
    assert sources[0]["serviceAccountToken"]["path"] == "kubernetes.io/serviceaccount/token"
    assert sources[1]["configMap"]["items"][0]["path"] == "kubernetes.io/serviceaccount/ca.crt"
    assert [each["secret"]["items"] for each in sources[2:]] == [[{"key": "db", "path": "db"}]] * secret
    assert {"name": "credentials", "mountPath": "/run/secrets", "readOnly": True} in container["volumeMounts"]


@pytest.mark.parametrize("engine", ["etcd://db", "kubernetes://api/fleet?ca=system"])
def test_other_engines_need_no_account(tamed: Tamed, tmp_path: Path, engine: str) -> None:
    """Pods whose roles another engine grants, or another API server, have no token."""
    text = f'name = "verse"\n[daemon]\ncluster = "{engine}"\n{POEM}only = "cluster"\n'
    found = manifests(tamed, verse(tmp_path, text))
    assert "Role" not in found
    assert "serviceAccountName" not in pod_of(found)[0]


def test_pods_follow_the_number_of_connections(tamed: Tamed, tmp_path: Path) -> None:
    """The autoscaler owns the number of pods then; the Prometheus operator gets an object of its own."""
    options = ("--connections", "500", "--replicas", "3", "--max-replicas", "7", "--service-monitor")
    found = manifests(tamed, verse(tmp_path), *options)
    scaler = found["HorizontalPodAutoscaler"]["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (3, 7)
    assert scaler["metrics"][0]["pods"]["metric"]["name"] == "tamed_connections_open"
    assert "replicas" not in found["Deployment"]["spec"]
    assert "prometheus.io/scrape" not in str(found["Deployment"])
    assert found["ServiceMonitor"]["spec"]["endpoints"] == [{"port": "ops", "path": "/metrics"}]
    assert "ops" in [port["name"] for port in found["Service"]["spec"]["ports"]]
    assert manifests(tamed, verse(tmp_path))["Deployment"]["spec"]["replicas"] == 2


def test_a_base_for_overlays(tamed: Tamed, tmp_path: Path) -> None:
    """It has the deployment file as a file, and the tool of Kubernetes reads it."""
    base = tmp_path / "base"
    done = tamed("export", "kubernetes", "--kustomize", verse(tmp_path), "--to", base)
    assert done.status == 0, done
    kustomization = yaml.safe_load((base / "kustomization.yaml").read_text())
    assert {*kustomization["resources"], "kustomization.yaml", "verse.toml"} == {
        path.name for path in base.iterdir()
    }
    assert (
        tamed("export", "kubernetes", "--kustomize", tmp_path / "verse.toml", "--to", base, "--check").status
        == 0
    )
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    built = subprocess.run(
        ["kubectl", "kustomize", base], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    objects = {each["kind"]: each for each in yaml.safe_load_all(built.stdout)}
    name = objects["ConfigMap"]["metadata"]["name"]
    assert name.startswith("verse-")
    assert pod_of(objects)[0]["volumes"][0]["configMap"]["name"] == name


def test_names_of_ports_are_distinct(tamed: Tamed, tmp_path: Path) -> None:
    """They have at most 15 characters, as the API wants them, and the endpoint gets out of their way."""
    services = "".join(
        f'[services.a_service_of_many_words_{number}]\nplugin = "fastpoetry"\nlisten = ":{9320 + number}"\n'
        for number in range(3)
    )
    found = manifests(
        tamed, verse(tmp_path, services + '[services.ops]\nplugin = "fastpoetry"\nlisten = ":1"\n')
    )
    ports = {each["name"]: each["containerPort"] for each in pod_of(found)[1]["ports"]}
    assert ports == {
        "port-ops": 1,
        "a-service-of-ma": 9320,
        "port-9321": 9321,
        "port-9322": 9322,
        "ops": 9323,
    }


@pytest.mark.parametrize(
    ("text", "where", "why"),
    [
        ('name = "Verse"\n{}', "verse.toml:1: name", "cannot name anything in a cluster"),
        (
            '[daemon]\nkeep-capability = ["CAP_SYS_NICE"]\n{}',
            "verse.toml:2: daemon.keep-capability",
            "no cap",
        ),
        (
            '{}listen = "systemd://poems"\n',
            "verse.toml:3: services.ecstasy.listen",
            "a container gets no sockets",
        ),
        ("{}port = 0\n", "verse.toml:3: services.ecstasy.port", "port 0 is a different port"),
        ('{}listen = "unix:poem.sock"\n', "verse.toml:3: services.ecstasy.listen", "it would write to /app"),
        ('[daemon]\npid-file = "x.pid"\n{}', "verse.toml:2: daemon.pid-file", "it would write to /app"),
        ('[daemon]\ncluster = "kubernetes:"\n{}', "verse.toml:2: daemon.cluster", "it has no namespace"),
    ],
    ids=["name", "capability", "inherited socket", "port", "socket", "pid file", "namespace"],
)
def test_a_deployment_that_cannot_be_exported_says_where(
    tamed: Tamed, tmp_path: Path, text: str, where: str, why: str
) -> None:
    """The message has the line and the reason; nothing is written."""
    file = verse(tmp_path, text.format('[services.ecstasy]\nplugin = "fastpoetry"\n'))
    done = tamed("export", "kubernetes", file, "--to", tmp_path / "out")
    assert (done.status, done.out) == (78, "")
    assert where in done.err
    assert why in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["kubernetes", "--cpu", "many"], "invalid value 'many' for --cpu"),
        (["kubernetes", "--memory", "0"], "invalid value '0' for --memory"),
        (["kubernetes", "--kustomize"], "--kustomize without a folder"),
        (["kubernetes", "--max-replicas", "3"], "--max-replicas without an autoscaler"),
        (["systemd", "--image", "verse"], "--image is no option of `tamed export systemd`"),
    ],
    ids=["cpu", "memory", "kustomize", "autoscaler", "kind"],
)
def test_options_that_do_not_fit_are_refused(
    tamed: Tamed, tmp_path: Path, options: list[str], why: str
) -> None:
    """It is the command line's fault."""
    done = tamed("export", *options, verse(tmp_path))
    assert (done.status, done.out) == (64, "")
    assert why in done.err
