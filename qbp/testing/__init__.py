"""The conformance suite: what every executor, gradient rule and module is held to; usable from outside qbp.

Whoever writes a backend calls `check_executor` on it, whoever writes a gradient rule `check_rule`. Every number has
two independent answers: the second one is `reference_outputs`, dense matrices in NumPy. The programs are nasty:
`NASTY` holds known traps, `random_program` everything in between.

Example:
    >>> from qbp.executors.dense import Dense
    >>> check_executor(Dense(), n_programs=3, batch_sizes=(3,))
"""

from __future__ import annotations

from qbp.testing.checks import check_rule, gradcheck
from qbp.testing.conformance import check_executor
from qbp.testing.models import random_model
from qbp.testing.programs import NASTY, random_amplitudes, random_angles, random_program
from qbp.testing.reference import reference_outputs, reference_vjp

__all__ = [
    "NASTY",
    "check_executor",
    "check_rule",
    "gradcheck",
    "random_amplitudes",
    "random_angles",
    "random_model",
    "random_program",
    "reference_outputs",
    "reference_vjp",
]
