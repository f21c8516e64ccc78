"""The bill before anything is sent: jobs, circuits, shots and quantum seconds of a model on a quantum computer."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qbp.data import Dataset, split
from qbp.errors import ArgumentError, check_count, check_positive, suggests_names
from qbp.executors import Executor
from qbp.executors.qiskit_primitive import QiskitPrimitive
from qbp.hardware.exchange import check_size, copy_to_move, executors_for, layers_of, rehearsing
from qbp.hardware.foresight import Foresight
from qbp.jobs.cost import Cost
from qbp.jobs.jobs import Primitive, Results, Work
from qbp.nn.layer import QuantumLayer
from qbp.nn.seeding import seeded
from qbp.training.batches import batch_sizes
from qbp.training.metrics import check_data, place
from qbp.training.options import Training, training_of

__all__ = ["Meter", "blank", "plan"]


@suggests_names
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

    The model is run with all results left blank. Jobs, circuits and shots are exact; where they depend on results that
    are not known yet, as those of a second quantum layer may, they are upper bounds, and the cost says "at most".
    Quantum seconds are an estimate (IBM's formula: 2 s a job and 0.35 ms an execution). No account is needed.

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
    if batch_size is not None:
        check_count("batch_size", batch_size)
    if rate is not None:
        check_positive("rate", rate, zero=True)
    changes = {"epochs": epochs, "batch_size": batch_size, "validation": validation}
    how = training_of(training, {name: value for name, value in changes.items() if value is not None})
    counted = copy_to_move(model)
    layers = layers_of(counted)
    for layer, executor in zip(layers, executors_for(layers, backend, shots, options), strict=True):
        if not isinstance(executor, QiskitPrimitive):
            raise ArgumentError(f"Argument `backend` must be one that takes jobs, but is {executor.name!r}")
        check_size(layer, executor)
        rehearsing(executor)
        executor.transpiles = False
        layer.set_backend(executor)
        layer._checks_bits = False  # the inputs of later layers are made up
    trains = training is not None or epochs is not None
    if trains and how.optimizer == "lbfgs":
        raise ArgumentError(
            "Argument `optimizer` must take one gradient a step to be planned, but is 'lbfgs', whose line search asks "
            "for as many circuits as it needs"
        )
    with seeded(seed, counted):
        foresight = Foresight(counted, layers, trains=trains)
        meter = Meter(foresight)
        for name, module in counted.named_modules():
            if module in layers:
                module.executor.runner = partial(meter, name)
        if not trains:
            counted.eval()
            for part in place(counted, data)[0].split(batch_size or 1024):
                foresight.run(part, training=False)
        else:
            held_out = how.validation
            if isinstance(held_out, float):
                data, held_out = split(data, held_out, seed=seed)
            _training(foresight, layers, meter, data, held_out, how, seed)
    return replace(meter.cost.at(rate), at_most=not foresight.sure)


class Meter:
    """Counts jobs instead of running them; work that is done already is one job, as in a ledger.

    Args:
        foresight: which knows whether what is equal now will be equal then.
    """

    def __init__(self, foresight: Foresight) -> None:
        self.cost, self.foresight = Cost(), foresight
        self._done: dict[str, str] = {}  # which layer's work it was

    def __call__(self, layer: str, primitive: Primitive, work: Work) -> Results:
        """Count a job of a layer; its results are blank."""
        owner = self._done.get(work.fingerprint)
        self._done.setdefault(work.fingerprint, layer)
        is_sure = not self.foresight.trains or (owner == layer and layer not in self.foresight.alike)
        if owner is None or not is_sure:
            self.cost += work.cost
            self.foresight.sure &= owner is None
        return blank(work)

    def step(self) -> None:
        """The weights move: only the work of layers whose circuits stay the same is done already."""
        still = {name for name in set(self._done.values()) if self.foresight.is_still(name)}
        self._done = {work: layer for work, layer in self._done.items() if layer in still}
        self.foresight.begin()


def blank(work: Work) -> Results:
    """Results that say nothing."""
    zeros = np.zeros((len(work.values), work.payload.compiled.program.n_outputs))
    return Results(zeros, zeros)


def _training(
    foresight: Foresight,
    layers: list[QuantumLayer],
    meter: Meter,
    data: Dataset,
    validation: Dataset | None,
    training: Training,
    seed: int,
) -> None:
    """One epoch stands for all, and one batch for all of its size, where no rows can be equal."""
    x, order = place(foresight.model, data)[0], torch.Generator().manual_seed(seed)
    sizes = batch_sizes(foresight.model, len(x), training.batch_size)
    rules = [layer.rule for layer in layers if layer.rule is not None]
    for rule in rules:
        rule.begin(training.epochs * len(sizes))
    same = not rules and len(torch.unique(x, dim=0)) == len(x)
    for _ in range(training.epochs):
        batches = list(x[torch.randperm(len(x), generator=order)].split(sizes))
        foresight.model.train()
        before, meter.cost = meter.cost, Cost()
        _step(foresight, meter, batches[0])
        alike = sizes.count(sizes[0]) if same and foresight.plain and not foresight.recurs else 1
        meter.cost = before + alike * meter.cost
        batches = batches[alike:]
        for batch in batches:
            _step(foresight, meter, batch)
        if validation is not None:
            foresight.model.eval()
            for part in place(foresight.model, validation)[0].split(1024):
                foresight.run(part, training=False)
        if same and foresight.distinct:
            meter.cost *= training.epochs
            break


def _step(foresight: Foresight, meter: Meter, batch: Tensor) -> None:
    outputs = foresight.run(batch, training=True)
    if outputs.requires_grad:
        outputs.sum().backward()
    meter.step()
