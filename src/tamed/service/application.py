"""The root of a program's services."""

import asyncio
from functools import cached_property

from tamed.errors import ServiceFailed, exit_code
from tamed.service.group import GroupLifecycle, Strategy
from tamed.service.restart import Restart
from tamed.service.service import MultiService, Service

__all__ = ["Application"]


class Application(MultiService):
    """The root multi-service, with a name: a daemon runs one application.

    It ends when a service calls `exit`, with that exit status, or when a service fails and no restart policy
    allows another restart.
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
        """Request the end of the application: its services are stopped in reverse order.

        ``status`` is the exit status. Any service may call this once the application is prepared, also while
        it starts. Only the first call has an effect. An application inside another one passes the call to the
        outer one.
        """
        root = self.root_service
        if isinstance(root, Application) and root is not self:
            root.exit(status)
        elif self._exit_status is None:
            self._exit_status = status
            self._wake_exit_waiters()

    async def wait(self) -> int:
        """Wait until `exit` is called, and return the exit status. Raises ServiceFailed if a service failed.

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

    @cached_property
    def lifecycle(self) -> GroupLifecycle:
        """The lifecycle of the application, which ends it at a failure that no restart policy handles."""
        lifecycle = super().lifecycle
        lifecycle.on_prepare, lifecycle.on_failure = self._clear_result, self._end_by_failure
        return lifecycle

    def _clear_result(self) -> None:
        self.failure = self._exit_status = None

    def _end_by_failure(self, failure: ServiceFailed) -> bool:
        """End because of a failure; return True if it is a SystemExit, whose status is used."""
        if isinstance(failure.cause, SystemExit):
            self.exit(exit_code(failure.cause))
            return True
        self.failure = self.failure or failure
        self._wake_exit_waiters()
        return False
