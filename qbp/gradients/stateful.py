"""Gradient rules that remember earlier steps, to train on a device with fewer circuits or fewer shots.

Each is an object whose `plan` is a rule of `qbp.gradients.rules`; a layer has its own.
``diff_method="gradient-pruning"`` names one with its defaults, ``diff_method=GradientPruning(ratio=0.3)`` one with
settings of your own. What they remember is kept in checkpoints, so that a run that goes on takes the same steps.

A step is one of the optimiser's, as `qbp.fit` and `prepare` say; a model that is in no optimiser's hands takes one with
each backward pass. However often a layer is used in a step, its gradients of that step are one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from qbp.circuit.angles import Angles
from qbp.circuit.program import Program
from qbp.errors import ArgumentError, check_choice, check_count
from qbp.executors import Gradients, Results
from qbp.gradients.evaluations import Evaluations, Needs, Shifts
from qbp.gradients.rules import parameter_shift, perturbed, refuse_amplitudes, shift_terms
from qbp.gradients.shots import GCANS
from qbp.gradients.steps import Stepping

__all__ = ["GCANS", "STATEFUL", "GradientPruning", "GuidedSPSA", "prepare", "rule_of"]


class GradientPruning(Stepping):
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
        check_count("accumulate", accumulate)
        check_count("prune", prune)
        check_choice("by", by, ("magnitude", "random", "top"))
        self.ratio, self.accumulate, self.prune, self.by, self.mask = ratio, accumulate, prune, by, mask
        self.begin()

    def begin(self, steps: int | None = None) -> None:
        """Forget all earlier steps."""
        self.step, self.magnitudes = 0, torch.empty(0, dtype=torch.float64)
        self._gradient, self._kept = self.magnitudes.clone(), torch.empty(0, dtype=torch.int64)
        self.skips, self._in_step = False, False

    def __repr__(self) -> str:
        return f"GradientPruning({self.ratio}, {self.accumulate}, {self.prune}, by={self.by!r}, mask={self.mask})"

    def plan(
        self,
        program: Program,
        needs: Needs,
        angles: Angles,
        amplitudes: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        **_: Any,
    ) -> Evaluations:
        """As `qbp.gradients.rules.parameter_shift`, in a pruning step for some angles only."""
        n_batched = angles.batched.shape[1]
        wanted = [k for k, need in enumerate(needs.angles) if need and k >= n_batched]
        if len(self.magnitudes) != len(wanted):  # the first step, or the circuit has changed
            self.begin()
            self.magnitudes = self.magnitudes.new_zeros(len(wanted))
            self._gradient = self.magnitudes.clone()
        self.skips = self.step >= self.accumulate and bool(wanted)  # what this step, or else the last one, does
        if self.skips:
            if not len(self._kept):
                self._kept = self._draw(generator)
            kept = set(self._kept.tolist())
            gone = {k for i, k in enumerate(wanted) if i not in kept}
            needs = Needs(tuple(need and k not in gone for k, need in enumerate(needs.angles)), needs.amplitudes)
        plan = parameter_shift(program, needs, angles, amplitudes)
        plan.seen = partial(self._see, [k - n_batched for k in wanted])
        return plan

    def _see(self, columns: list[int], gradients: Gradients, _: Tensor) -> None:
        self._in_step = True
        if self.step < self.accumulate and columns:
            assert gradients.shared is not None
            self._gradient = self._gradient + gradients.shared[columns].detach().double().cpu()

    def end_step(self) -> None:
        """Note that a step is done."""
        if self.step < self.accumulate:
            self.magnitudes = self.magnitudes + self._gradient.abs()
        self.step, self._in_step = self.step + 1, False
        self._gradient, self._kept = torch.zeros_like(self.magnitudes), self._kept[:0]
        if self.step == self.accumulate + self.prune:  # not before: the draws need what was added up
            self.step, self.magnitudes = 0, torch.zeros_like(self.magnitudes)

    def _draw(self, generator: torch.Generator | None) -> Tensor:
        n_kept = max(1, round((1 - self.ratio) * len(self.magnitudes)))
        if self.by == "top":
            return self.magnitudes.argsort(descending=True, stable=True)[:n_kept]
        chances = torch.ones_like(self.magnitudes) if self.by == "random" else self.magnitudes
        floor = 1e-12 * float(chances.max()) or 1.0  # enough angles to draw from, where most have no gradient
        return torch.multinomial(chances.clamp_min(floor), n_kept, generator=generator)

    def state(self) -> dict[str, Any]:
        """What the next step depends on."""
        return {"step": self.step, "magnitudes": self.magnitudes, "kept": self._kept}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.begin()
        self.step, self.magnitudes = state["step"], state["magnitudes"].clone()
        self._gradient, self._kept = torch.zeros_like(self.magnitudes), state.get("kept", self._kept).clone()


class GuidedSPSA(Stepping):
    """Guided SPSA: part of a batch by the shift rule, the rest by SPSA, held to the size that the first part has
    (arXiv 2404.15751, and the authors' released code).

    The first ``ratio * B`` samples of a batch get exact gradients. Each of the others gets the mean over k random
    directions. Of its Jacobian, the row of an output that is longer than ``damping * mean |row|`` of the exact samples
    is shortened to that, and only then multiplied by the gradient of the loss. k grows linearly over training from
    ``0.1 P`` to ``P min(1, 1.5 - ratio)``, with P angles that want a gradient.

    Args:
        ratio: the share of exact samples, above 0 and at most 1.
        damping: the largest size of SPSA's rows in units of the exact ones'.
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
            check_count("steps", steps)
        self.ratio, self.damping, self.steps = ratio, damping, steps
        self.begin()

    def begin(self, steps: int | None = None) -> None:
        """Forget all earlier steps; `steps` are to come."""
        self.step, self.horizon, self._in_step = 0, self.steps or steps, False

    def __repr__(self) -> str:
        return f"GuidedSPSA({self.ratio}, {self.damping}, {self.horizon})"

    def directions(self, n_angles: int) -> int:
        """k for the next step."""
        done = 0.5 if self.horizon is None else min(1.0, self.step / max(1, self.horizon - 1))
        return max(1, round(n_angles * (0.1 + (min(1.0, 1.5 - self.ratio) - 0.1) * done)))

    def plan(
        self,
        program: Program,
        needs: Needs,
        angles: Angles,
        amplitudes: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        shots: int | None = None,
        **_: Any,
    ) -> Evaluations:
        """Gradients of the angles; those of amplitudes are not to be had."""
        refuse_amplitudes(self.name, needs)
        n_samples, n_exact = angles.n_samples, math.ceil(self.ratio * angles.n_samples)
        exact = Shifts(tuple(shift_terms(program, needs)), (0, n_exact))
        k = self.directions(sum(needs.angles))
        guess = perturbed(angles, needs, generator, shots, k, (n_exact, n_samples))
        return _Guided(angles, amplitudes, needs, (exact, *guess), seen=self._see, damping=self.damping)

    def _see(self, gradients: Gradients, grad: Tensor) -> None:
        self._in_step = True

    def end_step(self) -> None:
        """Note that a step is done."""
        self.step, self._in_step = self.step + 1, False

    def state(self) -> dict[str, Any]:
        """What the next step depends on."""
        return {"step": self.step}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.step = state["step"]


@dataclass
class _Guided(Evaluations):
    """The first block is exact and guides the second one."""

    damping: float = 1.0

    def angles_gradient(self, results: Iterator[Results], grad: Tensor) -> Tensor:
        jacobians = []  # (M, B, K) of each block
        for block in self.blocks:
            outputs = [part.values for part in self.parts_of(block, results)]
            if outputs:
                jacobians.append(block.gradient(torch.cat(outputs, 1).movedim(2, 0), self.n_angles))
        if not jacobians:
            return grad.new_zeros(len(grad), self.n_angles)
        if len(jacobians) == 2:
            size = self.damping * jacobians[0].norm(dim=2).mean(1, keepdim=True)
            factor = (size / jacobians[1].norm(dim=2).clamp_min(1e-30)).clamp_max(1)  # (M, B)
            jacobians[1] = jacobians[1] * factor.unsqueeze(2)
            self.factors = [None, factor.T.unsqueeze(1).double().cpu()]
        return torch.einsum("bm,mbk->bk", grad, torch.cat(jacobians, 1))


STATEFUL: dict[str, Callable[[], Any]] = {
    "gradient-pruning": GradientPruning,
    "guided-spsa": GuidedSPSA,
    "gcans": GCANS,
}
"""The rules of this module by name."""


_PARTS = ("name", "plan", "begin", "end_step", "after_backward", "state", "load_state")


def rule_of(diff_method: Any) -> tuple[str, Any]:
    """The name of a gradient rule, and an object of its own for one of `STATEFUL` or a rule that was given."""
    if isinstance(diff_method, str):
        return diff_method, STATEFUL[diff_method]() if diff_method in STATEFUL else None
    if not all(hasattr(diff_method, part) for part in _PARTS):
        raise ArgumentError(
            f"Argument `diff_method` must be a name or a rule of qbp.gradients.stateful (with {', '.join(_PARTS)}), "
            f"but is {diff_method!r}"
        )
    return diff_method.name, deepcopy(diff_method)


def prepare(model: nn.Module, optimizer: Optimizer, steps: int | None = None) -> None:
    """Start the rules of a model's layers anew for a training of so many steps; each step of `optimizer` is one.

    `qbp.fit` does this; call it once, before the first step, in a loop of your own. In a step in which
    `GradientPruning` left out gradients, weights whose gradient is 0, and all that the optimiser remembers of them
    (momentum, squares), stay as they are. `GCANS` reads the optimiser's learning rate.

    Args:
        model: the model.
        optimizer: what takes its steps.
        steps: how many there will be, for `GuidedSPSA`.
    """
    rules: list[tuple[nn.Module, Any]] = [(layer, getattr(layer, "rule", None)) for layer in model.modules()]
    layers = [(layer, rule) for layer, rule in rules if rule is not None]
    if not layers:
        return
    for layer, rule in layers:
        rule.begin(steps)
        rule._optimizer = ref(optimizer)
        _read_lr(layer, rule, optimizer)
    kept: list[tuple[Tensor, Tensor, Tensor]] = []

    def before(optimizer: Optimizer, *_: object) -> None:
        kept.clear()
        for layer, rule in layers:
            _read_lr(layer, rule, optimizer)
            masks = getattr(rule, "mask", False) and rule.skips
            for parameter in layer.parameters() if masks else ():
                if parameter.grad is not None:
                    mask = parameter.grad == 0
                    kept.extend((each, mask, each[mask].clone()) for each in _of(optimizer, parameter))

    def after(*_: object) -> None:
        for tensor, mask, values in kept:
            tensor[mask] = values
        for _layer, rule in layers:
            rule._end_pass()

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)


def _read_lr(layer: nn.Module, rule: Any, optimizer: Optimizer) -> None:
    """Tell a rule that was given no learning rate the optimiser's for the layer's weights."""
    if getattr(rule, "given", 0) is None:
        weights = {id(parameter) for parameter in layer.parameters()}
        for group in optimizer.param_groups:
            if any(id(parameter) in weights for parameter in group["params"]):
                rule.lr = float(group["lr"])


def _of(optimizer: Optimizer, parameter: nn.Parameter) -> Iterable[Tensor]:
    """A parameter's values, and what the optimiser remembers of each of them."""
    remembered = optimizer.state.get(parameter, {}).values()
    return [parameter.data, *(t for t in remembered if isinstance(t, Tensor) and t.shape == parameter.shape)]
