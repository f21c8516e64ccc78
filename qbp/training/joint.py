"""One optimiser for the weights of several models, each of which is updated as by its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from qbp.nn.stacking import Stack
from qbp.training.options import OPTIMIZERS

__all__ = ["ELEMENTWISE", "JointOptimizer"]

ELEMENTWISE = tuple(name for name in OPTIMIZERS if name != "lbfgs")
"""Optimisers that update each number by itself, so that it does not matter which tensor it is in."""


class _Block(NamedTuple):
    """Models next to each other that are updated alike: a group of parameters of each, all of them one parameter."""

    parameter: nn.Parameter  # (models, numbers)
    first: int
    group: int


class JointOptimizer:
    """Takes the steps of several optimisers at once.

    The groups of the own optimisers stay what says how a model is updated (schedules set their rates).

    Args:
        name: a name in `ELEMENTWISE`.
        own: the models' optimisers; what they remember is gone on with.
        stack: of the same models, in whose order parameters are those of the optimisers' groups.
    """

    def __init__(self, name: str, own: Sequence[Optimizer], stack: Stack) -> None:
        self.name, self.own, self.stack = name, own, stack
        self._join()

    def _join(self) -> None:
        self.options = self._options()
        self.blocks: list[_Block] = []
        groups: list[dict[str, Any]] = []
        states: list[dict[str, Any]] = []
        for g, (weights, gradients) in enumerate(zip(self.stack.weights, self.stack.gradients, strict=True)):
            alike = [(options[g], self._steps(k, g)) for k, options in enumerate(self.options)]
            starts = [k for k in range(len(alike)) if k == 0 or alike[k] != alike[k - 1]]
            for first, end in zip(starts, [*starts[1:], len(alike)], strict=True):
                parameter = nn.Parameter(weights[first:end])
                parameter.grad = gradients[first:end]
                self.blocks.append(_Block(parameter, first, g))
                groups.append({**self.options[first][g], "params": [parameter]})
                states.append(_joined([self._remembered(k, g) for k in range(first, end)]))
        self.joint = OPTIMIZERS[self.name]([block.parameter for block in self.blocks], lr=1.0)
        self.joint.param_groups = groups
        for block, state in zip(self.blocks, states, strict=True):
            if state:
                self.joint.state[block.parameter] = state

    def _options(self) -> list[list[dict[str, Any]]]:
        """Of each model and group all but the parameters."""
        return [
            [{key: value for key, value in group.items() if key != "params"} for group in each.param_groups]
            for each in self.own
        ]

    def _remembered(self, k: int, g: int) -> list[dict[str, Any]]:
        """What an own optimiser remembers of each parameter of a group."""
        return [self.own[k].state.get(p, {}) for p in self.own[k].param_groups[g]["params"]]

    def _steps(self, k: int, g: int) -> float | None:
        """How many steps it has taken, where it counts them."""
        counted = self._remembered(k, g)[0].get("step")
        return None if counted is None else float(counted)

    def step(self) -> None:
        """Update all weights."""
        self.joint.step()
        for each in self.own:
            each._opt_called = True  # type: ignore[attr-defined]  # or their schedules warn that they come too early

    def regroup(self) -> None:
        """Take the rates as they are now."""
        self.options = self._options()
        for block in self.blocks:
            models = self.options[block.first : block.first + len(block.parameter)]
            if any(options[block.group] != models[0][block.group] for options in models):
                break
        else:
            for block, group in zip(self.blocks, self.joint.param_groups, strict=True):
                group.update(self.options[block.first][block.group])
            return
        for k in range(len(self.own)):
            self.spread(k)
        self._join()

    def spread(self, k: int) -> None:
        """Let the k-th own optimiser have what is remembered of its model."""
        for block in self.blocks:
            if not block.first <= k < block.first + len(block.parameter):
                continue
            state, begin = self.joint.state.get(block.parameter, {}), 0
            for p in self.own[k].param_groups[block.group]["params"]:
                end = begin + p.numel()
                self.own[k].state[p] = {
                    name: value[k - block.first, begin:end].view_as(p) if _is_rows(name, value) else _copied(value)
                    for name, value in state.items()
                }
                begin = end


def _is_rows(name: str, value: Any) -> bool:
    return isinstance(value, Tensor) and name != "step"  # which is one number for all


def _joined(models: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """What is remembered of each parameter of each model, as of one."""
    return {
        name: torch.stack([torch.cat([state[name].reshape(-1) for state in states]) for states in models])
        if _is_rows(name, value)
        else _copied(value)
        for name, value in models[0][0].items()
    }


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
