"""Training: `fit`, and a killed run that resumes bit-equal."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from qbp.data import Dataset, as_dataset, preprocessing_of, split
from qbp.data.conversion import described, weighted
from qbp.data.preprocessing import attach
from qbp.errors import ArgumentError, QbpError, check_choice, check_count, check_seed
from qbp.gradients.stateful import prepare
from qbp.nn.seeding import renew, seeded
from qbp.training.batches import Batch, Batches, batch_sizes
from qbp.training.checkpoint import METRICS, History, Row, fingerprint, load_checkpoint, open_run, to_line
from qbp.training.metrics import LOSSES, Metric, check_data, evaluate, measure, modes, objective, own, place, summary
from qbp.training.options import ANY_EPOCHS, Training, training_of, with_options
from qbp.training.state import TrainingState

__all__ = ["LOSSES", "DivergenceError", "History", "Training", "batch_sizes", "evaluate", "fit", "load_checkpoint"]

Callback = Callable[[Row, nn.Module], object]
"""Called with the row of an epoch and the model; True ends the training."""


class DivergenceError(QbpError, FloatingPointError):
    """The loss is no longer a finite number."""


@overload
def fit(
    model: nn.Module,
    train: Any,
    training: Training | Mapping[str, Any] | None = ...,
    *,
    seed: int = ...,
    sample_weight: Any = ...,
    callbacks: Iterable[Any] = ...,
    run_dir: str | Path | None = ...,
    resume: bool = ...,
    progress: bool | Callable[[Row], object] = ...,
    **options: Any,
) -> History: ...
@overload
def fit(
    model: nn.Module,
    train: Any,
    training: Training | Mapping[str, Any] | None = ...,
    *,
    seeds: int | Iterable[int],
    sample_weight: Any = ...,
    callbacks: Iterable[Any] = ...,
    run_dir: str | Path | None = ...,
    resume: bool = ...,
    progress: bool | Callable[[Row], object] = ...,
    **options: Any,
) -> list[History]: ...
@with_options
def fit(
    model: nn.Module,
    train: Any,
    training: Training | Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    seeds: int | Iterable[int] | None = None,
    sample_weight: Any = None,
    callbacks: Iterable[Any] = (),
    run_dir: str | Path | None = None,
    resume: bool = False,
    progress: bool | Callable[[Row], object] = False,
    **options: Any,
) -> Any:
    """Train `model` in place by mini-batches.

    `seed` drives the order of the rows, dropout, and all else that draws from torch's global generator, whose
    state is put back afterwards. With `run_dir` there is a checkpoint from the start and after every epoch, with a row
    in `metrics.jsonl`; a run killed at any moment and resumed has the bits of one that was not (same machine, threads).

    The model remembers what was done to its data (`Dataset.preprocessing`), and the names of classes: `qbp.predict` and
    `qbp.evaluate` take rows as they are in the user's file. A model that remembers it already is trained further by it.

    Args:
        model: maps (B, I) to (B, n_classes), to (B, 1) logits for two classes, or to (B, T) for a regression.
        train: a `Dataset`, or a pair (X, y) of arrays, tensors or of a DataFrame and a Series, a `TensorDataset` or a
            `DataLoader`. Labels that are words or integers make classes, targets of floating point a regression; X is
            not scaled (`qbp.data.load` does that). A loader keeps its own batches and their order. A tuple of arrays
            as X, or a mapping, is several inputs: the model is called with each as an argument of its own. Labels 0 and
            1 in several columns (n, L) may apply together: the model gives (B, L) logits.
        training: how it is trained.
        seed: the one seed.
        seeds: train once for each of so many seeds (0, 1, ...), or for these, one after the other: every time a copy of
            the model with weights drawn anew by the seed; `model` itself stays as it is.
        sample_weight: how much each row counts in the training loss (n,), in proportion to their mean.
        callbacks: functions of (row, model), called after every epoch; or objects with such a method `on_epoch_end`, or
            `on_step_end`, called after every step with a row of `epoch`, `step`, `loss` and `lr`, or with both. One
            that returns True ends the training with that epoch.
        run_dir: where metrics and checkpoint go; with `seeds` into a folder for each.
        resume: go on from the checkpoint in `run_dir`, if there is one.
        progress: True draws a bar with the time left; a function gets every epoch's row.
        options: options of `Training`, in place of those of `training`, as in ``fit(model, train, epochs=5)``.

    Returns:
        The metrics of all epochs, also of those before a resume; its `model` is the trained one. With `seeds` a list of
        these.

    Raises:
        ArgumentError: an argument is wrong, or data and model do not fit.
        ConfigError: `run_dir` holds a checkpoint already, or one of a different run.
        DivergenceError: the loss is infinite or nan; the checkpoint is the epoch's before.

    Warns:
        UserWarning: a function among the options of a run that goes on holds what cannot be compared with before.

    Example:
        >>> import qbp
        >>> train, test = qbp.data.load("iris")
        >>> history = fit(qbp.mlp(4, 8, 3, seed=0), train, epochs=30)
        >>> history.last["accuracy"] > 0.9
        True
        >>> [len(one.rows) for one in fit(qbp.mlp(2, 2), ([[0.0, 1.0], [1.0, 0.0]], ["a", "b"]), seeds=2, epochs=3)]
        [3, 3]
    """
    training = training_of(training, options)
    check_seed("seed", seed)
    if run_dir is None and resume:
        raise ArgumentError("Argument `run_dir` must name a directory to resume from, but is None")
    if seeds is not None:
        where = {"run_dir": run_dir, "resume": resume, "progress": progress}
        return _by_seed(model, train, training, _numbers(seeds), sample_weight, callbacks, where)
    called = _check_callbacks(callbacks)
    loader = train if isinstance(train, DataLoader) else None
    known = preprocessing_of(model)
    rows = as_dataset(train, known, "train")
    if sample_weight is not None:
        rows = weighted(rows, sample_weight)
    data, held_out, training = _parts(model, rows, training, seed, loader)
    run = None if run_dir is None else Path(run_dir)
    batches = Batches(model, data, training, loader)
    steps = batches.steps(training.accumulate_grad_batches)
    state = TrainingState.new(model, training, seed, steps, loader)
    prepare(model, state.optimizer, training.epochs * steps)
    config, opaque = _config(model, data, held_out, training, seed)
    saved = None if run is None else open_run(run, resume, config, training.epochs, opaque)
    preprocessing = described(data, known)
    attach(model, preprocessing)
    said = {} if run is None else preprocessing.to_state()
    with seeded(seed, model), modes(model), _bar(progress, training.epochs, steps) as tick:
        if saved is not None:
            state.load(saved)
        elif run is not None:
            state.save(run, config, said)  # what stops within the first epoch resumes from these weights
        model.train()
        measure_row = _measures(state, batches, held_out, called, tick)
        while not state.is_done():
            row = measure_row(len(state.rows) + 1)
            state.note(row, keep=run is not None)
            state.is_stopped |= any([_call(each, "on_epoch_end", row, model) for each in called])
            if run is not None:
                with open(run / METRICS, "a", encoding="utf-8") as file:
                    file.write(to_line(row))
                state.save(run, config, said)
            if callable(progress):
                progress(row)
        state.finish()
    return History(tuple(state.rows), state.monitor, state.mode, model)


def _by_seed(
    model: nn.Module,
    train: Any,
    training: Training,
    seeds: Sequence[int],
    sample_weight: Any,
    callbacks: Iterable[Any],
    where: Mapping[str, Any],
) -> list[History]:
    """Train a fresh copy of the model for each seed."""
    histories = []
    for seed in seeds:
        run_dir = None if where["run_dir"] is None else Path(where["run_dir"]) / f"seed-{seed}"
        fresh = renew(model, seed)
        options = {**where, "run_dir": run_dir, "sample_weight": sample_weight, "callbacks": callbacks}
        histories.append(fit(fresh, train, training, seed=seed, **options))
    return histories


def _numbers(seeds: int | Iterable[int]) -> list[int]:
    if isinstance(seeds, int):
        check_count("seeds", seeds)
        return list(range(seeds))
    numbers = list(seeds)
    for seed in numbers:
        check_seed("seeds", seed)
    if not numbers or len(set(numbers)) < len(numbers):
        raise ArgumentError(f"Argument `seeds` must be a number of seeds, or different ones, but is {numbers!r}")
    return numbers


def _check_callbacks(callbacks: Iterable[Any]) -> list[Any]:
    called = list(callbacks) if isinstance(callbacks, Iterable) else [callbacks]
    for each in called:
        if not callable(each) and not hasattr(each, "on_epoch_end") and not hasattr(each, "on_step_end"):
            raise ArgumentError(
                "Argument `callbacks` must be functions of (row, model), or objects with a method `on_epoch_end` or "
                f"`on_step_end`, but one is a {type(each).__name__}"
            )
    return called


def _call(callback: Any, when: str, row: Row, model: nn.Module) -> bool:
    """Call a callback where it wants to be called; whether it ends the training."""
    method = getattr(callback, when, None)
    if method is None and when == "on_epoch_end" and callable(callback):
        method = callback
    return method is not None and method(row, model) is True


def _parts(
    model: nn.Module, train: Dataset, training: Training, seed: int, loader: Any
) -> tuple[Dataset, Dataset | None, Training]:
    """The rows to train on and those held out, checked; and how it is trained with these."""
    check_data(model, train, "train", several=True)
    held_out = training.validation
    if isinstance(held_out, float):
        if loader is not None:
            raise ArgumentError("Argument `validation` must be data, not a share, where `train` is a DataLoader")
        train, held_out = split(train, held_out, seed=seed)
    elif held_out is not None:
        held_out = as_dataset(held_out, described(train), "validation")
        check_data(model, held_out, "validation", several=True)
        training = replace(training, validation=held_out)
    if training.monitor is not None:
        kinds = (
            ("accuracy", "exact_match") if train.is_multilabel else ("accuracy",) if train.n_classes else ("mae", "r2")
        )
        names = ["loss", *kinds, *(training.metrics or ())]
        check_choice("monitor", training.monitor, names + [f"val_{name}" for name in names if held_out is not None])
    return train, held_out, training


def _config(
    model: nn.Module, train: Dataset, held_out: Dataset | None, training: Training, seed: int
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What a run that goes on must have in common with its begin; and what of that cannot be compared."""
    said, opaque = training.describe(model)
    said.pop("epochs")  # there may be more
    if training.schedule not in ANY_EPOCHS:
        said["schedule"] = f"{said['schedule']} over {training.epochs} epochs"
    said["validation"] = None if held_out is None else held_out.hash()
    return {"model": fingerprint(model), "data": train.hash(), "seed": seed, **said}, opaque


def _measures(
    state: TrainingState,
    batches: Batches,
    held_out: Dataset | None,
    callbacks: Sequence[Any],
    tick: Callable[[int, int], None] | None,
) -> Callable[[int], Row]:
    """Return what trains for one epoch and gives its row of metrics."""
    model, loss, metrics = state.model, state.training.loss, state.training.metrics
    target = objective(batches.data, loss)
    held_target = objective(held_out if held_out is not None else batches.data, loss)
    validation = None if held_out is None else place(model, held_out)
    listening = [each for each in callbacks if hasattr(each, "on_step_end")]

    def steps(number: int) -> Iterator[tuple[Sequence[Batch], list[Tensor], list[Tensor]]]:
        left, size = batches.epoch(state.order), state.training.accumulate_grad_batches
        step = 0
        while group := list(islice(left, size)):
            outputs, losses = state.step(group, target)
            step += 1
            if tick is not None:
                tick(number, step)
            if listening:
                lr = state.optimizer.param_groups[0]["lr"]
                row: Row = {"epoch": number, "step": step, "loss": torch.stack(losses).mean().item(), "lr": lr}
                state.is_stopped |= any([_call(each, "on_step_end", row, model) for each in listening])
            yield group, outputs, losses

    def epoch(number: int) -> Row:
        began = time.perf_counter()
        labels: list[Tensor] = []
        outputs: list[Tensor] = []
        losses: list[Tensor] = []
        for group, given, values in steps(number):
            labels += [batch.y for batch in group]
            outputs += given
            losses += values
        row = _row(number, outputs, labels, losses, metrics)
        if validation is not None:
            with state.averaged():
                held = measure(model, *validation, held_target, metrics=metrics, inputs=batches.data.inputs)[1]
            row |= {f"val_{key}": score for key, score in held.items()}
        row["lr"] = state.optimizer.param_groups[0]["lr"]
        if state.training.quantum_lr is not None:
            row["quantum_lr"] = state.optimizer.param_groups[-1]["lr"]
        row["seconds"] = time.perf_counter() - began
        mine = {*(metrics or ()), *(f"val_{name}" for name in metrics or ())}
        if not all(math.isfinite(value) for name, value in row.items() if name not in mine):
            raise DivergenceError(f"The loss is not finite in epoch {number}: use an `lr` below {state.training.lr}")
        return row

    return epoch


def _row(
    number: int,
    outputs: Sequence[Tensor],
    labels: Sequence[Tensor],
    losses: Sequence[Tensor],
    metrics: Mapping[str, Metric] | None,
) -> Row:
    """The metrics of an epoch's training rows, taken while the weights move."""
    sizes = torch.tensor([len(each) for each in labels], dtype=torch.float64)
    total = float(torch.stack(list(losses)).double().cpu() @ sizes)  # once: every `.item()` waits for a GPU
    given, wanted = torch.cat(list(outputs)), torch.cat(list(labels))
    return {
        "epoch": number,
        "loss": total / float(sizes.sum()),
        **summary(given, wanted),
        **own(metrics, given, wanted),
    }


@contextmanager
def _bar(progress: object, epochs: int, steps: int) -> Iterator[Callable[[int, int], None] | None]:
    """Draw a bar with the time left; yield the function that moves it on to (epoch, step)."""
    if progress is not True:
        yield None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    stride = max(1, steps // 10)  # rich looks back over 1000 moves: enough of them for whole epochs
    with Progress(*columns, speed_estimate_period=86400.0) as bar:
        task = bar.add_task("epoch", total=epochs * steps)

        def tick(epoch: int, step: int) -> None:
            if step % stride == 0 or step == steps:
                bar.update(task, completed=(epoch - 1) * steps + step, description=f"epoch {epoch}/{epochs}")

        yield tick
