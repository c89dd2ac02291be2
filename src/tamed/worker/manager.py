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


class Manager:
    """The service manager, if there is one.

    ``failing`` are the checks that fail.
    """

    def __init__(self, name: str) -> None:
        self._state = f"{name} is ready: pid {os.getpid()}"
        self._troubles: Sequence[str] = ()
        self.failing: Mapping[str, str] = {}
        self._notifier = Notifier.from_environ(os.environ)

    @property
    def is_there(self) -> bool:
        """Whether there is a service manager."""
        return self._notifier.is_connected

    def discard_sockets(self) -> None:
        """Close the sockets in the manager's store, which this daemon left there when it had a supervisor.

        Otherwise they would prevent it from binding.
        """
        stored = Inheritance(os.environ, os.getpid()).stored()
        for descriptor, name in stored.items():
            self._notifier.remove_stored(name)
            os.close(descriptor)
        if stored:
            self._notifier.barrier()

    def starting(self, seconds: float) -> None:
        """Request the time that a start may take; Tamed itself enforces it."""
        self._notifier.extend_timeout(seconds + _MARGIN)

    def ready(self) -> None:
        """Notify that the process is ready."""
        self._notifier.ready(self._status())

    def troubled(self, troubles: Sequence[str]) -> None:
        """Notify of the current problems."""
        self._troubles = troubles
        self._notifier.status(self._status())

    def degraded(self, failing: Mapping[str, str]) -> None:
        """Notify of the failing checks: the reasons, by the names of the services."""
        if failing != self.failing:
            self.failing = failing
            self._notifier.status(self._status())

    def refuse_reload(self) -> None:
        """Refuse a reload, with a warning: it needs a process that outlives the application."""
        log.warning("SIGHUP: cannot reload a process without workers; add --workers 1, or restart it")
        self._notifier.reloading()
        self._notifier.ready(f"{self._status()}; not reloaded: it has no workers")

    def stopping(self, seconds: float, status: str = "draining") -> None:
        """Notify of the stop, and request the time that it may take."""
        self._notifier.stopping(status)
        self._notifier.extend_timeout(seconds + _MARGIN)

    def alive(self) -> None:
        """Send the watchdog ping: the event loop works."""
        self._notifier.watchdog()

    def failed(self, error: TamedError) -> None:
        """Notify of the reason for the end."""
        from tamed.ipc.fault import errno_of  # lazy import: failures are rare

        variables = {"STATUS": str(error), "EXIT_STATUS": str(status_of(error))}
        if number := errno_of(error):
            variables["ERRNO"] = str(number)
        self._notifier.send(variables)

    def _status(self) -> str:
        failing = (f"the check of {name} fails: {why}" for name, why in self.failing.items())
        return "; ".join([self._state, *failing, *self._troubles])
