"""What tests of services need."""

from tamed.testing._clock import VirtualClockLoop
from tamed.testing._process import TamedProcess

__all__ = ["TamedProcess", "VirtualClockLoop"]
