"""A generation: the workers that run one reading of the files and the code."""

from tamed.runner._plan import Plan

__all__ = ["Generation"]


class Generation:
    """What its workers have in common; they know it, and not it them.

    ``count`` is how many workers it is to have: as many as its plan says, until somebody scales it. ``is_up``
    says that all of the first were ready together; who comes later waits for nobody. ``is_over`` says that
    it was replaced by another, or given up before it was up: its workers come to their end.
    """

    __slots__ = ("count", "is_over", "is_up", "number", "plan")

    def __init__(
        self, number: int, plan: Plan, count: int, *, is_up: bool = False, is_over: bool = False
    ) -> None:
        self.number = number
        self.plan = plan
        self.count = count
        self.is_up = is_up
        self.is_over = is_over
