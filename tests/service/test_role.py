"""Services that run in one process of several: they stand by, start when granted, and give the role back."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import tamed
from tamed.errors import ServiceFailed, ServiceMisuse
from tamed.net.stream import StreamServer
from tamed.service.checks import CheckResult, Checks
from tamed.service.lifecycle import State
from tamed.service.restart import Backoff, Restart
from tamed.service.role import Campaign, Lease, Scope, set_roles
from tamed.service.service import MultiService, Only, Service
from tamed.service.timer import TimerService
from tamed.testing.clock import VirtualClockLoop
from tests.service.stand_ins import Body, Broken, Diary, Probe

pytestmark = pytest.mark.anyio

STEADY = Backoff(first=1, factor=2, maximum=60, jitter=0)


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Run these tests on a clock of their own, so that backoffs take no time."""
    return "asyncio", {"loop_factory": VirtualClockLoop}


class Bid:
    """A campaign whose lease the test gives."""

    def __init__(self, diary: Diary, role: str, granted: Callable[[], object], revoke: Callable[[], object]):
        self.lease: Lease | None = None
        self.revoke = revoke
        self._diary = diary
        self._role = role
        self._granted = granted

    def grant(self, token: int = 7) -> None:
        """Grant the role."""
        self.lease = Lease(token)
        self._granted()

    def withdraw(self) -> None:
        """Write down that the role was given back."""
        self._diary.append(f"withdraw {self._role}")


class Roles:
    """A source of roles in the hands of the test."""

    def __init__(self, diary: Diary) -> None:
        self.diary = diary
        self.bids: list[Bid] = []

    def campaign(
        self, role: str, scope: Scope, granted: Callable[[], object], revoked: Callable[[], object]
    ) -> Campaign:
        """Write down who campaigns."""
        self.diary.append(f"campaign {role}")
        self.bids.append(Bid(self.diary, role, granted, revoked))
        return self.bids[-1]


@pytest.fixture
def roles(diary: Diary) -> Roles:
    """A source of roles; each test sets it in its own task."""
    return Roles(diary)


def only(service: Service) -> Service:
    """Let a service run in one process."""
    service.only = "host"
    return service


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until a condition holds."""
    while not condition():  # noqa: ASYNC110 - states have no event, and this clock takes no time
        await asyncio.sleep(0.01)


async def test_a_service_stands_by_until_its_role_is_granted(diary: Diary, roles: Roles) -> None:
    """It is prepared and then waits, while its parent is running; the grant starts it, with its token."""
    set_roles(roles)
    cron = only(Probe("cron", diary))
    async with MultiService("app", cron, Probe("web", diary)) as app:
        assert (cron.state, app.state, cron.lease) == (State.STANDBY, State.RUNNING, None)
        assert diary.take() == ["prepare cron", "prepare web", "campaign cron", "start web"]
        roles.bids[0].grant(7)
        await until(lambda: cron.state is State.RUNNING)
        assert diary.take() == ["start cron"]
        assert cron.lease == Lease(7)
    assert diary.take() == ["stop web", "stop cron", "withdraw cron", "release web", "release cron"]
    assert cron.state is State.STOPPED


async def test_a_service_that_stands_by_is_stopped_without_a_hook(diary: Diary, roles: Roles) -> None:
    """Its campaign ends, and neither start nor stop is called."""
    set_roles(roles)
    cron = only(Probe("cron", diary))
    async with MultiService("app", cron):
        diary.take()
    assert diary.take() == ["withdraw cron", "release cron"]
    assert cron.state is State.STOPPED


async def test_a_revoked_service_is_stopped_and_stands_by_again(diary: Diary, roles: Roles) -> None:
    """The role is given back after the stop, and there is another campaign."""
    set_roles(roles)
    cron = only(Body("cron", diary))
    async with MultiService("app", cron):
        roles.bids[0].grant()
        await until(lambda: cron.state is State.RUNNING)
        diary.take()
        roles.bids[0].revoke()
        await until(lambda: cron.state is State.STANDBY)
        taken = diary.take()
        assert taken[-2:] == ["withdraw cron", "campaign cron"]
        assert "stop cron" in taken[:-2]
        roles.bids[1].grant(8)
        await until(lambda: cron.state is State.RUNNING)
        assert cron.lease == Lease(8)


async def test_a_server_serves_again_when_its_role_comes_back(diary: Diary, roles: Roles) -> None:
    """A revocation leaves it its sockets, and clients that come meanwhile wait in the queue."""

    async def recite(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"poem")

    set_roles(roles)
    server = StreamServer("127.0.0.1:0", recite)
    async with MultiService("app", only(server)):
        port = int(server.addresses[0].rpartition(":")[2])
        for number in range(2):
            roles.bids[number].grant(number)
            await until(lambda: server.state is State.RUNNING)
            assert await read_from(port) == b"poem"
            roles.bids[number].revoke()
            await until(lambda: server.state is State.STANDBY)
        waiting = asyncio.create_task(read_from(port))
        roles.bids[2].grant(2)
        assert await waiting == b"poem"


async def read_from(port: int) -> bytes:
    """Connect and read to the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_role_below_a_revoked_one_is_given_back_too(diary: Diary, roles: Roles) -> None:
    """A service with a role in a group with a role passes on together with it."""
    set_roles(roles)
    inner = only(Probe("inner", diary))
    group = only(MultiService("group", inner))
    async with MultiService("app", group):
        roles.bids[0].grant()
        await until(lambda: len(roles.bids) == 2)
        roles.bids[1].grant()
        await until(lambda: inner.state is State.RUNNING)
        diary.take()
        roles.bids[0].revoke()
        await until(lambda: group.state is State.STANDBY)
        expected = ["stop inner", "withdraw group", "withdraw group/inner", "campaign group"]
        assert diary.take() == expected


async def test_a_role_is_kept_while_the_policy_restarts_the_service(diary: Diary, roles: Roles) -> None:
    """A failure that the restart policy handles is no reason for another process to take over."""
    set_roles(roles)
    cron = Body("cron", diary)
    cron.restart = Restart("on-failure", 5, 60, STEADY)
    async with MultiService("app", only(cron)):
        roles.bids[0].grant()
        await until(lambda: cron.state is State.RUNNING)
        diary.take()
        cron.fail()
        await until(lambda: cron.restarts == 1 and cron.state is State.RUNNING)
        assert [line for line in diary.take() if "withdraw" in line or "campaign" in line] == []
        assert cron.lease == Lease(7)
    assert "withdraw cron" in diary


async def test_a_role_is_given_back_by_a_service_that_waits_for_its_restart(
    diary: Diary, roles: Roles
) -> None:
    """A service that is stopped in the delay before a restart is not started, and gives its role back."""
    set_roles(roles)
    cron = Body("cron", diary)
    cron.restart = Restart("on-failure", 5, 60, STEADY)
    async with MultiService("app", only(cron)):
        roles.bids[0].grant()
        await until(lambda: cron.state is State.RUNNING)
        cron.fail()
        await diary.until("stop cron")
        diary.take()
    assert "withdraw cron" in diary.take()


async def test_a_parent_that_is_restarted_keeps_the_role_of_its_child(diary: Diary, roles: Roles) -> None:
    """If another child fails, and all are restarted, the service keeps its role and is started with them."""
    set_roles(roles)
    cron, web = only(Probe("cron", diary)), Body("web", diary)
    web.restart = Restart("on-failure", 5, 60, STEADY)
    async with MultiService("app", cron, web, strategy="one_for_all"):
        roles.bids[0].grant()
        await until(lambda: cron.state is State.RUNNING)
        diary.take()
        web.fail()
        await until(lambda: web.restarts == 1 and web.state is State.RUNNING)
        assert [line for line in diary.take() if line.endswith("cron")] == ["stop cron", "start cron"]


async def test_a_grant_during_a_restart_of_the_group_starts_the_service_once(
    diary: Diary, roles: Roles
) -> None:
    """A role that is granted while the group is down starts the service with the group, and not before."""
    set_roles(roles)
    cron, web = only(Probe("cron", diary)), Body("web", diary)
    web.restart = Restart("on-failure", 5, 60, STEADY)
    async with MultiService("app", cron, web, strategy="one_for_all"):
        web.fail()
        await diary.until("stop web")
        await until(lambda: cron.state is State.STOPPED)
        roles.bids[0].grant()
        assert diary.of("start").count("cron") == 0
        await until(lambda: cron.state is State.RUNNING)
        assert diary.of("start").count("cron") == 1


async def test_a_service_that_cannot_be_stopped_keeps_its_role(diary: Diary, roles: Roles) -> None:
    """If the stop fails, the role is not given back: the application ends, and with it the process."""
    set_roles(roles)
    cron = only(Probe("cron", diary, fails={"stop": Broken("it may still run")}))

    async def run() -> None:
        async with MultiService("app", cron):
            roles.bids[0].grant()
            await until(lambda: cron.state is State.RUNNING)
            roles.bids[0].revoke()
            await asyncio.get_running_loop().create_future()

    with pytest.raises(ServiceFailed, match="it may still run"):
        await run()
    assert "withdraw cron" not in diary


async def test_a_start_that_fails_after_the_grant_ends_the_application(diary: Diary, roles: Roles) -> None:
    """The failure goes up as any other, and the role is given back on the way."""
    set_roles(roles)
    cron = only(Probe("cron", diary, fails={"start": Broken("no")}))

    async def run() -> None:
        async with MultiService("app", cron):
            roles.bids[0].grant()
            await asyncio.get_running_loop().create_future()

    with pytest.raises(ServiceFailed, match="cron failed in start"):
        await run()
    assert diary[-2:] == ["withdraw cron", "release cron"]


async def test_a_revocation_during_the_stop_does_nothing_more(diary: Diary, roles: Roles) -> None:
    """A worker that drains is told to give its roles back at the same moment: each hook is called once."""
    set_roles(roles)
    cron = only(Probe("cron", diary))
    async with MultiService("app", cron):
        roles.bids[0].grant()
        await until(lambda: cron.state is State.RUNNING)
        diary.take()
        roles.bids[0].revoke()
    await asyncio.sleep(0.01)
    assert diary.take() == ["stop cron", "withdraw cron", "release cron"]


async def test_a_process_on_its_own_runs_the_service(diary: Diary) -> None:
    """Without a supervisor it is started in its place, and a failed start is that of the application."""
    async with MultiService("app", only(Probe("cron", diary)), Probe("web", diary)):
        assert diary.of("start") == ["cron", "web"]
    failing = MultiService("app", only(Probe("cron", diary, fails={"start": Broken("no")})))
    for _ in range(2):  # a start that has failed leaves nothing behind that prevents the next one
        with pytest.raises(ServiceFailed, match="cron failed in start"):
            await failing.lifecycle.bring_up()
        with pytest.raises(ServiceFailed, match="cron failed in start"):
            await failing.lifecycle.start()
        await failing.lifecycle.take_down()


async def test_only_wraps_a_service_that_has_no_such_parameter(diary: Diary, roles: Roles) -> None:
    """The service is below one of the same name, which stands by, and it sees the lease of that one."""
    set_roles(roles)
    inner = Probe("cron", diary)
    async with MultiService("app", tamed.Only(inner)):
        assert diary.take() == ["prepare cron", "campaign cron"]
        roles.bids[0].grant(9)
        await until(lambda: inner.state is State.RUNNING)
        assert (inner.full_name, inner.lease) == ("cron/cron", Lease(9))


async def test_a_timer_in_one_process_ticks_in_one(diary: Diary, roles: Roles) -> None:
    """A timer with a role makes no call while it stands by."""
    set_roles(roles)
    timer = TimerService(1, lambda: diary.append("tick"), name="timer", only="host")
    async with MultiService("app", timer):
        await asyncio.sleep(5)
        assert "tick" not in diary
        roles.bids[0].grant()
        await diary.until("tick")


class Checked(Service):
    """A service that says that it cannot do its work."""

    check_interval = 0.5

    async def check(self) -> str:
        """Return the reason."""
        return "no ink"


async def test_a_service_that_stands_by_is_not_checked(diary: Diary, roles: Roles) -> None:
    """Its check counts only in the process that runs it, also if it is below the service with the role."""
    set_roles(roles)
    seen: list[list[CheckResult]] = []
    async with MultiService("app", Only(Checked("printer"))) as app:
        checks = Checks(app, seen.append)
        checks.start()
        await asyncio.sleep(3)
        assert seen == []
        roles.bids[0].grant()
        await until(
            lambda: seen[-1:] == [[CheckResult("printer/printer", Service.check_gates_readiness, "no ink")]]
        )
        checks.close()


def test_an_unknown_scope_is_refused(diary: Diary) -> None:
    """A scope that is misspelt raises at once, with the one that was probably meant."""
    with pytest.raises(ServiceMisuse, match=r"only='hots'; did you mean 'host'\?"):
        Service("cron", only="hots")  # type: ignore[arg-type]
    with pytest.raises(ServiceMisuse, match=r"only='galaxy'; expected 'host' or 'cluster'"):
        Only(Probe("cron", diary), scope="galaxy")  # type: ignore[arg-type]


async def test_an_unknown_scope_in_an_attribute_fails_the_start(diary: Diary) -> None:
    """Attributes are not checked when they are set, but when the service is started."""
    cron = Probe("cron", diary)
    cron.only = "world"  # type: ignore[assignment]
    with pytest.raises(ServiceMisuse, match="service cron: only='world'"):
        async with MultiService("app", cron):
            pass
