"""What is known of a circuit's inputs before anything ran: so much of a bill is exact, the rest an upper bound.

Equal rows of a batch are one circuit. Which rows of the inputs of a quantum layer will be equal is known where they do
not depend on results of another quantum layer, nor on weights that will have moved by then; or where what they depend
on keeps different rows different. A bill counts all other rows as different ones. Equal jobs are one job, too: those of
a layer that is called twice with the same rows, or again in a later step while no weight of its moved.
"""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qbp.jobs.jobs import Primitive, Results, Work
from qbp.nn.copying import copied
from qbp.nn.layer import QuantumLayer
from qbp.nn.seeding import seeded, spared

__all__ = ["Foresight"]

# Steps of autograd after which different rows are still different, but for a coincidence.
KEEPS_APART = {
    *("AccumulateGrad", "Alias", "Cat", "Clone", "Expand", "Permute", "ReshapeAlias", "Select", "Slice", "Split"),
    *("Squeeze", "Stack", "T", "ToCopy", "Transpose", "UnsafeView", "Unsqueeze", "View"),
    *("Add", "Addmm", "Bmm", "Convolution", "Div", "Mean", "MkldnnConvolution", "Mm", "Mul", "Neg", "Sub", "Sum"),
    *("Atan", "Cos", "Exp", "Gelu", "LeakyRelu", "LogSoftmax", "Sigmoid", "Silu", "Sin", "Softmax", "Softplus", "Tanh"),
    *("NativeBatchNorm", "NativeLayerNorm"),
}

SATURATES = {"Sigmoid": (0.0, 1.0), "Softmax": (0.0, 1.0), "Tanh": (-1.0, 1.0)}
"""Those whose results end at two numbers, which large arguments reach in floating point."""

Seen = dict[str, list[Tensor]]


class Foresight:
    """Watches the inputs of the quantum layers of a model that is run to be counted.

    Beside it run copies: one whose circuits give other results, and two whose trainable weights, statistics and random
    numbers are others too. What is equal in all of them is known.

    Args:
        model: to be counted; its executors run nothing.
        layers: its quantum layers.
        trains: whether its weights will move.

    Attributes:
        sure: whether all inputs so far were known, so that the count is exact.
        alike: names of layers of which two calls in this step may have got the same, or not.
        moving: names of layers whose inputs in this step are not decided by the data alone.
    """

    def __init__(self, model: nn.Module, layers: list[QuantumLayer], *, trains: bool):
        self.sure, self.model, self.trains = True, model, trains
        self.alike: set[str] = set()
        self.moving: set[str] = set()
        self._plain = True
        self._drawn = 0
        self._calls: dict[str, list[list[Tensor]]] = {}  # inputs of a layer in this step, with those in the copies
        self._layers = {name: module for name, module in model.named_modules() if module in layers}
        self._known: dict[tuple[str, int, bool], list[Tensor]] = {}  # inputs that only the data decide
        names = {id(module): name for name, module in model.named_modules()}
        self._seen: list[Seen] = [{} for _ in range(3 if trains else 1)]
        memo = {id(layer.executor): layer.executor for layer in layers}
        moves = (0.0, 2.0, -2.0)
        self._others = [_other(model, dict(memo), *each) for each in zip(self._seen, moves, strict=False)]
        self._batch = torch.empty(0)
        self._training = False
        for layer in layers:
            layer.forward = partial(self._forward, layer.forward, names[id(layer)])  # type: ignore[method-assign]

    @property
    def plain(self) -> bool:
        """Whether all batches of different rows would have counted the same."""
        return self._plain

    @property
    def recurs(self) -> bool:
        """Whether a layer's circuits may be asked for again in a later step: after a backward pass."""
        return any(self.is_still(name) for name in self._layers)

    @property
    def distinct(self) -> bool:
        """Whether the rows so far would have counted the same in any order, if they were different."""
        if self.recurs:
            return False
        each: dict[tuple[str, bool], list[Tensor]] = {}
        for (name, _, training), rows in self._known.items():
            each.setdefault((name, training), []).extend(rows)
        return self._plain or all(len(torch.unique(torch.cat(r), dim=0)) == sum(map(len, r)) for r in each.values())

    def is_still(self, name: str) -> bool:
        """Whether all that a layer's circuits depend on stays what it is, from step to step: after a backward pass."""
        return name not in self.moving and all(p.grad is None for p in self._layers[name].parameters())

    def begin(self) -> None:
        """What follows has other weights than what was before."""
        self._calls, self.alike, self.moving = {}, set(), set()

    def run(self, batch: Tensor, *, training: bool) -> Tensor:
        """Run the model on a batch, as a step of training does or as an evaluation."""
        for seen, other in zip(self._seen, self._others, strict=True):
            seen.clear()
            other.train(self.model.training)
            with torch.no_grad(), spared(other), seeded(None if seen is self._seen[0] else 1, other):
                other(batch)
        self._batch, self._training = batch, training
        with torch.enable_grad():  # that shows what the inputs of a layer come from
            outputs: Tensor = self.model(batch)
        return outputs

    def _forward(self, forward: Any, name: str, x: Tensor) -> Tensor:
        others = [seen[name].pop(0) if seen.get(name) else None for seen in self._seen]
        of_results, *others_differ = [other is None or not _equal(x, other) for other in others]
        of_weights = any(others_differ)
        if of_results or of_weights:
            self.moving.add(name)
        if of_results or (of_weights and not self._stays_apart(x, others[1:])):
            self.sure = False
            rows = self._different_rows(x)
            x = rows + (x - x.detach()) if x.requires_grad else rows
        else:
            self._note_call(name, [x, *(other for other in others if other is not None)])
            if not of_weights:
                self._note_rows(name, x.detach().flatten(1).clone())
        with torch.set_grad_enabled(self._training and torch.is_grad_enabled()):
            outputs: Tensor = forward(x)
        if outputs.requires_grad:
            outputs.register_hook(self._note_gradient)
        return outputs

    def _note_gradient(self, gradient: Tensor) -> None:
        """Weights that get no gradient stay where they are, and their jobs come again."""
        self.sure &= bool(gradient.any())

    def _note_call(self, name: str, inputs: list[Tensor]) -> None:
        """A layer's calls that get the same by way of weights that move may get something else by then."""
        inputs = [each.detach().clone() for each in inputs]
        before = self._calls.setdefault(name, [])
        same = [call for call in before if _equal(call[0], inputs[0])]
        if same and not any(len(call) == len(inputs) and all(map(_equal, call, inputs)) for call in same):
            self.alike.add(name)
        before.append(inputs)

    def _note_rows(self, name: str, rows: Tensor) -> None:
        """Inputs that only the data decide."""
        is_batch = _equal(rows, self._batch.flatten(1))
        self._plain &= is_batch
        number = len(self._seen[0][name])
        earlier = [call[0].flatten(1) for call in self._calls[name][:-1]]
        if not (is_batch and any(_equal(rows, other) for other in earlier)):  # the same call twice is one
            self._known.setdefault((name, number, self._training), []).append(rows)

    def _different_rows(self, x: Tensor) -> Tensor:
        """Rows of norm 1, all different, others at each call: inputs of any circuit, amplitudes included."""
        self._drawn += 1
        rows = torch.randn(x.shape, generator=torch.Generator().manual_seed(self._drawn), dtype=torch.float64)
        if x.shape[-1] == 1:  # of norm 1 there are two
            rows = (torch.arange(1.0, 1 + rows.numel(), dtype=torch.float64) / (1 + rows.numel())).reshape(x.shape)
            rows = rows + 2 * self._drawn
        else:
            rows = rows / torch.linalg.vector_norm(rows, dim=-1, keepdim=True).clamp_min(1e-9)
        return rows.to(x if x.is_floating_point() else torch.empty(0))

    def _stays_apart(self, x: Tensor, others: list[Tensor | None]) -> bool:
        if not _keeps_apart(x.grad_fn):
            return False
        n_rows = len(torch.unique(self._batch.flatten(1), dim=0))
        seen = [x, *(other for other in others if other is not None)]
        return all(len(torch.unique(each.detach().flatten(1), dim=0)) == n_rows for each in seen)


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a.detach(), b)


def _keeps_apart(node: Any) -> bool:
    """Whether all that a tensor comes from, through trainable weights, keeps different rows different."""
    seen, rest = set(), [node]
    while rest:
        node = rest.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        name = type(node).__name__.removesuffix("0").removesuffix("1").removesuffix("Backward")
        if name not in KEEPS_APART:
            return False
        if name == "NativeLayerNorm" and math.prod(node._saved_normalized_shape) < 3:
            return False  # of two numbers it leaves which is the larger one
        if name in SATURATES and _is_saturated(node._saved_result, *SATURATES[name]):
            return False
        factors = [getattr(node, part, None) for part in ("_saved_self", "_saved_other")] if name == "Mul" else []
        if any(isinstance(factor, Tensor) and bool((factor == 0).any()) for factor in factors):
            return False  # a mask
        rest += [parent for parent, _ in node.next_functions]
    return bool(seen)


def _is_saturated(result: Tensor, low: float, high: float) -> bool:
    return bool(((result - low < 1e-6) | (high - result < 1e-6)).any())


def _other(model: nn.Module, memo: dict[int, Any], seen: Seen, move: float) -> nn.Module:
    """A copy of the model whose circuits give random results, and whose weights and statistics have moved."""
    other = copied(model, memo)
    draws = torch.Generator().manual_seed(0)
    for name, module in other.named_modules():
        if isinstance(module, QuantumLayer):
            executor: Any = copy.copy(module.executor)
            executor.runner, executor.generator = _random_results, None
            module._executor = executor
            module.forward = partial(_note, module.forward, seen, name)  # type: ignore[method-assign]
    if move:
        with torch.no_grad():
            for weight in other.parameters():
                if weight.requires_grad:  # farther than initial weights are apart
                    fan_in = weight[0].numel() if weight.ndim > 1 else 4
                    weight.add_(torch.randn(weight.shape, generator=draws).to(weight), alpha=move * fan_in**-0.5)
            for buffer in other.buffers():
                if buffer.is_floating_point():
                    buffer.mul_(1 + 0.1 * torch.rand(buffer.shape, generator=draws).to(buffer))
    return other


def _note(forward: Any, seen: Seen, name: str, x: Tensor) -> Tensor:
    seen.setdefault(name, []).append(x.detach().clone())
    outputs: Tensor = forward(x)
    return outputs


def _random_results(primitive: Primitive, work: Work) -> Results:
    shape = (len(work.values), work.payload.compiled.program.n_outputs)
    return Results(np.random.default_rng(0).uniform(0.1, 0.9, shape), np.zeros(shape))
