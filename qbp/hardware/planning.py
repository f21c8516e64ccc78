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
from qbp.training.metrics import check_data, place

__all__ = ["Meter", "evaluation", "plan"]


def plan(
    model: nn.Module,
    data: Dataset,
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
    """What `evaluate(model, data)`, or with `epochs` ``fit(model, data)``, will cost on a backend. Nothing is sent.

    Jobs, circuits and shots are counted by running the model with all results left blank, so that they are exact;
    quantum seconds are an estimate (IBM's formula: 2 s a job and 0.35 ms an execution, without mitigation).

    Args:
        model: holds one or more `QuantumLayer`.
        data: what it is evaluated on or trained with.
        backend, shots, options: as in `on_backend`.
        epochs, batch_size, validation, seed: as in `fit` (or the `batch_size` of `evaluate`). Training that stops early
            costs less.
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
    for name, count in (("epochs", epochs), ("batch_size", batch_size)):
        if count is not None and (not isinstance(count, int) or count < 1):
            raise ArgumentError(f"Argument `{name}` must be a positive integer, but is {count!r}")
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
        if epochs is None:
            evaluation(counted, data, batch_size or 1024)
        else:
            if isinstance(validation, float):
                data, validation = split(data, validation, seed=seed)
            _training(counted, meters, data, validation, epochs, batch_size or 32, seed)
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
    epochs: int,
    batch_size: int,
    seed: int,
) -> None:
    """One epoch stands for all, but for equal rows: those in one batch are one circuit, so that their order counts."""
    x, order = place(model, data)[0], torch.Generator().manual_seed(seed)
    alike = len(torch.unique(x, dim=0)) == len(x)
    for _ in range(1 if alike else epochs):
        batches = x[torch.randperm(len(x), generator=order)].split(batch_size)
        if alike:
            _repeated(model, meters, batches[0], len(x) // batch_size if len(x) >= batch_size else 0)
            batches = batches[-1:] if len(x) % batch_size else ()
        model.train()
        for batch in batches:
            _step(model, batch)
        if validation is not None:
            evaluation(model, validation, 1024)
    if alike:
        for meter in meters:
            meter.cost *= epochs


def _repeated(model: nn.Module, meters: list[Meter], batch: Tensor, times: int) -> None:
    if times:
        model.train()
        _step(model, batch)
        for meter in meters:
            meter.cost *= times


def _step(model: nn.Module, batch: Tensor) -> None:
    model(batch).sum().backward()
