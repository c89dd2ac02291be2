"""The engine of etcd, at a real server."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tamed.cluster.engine import Engine, EngineError, open_engine
from tamed.errors import ConfigurationError
from tests.cluster.etcd_server import Etcd, etcd, needs_etcd
from tests.patience import PATIENCE

pytestmark = [pytest.mark.anyio, needs_etcd]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """One server for the tests of this file, each of which has a prefix of its own."""
    with etcd(tmp_path_factory.mktemp("etcd")) as one:
        yield one


async def close(*engines: Engine) -> None:
    """Close engines."""
    for each in engines:
        await each.close()


async def run(*command: str, said: bytes = b"") -> None:
    """Run a command, which must succeed."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate(said)
    assert process.returncode == 0, (out, err)


async def test_one_of_two_has_the_role(server: Etcd) -> None:
    """The second one learns who has it, gets it when that gives it back, and its token is larger."""
    one, two = (open_engine(f"etcd://{server.place}/one") for _ in range(2))
    role = "app/täglich / 1"
    first = await one.acquire(role, "first", 60)
    assert first.token is not None
    assert await two.acquire(role, "second", 60) == (None, "first")
    assert (await one.renew(role), await two.renew(role)) == (True, False)
    await two.release(role)
    assert await one.renew(role)
    await one.release(role)
    await one.release(role)
    assert not await one.renew(role)
    second = await two.acquire(role, "second", 60)
    assert second.token is not None
    assert second.token > first.token
    await two.release(role)
    await close(one, two)


async def test_contenders_at_once_have_one_holder(server: Etcd) -> None:
    """Of many that ask at the same moment one gets the role, and the others know which."""
    engines = [open_engine(f"etcd://{server.place}/many") for _ in range(5)]
    attempts = await asyncio.gather(*(each.acquire("cron", str(n), 60) for n, each in enumerate(engines)))
    winners = [each.holder for each in attempts if each.token is not None]
    assert len(winners) == 1
    assert {each.holder for each in attempts} == set(winners)
    await close(*engines)


async def test_attempt_whose_answer_was_lost_is_had_again(server: Etcd) -> None:
    """One that has the role without knowing gets it again with the same token."""
    one = open_engine(f"etcd://{server.place}/lost")
    first = await one.acquire("cron", "me", 60)
    again = await one.acquire("cron", "me", 60)
    assert again.token == first.token
    await one.release("cron")
    await close(one)


async def test_lease_that_is_revoked_is_lost(server: Etcd) -> None:
    """If an operator deletes the key of a holder, its next renewal fails."""
    one = open_engine(f"etcd://{server.place}/gone")
    await one.acquire("cron", "me", 60)
    await run("etcdctl", "--endpoints", server.place, "del", "--prefix", "gone/")
    assert not await one.renew("cron")
    await close(one)


async def test_next_server_is_asked(server: Etcd) -> None:
    """A server that is not there is passed over; without any, each is named with its reason."""
    one = open_engine(f"etcd://127.0.0.1:1,{server.place}/next")
    assert (await one.acquire("cron", "me", 60)).token is not None
    nobody = open_engine("etcd://127.0.0.1:1,[::1]:1")
    with pytest.raises(EngineError, match=r"^127.0.0.1:1: Connection refused; ::1:1: "):
        await nobody.acquire("cron", "me", 60)
    await close(one, nobody)


async def test_user_needs_a_password(tmp_path: Path) -> None:
    """The password gets in, also after the server has forgotten the token; a wrong one does not."""
    with etcd(tmp_path, "--auth-token-ttl", "1") as server:
        for words in ("user add root:tiger", "user grant-role root root", "auth enable"):
            command = ["etcdctl", "--endpoints", server.place, *words.split()]
            await run(*command)
        password = tmp_path / "password"
        password.write_text("lion\n", "utf-8")
        one = open_engine(f"etcd://root@{server.place}?password-file={password}")
        with pytest.raises(EngineError, match=r"^etcd refuses auth/authenticate: .*authentication failed"):
            await one.acquire("cron", "me", 60)
        password.write_text("tiger\n", "utf-8")
        assert (await one.acquire("cron", "me", 60)).token is not None
        command = ["etcdctl", "--endpoints", server.place, "--user", "root:tiger", "user", "passwd", "root"]
        await run(*command, said=b"bear\nbear\n")  # forgets the token, as a restart does
        password.write_text("bear\n", "utf-8")
        assert await one.renew("cron")
        nobody = open_engine(f"etcd://{server.place}")
        with pytest.raises(EngineError, match=r"^etcd refuses kv/range: .*user name is empty"):
            await nobody.acquire("cron", "me", 60)
        await close(one, nobody)


async def test_connection_is_encrypted(tmp_path: Path) -> None:
    """With ``ca`` the server must show a certificate of that authority, and this client one of its own."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name in ("127.0.0.1", "client.example"):
        own = authority.issue_cert(name)
        own.private_key_and_cert_chain_pem.write_to_path(tmp_path / f"{name}.pem")
    files = [str(tmp_path / name) for name in ("127.0.0.1.pem", "ca.pem", "client.example.pem")]
    options = ("--cert-file", files[0], "--key-file", files[0], "--trusted-ca-file", files[1])
    with etcd(tmp_path, *options, "--client-cert-auth") as server:
        one = open_engine(f"etcd://{server.place}?ca={files[1]}&cert={files[2]}")
        assert (await one.acquire("cron", "me", 60)).token is not None
        for query, why in (
            ("?ca=system", "CERTIFICATE_VERIFY_FAILED|certificate verify failed"),
            ("", "Remote end closed|HTTP 400|Connection reset|etcd refuses"),
        ):
            stranger = open_engine(f"etcd://{server.place}{query}")
            with pytest.raises(EngineError, match=why):
                await stranger.acquire("cron", "me", 60)
            await close(stranger)
        await close(one)


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("?ca=nope.pem", "its certificates: No such file or directory"),
        ("?cert=a.pem", "cert and key need ca; add ca=FILE or ca=system"),
        ("?password-file=a", "a user needs a password file, and a password file needs a user"),
        ("?pasword-file=a", "unknown option 'pasword-file'; did you mean 'password-file'?"),
    ],
)
def test_wrong_option_is_one_line(query: str, why: str) -> None:
    """An option that is wrong is found before anything is connected."""
    with pytest.raises(ConfigurationError) as raised:
        open_engine(f"etcd://127.0.0.1{query}")
    assert str(raised.value) == f"--cluster etcd://127.0.0.1{query}: {why}"
