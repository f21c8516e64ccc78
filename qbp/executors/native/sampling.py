"""Samples of exact distributions, compiled: a batch of multinomial draws.

The shots of a row are divided between its lower and its upper half of the outcomes by one binomial draw, those of each
half likewise, until few are left, which are drawn one by one: a row costs at most one draw for each outcome, however
many shots there are, and little where there are fewer shots than outcomes. The random numbers are counter-based
(SplitMix64 of seed and row): they depend on nothing else, neither on the batch nor on threads.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numba import njit, uint64
from torch import Tensor

from qbp.executors.native.kernels.atomics import fetch_add
from qbp.executors.native.threads import run_on_threads

__all__ = ["draw"]

_THREADS_FROM = 2**14  # numbers from which on several threads are worth it (0.3 ms)
_FEW = 16  # shots, which are drawn one by one
_ROWS = 16  # that a thread takes at a time

_jit = njit(nogil=True, error_model="numpy", cache=True)


def draw(probabilities: Tensor, shots: int, seed: int, first_row: int = 0) -> Tensor:
    """How often each outcome occurs among the shots of each row.

    Args:
        probabilities: (B, D), rows that sum to 1 up to rounding.
        shots: draws from each row.
        seed: of all draws, below 2^63.
        first_row: number of the first row, where a batch is drawn in parts.

    Returns:
        (B, D) int64; rows sum to `shots`, but for those whose probabilities are not finite: they are all 0.
    """
    exact = probabilities.detach().to("cpu", torch.float64).contiguous().numpy()
    counts = np.zeros(exact.shape, dtype=np.int64)
    next_block = np.zeros(1, np.int64)

    def run(_: None) -> None:
        _draw(next_block, exact, shots, np.uint64(seed), np.uint64(first_row), counts)

    run_on_threads(run, None, torch.get_num_threads() if exact.size >= _THREADS_FROM else 1)
    return torch.from_numpy(counts)


@_jit
def _mix(state):  # type: ignore[no-untyped-def]
    """SplitMix64's output function (Steele, Lea and Flood 2014)."""
    state = (state ^ (state >> uint64(30))) * uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> uint64(27))) * uint64(0x94D049BB133111EB)
    return state ^ (state >> uint64(31))


@_jit
def _uniform(state):  # type: ignore[no-untyped-def]
    """The next number of a stream, above 0 and below 1."""
    state[0] += uint64(0x9E3779B97F4A7C15)
    return (float(_mix(state[0]) >> uint64(11)) + 0.5) / 9007199254740992.0


@_jit
def _binomial(state, n, p):  # type: ignore[no-untyped-def]
    """How many of n trials succeed, each with probability p."""
    if p > 0.5:
        return n - _at_most_half(state, n, 1.0 - p)
    return _at_most_half(state, n, p)


@_jit
def _at_most_half(state, n, p):  # type: ignore[no-untyped-def]
    if p <= 0.0:
        return 0
    if n * p >= 10.0:
        return _rejected(state, n, p)
    odds = p / (1.0 - p)  # inversion: P(k) = P(k - 1) odds (n + 1 - k) / k
    at_k = math.exp(n * math.log1p(-p))
    left, k = _uniform(state), 0
    while left > at_k and k < n:
        left -= at_k
        k += 1
        at_k *= odds * (n + 1 - k) / k
    return k


@_jit
def _rejected(state, n, p):  # type: ignore[no-untyped-def]
    """The same by transformed rejection, for n p of at least 10 (algorithm BTRS of Hörmann 1993)."""
    odds, spread = p / (1.0 - p), math.sqrt(n * p * (1.0 - p))
    b = 1.15 + 2.53 * spread
    a = -0.0873 + 0.0248 * b + 0.01 * p
    alpha = (2.83 + 5.1 / b) * spread
    mode = math.floor((n + 1) * p)
    while True:
        u = _uniform(state) - 0.5
        v = _uniform(state)
        edge = 0.5 - abs(u)
        k = math.floor((2.0 * a / edge + b) * u + n * p + 0.5)
        if edge >= 0.07 and v <= 0.92 - 4.2 / b:
            return int(k)
        if 0 <= k <= n:
            bound = (
                (mode + 0.5) * math.log((mode + 1) / (odds * (n - mode + 1)))
                + (n + 1) * math.log((n - mode + 1) / (n - k + 1))
                + (k + 0.5) * math.log(odds * (n - k + 1) / (k + 1))
                + _stirling(mode)
                + _stirling(n - mode)
                - _stirling(k)
                - _stirling(n - k)
            )
            if math.log(v * alpha / (a / (edge * edge) + b)) <= bound:
                return int(k)


@_jit
def _stirling(k):  # type: ignore[no-untyped-def]
    """What Stirling's approximation lacks: log k! = log(2 pi) / 2 + (k + 1/2) log(k + 1) - (k + 1) + this."""
    if k < 10:
        return math.lgamma(k + 1.0) - 0.9189385332046727 - (k + 0.5) * math.log(k + 1.0) + k + 1.0
    x = 1.0 / (k + 1.0)
    return x * (1 / 12 - x * x * (1 / 360 - x * x / 1260))


@_jit
def _place(state, n, below, low, high, counts):  # type: ignore[no-untyped-def]
    """n shots among the outcomes from low to high, one by one."""
    for _ in range(n):
        at = below[low] + _uniform(state) * (below[high] - below[low])
        first, last = low, high
        while last - first > 1:
            middle = (first + last) // 2
            if at < below[middle]:
                last = middle
            else:
                first = middle
        while below[first + 1] == below[first]:  # rounded up to the end, to an outcome that cannot be
            first -= 1
        counts[first] += 1


@_jit
def _draw(next_block, probabilities, shots, seed, first_row, counts):  # type: ignore[no-untyped-def]
    n_rows, n_outcomes = probabilities.shape
    below = np.zeros(n_outcomes + 1)  # the probability of all outcomes below
    state = np.empty(1, np.uint64)
    todo = np.empty((64, 2), np.int64)  # ranges of outcomes, their shots at the lowest
    while True:
        block = fetch_add(next_block) * _ROWS
        if block >= n_rows:
            break
        for row in range(block, min(block + _ROWS, n_rows)):
            state[0] = _mix(_mix(seed) + first_row + uint64(row))
            for k in range(n_outcomes):
                p = probabilities[row, k]
                below[k + 1] = below[k] + (0.0 if p < 0.0 else p)
            if not 0.0 < below[n_outcomes] < math.inf:
                continue
            counts[row, 0] = shots
            todo[0, 0], todo[0, 1], n_todo = 0, n_outcomes, 1
            while n_todo:
                n_todo -= 1
                low, high = todo[n_todo]
                n = counts[row, low]
                if n <= _FEW:
                    counts[row, low] = 0
                    _place(state, n, below, low, high, counts[row])
                elif high - low > 1:
                    middle = (low + high) // 2
                    p = (below[middle] - below[low]) / (below[high] - below[low])
                    counts[row, low] = _binomial(state, n, p)
                    counts[row, middle] = n - counts[row, low]
                    todo[n_todo, 0], todo[n_todo, 1] = middle, high
                    todo[n_todo + 1, 0], todo[n_todo + 1, 1] = low, middle
                    n_todo += 2
