"""The bill before anything is sent: jobs, circuits, shots and quantum seconds of a model on a quantum computer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qbp.data import Dataset, split
from qbp.errors import ArgumentError
from qbp.executors import Executor
from qbp.hardware.exchange import copied, executors_for, layers_of, use
from qbp.jobs.cost import Cost
from qbp.jobs.jobs import Primitive, Results, Work
from qbp.nn.layer import QuantumLayer
from qbp.nn.seeding import seeded
from qbp.training.fitting import batch_sizes
from qbp.training.metrics import check_data, place
from qbp.training.options import Training, training_of

__all__ = ["Meter", "evaluation", "plan"]


def plan(
    model: nn.Module,
    data: Dataset,
    training: Training | None = None,
    *,
    backend: str | Executor,
    shots: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    validation: Dataset | float | None = None,
    seed: int = 0,
    options: Any = None,
    rate: float | None = None,
) -> Cost:
    """What `evaluate(model, data)`, or ``fit(model, data, training)``, will cost on a backend. Nothing is sent.

    Jobs, circuits and shots are counted by running the model with all results left blank, so that they are exact;
    quantum seconds are an estimate (IBM's formula: 2 s a job and 0.35 ms an execution, without mitigation).

    Args:
        model: holds one or more `QuantumLayer`.
        data: what it is evaluated on or trained with.
        training: as in `fit`; None, without `epochs`, plans an evaluation. Training that stops early costs less.
        backend, shots, options: as in `on_backend`.
        epochs, batch_size, validation, seed: as in `fit`, in place of those of `training` (or the `batch_size` of
            `evaluate`).
        rate: money for a quantum second.

    Example:
        >>> from qbp import data
        >>> train, test = data.load("iris")
        >>> model = nn.Sequential(QuantumLayer("basic_entangler", n_qubits=4, n_layers=1), nn.Linear(4, 3))
        >>> print(plan(model, test, backend="aer", shots=1000))
        1 jobs, 38 circuits, 38,000 shots, 0 quantum seconds
        >>> plan(model, train, backend="aer", shots=1000, epochs=2, batch_size=16).jobs
        14
    """
    check_data(model, data)
    changes = {"epochs": epochs, "batch_size": batch_size, "validation": validation}
    how = training_of(training, {name: value for name, value in changes.items() if value is not None})
    counted = copied(model)
    layers = layers_of(counted)
    meters = []
    for layer, executor in zip(layers, executors_for(layers, backend, shots, options), strict=True):
        if not hasattr(executor, "runner"):
            raise ArgumentError(f"Argument `backend` must be one that takes jobs, but is {executor.name!r}")
        meters.append(Meter(layer))
        executor.runner = meters[-1]
        use(layer, executor)
    with seeded(seed, counted):
        if training is None and epochs is None:
            evaluation(counted, data, batch_size or 1024)
        else:
            held_out = how.validation
            if isinstance(held_out, float):
                data, held_out = split(data, held_out, seed=seed)
            _training(counted, meters, data, held_out, how, seed)
    return sum((meter.cost for meter in meters), Cost()).at(rate)


class Meter:
    """A runner that counts jobs instead of running them."""

    def __init__(self, layer: QuantumLayer):
        self.layer, self.cost = layer, Cost()
        self.works: list[tuple[Primitive, Work]] = []

    def __call__(self, primitive: Primitive, work: Work) -> Results:
        self.cost += Cost(1, work.n_circuits, work.n_circuits * work.shots, work.seconds)
        self.works.append((primitive, work))
        blank = np.zeros((len(work.values), self.layer.n_outputs or 0))
        return Results(blank, blank)


def evaluation(model: nn.Module, data: Dataset, batch_size: int) -> None:
    """Run the model on data as `evaluate` does."""
    model.eval()
    with torch.no_grad():
        for part in place(model, data)[0].split(batch_size):
            model(part)


def _training(
    model: nn.Module,
    meters: list[Meter],
    data: Dataset,
    validation: Dataset | None,
    training: Training,
    seed: int,
) -> None:
    """One epoch stands for all, but for equal rows: those in one batch are one circuit, so that their order counts."""
    x, order = place(model, data)[0], torch.Generator().manual_seed(seed)
    alike = len(torch.unique(x, dim=0)) == len(x)
    sizes = batch_sizes(model, len(x), training.batch_size)
    full = sizes.count(training.batch_size)
    for _ in range(1 if alike else training.epochs):
        batches = x[torch.randperm(len(x), generator=order)].split(sizes)
        if alike:
            _repeated(model, meters, batches[0], full)
            batches = batches[full:]
        model.train()
        for batch in batches:
            _step(model, batch)
        if validation is not None:
            evaluation(model, validation, 1024)
    if alike:
        for meter in meters:
            meter.cost *= training.epochs


def _repeated(model: nn.Module, meters: list[Meter], batch: Tensor, times: int) -> None:
    if times:
        model.train()
        _step(model, batch)
        for meter in meters:
            meter.cost *= times


def _step(model: nn.Module, batch: Tensor) -> None:
    model(batch).sum().backward()
