"""Roles in NATS: a key of a JetStream key-value bucket for each, and the stream's revision as the token.

A value is written on condition of the revision that was read, so only one of several candidates gets a role.
Revisions count the changes of the whole stream, so they increase with each holder. Each renewal writes the
value again. Candidates detect by their own clocks that a holder has stopped renewing (`Sightings`): so the
server, from version 2.9 on, needs no expiry of single keys, and its clock does not matter.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self
from urllib.parse import quote

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import KeyValueConfig, StorageType
from nats.js.kv import KeyValue

from tamed.cluster.engine import Attempt, Engine, EngineError, EngineUrl, Sightings
from tamed.errors import ConfigurationError, reason

__all__ = ["NatsEngine"]

_PORT: Final = 4222
_BUCKET: Final = "tamed-roles"
_ANOTHER_WAS_FIRST: Final = (10071, 10164, 10158)
"""Server codes: wrong revision, wrong revision without its number, and a message id in progress."""

_OLDEST: Final = (2, 9)
_SECONDS: Final = 5
"""Timeout for a server that does not answer, unless the caller gives up first."""

_CLOSING: Final = 1.0
"""Seconds for the last bytes of a connection."""

_FAILURES: Final = (nats.errors.Error, ConfigurationError, OSError, TimeoutError, ValueError)


class _Record(NamedTuple):
    """The value of a key: the holder of the role, and its lease in seconds from each change of revision."""

    holder: str = ""
    ttl: float = 0

    @classmethod
    def parse(cls, value: bytes | None) -> Self:
        """Parse a value. Raises ValueError."""
        data = json.loads(value or b"{}")
        if not isinstance(data, dict) or not isinstance(data.get("ttl", 0), int | float):
            raise ValueError("the value was not written by Tamed")  # noqa: TRY004 - as json does
        return cls(str(data.get("holder", "")), data.get("ttl", 0))

    def encode(self) -> bytes:
        return json.dumps(self._asdict()).encode()


@dataclass
class _Lease:
    record: _Record
    revision: int


class NatsEngine(Engine):
    """The engine ``nats://[USER@]HOST[:PORT],…[/BUCKET]``.

    The bucket, ``tamed-roles`` by default, is created if it does not exist. Options: ``replicas``, of a new
    bucket (by default 3 for three hosts or more, else 1), ``password-file``, ``ca``, ``cert`` and ``key``.
    With ``ca``, the connection must be encrypted.
    """

    def __init__(self, url: EngineUrl) -> None:
        url.check("ca", "cert", "key", "password-file", "replicas")
        url.tls()
        replicas = url.options.get("replicas", "3" if len(url.hosts) >= 3 else "1")
        if replicas not in {"1", "3", "5"}:
            raise ConfigurationError(url.what, f"replicas={replicas}", "expected 1, 3 or 5")
        self._replicas = int(replicas)
        self._url = url
        self._name = url.path or _BUCKET
        self._client: Client | None = None
        self._bucket: KeyValue | None = None
        self._connecting = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()
        self._sightings = Sightings()
        self._leases: dict[str, _Lease] = {}

    async def acquire(self, role: str, holder: str, ttl: float) -> Attempt:
        """Write the key of a vacant role; see `Engine`."""
        async with self._asking():
            revision, record = await self._read(role)
            is_of_another = record.holder not in {"", holder}
            if is_of_another and not self._sightings.has_run_out(role, revision, record.ttl):
                return Attempt(None, record.holder)
            lease = self._leases[role] = _Lease(_Record(holder, ttl), revision)
            if await self._write(role, lease, is_claim=True):
                return Attempt(lease.revision, holder)
            del self._leases[role]
            return Attempt(None, (await self._read(role))[1].holder)

    async def renew(self, role: str) -> bool:
        """Write the key of the role again; see `Engine`."""
        lease = self._leases.get(role)
        if lease is None:
            return False
        async with self._asking():
            if await self._write(role, lease):
                return True
            if await self._is_ours(role, lease) and await self._write(role, lease):
                return True  # the answer to an earlier renewal was lost
        del self._leases[role]
        return False

    async def release(self, role: str) -> None:
        """Write an empty holder; see `Engine`."""
        lease = self._leases.get(role)
        if lease is None:
            return
        async with self._asking():
            if await self._is_ours(role, lease):
                await self._write(role, _Lease(_Record(), lease.revision))
        del self._leases[role]

    async def release_ended(self, role: str, holder: str) -> None:
        """Write an empty holder, if this holder has the role; see `Engine`."""
        async with self._asking():
            revision, record = await self._read(role)
            if record.holder == holder:
                await self._write(role, _Lease(_Record(), revision))

    async def wait(self, role: str, seconds: float) -> None:
        """Return when a holder has released the role, or after ``seconds``.

        The server sends each change of the key to all subscribers. That needs no state in it.
        """
        vacant = asyncio.Event()

        async def changed(message: Any) -> None:
            if not _Record.parse(message.data).holder:
                vacant.set()

        async with self._asking():
            await self._connected()
            assert self._client is not None
            subscription = await self._client.subscribe(f"$KV.{self._name}.{_key(role)}", cb=changed)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await vacant.wait()
        finally:
            with suppress(nats.errors.Error):  # it ended with the connection
                await subscription.unsubscribe()

    async def close(self) -> None:
        """Close the connection; see `Engine`."""
        self._drop()
        await asyncio.gather(*self._closing)

    # The key of a role.

    async def _read(self, role: str) -> tuple[int, _Record]:
        """Return the revision and the record of a role; 0 and an empty one if it never had a holder."""
        bucket = await self._connected()
        try:
            entry = await bucket.get(_key(role))
        except nats.js.errors.KeyNotFoundError as error:
            # An administrator who deletes a key leaves an entry.
            return 0 if error.entry is None else error.entry.revision, _Record()
        return entry.revision or 0, _Record.parse(entry.value)

    async def _write(self, role: str, lease: _Lease, *, is_claim: bool = False) -> bool:
        """Replace the lease's revision with a new record; False if there is another revision.

        Older servers, such as that of Debian 12, compare the revision before a write is replicated, so
        several concurrent writes succeed: https://github.com/nats-io/nats-server/issues/4320. But they store
        only one message of an id within two minutes, so all claims of a role for the same revision have the
        same id.
        """
        await self._connected()
        assert self._client is not None
        subject = f"$KV.{self._name}.{_key(role)}"
        headers = {"Nats-Expected-Last-Subject-Sequence": str(lease.revision)}
        if is_claim:
            headers["Nats-Msg-Id"] = f"{subject} {lease.revision}"
        stream = self._client.jetstream(timeout=_SECONDS)
        try:
            done = await stream.publish(subject, lease.record.encode(), headers=headers)
        except nats.js.errors.APIError as error:
            if error.err_code not in _ANOTHER_WAS_FIRST:
                raise
            return False
        if done.duplicate:  # another claim has this id
            return False
        lease.revision = done.seq
        return True

    async def _is_ours(self, role: str, lease: _Lease) -> bool:
        """Return whether the record belongs to this lease; if so, update the lease's revision."""
        revision, record = await self._read(role)
        if record == lease.record:
            lease.revision = revision
        return record == lease.record

    # The connection.

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[None]:
        """Raise failures as EngineError, and use another connection the next time.

        The same applies to a cancelled request: the server was too slow for the caller, and may be isolated.
        """
        try:
            yield
        except _FAILURES as error:
            self._drop()
            if isinstance(error, nats.js.errors.ServiceUnavailableError | nats.errors.NoRespondersError):
                remedy = "start it with --jetstream, or wait for a majority of its servers"
                raise EngineError(self._url.what, "JetStream does not answer", remedy) from error
            raise EngineError(self._url.what, reason(error)) from error
        except BaseException:
            self._drop()
            raise

    def _drop(self) -> None:
        client, self._client, self._bucket = self._client, None, None
        if client is not None:
            self._dispose(client)

    def _dispose(self, client: Client) -> None:
        task = asyncio.create_task(_close(client))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _connected(self) -> KeyValue:
        """Return the bucket, and connect first if that is necessary."""
        async with self._connecting:
            if self._client is None or self._client.is_closed:
                self._bucket = None
                self._client = await self._connect()
            if self._bucket is None:
                self._bucket = await self._open(self._client)
            return self._bucket

    async def _connect(self) -> Client:
        client = Client()
        failures: list[Exception] = []

        async def failed(error: Exception) -> None:
            failures.append(error)

        credentials = _Credentials(self._url)
        try:
            await client.connect(
                [f"nats://{place}" for place in self._url.places(_PORT)],
                name="tamed",
                user=credentials.user if self._url.user else None,
                password=credentials.password if self._url.user else None,
                tls=credentials.context,
                error_cb=failed,
                allow_reconnect=False,  # queued requests must not be sent after the caller gave up
                connect_timeout=_SECONDS,
                reconnect_time_wait=0,
                max_reconnect_attempts=1,
            )
            credentials.check()
            self._check_version(client)
        except BaseException as error:
            self._dispose(client)
            if isinstance(error, nats.errors.NoServersError) and failures:
                raise failures[-1] from None
            raise
        return client

    def _check_version(self, client: Client) -> None:
        version = client.connected_server_version
        if (version.major, version.minor) < _OLDEST:
            why = f"nats-server {version.major}.{version.minor} is too old"
            raise EngineError(self._url.what, why, "2.9 or later is needed")

    async def _open(self, client: Client) -> KeyValue:
        """Return the bucket, which is created if it does not exist."""
        stream = client.jetstream(timeout=_SECONDS)
        try:
            return await stream.key_value(self._name)
        except nats.js.errors.BucketNotFoundError:
            pass
        config = KeyValueConfig(
            bucket=self._name,
            description="holders of roles of Tamed",
            storage=StorageType.FILE,
            replicas=self._replicas,
        )
        return await stream.create_key_value(config)


class _Credentials:
    """The credentials of a client, which are sent only over an encrypted connection if ``ca`` is set.

    The library encrypts only if the server requests it, so a man in the middle could request no encryption.
    """

    def __init__(self, url: EngineUrl) -> None:
        self.context = url.tls()
        self._url = url
        self._is_plain = self.context is not None
        if self.context is not None:
            self.context.sslobject_class = self._encrypting()

    def user(self) -> str:
        self.check()
        return self._url.user

    def password(self) -> str:
        self.check()
        return self._url.password()

    def check(self) -> None:
        """Raise an error if the connection must be encrypted and is not."""
        if self._is_plain:
            raise nats.errors.Error("the server does not encrypt, but ca requires it")

    def _encrypting(self) -> type[ssl.SSLObject]:
        credentials = self

        class Encrypting(ssl.SSLObject):
            def do_handshake(self) -> None:
                super().do_handshake()
                credentials._is_plain = False

        return Encrypting


async def _close(client: Client) -> None:
    """Close a client. After a failed TLS handshake, the library would wait forever."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_CLOSING):
            await client.close()


def _key(role: str) -> str:
    """Return a role's key, with invalid characters encoded."""
    return quote(role, safe="/").replace(".", "=2E").replace("~", "=7E").replace("%", "=")
