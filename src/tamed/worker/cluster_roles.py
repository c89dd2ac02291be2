"""The cluster roles of a worker: its campaigns at an engine, and its reports to the supervisor.

A worker campaigns for a cluster role while it holds the role of its machine. It tells its supervisor the time
at which it must be killed unless it reports a later one: once before the service starts, which waits for the
supervisor's confirmation, and then after each renewal. If the message of a renewal is late, the supervisor
kills too early, never too late. A timer of the kernel kills a little later, in case there is no supervisor.
"""

import asyncio
import json
import logging
import os
import random
import secrets
import socket
from collections.abc import Callable
from typing import Any, Final, Protocol

from tamed._os.syscalls import KillTimer, boot_time
from tamed.cluster.campaign import Campaign, Phase, Request
from tamed.cluster.engine import Engine
from tamed.errors import reason
from tamed.ipc.message import Message

__all__ = ["Candidacy", "Candidate", "Fleet"]

log = logging.getLogger(__name__)

_AFTER: Final = 1 / 24  # of the lease: delay of the kernel's timer after the supervisor's
_COURTESY: Final = 1 / 3  # of the lease: twice the longest time between two attempts
_LONGEST_REST: Final = 3600.0  # seconds
_LONGEST: Final = 500  # characters of a reason, and of a holder's claim


class Fleet:
    """The engine of a process, created by ``make_engine``, and the candidacies of its services.

    ``lease`` is in seconds. ``deployment`` is the name that all machines of the fleet use for their daemon.
    ``clock`` is CLOCK_BOOTTIME; ``kill_timer`` creates the timer that kills this process if its supervisor
    does not.
    """

    def __init__(
        self,
        make_engine: Callable[[], Engine],
        lease: float,
        deployment: str,
        *,
        clock: Callable[[], float] = boot_time,
        kill_timer: Callable[[], KillTimer] = KillTimer,
    ) -> None:
        self.clock = clock
        self.kill_timer = kill_timer
        self.lease = lease
        self.deployment = deployment
        self._make_engine = make_engine
        self._engine: Engine | None = None
        self._candidacies: set[Candidacy] = set()

    @property
    def engine(self) -> Engine:
        """The engine, created on first use. Raises ConfigurationError."""
        if self._engine is None:
            self._engine = self._make_engine()
        return self._engine

    def campaign(
        self, role: str, candidate: "Candidate", *, wait: bool = False, former: str = ""
    ) -> "Candidacy":
        """Campaign for a role from now on; with ``wait``, only after others have had time to get it.

        ``former`` is the claim of a holder whose process has ended: its lease is not waited for.
        """
        begin = self.clock() + (self.lease * _COURTESY if wait else 0.0)
        candidacy = Candidacy(self, role, begin, candidate, former)
        self._candidacies.add(candidacy)
        candidacy.over.add_done_callback(lambda _: self._candidacies.discard(candidacy))
        return candidacy

    async def close(self) -> None:
        """Wait until the roles of stopped services are resigned; leases of other services expire."""
        for each in list(self._candidacies):
            if not each.is_withdrawn:
                each.over.cancel()
        await asyncio.gather(*(each.over for each in self._candidacies), return_exceptions=True)
        if self._engine is not None:
            try:
                async with asyncio.timeout(self.lease):
                    await self._engine.close()
            except Exception as error:  # engines are third-party code; the process ends anyway
                log.debug("cannot close the engine: %s", reason(error))

    def holder(self) -> str:
        """Return the claim of this process as a holder: JSON, unique to each campaign."""
        return json.dumps(
            {
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "deployment": self.deployment,
                "lease": self.lease,
                "id": secrets.token_hex(8),
            }
        )

    def mismatch(self, holder: str) -> str:
        """Return why a role's holder cannot be another machine of this fleet; empty if it can."""
        said = _said_by(holder)
        ours = {"deployment": self.deployment, "lease": self.lease}
        for key, own in ours.items():
            if (theirs := said.get(key, own)) != own:
                where = str(said.get("host", "another machine"))
                return (
                    f"it is held on {where} with another {key}: {str(theirs)[:80]!r}, and here {str(own)!r}"
                )
        return ""


class Candidate(Protocol):
    """The service that campaigns for a role, and its supervisor."""

    def elected(self, token: int) -> None:
        """The service may run."""

    def deposed(self) -> None:
        """The service must stop, and then withdraw."""

    def report(self, message: Message) -> None:
        """Report the state of the campaign to the supervisor."""

    def ended(self) -> None:
        """The role was resigned, and another process may campaign."""


class Candidacy:
    """One candidacy for a role, beginning at a given time; its task, ``over``, sends the requests."""

    def __init__(self, fleet: Fleet, role: str, begin: float, candidate: Candidate, former: str) -> None:
        self.is_withdrawn = False
        self._fleet = fleet
        self._engine = fleet.engine
        self._clock = fleet.clock
        self._role = role
        self._candidate = candidate
        self._holder = fleet.holder()
        self._former = former
        self._campaign = self._begin(begin)
        self._last_report: Message = {}
        self._is_elected = False
        self._is_deposed = False
        self._is_vacant = False  # as far as the engine knows
        self._heard = asyncio.Event()  # set when the supervisor has confirmed the kill time
        self._pause: asyncio.Future[None] | None = None
        self._timer: KillTimer | None = None
        self.over = asyncio.get_running_loop().create_task(self._run())

    def _begin(self, when: float) -> Campaign:
        return Campaign(self._fleet.lease, when, random.random)

    def confirm(self, token: int) -> None:
        """Handle the supervisor's confirmation of the kill time."""
        if token == self._campaign.token:
            self._heard.set()

    def resign(self) -> None:
        """Handle a service that is about to stop."""
        self._is_deposed = True
        self._campaign.resign()

    def withdraw(self) -> None:
        """Resign the role, because the service is stopped."""
        self.is_withdrawn = True
        self._campaign.stopped(self._clock())
        self._tell()  # at once: no kill is needed any more
        self._heard.set()  # nothing waits for the confirmation any more
        if self._pause is not None:
            self._pause.cancel()

    async def _run(self) -> None:
        try:
            while self._campaign.phase is not Phase.ENDED or not self.is_withdrawn:
                await self._step()
        finally:
            if self.is_withdrawn:
                self._disarm()
                self._candidate.ended()

    async def _step(self) -> None:
        campaign = self._campaign
        campaign.look(now := self._clock())
        self._tell()
        if campaign.phase is Phase.ENDED:  # the won lease was already useless: campaign again
            self._heard.clear()
            self._campaign = self._begin(now)
        elif campaign.phase is Phase.LEADING and not self._is_elected:
            await self._be_elected()
        elif campaign.must_stop and not self._is_elected:
            campaign.stopped(now)  # nothing to stop
        elif campaign.must_stop and not self._is_deposed:
            self._is_deposed = True
            log.warning(
                "the role %s is lost: %s", self._role, campaign.trouble or "another process may have it"
            )
            self._candidate.deposed()
        elif (request := campaign.request(now)) is None:
            await self._rest(campaign.due - now)
        else:
            await self._ask(request)

    async def _be_elected(self) -> None:
        """Let the service run, once the supervisor knows the kill time."""
        wait = self._campaign.due - self._clock()
        try:
            async with asyncio.timeout(max(0.0, wait)):
                await self._heard.wait()
        except TimeoutError:
            self._campaign.resign()  # the supervisor is late: try again later
            return
        self._campaign.look(self._clock())
        if self._campaign.phase is Phase.LEADING and self._campaign.token is not None:
            self._is_elected = True
            self._candidate.elected(self._campaign.token)

    async def _rest(self, seconds: float) -> None:
        """Wait until the next action is due; a process on standby asks earlier if the role may be vacant."""
        campaign, seconds = self._campaign, min(seconds, _LONGEST_REST)
        stands_by = campaign.phase is Phase.STANDBY and not campaign.trouble and not self._is_vacant
        resting = self._engine.wait(self._role, seconds) if stands_by else asyncio.sleep(seconds)
        self._pause = asyncio.ensure_future(resting)
        began = self._clock()
        done, _ = await asyncio.wait([self._pause], timeout=seconds)
        if not done:
            self._pause.cancel()
            await asyncio.wait([self._pause])
        pause, self._pause = self._pause, None
        if pause.cancelled() or not stands_by:
            return
        if (error := pause.exception()) is not None:
            campaign.failed(reason(error), began, self._clock())
        elif self._clock() < campaign.due:
            self._is_vacant = True
            campaign.may_be_vacant(self._clock())

    async def _ask(self, request: Request) -> None:
        self._is_vacant = False
        campaign, sent = self._campaign, self._clock()
        try:
            async with asyncio.timeout(campaign.patience):
                match request:
                    case Request.ACQUIRE:
                        await self._release_former()
                        attempt = await self._engine.acquire(self._role, self._holder, self._fleet.lease)
                        campaign.acquired(attempt, sent, self._clock())
                    case Request.RENEW:
                        campaign.renewed(await self._engine.renew(self._role), sent)
                    case Request.RELEASE:
                        await self._engine.release(self._role)
                        campaign.released()
        except TimeoutError:
            campaign.failed(f"no answer within {campaign.patience:.1f} s", sent, self._clock())
        except Exception as error:  # engines are third-party code
            campaign.failed(reason(error)[:_LONGEST], sent, self._clock())

    async def _release_former(self) -> None:
        if self._former:
            await self._engine.release_ended(self._role, self._former)
            self._former = ""

    # Reports to the supervisor.

    def _tell(self) -> None:
        campaign = self._campaign
        kill_at = campaign.kill_at
        self._arm(kill_at)
        message: Message = {
            "phase": campaign.phase.value,
            "token": campaign.token or 0,
            "kill_at": kill_at,
            "claim": self._holder if kill_at is not None else "",
            "trouble": campaign.trouble or (self._fleet.mismatch(campaign.holder) if campaign.holder else ""),
            "holder": str(_said_by(campaign.holder).get("host", campaign.holder))[:_LONGEST],
        }
        is_blank = campaign.phase is Phase.STANDBY and not (campaign.holder or campaign.trouble)
        if message != self._last_report and not (is_blank and not self._last_report):  # nothing to report yet
            self._last_report = message
            self._candidate.report(message)

    def _arm(self, kill_at: float | None) -> None:
        if kill_at is None:
            self._disarm()
            return
        try:
            self._timer = self._timer or self._fleet.kill_timer()
            self._timer.set(kill_at + self._fleet.lease * _AFTER)
        except (OSError, AttributeError) as error:  # a seccomp filter, or an old C library
            log.debug("no kernel timer for the role %s: %s", self._role, reason(error))

    def _disarm(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.close()


def _said_by(holder: str) -> dict[str, Any]:
    try:
        said = json.loads(holder)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
