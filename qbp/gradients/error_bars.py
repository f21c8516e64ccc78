"""From the errors of a circuit's outputs to those of the weights' gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qbp.circuit.angles import AngleMap
from qbp.executors import Draws, Results
from qbp.gradients.evaluations import Evaluations

__all__ = ["ErrorBars", "GradientErrors", "of_draws"]


@dataclass
class GradientErrors:
    """What the errors of a gradient come from.

    Attributes:
        plan: the evaluations.
        results: of each of its points.
        grad: (B, M), the gradient of the loss with respect to the outputs.
    """

    plan: Evaluations
    results: Sequence[Results]
    grad: Tensor


@dataclass
class ErrorBars:
    """What an executor's errors make of the last results of a layer; a copy of a layer has none.

    Attributes:
        stds, truncation, sources: those of the last results (`qbp.executors.Results`).
        gradient: what those of the last gradient come from: evaluations, or what was drawn.
        source: where the angles came from: the map, inputs (B, I) and weights (P,).
    """

    stds: Tensor | None = None
    truncation: Tensor | None = None
    sources: Tensor | None = None
    gradient: GradientErrors | tuple[Draws, ...] | None = None
    source: tuple[AngleMap, Tensor, Tensor] | None = None

    def __reduce__(self) -> Any:
        return ErrorBars, ()

    def __deepcopy__(self, memo: dict[int, Any]) -> ErrorBars:
        return ErrorBars()

    def of_weights(self, part: str) -> Tensor | None:
        """Errors (P,) of the last gradient of the weights: `part` "stds" or "truncation" of the outputs', through the
        same combination.

        Executions that equal rows share err alike: their errors add up as they are, those of different executions by
        their squares. Biases of an approximation add up as they are. Correlations between the outputs of one execution
        are left out, since backends do not tell them.
        """
        if self.gradient is None or self.source is None:
            return None
        if isinstance(self.gradient, tuple):
            return of_draws(self.gradient, _slopes(*self.source)) if part == "stds" else None
        plan, results, grad = self.gradient.plan, self.gradient.results, self.gradient.grad.detach().double()
        errors = [getattr(result, part) for result in results]
        if any(error is None for error in errors):
            return None
        slopes = _slopes(*self.source)  # (B, K, P)
        shared = _executions(results)
        n_executions = 1 + max((int(which.max()) for which in shared if len(which)), default=0)
        n_outputs, n_weights = grad.shape[1], slopes.shape[2]
        total = slopes.new_zeros(n_executions, n_outputs, n_weights) if part == "stds" else slopes.new_zeros(n_weights)
        rest, shares, factors = iter(errors), iter(shared), plan.factors or [None] * len(plan.blocks)
        for (rows, weights), factor, block in zip(plan.weights(), factors, plan.blocks, strict=True):
            for first, error, which in _parts(block.size if len(rows) else 0, len(rows), rest, shares):
                some = weights[:, first : first + error.shape[1]] @ slopes[rows.start : rows.stop]  # (B, E, P)
                scaled = error * grad[rows.start : rows.stop, None] * (1 if factor is None else factor)  # (B, E, M)
                if part == "stds":
                    each = scaled.flatten(0, 1).unsqueeze(2) * some.flatten(0, 1).unsqueeze(1)  # (B E, M, P)
                    total.index_add_(0, which, each)
                else:
                    total += torch.einsum("bem,bep->p", scaled.abs(), some.abs())
        return total.square().sum((0, 1)).sqrt() if part == "stds" else total


def _slopes(angle_map: AngleMap, x: Tensor, weights: Tensor) -> Tensor:
    """Derivatives of the angles with respect to the weights, (B, K, P)."""

    def angles(at: Tensor) -> Tensor:
        return angle_map(x.double(), at).full()

    slopes: Tensor = torch.autograd.functional.jacobian(angles, weights.double())
    return slopes


def of_draws(draws: Sequence[Draws], slopes: Tensor) -> Tensor:
    """Standard errors (P,) of a gradient that is a sum over independent draws of each sample."""
    variance = slopes.new_zeros(slopes.shape[2])
    for part in draws:
        for row in range(len(slopes)):
            own = (part.rows == row) & (part.counts > 0)
            each = part.gradients[own.to(part.gradients.device)].cpu().double() @ slopes[row].cpu()  # (L, P)
            squares = (each.square() / part.counts[own, None]).sum(0)
            variance += (part.n * squares - each.sum(0).square()).clamp_min(0).to(variance) / (part.n - 1)
    return variance.sqrt()


def _executions(results: Sequence[Results]) -> list[Tensor]:
    """For each call which execution each row was read from, numbered through all calls."""
    numbers, start = [], 0
    for result in results:
        own = torch.arange(len(result.values)) if result.sources is None else result.sources.cpu()
        numbers.append(own + start)
        start += 1 + int(own.max()) if len(own) else 0
    return numbers


def _parts(size: int, n_rows: int, errors: Any, shares: Any) -> Any:
    """A block's errors (B, E, M) by calls, each with the number of its first execution."""
    first = 0
    while first < size:
        error, which = next(errors).double().cpu().unflatten(0, (n_rows, -1)), next(shares)
        yield first, error, which
        first += error.shape[1]
