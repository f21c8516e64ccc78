"""How far outputs are off whose words were cut: measured, by words that stay by chance instead of being left out.

Where a cut leaves a word out, a second calculation keeps it with a probability that grows with its coefficient, and a
coefficient divided by that: right on average, whatever is kept. The mean of several, less the outputs with the cut, is
the error, to within its own standard error.
"""

from __future__ import annotations

import math

import numpy as np

from qbp.executors.propagation.kernels.conventions import Cut
from qbp.executors.propagation.kernels.values import gather
from qbp.executors.propagation.words import Prepared, Words, carry, start_of, turns_of

__all__ = ["REPEATS", "ROOTS", "ROWS", "measured_error", "norms_of"]

ROWS, ROOTS, REPEATS = 4, 12, 6
"""Rows, measured words, and calculations of each, by which an error is measured."""

UNSEEN = 3.0
"""How much larger it may be in other rows than in those that were looked at."""

RARE = 2**-10
"""Coefficients of words that stay by chance, where the cut itself names none: those that it keeps must not."""

MOST, TIMES = 5000, 8
"""Words at a time of such a calculation, or so many times those of the cut; with more, chance leaves out more."""


def measured_error(
    source: Prepared, words: Words, cut: Cut, batched: np.ndarray, shared: np.ndarray, coefficients: np.ndarray
) -> float:
    """How far outputs of norm 1 may be off: `UNSEEN` times the largest error found among some rows and measured words,
    two standard errors included.

    Args:
        source, words: the program, and its words with the cut.
        cut: the cut.
        batched, shared: (B, Kb) and (Ks,) in radians.
        coefficients: (E,) of the words' entries.
    """
    norms = _norms(source)
    random, split = Cut(cut.coefficient or RARE, cut.weight, cut.sines, True), source.split(batched.shape[1])
    roots = _spread(np.flatnonzero(norms), ROOTS)
    most = max(MOST, TIMES * words.n_peak // len(norms))
    back = turns_of(source, shared.astype(np.float64), batched.shape[1])
    rows = [np.concatenate([row, shared]).astype(np.float64) for row in batched[_spread(np.arange(len(batched)), ROWS)]]
    turns = [turns_of(source, row, 0) for row in rows]
    values = [_values(words, row) for row in turns]
    worst = 0.0
    for root in roots:
        own = slice(*words.linear.begin[root : root + 2])
        errors = np.empty((REPEATS, len(rows)))
        for seed in range(REPEATS):
            start, weights = start_of(source, root)
            shares = (random, False, most, False, 1 + seed)
            half = carry(source, split, source.steps, start, weights, back, *shares)
            for r, row in enumerate(turns):
                whole = carry(source, 0, split, half.words, half.coefficients, row, *shares)
                errors[seed, r] = whole.coefficients.sum() - coefficients[own] @ values[r][words.linear.at[own]]
        each = np.abs(errors.mean(0)) + 2 * errors.std(0, ddof=1) / math.sqrt(REPEATS)
        worst = max(worst, float(each.max(initial=0)) / norms[root])
    return UNSEEN * worst


def _values(words: Words, turns: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Of a row, those of all nodes."""
    values = np.zeros(2 + len(words.graph.first))
    values[1] = 1
    gather(words.graph, *turns, values)
    return values


def norms_of(source: Prepared) -> np.ndarray:
    """The largest absolute values (M,) that outputs can have, by the triangle inequality."""
    measured = source.measured
    norms = np.zeros(int(measured.outputs.max()) + 1)
    np.add.at(norms, measured.outputs, np.abs(measured.weights) * _norms(source)[measured.sources])
    return norms


def _norms(source: Prepared) -> np.ndarray:
    return np.array([sum(abs(c) for c, _ in terms) for terms in source.measured.roots])


def _spread(numbers: np.ndarray, most: int) -> np.ndarray:
    """At most so many of them, evenly spread."""
    return numbers[np.unique(np.linspace(0, len(numbers) - 1, most).astype(int))] if len(numbers) else numbers
