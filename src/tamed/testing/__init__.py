"""What tests of services need.

The names are loaded when they are first asked for (PEP 562), because the pytest plugin is loaded by every
test run in an environment that Tamed is installed in.
"""

from typing import TYPE_CHECKING

from tamed._lazy import lazy_face

if TYPE_CHECKING:
    from tamed.testing._clock import SteppedClockLoop, VirtualClockLoop
    from tamed.testing._fixtures import StartProcess, StartService
    from tamed.testing._ports import FreePorts
    from tamed.testing._process import TamedProcess
    from tamed.testing._running import Running, running
    from tamed.testing._serving import Served, serving

__all__ = [
    "FreePorts",
    "Running",
    "Served",
    "StartProcess",
    "StartService",
    "SteppedClockLoop",
    "TamedProcess",
    "VirtualClockLoop",
    "running",
    "serving",
]

if not TYPE_CHECKING:
    __getattr__ = lazy_face(
        __name__,
        {
            "FreePorts": "._ports",
            "Running": "._running",
            "Served": "._serving",
            "StartProcess": "._fixtures",
            "StartService": "._fixtures",
            "SteppedClockLoop": "._clock",
            "TamedProcess": "._process",
            "VirtualClockLoop": "._clock",
            "running": "._running",
            "serving": "._serving",
        },
    )


def __dir__() -> list[str]:
    return __all__
