"""Samples of exact distributions, compiled: a batch of multinomial draws in one sweep over each row's outcomes.

The shots of a row are drawn in sorted order: sums of exponential variables, divided by the sum of one more, are sorted
uniforms (Devroye 1986, chapter V.3). So a row costs its outcomes plus its shots, without a search. The random numbers
are counter-based (SplitMix64 of seed, row and shot): they depend on nothing but those, not on the batch.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numba import njit, uint64
from torch import Tensor

__all__ = ["draw"]


def draw(probabilities: Tensor, shots: int, seed: int) -> Tensor:
    """How often each outcome occurs among the shots of each row.

    Args:
        probabilities: (B, D), rows that sum to 1 up to rounding.
        shots: draws from each row.
        seed: of all draws, below 2^63.

    Returns:
        (B, D) int64; rows sum to `shots`.
    """
    exact = probabilities.detach().to("cpu", torch.float64).contiguous().numpy()
    counts = np.zeros(exact.shape, dtype=np.int64)
    _draw(exact, shots, np.uint64(seed), counts)
    return torch.from_numpy(counts)


@njit(inline="always")
def _mix(state):  # type: ignore[no-untyped-def]
    """SplitMix64's output function (Steele, Lea and Flood 2014)."""
    state = (state ^ (state >> uint64(30))) * uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> uint64(27))) * uint64(0x94D049BB133111EB)
    return state ^ (state >> uint64(31))


@njit(inline="always")
def _exponential(key, shot):  # type: ignore[no-untyped-def]
    """The exponential variable number `shot` of a row."""
    bits = _mix(key + uint64(shot + 1) * uint64(0x9E3779B97F4A7C15))
    return -math.log((float(bits >> uint64(11)) + 0.5) / 9007199254740992.0)


@njit(nogil=True, cache=True)
def _draw(probabilities, shots, seed, counts):  # type: ignore[no-untyped-def]
    n_rows, n_outcomes = probabilities.shape
    for row in range(n_rows):
        key = _mix(_mix(seed) + uint64(row))
        total = 0.0
        for shot in range(shots + 1):
            total += _exponential(key, shot)
        mass = 0.0
        for outcome in range(n_outcomes):
            mass += max(probabilities[row, outcome], 0.0)
        # March through the outcomes and the sorted shots together; the last outcome that can occur takes what rounding
        # leaves beyond it.
        last = 0
        for outcome in range(n_outcomes):
            if probabilities[row, outcome] > 0.0:
                last = outcome
        outcome, reached = 0, max(probabilities[row, 0], 0.0) / mass * total
        sum_so_far = 0.0
        for shot in range(shots):
            sum_so_far += _exponential(key, shot)
            while outcome < last and sum_so_far > reached:
                outcome += 1
                reached += max(probabilities[row, outcome], 0.0) / mass * total
            counts[row, outcome] += 1
