"""Outputs that are made of what a program measures: sums with coefficients that train, and variances."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from qbp.circuit.angles import AngleMap

__all__ = ["Combination", "Entry"]


class Entry(NamedTuple):
    """One term of a sum.

    Attributes:
        output: which output it belongs to.
        squared: whether it belongs to the sum that is squared and taken away.
        value: which measured value it has; None for the number 1.
        number: its coefficient; of one that is a function of inputs and weights None.
        coefficient: which of those functions it is, else None.
    """

    output: int
    squared: bool
    value: int | None
    number: float | None
    coefficient: int | None = None


@dataclass(frozen=True)
class Combination:
    """``y = a - b^2`` for each output, with weighted sums a and b of measured values.

    With ``a = sum c_k <P_k>`` alone that is the expectation value of an observable whose coefficients train; with
    ``a = <O^2>`` and ``b = <O>`` the variance of O.

    Attributes:
        n_outputs: M.
        entries: the terms of all sums.
        coefficients: ``(inputs (B, I), weights (P,)) -> Angles``: the coefficients that are no numbers.
    """

    n_outputs: int
    entries: tuple[Entry, ...]
    coefficients: AngleMap
    _tensors: dict[tuple[torch.dtype, torch.device], tuple[Tensor, ...]] = field(
        default_factory=dict, compare=False, repr=False
    )

    @cached_property
    def has_squares(self) -> bool:
        """Whether an output is a variance; from values that are sampled it is too small on average."""
        return any(entry.squared for entry in self.entries)

    def __call__(self, values: Tensor, inputs: Tensor, weights: Tensor) -> Tensor:
        """The outputs (B, M) of measured values (B, W), inputs (B, I) and weights (P,)."""
        a, b = self._sums(values, self._factors(values, inputs, weights))
        return a - b.square() if self.has_squares else a

    def errors(self, values: Tensor, errors: Tensor, inputs: Tensor, weights: Tensor) -> Tensor:
        """How far the outputs (B, M) may be off where the values are off by `errors` (B, W), whatever the errors of
        different values have to do with each other."""
        factors = self._factors(values, inputs, weights)
        _, b = self._sums(values, factors)
        of_a, of_b = self._sums(errors, factors.abs(), one=0.0)
        return of_a + of_b * (2 * b.abs() + of_b)

    def describe(self) -> tuple[object, ...]:
        """Everything that the outputs are made of, as values with a `repr`."""
        return (self.n_outputs, self.entries, self.coefficients.describe())

    def _factors(self, values: Tensor, inputs: Tensor, weights: Tensor) -> Tensor:
        """The coefficients of all entries: (B, E), or (1, E) where no row has its own."""
        numbers, places = self._of(values)[2:]
        functions = self.coefficients
        if not functions.n_batched + functions.n_shared:
            return numbers[None]
        coefficients = functions(inputs.to(values.dtype), weights.to(values.dtype))
        own = coefficients.full() if functions.n_batched else coefficients.shared[None]
        return torch.cat([numbers.expand(len(own), -1), own], 1)[:, places]

    def _sums(self, values: Tensor, factors: Tensor, one: float = 1.0) -> tuple[Tensor, Tensor]:
        """The sums a and b, each (B, M)."""
        columns, rows = self._of(values)[:2]
        padded = torch.cat([torch.full_like(values[:, :1], one), values], 1)
        sums = values.new_zeros(len(values), 2 * self.n_outputs).index_add(1, rows, padded[:, columns] * factors)
        return sums[:, : self.n_outputs], sums[:, self.n_outputs :]

    def _of(self, like: Tensor) -> tuple[Tensor, ...]:
        """For each entry its column of the values (behind a 1), its sum, its number, and where its coefficient stands
        behind all numbers."""
        key = (like.dtype, like.device)
        if key not in self._tensors:
            entries = self.entries
            columns = [0 if e.value is None else e.value + 1 for e in entries]
            rows = [e.output + self.n_outputs * e.squared for e in entries]
            numbers = [e.number or 0.0 for e in entries]
            places = [k if e.coefficient is None else len(entries) + e.coefficient for k, e in enumerate(entries)]
            with torch.inference_mode(False):  # they are kept, for calls that want gradients too
                self._tensors[key] = (
                    torch.tensor(columns, device=like.device),
                    torch.tensor(rows, device=like.device),
                    torch.tensor(numbers, dtype=like.dtype, device=like.device),
                    torch.tensor(places, device=like.device),
                )
        return self._tensors[key]
