"""Roles in Kubernetes: a Lease object for each; the number of its transitions is the token.

Each write contains the version of the object on which it is based (``resourceVersion``), and the API server
refuses a write based on an old version, with 409. Candidates detect by their own clocks that a holder has
stopped renewing (`Sightings`), as Kubernetes' own components do: the times in a Lease are for people. See
https://kubernetes.io/docs/concepts/architecture/leases/
"""

import math
import os
import re
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from tamed._os.secrets import SECRETS
from tamed.cluster._http import Answer, HttpClient
from tamed.cluster.engine import Attempt, Engine, EngineError, EngineUrl, Sightings
from tamed.errors import ConfigurationError, reason

__all__ = ["KubernetesEngine", "lease_name"]

_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_VERSION: Final = "coordination.k8s.io/v1"
_PORT: Final = 443
_SILENCE: Final = 5.0  # seconds; the campaign gives up earlier for a short lease
_OK, _CREATED, _FORBIDDEN, _NOT_FOUND, _CONFLICT = 200, 201, 403, 404, 409
_MOST_TRANSITIONS: Final = 2**31 - 1
_LONGEST_NAME: Final = 63

_Lease = dict[str, Any]


class KubernetesEngine(Engine):
    """``kubernetes:[NAMESPACE]`` in a pod, ``kubernetes://HOST[:PORT],…/NAMESPACE`` elsewhere.

    In a pod, the API server, the token and its CA are those of the service account. Options: ``token-file``;
    ``ca``, the certificates that TLS trusts (``system`` for those of the system), and ``cert`` and ``key`` of
    this client. Changed files are read again: the token of a service account is replaced every hour.
    """

    def __init__(self, url: EngineUrl) -> None:
        url.check("ca", "cert", "key", "token-file", hosts=bool(url.hosts))
        if not url.hosts:
            account = {"ca": f"{_ACCOUNT}/ca.crt", "token-file": f"{_ACCOUNT}/token"}
            url = url._replace(options={**account, **url.options})
        elif "ca" not in url.options:
            raise ConfigurationError(url.what, "an API server needs TLS", "add ca=FILE or ca=system")
        elif not url.path:
            raise ConfigurationError(url.what, "it has no namespace", "add one after the host")
        else:
            url.tls()
        self._url = url
        self._client: HttpClient | None = None
        self._files: list[tuple[str, int]] = []
        self._sightings = Sightings()
        self._held: dict[str, _Lease] = {}  # as last written

    async def acquire(self, role: str, holder: str, ttl: float) -> Attempt:
        """Write or create the Lease of a vacant role; see `Engine`."""
        lease = await self._read(role)
        spec = lease["spec"]
        if _holder_of(lease) not in {"", holder}:
            version = lease["metadata"].get("resourceVersion")
            if not self._sightings.has_run_out(role, version, _number(spec, "leaseDurationSeconds")):
                return Attempt(None, _holder_of(lease))
        token = _number(spec, "leaseTransitions") + 1
        if token > _MOST_TRANSITIONS:
            raise EngineError(self._url.what, f"lease {lease_name(role)} has too many transitions")
        spec |= {
            "holderIdentity": holder,
            "leaseDurationSeconds": math.ceil(ttl),
            "acquireTime": _now(),
            "renewTime": _now(),
            "leaseTransitions": token,
        }
        if await self._write(role, lease):
            return Attempt(token, holder)
        return Attempt(None, _holder_of(await self._read(role)))

    async def renew(self, role: str) -> bool:
        """Write the time of renewal into the Lease; see `Engine`."""
        held = self._held.get(role)
        if held is None:
            return False
        if await self._write(role, _renewed(held)):
            return True
        lease = await self._read(role)  # another write was first: our own, if its answer was lost
        if _is_same(lease, held) and await self._write(role, _renewed(lease)):
            return True
        del self._held[role]
        return False

    async def release(self, role: str) -> None:
        """Write an empty holder into the Lease. The number of transitions stays; see `Engine`."""
        held = self._held.get(role)
        if held is None:
            return
        lease = await self._read(role)
        if _is_same(lease, held):
            await self._write(role, _vacated(lease))
        del self._held[role]

    async def release_ended(self, role: str, holder: str) -> None:
        """Write an empty holder into the Lease, if this holder has it; see `Engine`."""
        lease = await self._read(role)
        if _holder_of(lease) == holder and await self._write(role, _vacated(lease)):
            del self._held[role]

    async def close(self) -> None:
        """Close the connections; see `Engine`."""
        if self._client is not None:
            self._client.close()
            self._client = None

    # Lease objects.

    async def _read(self, role: str) -> _Lease:
        """Return the Lease of a role; a new one if there is none."""
        name = lease_name(role)
        answer = await self._ask("GET", name)
        if answer.status == _NOT_FOUND:
            metadata = {"name": name, "annotations": {"tamed/role": role}}
            return {"apiVersion": _VERSION, "kind": "Lease", "metadata": metadata, "spec": {}}
        return self._lease_in(answer)

    async def _write(self, role: str, lease: _Lease) -> bool:
        """Write a Lease that was read; False if it was changed since."""
        if "resourceVersion" in lease["metadata"]:
            answer = await self._ask("PUT", lease_name(role), lease)
            if answer.status == _NOT_FOUND:  # it was deleted
                return False
        else:
            answer = await self._ask("POST", "", lease)
        if answer.status == _CONFLICT:
            return False
        self._held[role] = self._lease_in(answer)
        return True

    def _lease_in(self, answer: Answer) -> _Lease:
        if answer.status in {_OK, _CREATED} and isinstance(answer.data.get("metadata"), dict):
            return {**answer.data, "spec": answer.data.get("spec") or {}}
        why = str(answer.data.get("message") or f"HTTP {answer.status}")
        remedy = ""
        if answer.status == _FORBIDDEN:
            remedy = "allow its service account to get, create and update leases"
        elif answer.status == _NOT_FOUND and "the requested resource" in why:
            remedy = "Kubernetes 1.14 or later, which has leases in coordination.k8s.io/v1, is needed"
        raise EngineError(self._url.what, why, remedy)

    # Requests.

    async def _ask(self, method: str, name: str, body: _Lease | None = None) -> Answer:
        try:
            namespace = self._url.path or (_ACCOUNT / "namespace").read_text("ascii").strip()
            path = f"/apis/{_VERSION}/namespaces/{quote(namespace)}/leases/{name}".rstrip("/")
            client = self._connected()
            headers = {"Accept": "application/json", **self._authorization()}
        except (OSError, ValueError, ConfigurationError) as error:
            raise EngineError(self._url.what, reason(error)) from error
        return await client.request(method, path, body, headers)

    def _connected(self) -> HttpClient:
        """Return the client; a new one if the certificates have changed."""
        options = self._url.options
        names = [options[name] for name in ("ca", "cert", "key") if name in options]
        files = [(name, Path(name).stat().st_mtime_ns) for name in names if name != "system"]
        if self._client is None or files != self._files:
            if self._client is not None:
                self._client.close()
            hosts = self._url.hosts_at(_PORT) or [_server_of_pod()]
            self._client, self._files = HttpClient(hosts, self._url.tls(), _SILENCE), files
        return self._client

    def _authorization(self) -> dict[str, str]:
        if (name := self._url.options.get("token-file")) is None:
            return {}
        token = Path(name).read_text("ascii").strip()
        SECRETS.remember(token)
        return {"Authorization": f"Bearer {token}"}


def lease_name(role: str) -> str:
    """Return the name of a role's Lease object: lower-case letters, digits and hyphens."""
    name = re.sub("[^a-z0-9]+", "-", role.lower()).strip("-")
    if name != role or not 0 < len(name) <= _LONGEST_NAME:
        digest = sha256(role.encode()).hexdigest()[:10]
        name = f"{name[: _LONGEST_NAME - 11].strip('-')}-{digest}".strip("-")
    return name


def _renewed(lease: _Lease) -> _Lease:
    return {**lease, "spec": {**lease["spec"], "renewTime": _now()}}


def _vacated(lease: _Lease) -> _Lease:
    spec = {key: value for key, value in lease["spec"].items() if key != "holderIdentity"}
    return {**lease, "spec": {**spec, "leaseDurationSeconds": 1}}


def _is_same(lease: _Lease, held: _Lease) -> bool:
    """Return whether a Lease has the same holder, since the same transition."""
    keys = ("holderIdentity", "leaseTransitions")
    return all(lease["spec"].get(key) == held["spec"].get(key) for key in keys)


def _holder_of(lease: _Lease) -> str:
    return str(lease["spec"].get("holderIdentity") or "")


def _number(spec: _Lease, key: str) -> int:
    value = spec.get(key)
    return value if isinstance(value, int) else 0


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _server_of_pod() -> tuple[str, int]:
    host, port = (os.environ.get(f"KUBERNETES_SERVICE_{name}", "") for name in ("HOST", "PORT"))
    if not host or not port.isdecimal():
        raise ConfigurationError("not in a pod of Kubernetes", remedy="add the API server to the URL")
    return host, int(port)
