"""The root of a program's services."""

import asyncio

from tamed.errors import ServiceFailed, exit_code
from tamed.service.group import GroupLifecycle, Strategy
from tamed.service.restart import Restart
from tamed.service.service import MultiService, Service

__all__ = ["Application"]


class Application(MultiService):
    """The root multi-service: what a runner runs, under a name of its own.

    It can end itself, with an exit status of its choice, and it ends when a service fails past every
    restart policy.
    """

    name: str

    failure: ServiceFailed | None = None
    _exit_status: int | None = None
    _exit_waiters: tuple[asyncio.Future[None], ...] = ()

    def __init__(
        self,
        name: str,
        *children: Service,
        strategy: Strategy = "one_for_one",
        restart: Restart | None = None,
    ) -> None:
        super().__init__(name, *children, strategy=strategy, restart=restart)

    def exit(self, status: int = 0) -> None:
        """Ask the application to end: its services are stopped in reverse, and this is the exit status.

        May be called by any service from the moment that the application is prepared, also while it
        starts. The first call counts. Inside another application this is the other's `exit`.
        """
        root = self.root_service
        if isinstance(root, Application) and root is not self:
            root.exit(status)
        elif self._exit_status is None:
            self._exit_status = status
            self._wake_exit_waiters()

    async def wait(self) -> int:
        """Wait until the application is to end; return its exit status, or raise what made it fail.

        One `exit`, or one failure, ends one wait: the application may be started again afterwards.
        """
        while self.failure is None and self._exit_status is None:
            waiting = asyncio.get_running_loop().create_future()
            self._exit_waiters = (*self._exit_waiters, waiting)
            try:
                await waiting
            finally:
                self._exit_waiters = tuple(each for each in self._exit_waiters if each is not waiting)
        failure, status = self.failure, self._exit_status
        self.failure = self._exit_status = None
        if failure is not None:
            raise failure
        return status or 0

    def _wake_exit_waiters(self) -> None:
        for waiting in self._exit_waiters:
            if not waiting.done():
                waiting.set_result(None)

    def _make_lifecycle(self) -> GroupLifecycle:
        return GroupLifecycle(
            self,
            self._overridden,
            strategy=lambda: self.strategy,
            on_prepare=self._begin_anew,
            on_failure=self._take_failure,
        )

    def _begin_anew(self) -> None:
        self.failure = self._exit_status = None

    def _take_failure(self, failure: ServiceFailed) -> bool:
        """End by a failure; return whether the status that a service chose is all that there is to it."""
        if isinstance(failure.cause, SystemExit):
            self.exit(exit_code(failure.cause))
            return True
        self.failure = self.failure or failure
        self._wake_exit_waiters()
        return False
