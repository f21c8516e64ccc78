"""Jobs: paid work on quantum computers, none lost and none paid for twice."""

from qbp.jobs.cost import Budget, Cost
from qbp.jobs.jobs import Jobs, Primitive, Results, Work
from qbp.jobs.retry import Patience

__all__ = ["Budget", "Cost", "Jobs", "Patience", "Primitive", "Results", "Work"]
