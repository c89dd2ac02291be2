"""The roles of a worker in a fleet: its campaigns at an engine, and what its supervisor hears of them.

A worker campaigns for a role of the fleet while it holds that of its machine. It tells its supervisor when it
must have ended unless it says otherwise: once before the service starts, which waits until the supervisor has
heard it, and then after each renewal. Should the message of a renewal be late, the supervisor kills too early
and never too late. A timer of the kernel kills a little later, should there be no supervisor.
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

from tamed._os.boot_clock import KillTimer, boot_time
from tamed.cluster.campaign import Campaign, Phase, Request
from tamed.cluster.engine import Engine
from tamed.errors import reason
from tamed.ipc.message import Message

__all__ = ["Candidacy", "Candidate", "Fleet"]

log = logging.getLogger(__name__)

_AFTER: Final = 1 / 24  # of the lease: how much later than the supervisor the kernel's timer kills
_COURTESY: Final = 1 / 3  # of the lease: twice the longest time between two attempts
_LONGEST_REST: Final = 3600.0  # seconds
_LONGEST: Final = 500  # characters of a reason, and of what a holder says of itself


class Fleet:
    """The engine of a process, which ``make_engine`` makes, and the candidacies of its services.

    ``lease`` is in seconds. ``deployment`` is what all machines of the fleet call what they run. ``clock`` is
    CLOCK_BOOTTIME; ``kill_timer`` makes what kills this process, if its supervisor does not.
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
        """The engine, which is made when it is first needed. Raises ConfigurationError."""
        if self._engine is None:
            self._engine = self._make_engine()
        return self._engine

    def campaign(
        self, role: str, candidate: "Candidate", *, wait: bool = False, former: str = ""
    ) -> "Candidacy":
        """Campaign for a role from now on; or, with ``wait``, when others had the time to get it.

        ``former`` is a holder whose process has ended: it is not waited for until its lease has.
        """
        begin = self.clock() + (self.lease * _COURTESY if wait else 0.0)
        candidacy = Candidacy(self, role, begin, candidate, former)
        self._candidacies.add(candidacy)
        candidacy.over.add_done_callback(lambda _: self._candidacies.discard(candidacy))
        return candidacy

    async def close(self) -> None:
        """Wait until the roles of stopped services are given back; a lease of another service runs out."""
        for each in list(self._candidacies):
            if not each.is_withdrawn:
                each.over.cancel()
        await asyncio.gather(*(each.over for each in self._candidacies), return_exceptions=True)
        if self._engine is not None:
            try:
                async with asyncio.timeout(self.lease):
                    await self._engine.close()
            except Exception as error:  # of anybody's engine: the process ends anyway
                log.debug("cannot close the engine: %s", reason(error))

    def holder(self) -> str:
        """Return what a holder says of itself: JSON, unique to each campaign."""
        return json.dumps(
            {
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "deployment": self.deployment,
                "lease": self.lease,
                "id": secrets.token_hex(8),
            }
        )

    def misfit(self, holder: str) -> str:
        """Return why the holder of a role is no other machine of this fleet; empty if it may be one."""
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
    """The service that wants a role, and its supervisor."""

    def elected(self, token: int) -> None:
        """The service may run."""

    def deposed(self) -> None:
        """The service must stop, and then withdraw."""

    def report(self, message: Message) -> None:
        """Tell the supervisor how the campaign stands."""

    def ended(self) -> None:
        """The role was given back, and another process may campaign."""


class Candidacy:
    """One candidacy for a role from a time on, whose task, ``over``, asks the engine."""

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
        self._heard = asyncio.Event()  # the supervisor has heard when to kill this process
        self._pause: asyncio.Future[None] | None = None
        self._timer: KillTimer | None = None
        self.over = asyncio.get_running_loop().create_task(self._run())

    def _begin(self, when: float) -> Campaign:
        return Campaign(self._fleet.lease, when, random.random)

    def confirm(self, token: int) -> None:
        """Handle that the supervisor has heard when this process must have ended."""
        if token == self._campaign.token:
            self._heard.set()

    def resign(self) -> None:
        """Handle that the service is about to stop."""
        self._is_deposed = True
        self._campaign.resign()

    def withdraw(self) -> None:
        """Give the role back: the service is stopped."""
        self.is_withdrawn = True
        self._campaign.stopped(self._clock())
        self._tell()  # at once: nobody need be killed any more
        self._heard.set()  # it need not wait for that any more
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
        if campaign.phase is Phase.ENDED:  # what was won was worth nothing: once more
            self._heard.clear()
            self._campaign = self._begin(now)
        elif campaign.phase is Phase.LEADING and not self._is_elected:
            await self._be_elected()
        elif campaign.must_stop and not self._is_elected:
            campaign.stopped(now)  # nothing runs that must be stopped
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
        """Let the service run, when the supervisor knows when to end it."""
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
        """Wait until something is due; one who stands by asks early, if the role may be vacant."""
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
        except Exception as error:  # of anybody's engine
            campaign.failed(reason(error)[:_LONGEST], sent, self._clock())

    async def _release_former(self) -> None:
        if self._former:
            await self._engine.release_ended(self._role, self._former)
            self._former = ""

    # What the supervisor knows.

    def _tell(self) -> None:
        campaign = self._campaign
        kill_at = campaign.kill_at
        self._arm(kill_at)
        message: Message = {
            "phase": campaign.phase.value,
            "token": campaign.token or 0,
            "kill_at": kill_at,
            "claim": self._holder if kill_at is not None else "",
            "trouble": campaign.trouble or (self._fleet.misfit(campaign.holder) if campaign.holder else ""),
            "holder": str(_said_by(campaign.holder).get("host", campaign.holder))[:_LONGEST],
        }
        is_blank = campaign.phase is Phase.STANDBY and not (campaign.holder or campaign.trouble)
        if message != self._last_report and not (is_blank and not self._last_report):  # nothing is known yet
            self._last_report = message
            self._candidate.report(message)

    def _arm(self, kill_at: float | None) -> None:
        if kill_at is None:
            self._disarm()
            return
        try:
            self._timer = self._timer or self._fleet.kill_timer()
            self._timer.set(kill_at + self._fleet.lease * _AFTER)
        except (OSError, AttributeError) as error:  # a filter of a container, or an old C library
            log.debug("no timer of the kernel for the role %s: %s", self._role, reason(error))

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
