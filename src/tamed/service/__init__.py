"""What runs: services, services composed of services, restart policies, timers and the application.

The module ``lifecycle`` is for those who run them.
"""

from typing import TYPE_CHECKING

from tamed._lazy import lazy_face

if TYPE_CHECKING:
    from tamed.service._application import Application
    from tamed.service._generator import GeneratorService, service
    from tamed.service._multi import MultiService, Strategy
    from tamed.service._restart import Backoff, Restart, RestartBudget
    from tamed.service._service import Service
    from tamed.service._state import State
    from tamed.service._timer import TimerService

__all__ = [
    "Application",
    "Backoff",
    "GeneratorService",
    "MultiService",
    "Restart",
    "RestartBudget",
    "Service",
    "State",
    "Strategy",
    "TimerService",
    "service",
]

if not TYPE_CHECKING:
    __getattr__ = lazy_face(
        __name__,
        {
            "Application": "._application",
            "Backoff": "._restart",
            "GeneratorService": "._generator",
            "MultiService": "._multi",
            "Restart": "._restart",
            "RestartBudget": "._restart",
            "Service": "._service",
            "State": "._state",
            "Strategy": "._multi",
            "TimerService": "._timer",
            "service": "._generator",
        },
    )


def __dir__() -> list[str]:
    return __all__
