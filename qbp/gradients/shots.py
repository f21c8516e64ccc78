"""A gradient rule that gives each angle the shots that help most."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qbp.circuit.angles import Angles
from qbp.circuit.program import Expval, Program
from qbp.errors import ArgumentError, check_count
from qbp.executors import Results
from qbp.gradients.evaluations import Evaluations, Needs, Shifts
from qbp.gradients.rules import refuse_amplitudes, shift_terms
from qbp.gradients.shifts import Shift
from qbp.gradients.steps import Stepping

__all__ = ["GCANS"]


class GCANS(Stepping):
    """Shots where they help most: as many for each angle as its noise and the size of the gradient ask for.

    The rule of gCANS (arXiv 2108.10434), ``s_i = 2 L a sigma_i (sum_k sigma_k) / ((2 - L a) |chi|^2)``, with running
    means (weight `mu`, without bias) chi of the gradient and sigma_i^2 of the variance of its i-th component for one
    shot, and L, a bound of the curvature, the sum of ``|dL/df|`` over samples and outputs. Variances come from the
    standard errors of the measured outputs where the backend tells them (as qbp's own do), else from ``1 - f^2``, right
    for a Pauli word and too large for a weighted sum; correlations between outputs are left out.
    Numbers of shots are rounded up to powers of two, so that a step is a few jobs.

    Args:
        lr: a, the learning rate; the rule is derived for plain gradient descent. None: the optimiser's, as it is at
            each step (`qbp.fit` and `prepare` say), or 0.1 without one.
        min_shots: the fewest shots of a circuit; also those of the first step.
        max_shots: the most.
        mu: weight of the past in the running means.

    Example:
        >>> import qbp
        >>> layer = qbp.QuantumLayer("xor_2q", diff_method=qbp.gradients.stateful.GCANS(lr=0.05), shots=100, seed=0)
        >>> layer(torch.zeros(3, 2)).sum().backward()
        >>> len(layer.rule.shots) == layer.circuit.program.n_angles
        True
    """

    name = "gcans"

    def __init__(self, lr: float | None = None, min_shots: int = 16, max_shots: int = 8192, mu: float = 0.9):
        check_count("min_shots", min_shots)
        check_count("max_shots", max_shots)
        if not ((lr is None or 0 < lr < math.inf) and 0 <= mu < 1 and min_shots <= max_shots):
            raise ArgumentError(
                "Arguments must have `lr` positive, 0 <= `mu` < 1 and `min_shots` <= `max_shots`, but are "
                f"{lr!r}, {mu!r}, {min_shots!r} and {max_shots!r}"
            )
        self.given, self.min_shots, self.max_shots, self.mu = lr, min_shots, max_shots, mu
        self.lr = 0.1 if lr is None else lr
        self.begin()

    def begin(self, steps: int | None = None) -> None:
        """Forget all earlier steps."""
        self.step, self.shots = 0, torch.empty(0, dtype=torch.int64)
        self.chi, self.variance = torch.empty(2, 0, dtype=torch.float64)
        self._clear(0)

    def _clear(self, n_angles: int) -> None:
        """Begin a step."""
        self._in_step, self._bound = False, 0.0
        self._gradient, self._squares, self._variance = torch.zeros(3, n_angles, dtype=torch.float64)

    def __repr__(self) -> str:
        return f"GCANS({self.given}, {self.min_shots}, {self.max_shots}, {self.mu})"

    def plan(
        self, program: Program, needs: Needs, angles: Angles, amplitudes: Tensor | None = None, **_: Any
    ) -> Evaluations:
        """As `qbp.gradients.rules.parameter_shift`, with shots of their own for each angle."""
        refuse_amplitudes(self.name, needs)
        n_angles = len(needs.angles)
        if len(self.shots) != n_angles:
            self.begin()
            self.shots = self.shots.new_full((n_angles,), self.min_shots)
            self.chi, self.variance = self.chi.new_zeros(2, n_angles)
            self._clear(n_angles)
        blocks: dict[int, list[Shift]] = {}
        for term in shift_terms(program, needs):
            blocks.setdefault(max(int(self.shots[k]) for k, _ in term.slopes), []).append(term)
        parts = tuple(Shifts(tuple(terms), shots=shots) for shots, terms in sorted(blocks.items()))
        return _Measured(angles, amplitudes, needs, parts, rule=self, largest=_largest_outputs(program))

    def see(self, gradient: Tensor, n_batched: int, variance: Tensor, bound: float) -> None:
        """Note what one call of the layer adds to the step's gradient (B, K), to the variance (K,) of its components
        for one shot, and to the bound of the curvature."""
        self._in_step = True
        gradient = gradient.detach().double().cpu()
        self._gradient[n_batched:] += gradient[:, n_batched:].sum(0)
        self._squares[:n_batched] += gradient[:, :n_batched].square().sum(0)
        self._variance += variance
        self._bound += bound

    def end_step(self) -> None:
        """Note that a step is done, and allot the shots of the next."""
        self.step += 1
        gradient = self._gradient + self._squares.sqrt()
        self.chi = self.mu * self.chi + (1 - self.mu) * gradient
        self.variance = self.mu * self.variance + (1 - self.mu) * self._variance
        unbiased = 1 - self.mu**self.step
        sigma = (self.variance / unbiased).sqrt()
        pace = min(1.0, self.lr * self._bound)  # below 2, or no step size would do
        size = (self.chi / unbiased).square().sum().clamp_min(1e-12)
        ideal = (2 * pace / (2 - pace) * sigma * sigma.sum() / size).clamp(self.min_shots, self.max_shots)
        self.shots = (2 ** ideal.log2().ceil()).clamp_max(self.max_shots).long()
        self._clear(len(self.shots))

    def state(self) -> dict[str, Any]:
        """What the next step depends on."""
        return {"step": self.step, "chi": self.chi, "variance": self.variance, "shots": self.shots}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.step = state["step"]
        self.chi, self.variance, self.shots = (state[key].clone() for key in ("chi", "variance", "shots"))
        self._clear(len(self.shots))


@dataclass
class _Measured(Evaluations):
    """The shift rule, with what its outputs say about their own noise."""

    rule: Any = None
    largest: Any = None

    def angles_gradient(self, results: Iterator[Results], grad: Tensor) -> Tensor:
        total, variance = grad.new_zeros(len(grad), self.n_angles), torch.zeros(self.n_angles, dtype=torch.float64)
        part = grad.unsqueeze(1)
        for block in self.blocks:
            slopes, spreads = [], []
            for result in self.parts_of(block, results):
                slopes.append((result.values * part).sum(2))
                spreads.append((_one_shot(result, block.shots, self.largest) * part**2).sum((0, 2)))
            if slopes:
                total = total + block.gradient(torch.cat(slopes, 1), self.n_angles)
                for term, spread in zip(block.terms, torch.cat(spreads).tolist(), strict=True):  # type: ignore[union-attr]
                    for k, coefficient in term.slopes:
                        variance[k] += coefficient**2 * spread
        self.rule.see(total, self.angles.batched.shape[1], variance, float(grad.abs().sum()))
        return total


def _one_shot(results: Results, shots: int | None, largest: Tensor) -> Tensor:
    """Variances of the outputs (B, E, M) for one shot."""
    if results.stds is not None and shots is not None and shots > 1:
        return results.stds**2 * (shots * shots / (shots - 1))
    return (largest.to(results.values) ** 2 - results.values**2).clamp_min(0)


def _largest_outputs(program: Program) -> Tensor:
    """How large each output can be, (M,): the root of the largest mean square of what is read from one shot."""
    sizes: list[float] = []
    for measurement in program.measurements:
        if isinstance(measurement, Expval):
            sizes.append(sum(abs(coefficient) for coefficient, _, _ in measurement.terms))
        else:
            sizes += [1.0] * 2 ** len(measurement.wires)
    return torch.tensor(sizes)
