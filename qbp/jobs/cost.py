"""What jobs cost on a quantum computer, before they are sent and after; and how much they may."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from numbers import Real

from qbp.errors import ArgumentError, BudgetError, check_count, check_positive

__all__ = ["Budget", "Cost"]


@dataclass(frozen=True)
class Cost:
    """Jobs and what they cost; costs add up, and ``10 * cost`` is that of ten.

    Attributes:
        jobs: submissions.
        circuits: executed circuits, each with its own parameters or measured basis.
        shots: executions of all circuits together.
        seconds: quantum seconds: of work that is planned an estimate, of work that is done what the service charged.
        price: money, in the currency of the rate; None without a rate.
        at_most: whether these are upper bounds, because what is sent depends on results that are not known yet.

    Raises:
        ArgumentError: a number is negative or not finite, or a text.

    Example:
        >>> step = Cost(jobs=1, circuits=136, shots=136 * 1024, seconds=50.7)
        >>> print(20 * step)
        20 jobs, 2,720 circuits, 2,785,280 shots, 1,014 quantum seconds
    """

    jobs: int = 0
    circuits: int = 0
    shots: int = 0
    seconds: float = 0.0
    price: float | None = None
    at_most: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("jobs", "circuits", "shots"):
            check_count(name, getattr(self, name), least=0)
        for name in ("seconds", "price"):
            amount = getattr(self, name)
            if isinstance(amount, Real | str | bytes):  # not what only compares with numbers
                check_positive(name, amount, zero=True)

    def __add__(self, other: Cost) -> Cost:
        price = None if self.price is None and other.price is None else (self.price or 0.0) + (other.price or 0.0)
        return Cost(
            self.jobs + other.jobs,
            self.circuits + other.circuits,
            self.shots + other.shots,
            self.seconds + other.seconds,
            price,
            self.at_most or other.at_most,
        )

    def __mul__(self, times: int) -> Cost:
        counts = (times * self.jobs, times * self.circuits, times * self.shots)
        price = None if self.price is None else times * self.price
        return Cost(*counts, times * self.seconds, price, self.at_most)

    __rmul__ = __mul__

    def at(self, rate: float | None) -> Cost:
        """The same with its price at `rate` a quantum second."""
        if rate is not None:
            check_positive("rate", rate, zero=True)
        return replace(self, price=None if rate is None else rate * self.seconds)

    def __str__(self) -> str:
        seconds = f"{self.seconds:,.0f}" if self.seconds >= 100 else f"{self.seconds:.3g}"
        text = f"{self.jobs:,} jobs, {self.circuits:,} circuits, {self.shots:,} shots, {seconds} quantum seconds"
        text = text if self.price is None else f"{text}, price {self.price:,.2f}"
        return f"at most {text}" if self.at_most else text


@dataclass(frozen=True)
class Budget:
    """The most that the jobs of a run may cost, from its first job on, resumed or not.

    Args:
        seconds: quantum seconds.
        jobs: submissions.
        price: money, at `rate`.
        rate: money for a quantum second, as the plan of the account says.

    Raises:
        ArgumentError: a limit is not a positive number, the rate is none, or there is a price without a rate.

    Example:
        >>> Budget(seconds=60).check(Cost(jobs=2, seconds=90.0))
        Traceback (most recent call last):
        qbp.errors.BudgetError: This needs 90 quantum seconds, and the budget is 60
        >>> Budget(price=100, rate=1.6).check(Cost(jobs=2, seconds=60.0))
    """

    seconds: float = math.inf
    jobs: float = math.inf
    price: float = math.inf
    rate: float | None = None

    def __post_init__(self) -> None:
        for name in ("seconds", "jobs", "price"):
            if getattr(self, name) != math.inf:
                check_positive(name, getattr(self, name))
        if self.rate is not None:
            check_positive("rate", self.rate, zero=True)
        if self.price < math.inf and self.rate is None:
            raise ArgumentError("Argument `rate` must be given for a budget in money: the price of a quantum second")

    @classmethod
    def of(cls, limit: Budget | Cost | float) -> Budget:
        """A budget from quantum seconds, or from a plan."""
        if isinstance(limit, Budget):
            return limit
        if isinstance(limit, Cost):
            return cls(seconds=max(limit.seconds, 1e-9), jobs=max(limit.jobs, 1))
        if isinstance(limit, bool) or not isinstance(limit, int | float):
            raise ArgumentError(f"Argument `budget` must be quantum seconds, a Budget or a Cost, but is {limit!r}")
        return cls(seconds=limit)

    def check(self, cost: Cost, spent: Cost | None = None) -> None:
        """Raise `BudgetError` if `cost` on top of what was `spent` is more than the budget.

        Args:
            cost: what shall be done.
            spent: what was done and charged already.
        """
        spent = spent or Cost()
        total = (spent + cost).at(self.rate)
        for what, unit in (("seconds", " quantum seconds"), ("jobs", " jobs"), ("price", " in money")):
            limit = getattr(self, what)
            if (getattr(total, what) or 0) > limit * (1 + 1e-9):
                used, more = (getattr(part.at(self.rate), what) or 0 for part in (spent, cost))
                before = f" on top of {used:,.6g}" if used else ""
                raise BudgetError(f"This needs {more:,.6g}{unit}{before}, and the budget is {limit:,.6g}")
