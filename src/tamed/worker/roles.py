"""The roles of a worker, which its supervisor grants.

Each time a service is on standby it has a new campaign, with its own number. A grant that crosses the stop of
the service has the number of the former campaign and is ignored: the supervisor receives the withdrawal, and
grants the role again.

A cluster role is granted twice: by the supervisor, and then by the engine of `Fleet`.
"""

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

from tamed.errors import ConfigurationError
from tamed.ipc.message import Message, read_number, read_text, read_token, read_truth
from tamed.service.role import NAME_ONE, NO_ENGINE, Campaign, Lease, Scope

if TYPE_CHECKING:
    from tamed.worker.cluster_roles import Candidacy, Fleet

__all__ = ["SupervisedRoles"]


class SupervisedRoles:
    """Campaigns for roles at the supervisor; ``send`` sends a message to it.

    ``fleet`` is set if there is an engine.
    """

    fleet: "Fleet | None" = None

    def __init__(self, send: Callable[[Message], None]) -> None:
        self.send = send
        self._numbers = itertools.count(1)
        self._campaigns: dict[str, _Campaign] = {}

    def campaign(
        self, role: str, scope: Scope, granted: Callable[[], object], revoked: Callable[[], object]
    ) -> Campaign:
        """Campaign for a role; see `RoleSource`."""
        if scope == "cluster" and self.fleet is None:
            raise ConfigurationError(f"service {role}: only='cluster'", NO_ENGINE, NAME_ONE)
        number = next(self._numbers)
        fleet = self.fleet if scope == "cluster" else None
        campaign = self._campaigns[role] = _Campaign(
            self, role, number, fleet, granted=granted, revoked=revoked
        )
        self.send({"role": role, "number": number, "wants": True, "scope": scope})
        return campaign

    def obey(self, message: Message) -> None:
        """Obey the supervisor's grant or revocation. Raises InvalidMessage."""
        campaign = self._campaigns.get(read_text(message, "role"))
        if campaign is None or campaign.number != read_number(message, "number"):
            return
        if "confirmed" in message:
            campaign.confirm(read_token(message, "confirmed"))
        elif "token" in message:
            former = read_text(message, "former") if "former" in message else ""
            wait = message.get("wait") is True
            campaign.grant(read_token(message, "token"), wait=wait, former=former)
        elif read_truth(message, "revoke"):
            campaign.revoke()

    def lose_all(self) -> None:
        """Stop the services with a role before connections drain: the supervisor has ended."""
        for campaign in list(self._campaigns.values()):
            if campaign.lease is not None:
                campaign.revoke()

    async def close(self) -> None:
        """Wait until the cluster roles of stopped services are resigned."""
        if self.fleet is not None:
            await self.fleet.close()

    def forget(self, campaign: "_Campaign") -> None:
        """Obey no message about a campaign any more: its service is stopped."""
        if self._campaigns.get(campaign.role) is campaign:
            del self._campaigns[campaign.role]


class _Campaign:
    """A campaign for one role; see `Campaign`."""

    def __init__(
        self,
        roles: SupervisedRoles,
        role: str,
        number: int,
        fleet: "Fleet | None",
        *,
        granted: Callable[[], object],
        revoked: Callable[[], object],
    ) -> None:
        self.role = role
        self.number = number
        self.lease: Lease | None = None
        self._roles = roles
        self._granted = granted
        self._revoked = revoked
        self._is_revoked = False
        self._fleet = fleet
        self._candidacy: Candidacy | None = None

    def grant(self, token: int, *, wait: bool, former: str) -> None:
        """Let the service hold the role; a cluster role needs a grant of the engine, too.

        With ``wait`` other machines come first. ``former`` is the claim of a holder whose process has ended.
        """
        if self._fleet is None:
            self.elected(token)
        else:
            self._candidacy = self._fleet.campaign(self.role, self, wait=wait, former=former)

    def elected(self, token: int) -> None:
        """Let the service run with this token."""
        self.lease = Lease(token)
        self._granted()

    def confirm(self, token: int) -> None:
        """Handle the supervisor's confirmation of the kill time."""
        if self._candidacy is not None:
            self._candidacy.confirm(token)

    def revoke(self) -> None:
        """Stop the service, and withdraw."""
        if self._candidacy is not None:
            self._candidacy.resign()
        self.deposed()

    def deposed(self) -> None:
        """Stop the service, unless that has begun."""
        if not self._is_revoked:
            self._is_revoked = True
            self._revoked()

    def withdraw(self) -> None:
        """Report that the service is stopped and is no longer a candidate."""
        self._roles.forget(self)
        if self._candidacy is None:
            self.ended()
        else:
            self._candidacy.withdraw()

    def ended(self) -> None:
        """Report that another worker may have the role."""
        self._roles.send({"role": self.role, "number": self.number, "wants": False})

    def report(self, message: Message) -> None:
        """Report the state of the campaign in the fleet."""
        self._roles.send({"lease": self.role, "number": self.number, **message})
