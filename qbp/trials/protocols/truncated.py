"""A circuit beside itself with few Pauli words: does what is left out matter to its accuracy (arXiv 2408.12739)?

Measured words are carried back through the circuit; those with letters on more than k wires are left out where they
arise. What is left is a classical model, trained by itself.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field
from torch import nn

from qbp.circuit.ansatz import ANSATZE
from qbp.data import load
from qbp.errors import ConfigError
from qbp.nn.models import hybrid, matched_mlp, n_parameters
from qbp.nn.seeding import renew
from qbp.runs.schema import Count, Data, Section, Train
from qbp.runs.values import among
from qbp.training.fitting import fit
from qbp.training.metrics import evaluate
from qbp.training.options import Training
from qbp.trials.cell import Cell, Row

__all__ = ["EXACT", "Options", "arms", "cells", "model_of", "train"]

EXACT = "circuit"


class Options(Section):
    """What is trained on which data.

    Attributes:
        data: data sets by name; they have as many columns as the circuit has qubits.
        circuit, n_qubits, n_layers: a family of `qbp.circuit.ansatz`; a linear layer makes classes of what it measures.
        weights: the most letters of a word; an arm "weight K" for each.
        controls: whether a linear model, and a network with as many parameters, are trained, too.
        train: how all are trained.
    """

    data: Annotated[dict[str, Data], Field(min_length=1)]
    circuit: Annotated[str, among(ANSATZE)] = "qcnn"
    n_qubits: Count = 8
    n_layers: Count = 1
    weights: tuple[Count, ...] = (1, 2, 3)
    controls: Annotated[bool, Field(strict=True)] = True
    train: Train = Training(epochs=20, lr=0.02)


def arms(options: Options) -> list[str]:
    """The circuit, what is left of it with few words, and classical models."""
    return [EXACT, *(f"weight {k}" for k in options.weights), *(["linear", "mlp"] if options.controls else [])]


def model_of(options: Options, arm: str, n_outputs: int) -> nn.Module:
    """Build the model of an arm, untrained."""
    how: dict[str, Any] = {"circuit": options.circuit, "n_qubits": options.n_qubits, "n_layers": options.n_layers}
    if arm.startswith("weight "):
        how["backend"] = f"pauli-propagation:max_weight={arm.split()[1]}"
    model = hybrid(options.n_qubits, n_outputs, encoder=False, seed=0, **how)
    if arm == "mlp":
        return matched_mlp(model, options.n_qubits, n_outputs, tolerance=0.25, seed=0)
    return nn.Linear(options.n_qubits, n_outputs) if arm == "linear" else model


def cells(options: Options, seeds: Sequence[int]) -> list[Cell]:
    """Return every arm for every data set and seed.

    Raises:
        ConfigError: a data set is reduced to other columns than the circuit has qubits.
    """
    for name, data in options.data.items():
        if data.features not in (None, options.n_qubits):
            raise ConfigError(f"Option `data.{name}.features` must be {options.n_qubits}, but is {data.features}")
    return [Cell(name, arm, seed) for seed in seeds for name in options.data for arm in arms(options)]


def train(options: Options, cell: Cell) -> Row:
    """Train one model.

    Returns:
        `accuracy` on test rows; `truncation`, how far outputs may be off the circuit's (0 where nothing is left out);
        and what it cost.
    """
    train_rows, test_rows = load(**options.data[cell.dataset].model_dump(), seed=cell.seed)
    model = renew(model_of(options, cell.arm, train_rows.n_classes or 1), cell.seed)
    began = time.perf_counter()
    fit(model, train_rows, options.train, seed=cell.seed)
    seconds, scores = time.perf_counter() - began, evaluate(model, test_rows)
    return {
        "accuracy": scores["accuracy"],
        "truncation": scores.get("truncation", 0.0),
        "n_parameters": n_parameters(model),
        "train_seconds": seconds,
        "test_share": len(test_rows) / len(train_rows),
    }
