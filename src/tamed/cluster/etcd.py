"""etcd as an engine, over its JSON gateway: etcd 3.4 or later, without any library.

A role is a key that exists as long as its holder's lease. It is created in a transaction if it does not exist
(create revision 0), and the revision of that transaction is the fencing token: revisions count the changes of
the whole store, so they only increase. See https://etcd.io/docs/v3.5/dev-guide/api_grpc_gateway/
and https://etcd.io/docs/v3.5/learning/api/.

etcd answers these requests only while a majority of its nodes agrees; an isolated node answers none.
"""

import base64
import math
from typing import Any, Final
from urllib.parse import quote

from tamed.cluster._http import Answer, HttpClient
from tamed.cluster.engine import Attempt, Engine, EngineError, EngineUrl
from tamed.errors import ConfigurationError

__all__ = ["EtcdEngine"]

_PORT: Final = 2379
_SILENCE: Final = 5.0  # seconds; the campaign gives up earlier for a short lease
_PREFIX: Final = "tamed"
_NOT_FOUND: Final = 5  # codes of gRPC
_NOT_AUTHENTICATED: Final = 16
_INVALID_TOKEN: Final = "invalid auth token"  # noqa: S105 - what etcd says
_OK, _UNKNOWN_PATH = 200, 404


class EtcdEngine(Engine):
    """``etcd://[USER@]HOST[:PORT],…[/PREFIX]``.

    Options: ``password-file``; ``ca``, the certificates that TLS trusts (``system`` for those of the system),
    and ``cert`` and ``key`` of this client. With ``ca``, the connection is encrypted.
    """

    def __init__(self, url: EngineUrl) -> None:
        url.check("ca", "cert", "key", "password-file")
        if bool(url.user) != ("password-file" in url.options):
            raise ConfigurationError(
                url.what, "a user needs a password file, and a password file needs a user"
            )
        self._client = HttpClient(url.hosts_at(_PORT), url.tls(), _SILENCE)
        self._url = url
        self._prefix = url.path or _PREFIX
        self._token = ""
        # By role. The key may belong to another lease, if an answer was lost.
        self._leases: dict[str, str] = {}

    async def acquire(self, role: str, holder: str, ttl: float) -> Attempt:
        """Create the key of the role, with a lease, if it does not exist."""
        if (held := await self._look(role)) is not None:
            return held
        lease = self._leases[role] = await self._grant(ttl)
        key = self._key(role)
        absent = {"key": key, "target": "CREATE", "result": "EQUAL", "createRevision": "0"}
        put = {"requestPut": {"key": key, "value": _encoded(holder), "lease": lease}}
        answer = await self._ask("kv/txn", {"compare": [absent], "success": [put]})
        if answer.get("succeeded"):
            return Attempt(int(answer["header"]["revision"]), holder)
        await self.release(role)
        return await self._look(role) or Attempt(None, "")

    async def _look(self, role: str) -> Attempt | None:
        """Return the holder of a role, None if it is vacant; this process, perhaps, if an answer was lost."""
        lease = self._leases.get(role)
        for entry in (await self._ask("kv/range", {"key": self._key(role)})).get("kvs", ()):
            if entry.get("lease") != lease:
                return Attempt(None, _holder_of(entry))
            if await self._keep_alive(entry["lease"]):
                return Attempt(int(entry["create_revision"]), "")
        await self.release(role)
        return None

    async def renew(self, role: str) -> bool:
        """Keep the lease alive, and check that the key still belongs to it."""
        lease = self._leases.get(role)
        if lease is None or not await self._keep_alive(lease):
            return False
        answer = await self._ask("kv/range", {"key": self._key(role)})
        return any(each.get("lease") == lease for each in answer.get("kvs", ()))

    async def release(self, role: str) -> None:
        """Revoke the lease, which deletes the key."""
        lease = self._leases.pop(role, None)
        if lease is not None:
            await self._ask("lease/revoke", {"ID": lease}, missing_ok=True)

    async def release_ended(self, role: str, holder: str) -> None:
        """Revoke the lease of the holder; see `Engine`."""
        for entry in (await self._ask("kv/range", {"key": self._key(role)})).get("kvs", ()):
            if _holder_of(entry) == holder and "lease" in entry:
                await self._ask("lease/revoke", {"ID": entry["lease"]}, missing_ok=True)

    async def close(self) -> None:
        """Close the connections."""
        self._client.close()

    async def _grant(self, ttl: float) -> str:
        answer = await self._ask("lease/grant", {"TTL": str(math.ceil(ttl)), "ID": "0"})
        return str(answer["ID"])

    async def _keep_alive(self, lease: str) -> bool:
        answer = await self._ask("lease/keepalive", {"ID": lease})
        return int(answer.get("result", {}).get("TTL", "0")) > 0

    def _key(self, role: str) -> str:
        return _encoded(f"{self._prefix}/{quote(role)}")

    # Requests.

    async def _ask(self, path: str, body: dict[str, Any], *, missing_ok: bool = False) -> dict[str, Any]:
        """Send a request, and log in first if that is necessary. Raises EngineError."""
        if self._url.user and not self._token:
            await self._log_in()
        answer = await self._post(path, body)
        if self._url.user and _is_logged_out(answer):
            await self._log_in()
            answer = await self._post(path, body)
        if missing_ok and answer.data.get("code") == _NOT_FOUND:
            return {}
        if answer.status != _OK:
            self._client.prefer_others()  # this one may be isolated from the majority
        return self._require(path, answer)

    async def _log_in(self) -> None:
        """Get a token, which etcd forgets after some minutes without a request."""
        self._token = ""
        body = {"name": self._url.user, "password": self._url.password()}
        answer = self._require("auth/authenticate", await self._post("auth/authenticate", body))
        self._token = answer["token"]

    async def _post(self, path: str, body: dict[str, Any]) -> Answer:
        headers = {"Authorization": self._token} if self._token else {}
        return await self._client.request("POST", f"/v3/{path}", body, headers)

    def _require(self, path: str, answer: Answer) -> dict[str, Any]:
        if answer.status == _OK and "error" not in answer.data:
            return answer.data
        if answer.status == _UNKNOWN_PATH:
            raise EngineError("it has no /v3", "it is not etcd, or older than 3.4", "upgrade it")
        error = answer.data.get("error", answer.data)
        why = error.get("message", "") if isinstance(error, dict) else str(error)
        raise EngineError(
            f"etcd refuses {path}", why or answer.data.get("message") or f"HTTP {answer.status}"
        )


def _is_logged_out(answer: Answer) -> bool:
    code = answer.data.get("code")
    return code == _NOT_AUTHENTICATED or _INVALID_TOKEN in str(answer.data.get("error", ""))


def _holder_of(entry: dict[str, Any]) -> str:
    return base64.b64decode(entry.get("value", "")).decode(errors="replace")


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
