"""What is particular to the engine on NATS."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import nats as nats_library
import pytest
import trustme

from tamed.cluster.engine import Attempt, Engine, EngineError, open_engine
from tamed.errors import ConfigurationError
from tests.cluster.opened import LONG, engines, failure
from tests.cluster.servers import Serving, nats, old_nats, three_of_nats
from tests.patience import PATIENCE

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def served() -> Iterator[Serving]:
    """Run a server."""
    with nats() as serving:
        yield serving


async def test_hosts_that_begin_at_once_make_one_bucket(served: Serving) -> None:
    """Of hosts that all find no bucket, each gets its role."""
    async with engines(f"{served.url}/fresh", 20) as hosts:
        attempts = await asyncio.gather(
            *(host.acquire(f"role {number}", "holder", LONG) for number, host in enumerate(hosts))
        )
    assert all(each.token for each in attempts)


async def test_one_of_many_gets_the_role_from_a_cluster() -> None:
    """Of hosts that ask three servers at the same moment, no two get the role."""
    with three_of_nats() as url:
        async with engines(url, 12) as hosts:
            async with asyncio.timeout(PATIENCE):
                while not await can_ask(hosts[0]):  # noqa: ASYNC110 - of other processes
                    await asyncio.sleep(0.1)
            for number in range(15):
                attempts = await asyncio.gather(
                    *(host.acquire("role", f"{place} {number}", LONG) for place, host in enumerate(hosts)),
                    return_exceptions=True,  # servers that are slow may lose their leader
                )
                assert sum(isinstance(each, Attempt) and each.token is not None for each in attempts) <= 1
                await asyncio.gather(*(host.release("role") for host in hosts), return_exceptions=True)


async def can_ask(host: Engine) -> bool:
    """Return whether an engine answers: servers that have just met agree upon nothing yet."""
    try:
        await host.acquire("a role", "first", LONG)
    except EngineError:
        return False
    return True


async def test_deleted_key_is_a_vacant_role(served: Serving) -> None:
    """A key that an administrator has deleted ends the lease; the next token is larger nevertheless."""
    async with engines(served.url, 2) as (holder, other):
        first = (await holder.acquire("deleted", "holder", LONG)).token
        client = await nats_library.connect(served.url)
        await (await client.jetstream().key_value("tamed-roles")).delete("deleted")
        await client.close()
        second = (await other.acquire("deleted", "other", LONG)).token
        assert first is not None
        assert second is not None
        assert second > first
        assert not await holder.renew("deleted")


async def test_other_value_is_refused(served: Serving) -> None:
    """A bucket that is used for something else is not written into."""
    client = await nats_library.connect(served.url)
    bucket = await client.jetstream().create_key_value(bucket="others")
    await bucket.put("a=20role", b"[1]")
    assert await failure(f"{served.url}/others") == (
        f"--cluster {served.url}/others: ValueError: the value was not written by Tamed"
    )
    assert (await bucket.get("a=20role")).value == b"[1]"
    await client.close()


async def test_server_without_jetstream_is_one_line() -> None:
    """A server without JetStream cannot grant a role, and the message says how it would."""
    with nats(stream=False) as serving:
        told = await failure(serving.url)
    assert "JetStream does not answer; start it with --jetstream" in told


async def test_wrong_password_is_one_line(tmp_path: Path) -> None:
    """A user and a password are shown to the server, which takes them or not."""
    (tmp_path / "right").write_text("right\n")
    (tmp_path / "wrong").write_text("wrong\n")
    with nats("--user", "ops", "--pass", "right") as serving:
        place = serving.url.replace("nats://", "nats://ops@")
        told = await failure(f"{place}?password-file={tmp_path}/wrong")
        assert "Authorization Violation" in told
        assert "\n" not in told
        assert "is a directory" in (await failure(f"{place}?password-file={tmp_path}")).lower()
        async with engines(f"{place}?password-file={tmp_path}/right", 1) as (engine,):
            assert (await engine.acquire("a role", "holder", LONG)).token


async def test_connection_is_encrypted(public_path: Path) -> None:
    """With ``ca``, the server must show a certificate of it, and gets no password in clear."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    cert, key, ca = (public_path / name for name in ("cert.pem", "key.pem", "ca.pem"))
    certificate.cert_chain_pems[0].write_to_path(cert)
    certificate.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(ca)
    trustme.CA().cert_pem.write_to_path(public_path / "other.pem")
    (public_path / "password").write_text("right\n")
    for path in (cert, key, ca):
        path.chmod(0o644)
    options = f"password-file={public_path}/password&ca="
    with nats("--tls", "--tlscert", cert, "--tlskey", key, "--user", "ops", "--pass", "right") as serving:
        place = serving.url.replace("nats://", "nats://ops@")
        assert (
            "certificate verify failed"
            in (await failure(f"{place}?{options}{public_path}/other.pem")).lower()
        )
        async with engines(f"{place}?{options}{ca}", 1) as (engine,):
            assert (await engine.acquire("a role", "holder", LONG)).token

    heard: list[bytes] = []

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Be a server that asks for a password and does not encrypt."""
        about = {"server_id": "A", "version": "2.9.10", "headers": True, "auth_required": True}
        writer.write(b"INFO " + json.dumps(about).encode() + b"\r\n")
        heard.append(await reader.read())
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        told = await failure(f"nats://ops@127.0.0.1:{port}?{options}{ca}")
    assert "the server does not encrypt, but ca requires it" in told
    assert heard
    assert not any(heard)


async def test_old_server_is_refused() -> None:
    """A server that was not tried with this is refused."""
    with old_nats() as serving:
        told = await failure(serving.url)
    assert told.endswith("nats-server 2.8 is too old; 2.9 or later is needed")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("replicas=2", "replicas=2; expected 1, 3 or 5"),
        ("cert=/nowhere", "cert and key need ca; add ca=FILE or ca=system"),
        ("ca=/nowhere", "its certificates: No such file or directory"),
        ("bucket=a", "unknown option 'bucket'"),
    ],
)
def test_wrong_options_are_refused(options: str, why: str) -> None:
    """An option that is wrong is refused when the daemon starts."""
    with pytest.raises(ConfigurationError, match=why):
        open_engine(f"nats://host?{options}")
