"""A model on a quantum computer: what it will cost there, and the same model running there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from qbp.data import Dataset
from qbp.errors import ArgumentError, PendingError, check_choice, suggests_names
from qbp.executors import Executor
from qbp.executors.qiskit_primitive import QiskitPrimitive
from qbp.executors.qiskit_primitive.rehearsal import Rehearsal
from qbp.hardware.exchange import copy_to_move, executors_for, layers_of, rehearsing
from qbp.hardware.planning import blank
from qbp.jobs.cost import Budget, Cost
from qbp.jobs.jobs import Jobs, Results, Work
from qbp.jobs.retry import AT_ONCE, Patience
from qbp.nn.seeding import seeded
from qbp.training.metrics import modes, place

__all__ = ["on_backend", "recorded", "send", "session", "spent"]

JOBS = "jobs"


@suggests_names
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
    "fake:NAME" with a `run_dir` rehearses that: the same ledger, budget and jobs, for nothing.

    Args:
        model: holds one or more `QuantumLayer`.
        backend: as in `QuantumLayer`: "native", "aer", "fake:manila", "ibm:ibm_torino", ...
        shots: how many times each circuit is sampled, for each group of observables that are measured together.
        budget: the most that all jobs of `run_dir` may cost: quantum seconds, a `Budget`, or what `plan` returned. Must
            be given where the backend costs quantum time; of a rehearsal it limits what the jobs would have cost.
        run_dir: the run's directory. Must be given where the backend costs quantum time.
        options: how circuits are transpiled, measured and mitigated; see `qbp.Options`.
        wait: whether to wait for results; without, the model raises `PendingError` while they are not there.
        patience: how long to wait for the service.

    Raises:
        ArgumentError: an argument is wrong, or missing for a backend that costs quantum time.
        JobError: another process works in `run_dir`, or the service cannot be reached.

    Example:
        >>> from qbp.nn.layer import QuantumLayer
        >>> model = nn.Sequential(nn.Linear(2, 4), QuantumLayer("basic_entangler", n_qubits=4, n_layers=1))
        >>> sampled = on_backend(model, "native", shots=1000)
        >>> sampled[1].backend, model[1].executor.shots, sampled[1].executor.shots
        ('native', None, 1000)
    """
    moved = copy_to_move(model)
    layers = layers_of(moved)
    runs_on = executors_for(layers, backend, shots, options)
    name, paid = runs_on[0].name, isinstance(runs_on[0], QiskitPrimitive) and runs_on[0].primitive.paid
    if paid and budget is None:
        raise ArgumentError(
            f"Argument `budget` must be given for {name!r}, which costs quantum time: seconds, or what "
            "`qbp.plan` returned"
        )
    if run_dir is None and (paid or (budget is not None and name.startswith("fake:"))):
        raise ArgumentError(f"Argument `run_dir` must be given for {name!r}: the jobs' ledger is kept there")
    if run_dir is not None and (paid or rehearsing(runs_on[0])):
        _record(runs_on, Path(run_dir) / JOBS, budget, wait, patience)
    for layer, executor in zip(layers, runs_on, strict=True):
        layer.set_backend(executor)
    return moved


def _record(executors: list[Any], directory: Path, budget: Any, wait: bool, patience: Patience | None) -> None:
    """Let executors run their jobs by the ledger in a directory."""
    primitive = recorded(executors[0].primitive, directory)
    if not primitive.paid and patience is None:
        patience = AT_ONCE
    jobs = Jobs(directory, budget=budget, wait=wait, patience=patience)
    jobs.patience.ask(lambda: primitive.calibration, primitive.transient, f"{primitive.name}, connecting")
    for executor in executors:
        executor.primitive, executor.runner, executor.directory = primitive, jobs, directory
        rehearsing(executor)


def recorded(primitive: Any, directory: Path) -> Any:
    """What jobs in a ledger are sent to: a device itself, or a rehearsal on its fake twin."""
    return primitive if primitive.paid else Rehearsal(primitive, directory / "rehearsal")


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
    runs_on = [layer.executor for layer in layers_of(model)]
    primitives = {id(e.primitive): e.primitive for e in runs_on if isinstance(e, QiskitPrimitive)}
    for primitive in primitives.values():
        if not primitive.paid and not isinstance(primitive, Rehearsal):
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
    layers = layers_of(model)
    if len(layers) != 1:
        raise ArgumentError(f"Argument `model` must have one quantum layer to send all its jobs, but has {len(layers)}")
    executor: Any = layers[0].executor
    runner = executor.runner
    executor.runner = _Unsent()
    try:
        with seeded(0, model), modes(model), torch.no_grad():
            model.eval()
            for part in place(model, data)[0].split(batch_size):
                model(part)
        works = executor.runner.works
    finally:
        executor.runner = runner
    pending = 0
    for primitive, work in works:
        try:
            runner(primitive, work)
        except PendingError:
            pending += 1
    return pending


class _Unsent:
    """A runner that keeps what it should have sent, and gives blank results."""

    def __init__(self) -> None:
        self.works: list[tuple[Any, Work]] = []

    def __call__(self, primitive: Any, work: Work) -> Results:
        self.works.append((primitive, work))
        return blank(work)


def spent(model: nn.Module) -> Cost:
    """What the jobs of a model of `on_backend` have cost so far, those of its `run_dir` before it included."""
    runners = [
        (runner.ledger, layer.backend)
        for layer in layers_of(model)
        if isinstance(layer.executor, QiskitPrimitive) and isinstance(runner := layer.executor.runner, Jobs)
    ]
    ledgers = {id(ledger): ledger.spent_on(backend) for ledger, backend in runners}
    return sum(ledgers.values(), Cost())
