"""How it runs: the steps of a daemon's life."""

from typing import TYPE_CHECKING

from tamed._lazy import lazy_face

if TYPE_CHECKING:
    from tamed.runner._environment import enter_environment
    from tamed.runner._explain import explain
    from tamed.runner._instances import (
        find_instance,
        last_state_of,
        log_of_instance,
        reload_instance,
        reopen_instance,
        restart_instance,
        scale_instance,
        status_of_instance,
        stop_instance,
        upgrade_instance,
    )
    from tamed.runner._last_state import LastState
    from tamed.runner._launch import run_directory, start
    from tamed.runner._log_reader import LogReader
    from tamed.runner._solo import run

__all__ = [
    "LastState",
    "LogReader",
    "enter_environment",
    "explain",
    "find_instance",
    "last_state_of",
    "log_of_instance",
    "reload_instance",
    "reopen_instance",
    "restart_instance",
    "run",
    "run_directory",
    "scale_instance",
    "start",
    "status_of_instance",
    "stop_instance",
    "upgrade_instance",
]

if not TYPE_CHECKING:
    __getattr__ = lazy_face(
        __name__,
        {
            "LogReader": "._log_reader",
            "enter_environment": "._environment",
            "explain": "._explain",
            "find_instance": "._instances",
            "last_state_of": "._instances",
            "LastState": "._last_state",
            "log_of_instance": "._instances",
            "reload_instance": "._instances",
            "reopen_instance": "._instances",
            "restart_instance": "._instances",
            "run": "._solo",
            "run_directory": "._launch",
            "scale_instance": "._instances",
            "start": "._launch",
            "status_of_instance": "._instances",
            "stop_instance": "._instances",
            "upgrade_instance": "._instances",
        },
    )


def __dir__() -> list[str]:
    return __all__
