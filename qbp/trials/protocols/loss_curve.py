"""How low the training loss gets in so many steps: small circuits beside classical models of as many parameters.

The models are those of arXiv 2011.00027 (figure 3b) and its released code: a ZZ feature map and real amplitudes, whose
parity is the class, beside a network with one neuron in each hidden layer; each has 8 parameters for 4 columns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from qbp.comparison.controls import CONTROLS
from qbp.data import load
from qbp.nn.layer import QuantumLayer
from qbp.nn.models import n_parameters
from qbp.nn.seeding import seeded
from qbp.runs.schema import Count, Data, Positive, Section
from qbp.runs.values import among
from qbp.trials.cell import Cell, Row

__all__ = ["ARMS", "Options", "Parity", "cells", "model_of", "train"]


class Parity(nn.Module):
    """Logarithms of the probabilities of even and odd parity, (B, 2), of the expectation value (B, 1) of Z...Z."""

    def forward(self, value: Tensor) -> Tensor:
        """Return (B, 2)."""
        even = (1 + value) / 2
        return torch.cat([even, 1 - even], 1).clamp_min(1e-12).log()


def _circuit(n: int, reps: int, pairs: bool) -> Callable[..., Any]:
    """Repetitions of a feature map, with or without pairs, and real amplitudes of one layer; Z on every wire."""

    def circuit(inputs: Any, weights: Any) -> Any:
        import pennylane as qml

        for _ in range(reps):
            for wire in range(n):
                qml.Hadamard(wire)
                qml.PhaseShift(2 * inputs[wire], wires=wire)
            for i in range(n if pairs else 0):
                for j in range(i + 1, n):
                    qml.CNOT([i, j])
                    qml.PhaseShift(2 * (torch.pi - inputs[i]) * (torch.pi - inputs[j]), wires=j)
                    qml.CNOT([i, j])
        for wire in range(n):
            qml.RY(weights[0, wire], wires=wire)
        for i in range(n):
            for j in range(i + 1, n):
                qml.CNOT([i, j])
        for wire in range(n):
            qml.RY(weights[1, wire], wires=wire)
        return [qml.expval(qml.prod(*(qml.Z(wire) for wire in range(n))))]

    return circuit


def _quantum(n: int, seed: int, reps: int, pairs: bool) -> nn.Sequential:
    return nn.Sequential(QuantumLayer(_circuit(n, reps, pairs), {"weights": (2, n)}, n_inputs=n, seed=seed), Parity())


def _separable(n: int, seed: int) -> nn.Module:
    return CONTROLS["separable"](_quantum(n, seed, 2, True), n, 2)


def _narrow(n: int, seed: int, uniform: bool) -> nn.Sequential:
    """Layers of one neuron, without biases, until there are 2n parameters; drawn from (0, 1), or as torch does."""
    widths = [n, *[1] * max(1, n - 1), 2]
    with seeded(seed):
        layers = [nn.Linear(below, above, bias=False) for below, above in pairwise(widths)]
        if uniform:
            for layer in layers:
                nn.init.uniform_(layer.weight)
    parts: list[nn.Module] = []
    for layer in layers:
        parts += [layer, nn.LeakyReLU()]
    return nn.Sequential(*parts[:-1])


def _linear(n: int, seed: int) -> nn.Module:
    with seeded(seed):
        return nn.Linear(n, 2, bias=False)


ARMS: dict[str, Callable[[int, int], nn.Module]] = {
    "quantum": lambda n, seed: _quantum(n, seed, 2, True),
    "easy quantum": lambda n, seed: _quantum(n, seed, 1, False),
    "classical": lambda n, seed: _narrow(n, seed, True),
    "classical, torch's weights": lambda n, seed: _narrow(n, seed, False),
    "linear": _linear,
    "separable": _separable,
}
"""Each arm: (columns n, seed) -> (B, n) to (B, 2), with 2n parameters."""


class Options(Section):
    """What is trained, and for how long.

    Attributes:
        arms: of `ARMS`.
        data: two classes; all rows are trained on.
        unit_rows: whether each row is divided by its norm.
        steps, lr: of Adam on all rows at once.
        early: a step whose loss is told, too.
    """

    arms: Annotated[tuple[Annotated[str, among(ARMS)], ...], Field(min_length=2)] = tuple(ARMS)
    data: Data = Data(name="iris", classes=(0, 1), scale=None)
    unit_rows: Annotated[bool, Field(strict=True)] = True
    steps: Count = 100
    lr: Positive = 0.1
    early: Count = 25


def model_of(arm: str, n: int, seed: int) -> nn.Module:
    """Build the model of an arm for n columns."""
    return ARMS[arm](n, seed)


def cells(options: Options, seeds: Sequence[int]) -> list[Cell]:
    """Return every model for every seed."""
    return [Cell(options.data.name, arm, seed) for seed in seeds for arm in options.arms]


def train(options: Options, cell: Cell) -> Row:
    """Train one model on all rows at once.

    Returns:
        `loss`, the cross entropy before the last step, as the released code tells it; `early_loss` before step `early`;
        `accuracy` on the same rows; and what it cost.
    """
    parts = load(**options.data.model_dump(), seed=0)  # no split: the same rows for all seeds
    x, y = torch.cat([part.x for part in parts]), torch.cat([part.y for part in parts])
    x = normalize(x) if options.unit_rows else x
    model = model_of(cell.arm, x.shape[1], cell.seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=options.lr)
    losses, began = [], time.perf_counter()
    for _ in range(options.steps):
        optimizer.zero_grad()
        outputs = model(x)
        loss = cross_entropy(outputs, y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return {
        "loss": losses[-1],
        "early_loss": losses[min(options.early, options.steps) - 1],
        "accuracy": float((outputs.argmax(1) == y).float().mean()),
        "n_parameters": n_parameters(model),
        "train_seconds": time.perf_counter() - began,
    }
