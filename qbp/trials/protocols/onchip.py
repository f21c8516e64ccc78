"""Training on a noisy device by the shift rule, with fewer of its gradients: is it which ones that matters?

The circuit, the data and the options are those of the released example of arXiv 2202.13239; the device is one of
Qiskit's fakes, sampled in training as a device is, and exact where a trained model is measured.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from qbp.compression.pruning import prune
from qbp.compression.rank import live_parameters
from qbp.executors import backend
from qbp.gradients.stateful import GradientPruning
from qbp.hardware.transfer import on_backend
from qbp.nn.layer import QuantumLayer
from qbp.nn.models import n_parameters
from qbp.runs.schema import Count, Number, Positive, Section, Share
from qbp.runs.values import among
from qbp.training.fitting import fit
from qbp.training.metrics import evaluate
from qbp.trials.cell import Cell, Row
from qbp.trials.digits import pooled_digits

__all__ = ["METHODS", "Counted", "Options", "cells", "circuit", "train"]

METHODS: dict[str, dict[str, Any]] = {
    "no pruning": {},
    "no pruning, fewer epochs": {"fewer": True},
    "gradient pruning": {"rule": "magnitude"},
    "gradient pruning, uniformly random": {"rule": "random"},
    "gradient pruning, largest half": {"rule": "top"},
    "exact pruning": {"exact": True},
}
"""Each arm: by what gradients are chosen, or what else is less."""


class Options(Section):
    """What is trained, and where.

    Attributes:
        arms: of `METHODS`.
        classes: four digits.
        device: what runs the circuits: "fake:NAME", or "native" without noise.
        shots: of each circuit in training.
        test_size: share of the rows for test.
        tests: of these the first so many are measured on.
        epochs, lr, batch_size, weight_decay: of Adam with a cosine.
        fewer_epochs: of the arm that trains as many circuits less as pruning saves.
        ratio, accumulation, window: of `qbp.gradients.stateful.GradientPruning`.
    """

    arms: Annotated[tuple[Annotated[str, among(METHODS)], ...], Field(min_length=2)] = tuple(METHODS)
    classes: Annotated[tuple[int, ...], Field(min_length=4, max_length=4)] = (0, 1, 2, 3)
    device: Annotated[str, Field(pattern=r"^(native|fake:[A-Za-z0-9_]+)$")] = "fake:quito"
    shots: Count = 8192
    test_size: Share = 0.75
    tests: Count = 300
    epochs: Count = 15
    fewer_epochs: Count = 10
    lr: Positive = 0.05
    batch_size: Count = 25
    weight_decay: Annotated[Number, Field(ge=0)] = 1e-4
    ratio: Share = 0.5
    accumulation: Count = 1
    window: Count = 2


class Counted:
    """An executor that counts the circuits it runs."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.circuits = inner, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["inner"], name)

    def __call__(self, program: Any, angles: Any, amplitudes: Any = None) -> Any:
        self.circuits += angles.n_samples  # one for each parameter set: all outputs are read from the same shots
        return self.inner(program, angles, amplitudes)

    def __deepcopy__(self, memo: Any) -> Counted:
        return self


def circuit(inputs: Any, weights: Any) -> list[Any]:
    """16 pixels as angles of RY, RZ, RX and RY, sqrt(H), and 3 blocks of RX, RY, RZ and CZ on 4 qubits: 36 weights."""
    import pennylane as qml

    for k, gate in enumerate([qml.RY, qml.RZ, qml.RX, qml.RY]):
        for wire in range(4):
            gate(inputs[4 * k + wire], wires=wire)
    for wire in range(4):  # sqrt(H): a quarter turn about (X + Z) / sqrt(2)
        qml.RY(-math.pi / 4, wires=wire)
        qml.RZ(math.pi / 2, wires=wire)
        qml.RY(math.pi / 4, wires=wire)
    for block in range(3):
        for k, gate in enumerate([qml.RX, qml.RY, qml.RZ]):
            for wire in range(4):
                gate(weights[block, k, wire], wires=wire)
        for wire in range(3):
            qml.CZ([wire, wire + 1])
    return [qml.expval(qml.Z(wire)) for wire in range(4)]


def cells(options: Options, seeds: Sequence[int]) -> list[Cell]:
    """Return every method for every seed."""
    return [Cell("digits", arm, seed) for seed in seeds for arm in options.arms]


def train(options: Options, cell: Cell) -> Row:
    """Train by one method.

    Returns:
        `accuracy` on the device's noise, exactly; `accuracy_ideal` without it; `circuits` that training executed,
        counted where they ran; `live`, the rank of the weights; and what it cost.
    """
    method = METHODS[cell.arm]
    sizes: dict[str, Any] = {"test_size": options.test_size, "tests": options.tests}
    train_rows, test_rows = pooled_digits(options.classes, cell.seed, **sizes)
    draws = torch.Generator().manual_seed(cell.seed)
    counted = Counted(backend(options.device, shots=options.shots, generator=draws))
    rule: Any = "parameter-shift"
    if "rule" in method:
        rule = GradientPruning(options.ratio, options.accumulation, options.window, by=method["rule"])
    layer: Any = QuantumLayer(
        circuit,
        {"weights": (3, 3, 4)},
        n_inputs=16,
        backend=counted,
        diff_method=rule,
        seed=cell.seed,
    )
    live = live_parameters(layer)
    if method.get("exact"):
        layer = prune(layer, by="exact")
    model, before, began = nn.Sequential(layer), counted.circuits, time.perf_counter()
    fit(
        model,
        train_rows,
        epochs=options.fewer_epochs if method.get("fewer") else options.epochs,
        lr=options.lr,
        optimizer=partial(torch.optim.Adam, weight_decay=options.weight_decay),
        batch_size=options.batch_size,
        schedule="cosine",
        seed=cell.seed,
    )
    seconds, circuits = time.perf_counter() - began, counted.circuits - before
    return {
        "accuracy": evaluate(on_backend(model, options.device), test_rows)["accuracy"],
        "accuracy_ideal": evaluate(on_backend(model, "native"), test_rows)["accuracy"],
        "circuits": circuits,
        "live": live,
        "n_parameters": n_parameters(model),
        "two_qubit_gates": sum(len(op.wires) > 1 for op in layer.circuit.program.ops),
        "train_seconds": seconds,
        "test_share": len(test_rows) / len(train_rows),
    }
