"""How the smallest model that is good enough grows with the columns of its data (as in arXiv 2412.04991)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from itertools import product
from typing import Annotated, Any, NamedTuple

from pydantic import Field
from torch import nn

from qbp.circuit.ansatz import ANSATZE
from qbp.comparison.controls import CONTROLS
from qbp.data import DATASETS, Dataset, load
from qbp.nn.models import hybrid, mlp, renew
from qbp.nn.resources import resources
from qbp.runs.schema import Count, Positive, Section, Share
from qbp.runs.values import among
from qbp.training.fitting import fit
from qbp.trials.cell import Cell, Row

__all__ = ["ARMS", "Options", "candidates", "cells", "growth", "train"]

ARMS = ("hybrid", "classical", "hybrid/removed", "hybrid/layer_tanh", "hybrid/layer_linear", "hybrid/frozen")
"""Lists of models: hybrid ones, classical networks, and the hybrid ones with another layer in the circuit's place."""


class Options(Section):
    """Which models are tried on which data.

    Attributes:
        arms: of `ARMS`.
        data: a data set that is made with any number of columns.
        features: numbers of columns, rising.
        n_samples: rows.
        test_size: share of the rows for test.
        threshold: test accuracy that is good enough, after any epoch.
        circuit: a family of `qbp.circuit.ansatz`.
        qubits, layers: of hybrid models; all combinations are tried.
        widths, depths: of classical networks: so many hidden layers of one width.
        activation: of these.
        epochs, lr, batch_size: of Adam; training ends when the threshold is reached.
    """

    arms: Annotated[tuple[Annotated[str, among(ARMS)], ...], Field(min_length=2)] = ARMS[:4]
    data: Annotated[str, among(DATASETS)] = "spiral_arms"
    features: Annotated[tuple[Count, ...], Field(min_length=2)] = (10, 110)
    n_samples: Count = 1500
    test_size: Share = 0.2
    threshold: Share = 0.9
    circuit: Annotated[str, among(ANSATZE)] = "strongly_entangling"
    qubits: tuple[Count, ...] = (3, 4, 5)
    layers: tuple[Count, ...] = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
    widths: tuple[Count, ...] = (2, 4, 6, 8, 10)
    depths: tuple[Count, ...] = (1, 2, 3)
    activation: str = "relu"
    epochs: Count = 30
    lr: Positive = 0.01
    batch_size: Count = 32


class Candidate(NamedTuple):
    """A model that may be tried: its size, its cost, and how it is built."""

    parameters: int
    multiply_adds: int
    name: str
    build: Callable[[], nn.Module]


@cache  # counting costs more than training a small model
def candidates(options: Options, arm: str, n_inputs: int, n_outputs: int) -> list[Candidate]:
    """Return the models of an arm, the smallest first; those of equal size by their multiply-adds.

    Args:
        options: with the lists.
        arm: of `ARMS`.
        n_inputs, n_outputs: columns in, and classes.
    """
    by_cost: dict[tuple[int, int], Candidate] = {}
    for name, build in _models(options, arm, n_inputs, n_outputs):
        cost = resources(build(), n_inputs)
        key = cost["n_parameters"], cost["multiply_adds"]
        by_cost.setdefault(key, Candidate(*key, name, build))
    return sorted(by_cost.values(), key=lambda candidate: candidate[:3])


def _models(options: Options, arm: str, n_inputs: int, n_outputs: int) -> Iterator[tuple[str, Callable[[], nn.Module]]]:
    if arm == "classical":
        for width, depth in product(options.widths, options.depths):
            sizes = n_inputs, *[width] * depth, n_outputs
            yield f"{width} x {depth}", partial(mlp, *sizes, activation=options.activation, seed=0)
        return
    _, _, control = arm.partition("/")

    def build(n_qubits: int, n_layers: int) -> nn.Module:
        how: dict[str, Any] = {"circuit": options.circuit, "n_qubits": n_qubits, "n_layers": n_layers}
        model = hybrid(n_inputs, n_outputs, seed=0, **how)
        return CONTROLS[control](model, n_inputs, n_outputs) if control else model

    in_place = control not in ("", "frozen", "separable")  # a layer that has no layers to vary
    for qubits, layers in product(options.qubits, options.layers[:1] if in_place else options.layers):
        yield f"{qubits} qubits, {layers} layers", partial(build, qubits, layers)


def growth(first: float, last: float) -> float:
    """Return ``(last - first) / last``: 0 for what stays as large, 1 for what grows without end."""
    return 1 - first / last


def cells(options: Options, seeds: Sequence[int]) -> list[Cell]:
    """Return every arm for every seed."""
    return [Cell(options.data, arm, seed) for seed in seeds for arm in options.arms]


def train(options: Options, cell: Cell) -> Row:
    """Find the smallest model of an arm for each number of columns.

    Returns:
        `growth_parameters` and `growth_multiply_adds` from the fewest to the most columns (1, the worst, where no model
        reached the threshold with either); for each number F of columns `parameters_F`, `multiply_adds_F`, `accuracy_F`
        and `tried_F`, of the largest model where none reached it; `reached`, the share of the numbers of columns where
        one did; `n_parameters` with the most columns.
    """
    began, row, sizes = time.perf_counter(), Row(), []
    for features in options.features:
        how: dict[str, Any] = {"features": features, "n_samples": options.n_samples, "test_size": options.test_size}
        train_rows, test_rows = load(options.data, seed=cell.seed, **how)
        n_inputs, n_outputs = features, train_rows.n_classes or 1
        accuracy, tried = 0.0, 0
        for candidate in candidates(options, cell.arm, n_inputs, n_outputs):
            accuracy, tried = _best(candidate, train_rows, test_rows, options, cell.seed), tried + 1
            if accuracy >= options.threshold:
                break
        reached = accuracy >= options.threshold
        sizes.append((candidate.parameters, candidate.multiply_adds) if reached else None)
        row[f"parameters_{features}"], row[f"multiply_adds_{features}"] = candidate[:2]
        row |= {f"accuracy_{features}": accuracy, f"tried_{features}": tried}
    first, last = sizes[0], sizes[-1]
    for k, name in enumerate(("parameters", "multiply_adds")):
        row[f"growth_{name}"] = 1.0 if first is None or last is None else growth(first[k], last[k])
    reached_share = sum(size is not None for size in sizes) / len(sizes)
    largest = row[f"parameters_{options.features[-1]}"]
    return row | {"reached": reached_share, "n_parameters": largest, "train_seconds": time.perf_counter() - began}


def _best(candidate: Candidate, train_rows: Dataset, test_rows: Dataset, options: Options, seed: int) -> float:
    """The best test accuracy of a model after any epoch, until the threshold."""
    best = 0.0

    def good(row: Any, model: nn.Module) -> bool:
        nonlocal best
        best = max(best, row["val_accuracy"])
        return best >= options.threshold

    how: dict[str, Any] = {"epochs": options.epochs, "lr": options.lr, "batch_size": options.batch_size}
    fit(renew(candidate.build(), seed), train_rows, validation=test_rows, callbacks=[good], seed=seed, **how)
    return best
