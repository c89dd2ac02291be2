"""What manifests say is true: pods that are run, probed, replaced and ended as a kubelet does it."""

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.conftest import Tamed, tamed
from tests.patience import PATIENCE
from tests.supervised.daemon import needs_root, wait_for
from tests.system.pod import Pod

__all__ = ["tamed"]

pytestmark = [pytest.mark.system, needs_root]

VERSE = """
name = "verse"
[daemon]
workers = 2
user = "poet"
drain-timeout = "10s"
[log]
file = "/var/log/verse.log"
[services.ecstasy]
plugin = "fastpoetry"
listen = ":80"
poem = "{poem}"
"""
_REPLICAS = 3
_CLIENTS_BETWEEN = 20


class Cluster:
    """Three pods behind a service, and clients all the time, each of one of the ``endpoints``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        self._over = threading.Event()
        self.pods: list[Pod] = []
        self.endpoints: list[Pod] = []
        self.served: list[bytes] = []
        self.failures: list[str] = []
        self._clients = [threading.Thread(target=self._be_clients) for _ in range(2)]

    def add(self, manifests: dict[str, Any], app: Path) -> None:
        """Make a pod, which gets clients when it is ready."""
        number = next(self._numbers)
        pod = Pod(
            self._folder / f"pod-{number}", manifests["Deployment"], manifests["ConfigMap"]["data"], app
        )
        self.pods.append(pod)
        pod.wait_ready()
        self.endpoints.append(pod)

    def start_clients(self) -> None:
        """Begin to be clients, until the end."""
        for client in self._clients:
            client.start()

    def remove(self, pod: Pod) -> None:
        """Begin to end a pod: it gets TERM, and for a while some nodes still send it clients."""
        pod.terminate()
        before = len(self.served)
        wait_for("clients of it", lambda: self.failures or len(self.served) > before + _CLIENTS_BETWEEN)
        self.endpoints.remove(pod)

    def wait_ends(self, pods: list[Pod]) -> None:
        """Wait until pods have ended, each by itself in the time that it has."""
        for pod in pods:
            assert pod.wait_end(pod.spec["terminationGracePeriodSeconds"]) == 0, pod.log
            self.pods.remove(pod)

    def end_clients(self) -> None:
        """End the clients."""
        self._over.set()
        for client in self._clients:
            client.join(PATIENCE)

    def close(self) -> None:
        """End what is left."""
        self._over.set()
        for pod in self.pods:
            pod.kill()

    def _be_clients(self) -> None:
        for turn in itertools.count():
            if self._over.is_set():
                return
            pod = (endpoints := list(self.endpoints))[turn % len(endpoints)]
            try:
                with pod.connect(pod.port("ecstasy")) as client:
                    answer = client.makefile("rb").read()
                if not answer.endswith(b"end\n"):
                    self.failures.append(f"an answer of {len(answer)} bytes")
                self.served.append(answer)
            except OSError as error:
                self.failures.append(repr(error))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster without pods."""
    made = Cluster(tmp_path)
    yield made
    made.close()


@pytest.fixture
def manifests(tamed: Tamed, tmp_path: Path) -> Callable[[str], dict[str, Any]]:
    """A function that exports a deployment whose poem is of this name, and returns its manifests by kind."""
    app = tmp_path / "app"
    app.mkdir()
    for name in ("first", "second"):
        (app / name).write_text(f"The {name} poem\n" * 1000 + "end\n")

    def make(poem: str) -> dict[str, Any]:
        file = app / "verse.toml"
        file.write_text(VERSE.format(poem=poem))
        done = tamed("export", "kubernetes", "--replicas", str(_REPLICAS), file)
        file.unlink()  # the pod has it from the ConfigMap
        assert done.status == 0, done
        return {each["kind"]: each for each in yaml.safe_load_all(done.out)}

    return make


def test_pods_are_replaced_without_a_failed_request(
    cluster: Cluster, manifests: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    """Three pods get a new deployment, one after another, under load; each ends by itself in its time."""
    app = tmp_path / "app"
    old, new = manifests("first"), manifests("second")
    rolling = new["Deployment"]["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxSurge": 1, "maxUnavailable": 0}
    for _ in range(old["Deployment"]["spec"]["replicas"]):
        cluster.add(old, app)
    cluster.start_clients()
    going = list(cluster.pods)
    for pod in going:
        cluster.add(new, app)
        cluster.remove(pod)
    before = len(cluster.served)
    wait_for(
        "clients at the end", lambda: cluster.failures or len(cluster.served) > before + _CLIENTS_BETWEEN
    )
    cluster.end_clients()
    assert cluster.failures == []
    assert cluster.served[0].startswith(b"The first poem")
    assert cluster.served[-1].startswith(b"The second poem")
    cluster.wait_ends(going)


def test_a_pod_is_one_user_without_capabilities(
    cluster: Cluster, manifests: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    """Port 80 is bound without a privilege, and the first process is the supervisor."""
    cluster.add(manifests("first"), tmp_path / "app")
    (pod,) = cluster.pods
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{pod.pid}/status").read_text().splitlines()
        if ":\t" in line
    )
    assert status["NSpid"].split()[-1] == "1"
    assert int(status["CapPrm"], 16) == int(status["CapBnd"], 16) == 0
    assert status["Uid"].split() == [str(pod.spec["securityContext"]["runAsUser"])] * 4
    assert os.stat(f"/proc/{pod.pid}/root").st_dev != os.stat("/").st_dev  # noqa: PTH116
    pod.terminate()
    wait_for("the end of readiness", lambda: not pod.probe("readiness"))
    cluster.wait_ends([pod])
    assert "verse is ready" in pod.log
