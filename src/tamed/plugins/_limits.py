"""Limits of numbers: what an option's type cannot say, and its declaration does."""

import operator
from collections.abc import Callable
from typing import Final, NamedTuple

_CHECKS: Final[dict[str, tuple[Callable[[float, float], bool], str]]] = {
    "gt": (operator.gt, "more than"),
    "ge": (operator.ge, "at least"),
    "lt": (operator.lt, "less than"),
    "le": (operator.le, "at most"),
}


class Limits(NamedTuple):
    """Bounds of a number, None where there is none: greater than, or equal; less than, or equal."""

    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None

    def hold(self, number: float) -> bool:
        """Tell whether a number is within them."""
        return all(_CHECKS[name][0](number, limit) for name, limit in self._given())

    def __str__(self) -> str:
        return ", ".join(f"{_CHECKS[name][1]} {limit}" for name, limit in self._given())

    def _given(self) -> list[tuple[str, float]]:
        return [(name, limit) for name, limit in self._asdict().items() if limit is not None]
