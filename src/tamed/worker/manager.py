"""Notifications from a single process to its service manager, and the manager's request to reload."""

import os
from collections.abc import Mapping, Sequence

from tamed.errors import TamedError, status_of
from tamed.log.logger import own_logger
from tamed.net.inherit import Inheritance
from tamed.unix.notify import Notifier

__all__ = ["Manager"]

log = own_logger("tamed")

_MARGIN = 5.0  # seconds


class Manager(Notifier):
    """The service manager, if there is one.

    ``failing`` are the checks that fail: the reasons, by the names of the services.
    """

    failing: Mapping[str, str] = {}
    _others: Sequence[str] = ()

    def discard_sockets(self) -> None:
        """Close the sockets in the manager's store, which this daemon left there when it had a supervisor.

        Otherwise they would prevent it from binding.
        """
        stored = Inheritance(os.environ, os.getpid()).stored()
        for descriptor, name in stored.items():
            self.remove_stored(name)
            os.close(descriptor)
        if stored:
            self.barrier()

    def allow(self, seconds: float) -> None:
        """Request the time that a start or a stop may take; Tamed itself enforces it."""
        self.extend_timeout(seconds + _MARGIN)

    def troubled(self, troubles: Sequence[str]) -> bool:
        """Notify of the current problems, besides the failing checks."""
        self._others = troubles
        return self._show_troubles()

    def degraded(self, failing: Mapping[str, str]) -> None:
        """Notify of the failing checks."""
        if failing != self.failing:
            self.failing = failing
            self._show_troubles()

    def _show_troubles(self) -> bool:
        failing = (f"the check of {name} fails: {why}" for name, why in self.failing.items())
        return super().troubled([*failing, *self._others])

    def refuse_reload(self) -> None:
        """Refuse a reload, with a warning: it needs a process that outlives the application."""
        log.warning("SIGHUP: cannot reload a process without workers; add --workers 1, or restart it")
        self.reloading()
        self.send({"READY": "1", "STATUS": f"{self.shown}; not reloaded: it has no workers"})

    def failed(self, error: TamedError) -> None:
        """Notify of the reason for the end."""
        from tamed.ipc.fault import errno_of  # lazy import: failures are rare

        variables = {"STATUS": str(error), "EXIT_STATUS": str(status_of(error))}
        if number := errno_of(error):
            variables["ERRNO"] = str(number)
        self.send(variables)
