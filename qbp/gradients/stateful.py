"""Gradient rules that remember earlier steps, to train on a device with fewer circuits or fewer shots.

Each is an object called like any rule of `qbp.gradients.rules`; a layer has its own.
``diff_method="gradient-pruning"`` names one with its defaults, ``diff_method=GradientPruning(ratio=0.3)`` one with
settings of your own. What they remember is kept in checkpoints, so that a run that goes on takes the same steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from qbp.circuit.angles import Angles
from qbp.circuit.program import Expval, Program
from qbp.errors import ArgumentError, check_choice, check_count
from qbp.executors import Gradients
from qbp.gradients.rules import Needs, Run, combine, parameter_shift, perturb, refuse_amplitudes, shift_terms, split

__all__ = ["GCANS", "STATEFUL", "GradientPruning", "GuidedSPSA", "prepare", "rule_of"]


class GradientPruning:
    """Probabilistic gradient pruning: in some steps only part of the weights' angles is shifted (arXiv 2202.13239).

    A window of `accumulate` steps takes all gradients and adds up ``M_i += |dL/dt_i|``. In the `prune` steps after it,
    ``(1 - ratio)`` of the angles are drawn without replacement with probabilities ``M_i / sum M``; only those are
    shifted, the gradient of the others is 0. Then M starts again from 0. So of the shifted circuits
    ``ratio * prune / (accumulate + prune)`` are saved. Angles that depend on inputs always keep their gradient.

    Args:
        ratio: the share of the angles without a gradient in a pruning step, at least 0 and below 1.
        accumulate: steps of the accumulation window.
        prune: steps of the pruning window.
        by: "magnitude" as above; controls: "random" draws uniformly, "top" takes the largest M.
        mask: leave weights without a gradient, and what the optimiser remembers of them, as they are in such a step
            (`qbp.fit` does so; in a loop of your own call `prepare` once). Otherwise momentum still moves them.

    Example:
        >>> import qbp
        >>> layer = qbp.QuantumLayer("xor_2q", diff_method=qbp.gradients.stateful.GradientPruning(ratio=0.3))
        >>> layer.diff_method
        'gradient-pruning'
    """

    name = "gradient-pruning"

    def __init__(
        self, ratio: float = 0.5, accumulate: int = 1, prune: int = 2, *, by: str = "magnitude", mask: bool = True
    ):
        if not 0 <= ratio < 1:
            raise ArgumentError(f"Argument `ratio` must be at least 0 and below 1, but is {ratio!r}")
        _check_counts(accumulate=accumulate, prune=prune)
        check_choice("by", by, ("magnitude", "random", "top"))
        self.ratio, self.accumulate, self.prune, self.by, self.mask = ratio, accumulate, prune, by, mask
        self.begin()

    def begin(self, steps: int | None = None) -> None:
        """Forget all earlier steps."""
        self.step, self.magnitudes = 0, torch.empty(0, dtype=torch.float64)

    def __repr__(self) -> str:
        return f"GradientPruning({self.ratio}, {self.accumulate}, {self.prune}, by={self.by!r}, mask={self.mask})"

    @property
    def skips(self) -> bool:
        """Whether the last step left out gradients."""
        return self.step == 0 or self.step > self.accumulate

    def __call__(
        self,
        run: Run,
        program: Program,
        angles: Angles,
        amplitudes: Tensor | None,
        grad: Tensor,
        needs: Needs,
        generator: torch.Generator | None = None,
    ) -> Gradients:
        """As `qbp.gradients.rules.parameter_shift`, in a pruning step for some angles only."""
        n_batched = angles.batched.shape[1]
        wanted = [k for k, need in enumerate(needs.angles) if need and k >= n_batched]
        if len(self.magnitudes) != len(wanted):  # the first step, or the circuit has changed
            self.step, self.magnitudes = 0, self.magnitudes.new_zeros(len(wanted))
        if self.step >= self.accumulate and wanted:
            kept = self._draw(generator)
            gone = {k for i, k in enumerate(wanted) if i not in kept}
            needs = Needs(tuple(need and k not in gone for k, need in enumerate(needs.angles)), needs.amplitudes)
        gradients = parameter_shift(run, program, angles, amplitudes, grad, needs)
        if self.step < self.accumulate and wanted:
            assert gradients.shared is not None
            self.magnitudes += gradients.shared[[k - n_batched for k in wanted]].detach().abs().cpu()
        self.step += 1
        if self.step == self.accumulate + self.prune:  # not before: the draws above need what was added up
            self.step = 0
            self.magnitudes.zero_()
        return gradients

    def _draw(self, generator: torch.Generator | None) -> set[int]:
        n_kept = max(1, round((1 - self.ratio) * len(self.magnitudes)))
        if self.by == "top":
            return set(self.magnitudes.argsort(descending=True, stable=True)[:n_kept].tolist())
        chances = torch.ones_like(self.magnitudes) if self.by == "random" else self.magnitudes
        floor = 1e-12 * float(chances.max()) or 1.0  # enough angles to draw from, where most have no gradient
        return set(torch.multinomial(chances.clamp_min(floor), n_kept, generator=generator).tolist())

    def state(self) -> dict[str, Any]:
        """What the next step depends on."""
        return {"step": self.step, "magnitudes": self.magnitudes}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.step, self.magnitudes = state["step"], state["magnitudes"].clone()


class GuidedSPSA:
    """Guided SPSA: part of a batch by the shift rule, the rest by SPSA of the size that the first part has
    (arXiv 2404.15751).

    The first ``ratio * B`` samples of a batch get exact gradients. Each of the others gets the mean over k random
    directions, scaled to the norm ``damping * mean |g_exact|``. k grows linearly over training from ``0.1 P`` to
    ``P min(1, 1.5 - ratio)``, with P angles that want a gradient.

    Args:
        ratio: the share of exact samples, above 0 and at most 1.
        damping: the size of SPSA's gradients in units of the exact ones'.
        steps: steps of the training, over which k grows. None: `qbp.fit` says; without it k has its mean throughout.

    Example:
        >>> rule = GuidedSPSA(steps=100)
        >>> rule.directions(40)  # of 40 angles, in the first step
        4
    """

    name = "guided-spsa"

    def __init__(self, ratio: float = 0.5, damping: float = 1.0, steps: int | None = None):
        if not 0 < ratio <= 1:
            raise ArgumentError(f"Argument `ratio` must be above 0 and at most 1, but is {ratio!r}")
        if not 0 < damping < math.inf:
            raise ArgumentError(f"Argument `damping` must be positive and finite, but is {damping!r}")
        if steps is not None:
            _check_counts(steps=steps)
        self.ratio, self.damping, self.steps = ratio, damping, steps
        self.begin()

    def begin(self, steps: int | None = None) -> None:
        """Forget all earlier steps; `steps` are to come."""
        self.step, self.horizon = 0, self.steps or steps

    def __repr__(self) -> str:
        return f"GuidedSPSA({self.ratio}, {self.damping}, {self.horizon})"

    def directions(self, n_angles: int) -> int:
        """k for the next step."""
        done = 0.5 if self.horizon is None else min(1.0, self.step / max(1, self.horizon - 1))
        return max(1, round(n_angles * (0.1 + (min(1.0, 1.5 - self.ratio) - 0.1) * done)))

    def __call__(
        self,
        run: Run,
        program: Program,
        angles: Angles,
        amplitudes: Tensor | None,
        grad: Tensor,
        needs: Needs,
        generator: torch.Generator | None = None,
    ) -> Gradients:
        """Gradients of the angles; those of amplitudes are not to be had."""
        refuse_amplitudes(self.name, needs)
        if not any(needs.angles):
            return Gradients()
        full, n_exact = angles.full(), math.ceil(self.ratio * angles.n_samples)
        start = (None, None) if amplitudes is None else (amplitudes[:n_exact], amplitudes[n_exact:])
        exact = combine(run, Angles.of(full[:n_exact]), start[0], grad[:n_exact], shift_terms(program, needs))
        k = self.directions(sum(needs.angles))
        guess = perturb(run, full[n_exact:], start[1], grad[n_exact:], needs, generator, k)
        size = self.damping * exact.norm(dim=1).mean()
        guess = guess * (size / guess.norm(dim=1, keepdim=True).clamp_min(1e-30))
        self.step += 1
        return split(torch.cat([exact, guess]), angles, needs)

    def state(self) -> dict[str, Any]:
        """What the next step depends on."""
        return {"step": self.step}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.step = state["step"]


class GCANS:
    """Shots where they help most: as many for each angle as its noise and the size of the gradient ask for.

    The rule of gCANS (arXiv 2108.10434), ``s_i = 2 L a sigma_i (sum_k sigma_k) / ((2 - L a) |chi|^2)``, with running
    means (weight `mu`, without bias) chi of the gradient and sigma_i^2 of the variance of its i-th component for one
    shot, and L, a bound of the curvature, the sum of ``|dL/df|`` over samples and outputs. Variances come from the
    measured expectation values: ``1 - f^2`` for a Pauli word; correlations between outputs are left out.
    Numbers of shots are rounded up to powers of two, so that a step is a few jobs.

    Args:
        lr: a, the learning rate; the rule is derived for plain gradient descent.
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

    def __init__(self, lr: float = 0.1, min_shots: int = 16, max_shots: int = 8192, mu: float = 0.9):
        _check_counts(min_shots=min_shots, max_shots=max_shots)
        if not (0 < lr < math.inf and 0 <= mu < 1 and min_shots <= max_shots):
            raise ArgumentError(
                "Arguments must have `lr` positive, 0 <= `mu` < 1 and `min_shots` <= `max_shots`, but are "
                f"{lr!r}, {mu!r}, {min_shots!r} and {max_shots!r}"
            )
        self.lr, self.min_shots, self.max_shots, self.mu = lr, min_shots, max_shots, mu
        self.begin()

    def begin(self, steps: int | None = None) -> None:
        """Forget all earlier steps."""
        self.step, self.shots = 0, torch.empty(0, dtype=torch.int64)
        self.chi, self.variance = torch.empty(2, 0, dtype=torch.float64)

    def __repr__(self) -> str:
        return f"GCANS({self.lr}, {self.min_shots}, {self.max_shots}, {self.mu})"

    def __call__(
        self,
        run: Callable[..., Tensor],
        program: Program,
        angles: Angles,
        amplitudes: Tensor | None,
        grad: Tensor,
        needs: Needs,
        generator: torch.Generator | None = None,
    ) -> Gradients:
        """As `qbp.gradients.rules.parameter_shift`, with shots of their own for each angle."""
        refuse_amplitudes(self.name, needs)
        full = angles.full()
        n_angles, shared = full.shape[1], full.shape[1] - angles.batched.shape[1]
        if len(self.shots) != n_angles:
            self.step, self.shots = 0, self.shots.new_full((n_angles,), self.min_shots)
            self.chi, self.variance = self.chi.new_zeros(2, n_angles)
        bound = _largest_outputs(program).to(full)
        total, variance = torch.zeros_like(full), torch.zeros(n_angles, dtype=torch.float64)
        for shots in self.shots.unique().tolist():
            chosen = Needs(tuple(need and self.shots[k] == shots for k, need in enumerate(needs.angles)))
            terms = shift_terms(program, chosen)
            seen: list[Tensor] = []

            def watched(at: Angles, start: Tensor | None, shots: int = shots, seen: list[Tensor] = seen) -> Tensor:
                seen.append(run(at, start, shots))
                return seen[-1]

            total += combine(watched, angles, amplitudes, grad, terms)
            if terms:
                outputs = torch.cat([part.unflatten(0, (len(full), -1)) for part in seen], 1)  # (B, terms, M)
                spread = ((bound**2 - outputs**2).clamp_min(0) * grad[:, None] ** 2).sum((0, 2)).double().cpu()
                index, coefficient, _ = zip(*terms, strict=True)
                variance.index_add_(0, torch.tensor(index), spread * torch.tensor(coefficient).double() ** 2)
        gradient = total.double().cpu()
        per_angle = torch.cat([gradient.norm(dim=0)[: n_angles - shared], gradient.sum(0)[n_angles - shared :]])
        self._allot(per_angle, variance, float(grad.abs().sum()))
        return split(total, angles, needs)

    def _allot(self, gradient: Tensor, variance: Tensor, lipschitz: float) -> None:
        self.step += 1
        self.chi = self.mu * self.chi + (1 - self.mu) * gradient
        self.variance = self.mu * self.variance + (1 - self.mu) * variance
        unbiased = 1 - self.mu**self.step
        sigma = (self.variance / unbiased).sqrt()
        pace = min(1.0, self.lr * lipschitz)  # below 2, or no step size would do
        size = (self.chi / unbiased).square().sum().clamp_min(1e-12)
        ideal = (2 * pace / (2 - pace) * sigma * sigma.sum() / size).clamp(self.min_shots, self.max_shots)
        self.shots = (2 ** ideal.log2().ceil()).clamp_max(self.max_shots).long()

    def state(self) -> dict[str, Any]:
        """What the next step depends on."""
        return {"step": self.step, "chi": self.chi, "variance": self.variance, "shots": self.shots}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.step = state["step"]
        self.chi, self.variance, self.shots = (state[key].clone() for key in ("chi", "variance", "shots"))


STATEFUL: dict[str, Callable[[], Any]] = {
    "gradient-pruning": GradientPruning,
    "guided-spsa": GuidedSPSA,
    "gcans": GCANS,
}
"""The rules of this module by name."""


_PARTS = ("name", "begin", "state", "load_state")


def rule_of(diff_method: Any) -> tuple[str, Any]:
    """The name of a gradient rule, and an object of its own for one of `STATEFUL` or a rule that was given."""
    if isinstance(diff_method, str):
        return diff_method, STATEFUL[diff_method]() if diff_method in STATEFUL else None
    if not (callable(diff_method) and all(hasattr(diff_method, part) for part in _PARTS)):
        raise ArgumentError(
            f"Argument `diff_method` must be a name or a rule of qbp.gradients.stateful (callable, with "
            f"{', '.join(_PARTS)}), but is {diff_method!r}"
        )
    return diff_method.name, deepcopy(diff_method)


def prepare(model: nn.Module, optimizer: Optimizer, steps: int | None = None) -> None:
    """Start the rules of a model's layers anew for a training of so many steps; `optimizer` will respect their masks.

    `qbp.fit` does this; call it once, before the first step, in a loop of your own. In a step in which
    `GradientPruning` left out gradients, weights whose gradient is 0, and all that the optimiser remembers of them
    (momentum, squares), stay as they are.

    Args:
        model: the model.
        optimizer: what takes its steps.
        steps: how many there will be, for `GuidedSPSA`.
    """
    rules: list[tuple[nn.Module, Any]] = [(layer, getattr(layer, "rule", None)) for layer in model.modules()]
    layers = [(layer, rule) for layer, rule in rules if rule is not None]
    for _, rule in layers:
        rule.begin(steps)
    masked = [(layer, rule) for layer, rule in layers if getattr(rule, "mask", False)]
    if not masked:
        return
    kept: list[tuple[Tensor, Tensor, Tensor]] = []

    def before(*_: object) -> None:
        kept.clear()
        for layer, rule in masked:
            for parameter in layer.parameters() if rule.skips else ():
                if parameter.grad is not None:
                    mask = parameter.grad == 0
                    kept.extend((each, mask, each[mask].clone()) for each in _of(optimizer, parameter))

    def after(*_: object) -> None:
        for tensor, mask, values in kept:
            tensor[mask] = values

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)


def _of(optimizer: Optimizer, parameter: nn.Parameter) -> Iterable[Tensor]:
    """A parameter's values, and what the optimiser remembers of each of them."""
    remembered = optimizer.state.get(parameter, {}).values()
    return [parameter.data, *(t for t in remembered if isinstance(t, Tensor) and t.shape == parameter.shape)]


def _largest_outputs(program: Program) -> Tensor:
    """How large each output can be, (M,): the root of the largest mean square of what is read from one shot."""
    sizes: list[float] = []
    for measurement in program.measurements:
        if isinstance(measurement, Expval):
            sizes.append(sum(abs(coefficient) for coefficient, _, _ in measurement.terms))
        else:
            sizes += [1.0] * 2 ** len(measurement.wires)
    return torch.tensor(sizes)


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        check_count(name, count)
