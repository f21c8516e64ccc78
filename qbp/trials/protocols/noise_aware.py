"""Means against a device's noise, beside training under all of it: two blocks of circuits on handwritten digits.

QuantumNAT's three means are normalised outputs, injected errors and quantised outputs (arXiv 2110.11331). A model is
measured under all of the device's noise, exactly.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from qbp.executors import backend
from qbp.hardware.transfer import on_backend
from qbp.nn.layer import QuantumLayer
from qbp.nn.models import n_parameters
from qbp.nn.robustness import Normalized, Quantized
from qbp.runs.schema import Count, Number, Positive, Section, Share
from qbp.runs.values import among
from qbp.training.fitting import fit
from qbp.training.metrics import evaluate
from qbp.trials.cell import Cell, Row
from qbp.trials.digits import pooled_digits

__all__ = ["METHODS", "Options", "Pairs", "cells", "circuit", "model_of", "noisy_executors", "train", "trained"]

METHODS: dict[str, dict[str, Any]] = {
    "no means": {},
    "normalisation": {"normalized": True},
    "+ injection": {"normalized": True, "noise": "injected"},
    "+ quantisation": {"normalized": True, "noise": "injected", "quantized": True},
    "exact noise": {"noise": "exact"},
    "normalisation, exact noise": {"normalized": True, "noise": "exact"},
}
"""Each arm: what stands behind a block, and under which noise it is trained."""


class Options(Section):
    """What is trained, and under which noise.

    Attributes:
        arms: of `METHODS`.
        classes: digits, two or four.
        device: "fake:NAME".
        rows, tests: how many to train with, and to measure on.
        test_size: share of the rows for test, of which `tests` are taken.
        epochs, lr, batch_size: of Adam with a cosine.
        levels: of quantised outputs.
        pull: weight of the loss that draws outputs to their levels.
    """

    arms: Annotated[tuple[Annotated[str, among(METHODS)], ...], Field(min_length=2)] = tuple(METHODS)
    classes: Annotated[tuple[int, int] | tuple[int, int, int, int], Field(union_mode="left_to_right")] = (0, 1, 2, 3)
    device: Annotated[str, Field(pattern=r"^fake:[A-Za-z0-9_]+$")] = "fake:yorktown"
    rows: Count = 500
    tests: Count = 300
    test_size: Share = 0.4
    epochs: Count = 20
    lr: Positive = 0.01
    batch_size: Count = 32
    levels: Count = 5
    pull: Annotated[Number, Field(ge=0)] = 0.1


class Pairs(nn.Module):
    """Outputs of neighbours added: (B, 4) to (B, 2)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 2)."""
        return x.unflatten(-1, (2, 2)).sum(-1)


def circuit(inputs: Any, weights: Any) -> list[Any]:
    """16 or 4 angles on 4 qubits, and layers of U3 and a ring of controlled U3."""
    import pennylane as qml

    for k in range(len(inputs) // 4):
        for wire in range(4):
            (qml.RY, qml.RZ, qml.RX, qml.RY)[k](inputs[4 * k + wire], wires=wire)
    for layer in weights:
        for wire in range(4):
            qml.U3(*layer[wire, :3], wires=wire)
        for wire in range(4):
            qml.ctrl(qml.U3, control=wire)(*layer[wire, 3:], wires=(wire + 1) % 4)
    return [qml.expval(qml.Z(wire)) for wire in range(4)]


def model_of(
    classes: int, seed: int, *, normalized: bool = False, quantized: bool = False, levels: int = 5
) -> nn.Sequential:
    """Two blocks, and what stands behind each; what the first one measures are the angles of the second."""
    parts: list[nn.Module] = []
    for block, n_inputs in enumerate((16, 4)):
        parts.append(QuantumLayer(circuit, {"weights": (2, 4, 6)}, n_inputs=n_inputs, seed=2 * seed + block))
        if normalized:
            parts.append(Normalized(4))
        if quantized and block == 0:
            parts.append(Quantized(levels))
    return nn.Sequential(*parts, *([Pairs()] if classes == 2 else []))


def noisy_executors(device: str, seed: int) -> dict[str, Any]:
    """What trains under noise: "exact", or "injected" with errors drawn anew for every row of every step, 16 times."""
    options: dict[str, Any] = {"noise": device, "backend": "trajectories", "seed": seed}
    injected = QuantumLayer(circuit, {"weights": (2, 4, 6)}, n_inputs=4, **options)
    return {"exact": backend(device), "injected": injected.executor}


def trained(arm: str, train_rows: Any, under: Mapping[str, Any], options: Options, seed: int) -> nn.Module:
    """A model, trained in the way of an arm."""
    kinds = dict(METHODS[arm])
    noise = kinds.pop("noise", None)
    model: Any = model_of(len(options.classes), seed, levels=options.levels, **kinds)
    if noise is not None:
        model = on_backend(model, under[noise])
    quantized = [part for part in model if isinstance(part, Quantized)]

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        away = [part.distance for part in quantized if part.distance is not None]
        return cross_entropy(outputs, labels) + options.pull * torch.stack([torch.zeros(()), *away]).sum()

    how: dict[str, Any] = {"epochs": options.epochs, "lr": options.lr, "batch_size": options.batch_size}
    fit(model, train_rows, loss=loss, schedule="cosine", seed=seed, **how)
    return model


def cells(options: Options, seeds: Sequence[int]) -> list[Cell]:
    """Return every method for every seed."""
    return [Cell("digits", arm, seed) for seed in seeds for arm in options.arms]


def train(options: Options, cell: Cell) -> Row:
    """Train by one method.

    Returns:
        `accuracy` under the device's noise, exactly; `accuracy_ideal` without it; and what it cost.
    """
    sizes: dict[str, Any] = {"test_size": options.test_size, "rows": options.rows, "tests": options.tests}
    train_rows, test_rows = pooled_digits(options.classes, cell.seed, **sizes)
    under = noisy_executors(options.device, cell.seed)
    began = time.perf_counter()
    model = trained(cell.arm, train_rows, under, options, cell.seed)
    seconds = time.perf_counter() - began
    return {
        "accuracy": evaluate(on_backend(model, under["exact"]), test_rows)["accuracy"],
        "accuracy_ideal": evaluate(on_backend(model, "native"), test_rows)["accuracy"],
        "n_parameters": n_parameters(model),
        "train_seconds": seconds,
        "test_share": len(test_rows) / len(train_rows),
    }
