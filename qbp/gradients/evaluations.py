"""What a gradient rule asks for: at which points a program is run, and how the outputs make the gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from qbp.circuit.angles import Angles
from qbp.executors import Gradients, Results
from qbp.gradients.shifts import Shift

__all__ = ["Directions", "Evaluations", "Needs", "Point", "Shifts"]

MAX_ELEMENTS = 2**25
"""Angles in one call of an executor: above that the shifted circuits are run in several calls (128 MiB in float32)."""


@dataclass(frozen=True)
class Needs:
    """Which gradients are wanted: of each angle (K,), and of the amplitudes."""

    angles: tuple[bool, ...]
    amplitudes: bool = False


class Point(NamedTuple):
    """Arguments of one call of an executor.

    Attributes:
        angles, amplitudes: of as many executions as there are rows.
        shots: of each; None for the executor's own.
    """

    angles: Angles
    amplitudes: Tensor | None = None
    shots: int | None = None


@dataclass(frozen=True)
class Shifts:
    """The same shifts for each of some samples.

    Attributes:
        terms: E executions a sample.
        rows: first and last + 1 of the samples; None for all.
        shots: of each execution; None for the executor's own.
    """

    terms: tuple[Shift, ...]
    rows: tuple[int, int] | None = None
    shots: int | None = None

    @property
    def size(self) -> int:
        """E."""
        return len(self.terms)

    def steps(self, full: Tensor, first: int, last: int) -> Tensor:
        """By how much the angles (B, K) are shifted in executions first to last, (1, E, K)."""
        terms = self.terms[first:last]
        shifts = full.new_zeros(len(terms), full.shape[1])
        columns = torch.tensor([term.angle for term in terms], device=full.device)
        shifts[torch.arange(len(terms)), columns] = full.new_tensor([term.by for term in terms])
        return shifts[None]

    def gradient(self, slopes: Tensor, n_angles: int) -> Tensor:
        """Gradients (..., K) from what each execution gives, (..., E)."""
        entries = [(e, k, c) for e, term in enumerate(self.terms) for k, c in term.slopes]
        execution, angle, coefficient = zip(*entries, strict=True)
        to = torch.tensor(angle, device=slopes.device)
        values = slopes[..., list(execution)] * slopes.new_tensor(coefficient)
        return slopes.new_zeros(*slopes.shape[:-1], n_angles).index_add(-1, to, values)


@dataclass(frozen=True)
class Directions:
    """Shifts of all angles at once, others for each of some samples.

    Attributes:
        shifts: (B, E, K) in radians.
        weights: (B, E, K): the gradient is the sum over executions of `weights` times what each gives.
        rows, shots: as in `Shifts`.
    """

    shifts: Tensor
    weights: Tensor
    rows: tuple[int, int] | None = None
    shots: int | None = None

    @property
    def size(self) -> int:
        """E."""
        return self.shifts.shape[1]

    def steps(self, full: Tensor, first: int, last: int) -> Tensor:
        """By how much the angles (B, K) are shifted in executions first to last, (B, E, K)."""
        return self.shifts[:, first:last].to(full)

    def gradient(self, slopes: Tensor, n_angles: int) -> Tensor:
        """Gradients (..., B, K) from what each execution gives, (..., B, E)."""
        return (slopes.unsqueeze(-1) * self.weights.to(slopes)).sum(-2)


@dataclass
class Evaluations:
    """What a gradient rule asks for; `combine` is linear in the outputs and in the gradient of the loss.

    Args:
        angles: (B, K) in radians.
        amplitudes: (B, 2^N) or None.
        needs: the gradients that are wanted.
        blocks: the executions, by parts.
        double: whether they run in float64.
        seen: what a rule with a memory does with the gradients.

    Attributes:
        factors: for each block what multiplies the Jacobian, (B, 1, M); None for 1.
    """

    angles: Angles
    amplitudes: Tensor | None
    needs: Needs
    blocks: tuple[Shifts | Directions, ...]
    double: bool = False
    seen: Callable[[Gradients, Tensor], None] | None = None
    factors: list[Tensor | None] = field(default_factory=list)

    def rows(self, block: Shifts | Directions) -> slice:
        """The samples of a block."""
        return slice(*(block.rows or (0, self.angles.n_samples)))

    def points(self) -> Iterator[Point]:
        """The calls of an executor, sample after sample within each."""
        full = self.angles.full().double() if self.double else self.angles.full()
        n_angles = full.shape[1]
        for block in self.blocks:
            rows = self.rows(block)
            some, start = full[rows], None if self.amplitudes is None else self.amplitudes[rows]
            per_call = max(1, MAX_ELEMENTS // max(1, len(some) * n_angles))
            for first in range(0, block.size if len(some) else 0, per_call):
                steps = block.steps(some, first, first + per_call)
                shifted = (some.unsqueeze(1) + steps).reshape(-1, n_angles)
                repeated = None if start is None else start.repeat_interleave(steps.shape[1], dim=0)
                yield Point(Angles.of(shifted), repeated, block.shots)
        if self.needs.amplitudes:
            for states, norms in self._amplitude_steps():
                yield Point(Angles.of(full.repeat(2, 1)), states / norms)

    def combine(self, results: Iterable[Results], grad: Tensor) -> Gradients:
        """The gradients.

        Args:
            results: of each of `points`, in their order.
            grad: (B, M), the gradient of the loss with respect to the outputs.
        """
        rest = iter(results)
        total = self.angles_gradient(rest, grad.double() if self.double else grad).to(grad.dtype)
        n_batched = self.angles.batched.shape[1]
        wanted = self.needs.angles
        gradients = Gradients(
            total[:, :n_batched] if any(wanted[:n_batched]) else None,
            total[:, n_batched:].sum(0) if any(wanted[n_batched:]) else None,
            self._amplitude_gradient(rest, grad) if self.needs.amplitudes else None,
        )
        if self.seen is not None:
            self.seen(gradients, grad)
        return gradients

    def angles_gradient(self, results: Iterator[Results], grad: Tensor) -> Tensor:
        """(B, K), from the blocks' results alone."""
        n_samples, n_angles = len(grad), self.n_angles
        total = grad.new_zeros(n_samples, n_angles)
        for block in self.blocks:
            rows = self.rows(block)
            part = grad[rows].unsqueeze(1)
            slopes = [(result.values * part).sum(2) for result in self.parts_of(block, results)]
            if slopes:
                result = block.gradient(torch.cat(slopes, 1), n_angles)
                total = total + torch.nn.functional.pad(result, (0, 0, rows.start, n_samples - rows.stop))
        return total

    @property
    def n_angles(self) -> int:
        """K."""
        return self.angles.batched.shape[1] + self.angles.shared.numel()

    def parts_of(self, block: Shifts | Directions, results: Iterator[Results]) -> Iterator[Results]:
        """A block's results, (B, E, M) in parts of E, as they come."""
        rows, seen = self.rows(block), 0
        n_rows = rows.stop - rows.start
        while n_rows and seen < block.size:
            values, stds, truncation, _ = next(results)
            part = (None if each is None else each.unflatten(0, (n_rows, -1)) for each in (values, stds, truncation))
            part_results = Results(*part)  # type: ignore[arg-type]
            seen += part_results.values.shape[1]
            yield part_results

    def weights(self) -> Iterator[tuple[range, Tensor]]:
        """For each block its samples, and the weights (B, E, K) of its executions in the gradients; without those of
        amplitudes."""
        for block in self.blocks:
            rows = self.rows(block)
            n_rows = rows.stop - rows.start
            units = torch.eye(block.size, dtype=torch.float64).expand(n_rows, -1, -1).movedim(1, 0)  # (E, B, E)
            yield range(rows.start, rows.stop), block.gradient(units, self.n_angles).movedim(0, 1)

    def _amplitude_steps(self) -> Iterator[tuple[Tensor, Tensor]]:
        """States (2 B, 2^N) a step up and down in each amplitude, and their norms. An expectation value is a quadratic
        form of the amplitudes, so that central differences are exact for any step."""
        assert self.amplitudes is not None
        for unit, j in self._units():  # one execution a pair: states of B samples are the memory, not angles
            step = torch.zeros_like(self.amplitudes)
            step[:, j] += unit
            states = torch.cat([self.amplitudes + step, self.amplitudes - step])
            yield states, torch.linalg.vector_norm(states, dim=1, keepdim=True).clamp_min(1e-30)

    def _units(self) -> list[tuple[complex, int]]:
        assert self.amplitudes is not None
        units = (1, 1j) if self.amplitudes.is_complex() else (1,)
        return [(unit, j) for unit in units for j in range(self.amplitudes.shape[1])]

    def _amplitude_gradient(self, results: Iterator[Results], grad: Tensor) -> Tensor:
        """Of real or complex amplitudes: ``[f(a + e_j) - f(a - e_j)] / 2``."""
        assert self.amplitudes is not None
        result = torch.zeros_like(self.amplitudes)
        for (unit, j), (_, norms) in zip(self._units(), self._amplitude_steps(), strict=True):
            up, down = (next(results).values * norms**2).chunk(2)
            result[:, j] += unit * ((up - down) * grad).sum(1) / 2
        return result
