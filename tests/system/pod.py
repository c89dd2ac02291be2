"""Containers as a kubelet runs them: in namespaces of their own, made of a manifest, probed and ended."""

import ctypes
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.patience import PATIENCE
from tests.structure.source import ROOT
from tests.supervised.daemon import is_there, wait_for

_CHILD = Path(__file__).with_name("pod_child.py")
_ADDRESS = "10.11.12.13"
_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


@contextmanager
def _network_of(pid: int) -> Iterator[None]:
    """Be in the network of a process, with this thread: sockets that are made here belong to it."""
    with open("/proc/thread-self/ns/net") as own, open(f"/proc/{pid}/ns/net") as other:  # noqa: PTH123
        assert _LIBC.setns(other.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert _LIBC.setns(own.fileno(), _CLONE_NEWNET) == 0


class _Connection(http.client.HTTPConnection):
    """A connection of a kubelet to a pod."""

    def __init__(self, pod: "Container", port: int) -> None:
        super().__init__(_ADDRESS, port, timeout=PATIENCE)
        self._pod = pod

    def connect(self) -> None:
        self.sock = self._pod.connect(self.port)


class Container:
    """A running container. ``pid`` is its first process, as seen from outside."""

    def __init__(self, folder: Path, specification: Mapping[str, Any]) -> None:
        folder.mkdir()
        (folder / "root").mkdir()
        common = {"root": str(folder / "root"), "address": _ADDRESS, "sysctls": {}, "is_build": False}
        made = {**common, **specification}
        (folder / "container.json").write_text(json.dumps(made))
        self._log = folder / "log"
        namespaces = ["--mount", "--net", "--pid", "--ipc", "--uts", "--fork"]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                ["unshare", *namespaces, sys.executable, "-P", _CHILD, folder / "container.json"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        self.pid = int(wait_for("the first process", lambda: children.read_text() if self._alive() else ""))

    @property
    def log(self) -> str:
        """What it has logged."""
        return self._log.read_text()

    def _alive(self) -> bool:
        assert self._process.poll() is None, self.log
        return True

    def connect(self, port: int) -> socket.socket:
        """Connect to a port of it at its address, as a client from outside."""
        with _network_of(self.pid):
            return socket.create_connection((_ADDRESS, port), timeout=PATIENCE)

    def get(self, port: int, path: str) -> int | None:
        """Request a path; return the status, None if nothing listens yet."""
        self._alive()
        connection = _Connection(self, port)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except OSError:
            return None
        finally:
            connection.close()

    def terminate(self) -> None:
        """Send TERM to the first process."""
        os.kill(self.pid, signal.SIGTERM)

    def wait_end(self, grace: float) -> int:
        """Return the exit status. It has so many seconds, and more if the machine is busy."""
        return self._process.wait(max(grace, PATIENCE))

    def kill(self) -> None:
        """End it, whatever it does.

        With its first process all others of its namespace end: pid_namespaces(7). With unshare(1) that one
        does not, even if it asks for it: it has changed its user since, which takes that back, see prctl(2).
        """
        if self._process.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
        self._process.wait()
        assert not is_there(self.pid)


class Pod(Container):
    """A pod of a Deployment with its ConfigMap; ``app`` is the folder /app of its image."""

    def __init__(
        self, folder: Path, deployment: Mapping[str, Any], config: Mapping[str, str], app: Path
    ) -> None:
        self.spec = deployment["spec"]["template"]["spec"]
        (self.container,) = self.spec["containers"]
        mounted = folder.with_name(f"{folder.name}-config")
        mounted.mkdir()
        volumes = {volume["name"]: volume for volume in self.spec["volumes"]}
        files, writable = [*image(), *((str(path), f"/app/{path.name}") for path in app.iterdir())], []
        for mount in self.container["volumeMounts"]:
            volume = volumes[mount["name"]]
            if "configMap" in volume:
                (mounted / mount["subPath"]).write_text(config[mount["subPath"]])
                files.append((str(mounted / mount["subPath"]), mount["mountPath"]))
            else:
                assert "emptyDir" in volume, volume
                writable.append(mount["mountPath"])
        context = self.spec["securityContext"]
        specification = {
            "sysctls": {each["name"]: each["value"] for each in context.get("sysctls", ())},
            "writable": writable,
            "files": files,
            "directory": self.container["workingDir"],
            "user": context["runAsUser"],
            "environment": {
                "PATH": f"{Path(sys.prefix, 'bin')}:/usr/bin:/bin",
                **{each["name"]: each["value"] for each in self.container["env"]},
            },
            "command": self.container["command"],
        }
        super().__init__(folder, specification)

    def probe(self, kind: str) -> bool:
        """Make a probe of the manifest: ``startup``, ``readiness`` or ``liveness``."""
        request = self.container[f"{kind}Probe"]["httpGet"]
        return self.get(self.port(request["port"]), request["path"]) == 200

    def port(self, name: str) -> int:
        """Return the number of a port."""
        found: int = next(each["containerPort"] for each in self.container["ports"] if each["name"] == name)
        return found

    def wait_ready(self) -> None:
        """Probe until it has started and is ready; it must then be alive."""
        wait_for("the end of the start", lambda: self.probe("startup"))
        wait_for("readiness", lambda: self.probe("readiness"))
        assert self.probe("liveness")


def image() -> list[tuple[str, str]]:
    """Return what makes this installation of Tamed part of an image."""
    return [(path, path) for path in dict.fromkeys((sys.base_prefix, sys.prefix, str(ROOT / "src")))]
