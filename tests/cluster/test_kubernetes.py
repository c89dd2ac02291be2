"""What is particular to the engine on Lease objects."""

import ssl
from collections.abc import Iterator

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from tamed.cluster.engine import EngineError, open_engine
from tamed.cluster.kubernetes import lease_name
from tamed.errors import ConfigurationError
from tests.cluster.api_server import ServingLeases, kubernetes
from tests.cluster.opened import LONG, engines, failure

pytestmark = pytest.mark.anyio


@pytest.fixture
def served() -> Iterator[ServingLeases]:
    """Run an API server."""
    with kubernetes() as serving:
        yield serving


async def test_lease_is_readable(served: ServingLeases) -> None:
    """A Lease has the fields that ``kubectl get lease`` shows, and keeps its number over a release."""
    async with engines(served.url, 1) as (engine,):
        assert (await engine.acquire("cron", "host a", 15)).token == 1
        spec = served.server.leases["cron"]["spec"]
        assert spec["holderIdentity"] == "host a"
        assert spec["leaseDurationSeconds"] == 15
        assert spec["acquireTime"].endswith("Z")
        before = spec["renewTime"]
        assert await engine.renew("cron")
        assert served.server.leases["cron"]["spec"]["renewTime"] > before
        await engine.release("cron")
        assert "holderIdentity" not in served.server.leases["cron"]["spec"]
        assert (await engine.acquire("cron", "host b", 15)).token == 2


async def test_lost_answer_is_no_lost_lease(served: ServingLeases) -> None:
    """A write that was done without an answer is seen at the next one, and the lease goes on."""
    async with engines(served.url, 2) as (holder, other):
        first = (await holder.acquire("cron", "holder", LONG)).token
        served.server.lost_answers = 1  # the client tries once more, and is refused: there is a newer version
        assert await holder.renew("cron")
        assert await other.acquire("cron", "other", LONG) == (None, "holder")
        served.server.lost_answers = 1
        assert await other.acquire("free", "other", LONG) == (None, "other")
        second = (await other.acquire("free", "other", LONG)).token
        assert first == 1
        assert second == 2


async def test_outage_is_one_line_and_passes(served: ServingLeases) -> None:
    """While the API server refuses, who leads is unknown; then the lease goes on."""
    async with engines(served.url, 1) as (engine,):
        await engine.acquire("cron", "holder", LONG)
        served.server.is_out = True
        with pytest.raises(EngineError, match="currently unable to handle the request"):
            await engine.renew("cron")
        served.server.is_out, served.server.latency = False, 0.05
        assert await engine.renew("cron")


async def test_deleted_lease_is_lost(served: ServingLeases) -> None:
    """A deleted Lease has no holder."""
    async with engines(served.url, 1) as (engine,):
        await engine.acquire("cron", "holder", LONG)
        del served.server.leases["cron"]
        assert not await engine.renew("cron")
        await engine.release("cron")
        assert "cron" not in served.server.leases


async def test_token_and_authority_are_read_again(served: ServingLeases) -> None:
    """A token that is replaced is used from then on, and so is another authority."""
    async with engines(served.url, 1) as (engine,):
        await engine.acquire("cron", "holder", LONG)
        served.server.token = "second"
        with pytest.raises(EngineError, match="Unauthorized"):
            await engine.renew("cron")
        (served.folder / "token").write_text("second\n")
        assert await engine.renew("cron")

        authority = trustme.CA()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        served.server.context = context
        authority.cert_pem.write_to_path(served.folder / "ca.pem")
        assert await engine.renew("cron")
        (served.folder / "token").unlink()
        with pytest.raises(EngineError, match="token: No such file"):
            await engine.renew("cron")


async def test_old_server_is_refused() -> None:
    """A server that does not know Lease objects is quoted, and it is said which one does."""
    with kubernetes(is_old=True) as served:
        told = await failure(served.url)
    assert "could not find the requested resource; Kubernetes 1.14 or later, which has leases" in told


async def test_missing_permission_says_what_is_needed(served: ServingLeases) -> None:
    """A service account without the role gets the API server's words, and which verbs are needed."""
    told = await failure(served.url.replace("/fleet", "/other"))
    assert "is forbidden; allow its service account to get, create and update leases" in told


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("kubernetes://host/fleet", "an API server needs TLS; add ca=FILE or ca=system"),
        ("kubernetes://host/fleet?ca=/nowhere", "its certificates: No such file or directory"),
        ("kubernetes://host?ca=system", "it has no namespace"),
        ("kubernetes://host/fleet?ca=system&tokenfile=a", "unknown option 'tokenfile'"),
    ],
)
def test_wrong_urls_are_refused(url: str, why: str) -> None:
    """A URL that is wrong is refused when the daemon starts."""
    with pytest.raises(ConfigurationError, match=why):
        open_engine(url)


async def test_pod_has_its_own_server(served: ServingLeases, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pod, the API server is named by the environment."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(served.port))
    async with engines("kubernetes:fleet?" + served.url.partition("?")[2], 1) as (engine,):
        assert (await engine.acquire("cron", "holder", LONG)).token == 1
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    options = served.url.partition("?")[2]
    assert "not in a pod of Kubernetes; add the API server to the URL" in await failure(
        f"kubernetes:fleet?{options}"
    )


@given(st.text(max_size=90), st.text(max_size=90))
def test_names_are_valid_and_apart(one: str, other: str) -> None:
    """A Lease's name is a DNS label, and those of two roles differ."""
    name = lease_name(one)
    assert 0 < len(name) <= 63
    assert name.strip("-abcdefghijklmnopqrstuvwxyz0123456789") == ""
    assert name[0] != "-" != name[-1]
    assert (lease_name(other) == name) == (one == other)
