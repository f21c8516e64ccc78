"""A model on a quantum computer: what it will cost there, and the same model running there."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qbp import executors
from qbp.checkpoint import seeded
from qbp.cost import Budget, Cost
from qbp.data import Dataset, split
from qbp.errors import ArgumentError, PendingError, check_choice
from qbp.executors import Executor
from qbp.expectation import choose_diff_method
from qbp.jobs import Jobs, Primitive, Results, Work
from qbp.layer import QuantumLayer
from qbp.metrics import check_data, modes, place
from qbp.patience import Patience

__all__ = ["on_backend", "plan", "send", "session", "spent"]

JOBS = "jobs"


def on_backend(
    model: nn.Module,
    backend: str | Executor,
    *,
    shots: int | None = None,
    budget: Budget | Cost | float | None = None,
    run_dir: str | Path | None = None,
    options: Any = None,
    wait: bool = True,
    patience: Patience | None = None,
) -> nn.Module:
    """A copy of a model, with the same weights, whose quantum layers run on another backend.

    There it is evaluated and trained as ever. On a backend that costs quantum time every job is in the ledger
    ``run_dir/jobs`` before it is sent: after a kill, whoever does the same again in the same `run_dir` (``qbp.fit(...,
    run_dir=run_dir, resume=True)``) gets the results of the jobs that were sent, and pays for none of them again.

    Args:
        model: holds one or more `QuantumLayer`.
        backend: as in `QuantumLayer`: "native", "aer", "fake:manila", "ibm:ibm_torino", ...
        shots: how many times each circuit is sampled.
        budget: the most that all jobs of `run_dir` may cost: quantum seconds, a `Budget`, or what `plan` returned. Must
            be given where the backend costs quantum time, and means nothing elsewhere.
        run_dir: the run's directory. Must be given where the backend costs quantum time.
        options: how circuits are transpiled, measured and mitigated; see `qbp.Options`.
        wait: whether to wait for results; without, the model raises `PendingError` while they are not there.
        patience: how long to wait for the service.

    Raises:
        ArgumentError: an argument is wrong, or missing for a backend that costs quantum time.
        JobError: another process works in `run_dir`, or the service cannot be reached.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 4), QuantumLayer("basic_entangler", n_qubits=4, n_layers=1))
        >>> sampled = on_backend(model, "native", shots=1000)
        >>> sampled[1].backend, model[1].executor.shots, sampled[1].executor.shots
        ('native', None, 1000)
    """
    moved = _copy(model)
    layers = _layers(moved)
    runs_on = _executors(layers, backend, shots, options)
    primitive: Any = getattr(runs_on[0], "primitive", None)
    if getattr(primitive, "paid", False):
        name = runs_on[0].name
        if budget is None:
            raise ArgumentError(
                f"Argument `budget` must be given for {name!r}, which costs quantum time: seconds, or what "
                "`qbp.plan` returned"
            )
        if run_dir is None:
            raise ArgumentError(f"Argument `run_dir` must be given for {name!r}: the jobs' ledger is kept there")
        jobs = Jobs(Path(run_dir) / JOBS, budget=budget, wait=wait, patience=patience)
        jobs.patience.ask(lambda: primitive.backend, primitive.transient, f"{name}, connecting")
        for executor in runs_on:
            executor.runner, executor.directory = jobs, Path(run_dir) / JOBS
    for layer, executor in zip(layers, runs_on, strict=True):
        _use(layer, executor)
    return moved


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
    counted = _copy(model)
    layers = _layers(counted)
    meters = []
    for layer, executor in zip(layers, _executors(layers, backend, shots, options), strict=True):
        if not hasattr(executor, "runner"):
            raise ArgumentError(f"Argument `backend` must be one that takes jobs, but is {executor.name!r}")
        meters.append(_Meter(layer))
        executor.runner = meters[-1]
        _use(layer, executor)
    with seeded(counted, seed):
        if epochs is None:
            _evaluation(counted, data, batch_size or 1024)
        else:
            if isinstance(validation, float):
                data, validation = split(data, validation, seed=seed)
            _training(counted, meters, data, validation, epochs, batch_size or 32, seed)
    return sum((meter.cost for meter in meters), Cost()).at(rate)


@contextmanager
def session(model: nn.Module, mode: str = "batch", *, max_time: float | None = None) -> Iterator[nn.Module]:
    """Run the jobs of a model in one batch or session of the service, which is closed whatever happens.

    Without it each job stands for itself, which is what training needs: a batch is for jobs that do not wait for each
    other, and a session is charged by the clock, the time in which the classical part runs included.

    Args:
        model: a model of `on_backend` on one of IBM's quantum computers.
        mode: "batch" or "session".
        max_time: seconds after which the service closes it.

    Example:
        >>> with session(on_chip, "batch"):  # doctest: +SKIP
        ...     qbp.evaluate(on_chip, test)
    """
    check_choice("mode", mode, ("batch", "session"))
    primitives = {id(p): p for layer in _layers(model) if (p := getattr(layer.executor, "primitive", None)) is not None}
    for primitive in primitives.values():
        if not primitive.paid:
            raise ArgumentError(f"Argument `model` must run on a quantum computer, but runs on {primitive.name!r}")
    from qbp.executors.qiskit_primitive.modes import opened

    with ExitStack() as stack:
        for primitive in primitives.values():
            stack.enter_context(opened(primitive, mode, max_time))
        yield model


def send(model: nn.Module, data: Dataset, *, batch_size: int = 1024) -> int:
    """Send all jobs of ``evaluate(model, data)`` without waiting for one; how many of them are not done.

    Args:
        model: a model of `on_backend`, made with ``wait=False``, with one quantum layer (the circuits of a second one
            would depend on the results of the first).
        data, batch_size: as in `evaluate`.
    """
    layers = _layers(model)
    if len(layers) != 1:
        raise ArgumentError(f"Argument `model` must have one quantum layer to send all its jobs, but has {len(layers)}")
    executor: Any = layers[0].executor
    runner, meter = executor.runner, _Meter(layers[0])
    executor.runner = meter
    try:
        with seeded(model, 0), modes(model):
            _evaluation(model, data, batch_size)
    finally:
        executor.runner = runner
    pending = 0
    for primitive, work in meter.works:
        try:
            runner(primitive, work)
        except PendingError:
            pending += 1
    return pending


def spent(model: nn.Module) -> Cost:
    """What the jobs of a model of `on_backend` have cost so far, those of its `run_dir` before it included."""
    ledgers = {
        id(runner.ledger): runner.ledger
        for layer in _layers(model)
        if isinstance(runner := getattr(layer.executor, "runner", None), Jobs)
    }
    return sum((ledger.spent for ledger in ledgers.values()), Cost())


class _Meter:
    """A runner that counts jobs instead of running them."""

    def __init__(self, layer: QuantumLayer):
        self.layer, self.cost = layer, Cost()
        self.works: list[tuple[Primitive, Work]] = []

    def __call__(self, primitive: Primitive, work: Work) -> Results:
        self.cost += Cost(1, work.n_circuits, work.n_circuits * work.shots, work.seconds)
        self.works.append((primitive, work))
        blank = np.zeros((len(work.values), self.layer.n_outputs or 0))
        return Results(blank, blank)


def _evaluation(model: nn.Module, data: Dataset, batch_size: int) -> None:
    model.eval()
    with torch.no_grad():
        for part in place(model, data)[0].split(batch_size):
            model(part)


def _training(
    model: nn.Module,
    meters: list[_Meter],
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
            _evaluation(model, validation, 1024)
    if alike:
        for meter in meters:
            meter.cost *= epochs


def _repeated(model: nn.Module, meters: list[_Meter], batch: Tensor, times: int) -> None:
    if times:
        model.train()
        _step(model, batch)
        for meter in meters:
            meter.cost *= times


def _step(model: nn.Module, batch: Tensor) -> None:
    model(batch).sum().backward()


def _copy(model: nn.Module) -> nn.Module:
    """A copy of a model; what its circuits run on is not copied, but replaced afterwards."""
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"Argument `model` must be a torch.nn.Module, but is a {type(model).__name__}")
    memo: dict[int, Any] = {id(layer.executor): layer.executor for layer in _layers(model)}
    return copy.deepcopy(model, memo)


def _layers(model: nn.Module) -> list[QuantumLayer]:
    layers = [module for module in model.modules() if isinstance(module, QuantumLayer)]
    if not layers:
        raise ArgumentError("Argument `model` must hold a QuantumLayer, but has none")
    for layer in layers:
        if layer.executor is None:
            raise ArgumentError("Argument `model` holds a QNode that runs itself: its circuit cannot run elsewhere")
    return layers


def _executors(layers: list[QuantumLayer], backend: str | Executor, shots: int | None, options: Any) -> list[Any]:
    """One for each layer; they share what connects them to a service."""
    made: list[Any] = []
    for layer in layers:
        primitive = getattr(made[0], "primitive", None) if made else None
        if primitive is not None:
            made.append(type(made[0])(primitive, shots=shots, options=options, generator=layer._generator))
        else:
            made.append(executors.backend(backend, shots=shots, generator=layer._generator, options=options))
    return made


def _use(layer: QuantumLayer, executor: Executor) -> None:
    """Let a layer run on an executor; a rule that works anywhere stays."""
    asked = layer.diff_method if layer.diff_method in ("spsa", "parameter-shift") else "best"
    layer._diff_method = choose_diff_method(executor, asked, layer.circuit.program)
    layer._executor = executor
