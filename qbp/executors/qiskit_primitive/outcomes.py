"""From measured outcomes to outputs and their standard errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qbp.executors.sampled import Group

__all__ = ["Outcomes", "outputs_of"]


@dataclass(frozen=True)
class Outcomes:
    """What was read of one group of wires: entry i says that set `sets[i]` gave outcome `keys[i]` with weight
    `weights[i]`; the weights of a set sum to 1. A key's least significant bit is the group's last wire.

    Attributes:
        sets: (L,) integers.
        keys: (L,) integers, or, for any number of wires, their bytes (L, n), the most significant one first.
        weights: (L,) frequencies or probabilities.
    """

    sets: np.ndarray
    keys: np.ndarray
    weights: np.ndarray

    @staticmethod
    def of_probabilities(p: np.ndarray) -> Outcomes:
        """Of dense probabilities, (S, 2^n)."""
        n_sets, size = p.shape
        return Outcomes(np.repeat(np.arange(n_sets), size), np.tile(np.arange(size), n_sets), p.ravel())

    @staticmethod
    def of_counts(counts: Sequence[dict[str, int]], shots: int) -> Outcomes:
        """Of Aer's counts for each set, by outcomes in hexadecimal."""
        sets = np.repeat(np.arange(len(counts)), [len(c) for c in counts])
        read = [int(key, 16) for c in counts for key in c]
        n_bytes = (max(read, default=0).bit_length() + 7) // 8 or 1
        keys = np.frombuffer(b"".join(k.to_bytes(n_bytes, "big") for k in read), np.uint8).reshape(-1, n_bytes)
        return Outcomes(sets, keys, np.array([n for c in counts for n in c.values()]) / shots)

    def bit(self, place: int) -> np.ndarray:
        """The bit of each key that is worth ``2 ** place``, (L,)."""
        if self.keys.ndim == 1:
            return self.keys >> place & 1
        column = self.keys.shape[1] - 1 - place // 8
        if column < 0:
            return np.zeros(len(self.keys), dtype=np.int64)
        return (self.keys[:, column] >> place % 8 & 1).astype(np.int64)

    def sum(self, n_sets: int, values: np.ndarray) -> np.ndarray:
        """For each set the mean of `values` (L,)."""
        return np.bincount(self.sets, self.weights * values, minlength=n_sets)


def outputs_of(
    groups: Sequence[Group], outcomes: Sequence[Outcomes], n_sets: int, n_outputs: int, shots: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Outputs (S, M) without what identities add, and their standard errors (S, M), 0 without shots.

    One group's words come from the same shots, so that their covariances count; groups are independent.
    """
    values, variances = np.zeros((n_sets, n_outputs)), np.zeros((n_sets, n_outputs))
    for group, read in zip(groups, outcomes, strict=True):
        last = len(group.wires) - 1
        per_output: dict[int, np.ndarray] = {}
        for column, coefficient, wires in group.words:
            sign = 1.0 - 2.0 * (np.sum([read.bit(last - w) for w in wires], axis=0) & 1)
            per_output[column] = per_output.get(column, np.zeros(1)) + coefficient * sign
        for first, wires in group.probs:
            outcome = np.zeros(len(read.keys), dtype=np.int64)
            for w in wires:
                outcome = outcome << 1 | read.bit(last - w)
            for value in range(2 ** len(wires)):
                per_output[first + value] = (outcome == value).astype(float)
        for column, of_outcome in per_output.items():
            mean = read.sum(n_sets, of_outcome)
            values[:, column] += mean
            if shots is not None:
                variances[:, column] += (read.sum(n_sets, of_outcome**2) - mean**2).clip(0) / shots
    return values, np.sqrt(variances)
