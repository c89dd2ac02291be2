"""The roles of a worker, which its supervisor grants.

A service has a new campaign each time it stands by, with a number of its own. A grant that was under way when
the service was stopped has the number of the former campaign, and is ignored: the supervisor gets the
withdrawal, and grants the role again.
"""

import itertools
from collections.abc import Callable

from tamed.ipc.message import Message, read_number, read_text, read_truth
from tamed.service.role import Campaign, Lease

__all__ = ["SupervisedRoles"]

_LARGEST_TOKEN = 2**63 - 1


class SupervisedRoles:
    """Campaigns for roles at the supervisor; ``send`` sends a message to it."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send
        self._numbers = itertools.count(1)
        self._campaigns: dict[str, _Campaign] = {}

    def campaign(self, role: str, granted: Callable[[], object], revoked: Callable[[], object]) -> Campaign:
        """Campaign for a role; see `RoleSource`."""
        campaign = _Campaign(next(self._numbers), granted, revoked, lambda: self._withdraw(role, campaign))
        self._campaigns[role] = campaign
        self._report(role, campaign, wants=True)
        return campaign

    def obey(self, message: Message) -> None:
        """Take a grant of the supervisor, or give a role back. Raises InvalidMessage."""
        campaign = self._campaigns.get(read_text(message, "role"))
        if campaign is None or campaign.number != read_number(message, "number"):
            return
        if "token" in message:
            campaign.grant(Lease(read_number(message, "token", most=_LARGEST_TOKEN)))
        elif read_truth(message, "revoke"):
            campaign.revoke()

    def lose_all(self) -> None:
        """Stop the services with a role now, before connections drain: there is no supervisor any more."""
        for campaign in list(self._campaigns.values()):
            if campaign.lease is not None:
                campaign.revoke()

    def _withdraw(self, role: str, campaign: "_Campaign") -> None:
        if self._campaigns.get(role) is campaign:
            del self._campaigns[role]
        self._report(role, campaign, wants=False)

    def _report(self, role: str, campaign: "_Campaign", *, wants: bool) -> None:
        self._send({"role": role, "number": campaign.number, "wants": wants})


class _Campaign:
    """A campaign for one role; see `Campaign`."""

    def __init__(
        self,
        number: int,
        granted: Callable[[], object],
        revoked: Callable[[], object],
        withdraw: Callable[[], object],
    ) -> None:
        self.number = number
        self.lease: Lease | None = None
        self.revoke = revoked
        self._granted = granted
        self._withdraw = withdraw

    def grant(self, lease: Lease) -> None:
        """Let the service hold the role."""
        self.lease = lease
        self._granted()

    def withdraw(self) -> None:
        """Report that the service is stopped and wants the role no longer."""
        self._withdraw()
