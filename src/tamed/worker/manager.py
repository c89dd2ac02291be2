"""The service manager of a process on its own: what it is notified of, and its request to reload."""

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
    """The service manager, if there is one, and what it is notified of.

    ``failing`` are the checks that fail.
    """

    def __init__(self, name: str) -> None:
        self._state = f"{name} is ready: pid {os.getpid()}"
        self._troubles: Sequence[str] = ()
        self.failing: Mapping[str, str] = {}
        self._notifier = Notifier.from_environ(os.environ)

    @property
    def is_there(self) -> bool:
        """Whether somebody takes the messages."""
        return self._notifier.is_connected

    def discard_sockets(self) -> None:
        """Close the sockets that this daemon has left with the manager when it had a supervisor.

        Otherwise they would keep it from binding.
        """
        stored = Inheritance(os.environ, os.getpid()).stored()
        for descriptor, name in stored.items():
            self._notifier.remove_stored(name)
            os.close(descriptor)
        if stored:
            self._notifier.barrier()

    def starting(self, seconds: float) -> None:
        """Ask for the time that a start may take: we end it ourselves."""
        self._notifier.extend_timeout(seconds + _MARGIN)

    def ready(self) -> None:
        """Notify that it serves."""
        self._notifier.ready(self._status())

    def troubled(self, troubles: Sequence[str]) -> None:
        """Notify of what is wrong now."""
        self._troubles = troubles
        self._notifier.status(self._status())

    def degraded(self, failing: Mapping[str, str]) -> None:
        """Notify of the checks that fail now: the reasons, by the names of the services."""
        if failing != self.failing:
            self.failing = failing
            self._notifier.status(self._status())

    def refuse_reload(self) -> None:
        """Go on as before, and say why: a reload needs a process that outlives the application."""
        log.warning("SIGHUP: not reloaded: a process without workers cannot; add --workers 1, or restart it")
        self._notifier.reloading()
        self._notifier.ready(f"{self._status()}; not reloaded: it has no workers")

    def stopping(self, seconds: float, status: str = "draining") -> None:
        """Notify that it stops, and ask for the time which that may take."""
        self._notifier.stopping(status)
        self._notifier.extend_timeout(seconds + _MARGIN)

    def alive(self) -> None:
        """Notify that the event loop works."""
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
