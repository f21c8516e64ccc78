"""Training: `fit`, and a killed run that resumes bit-equal."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer, lr_scheduler

from qbp.data import Dataset, split
from qbp.errors import ArgumentError, QbpError, check_seed
from qbp.gradients.stateful import prepare
from qbp.nn.seeding import seeded
from qbp.storage.container import save_state
from qbp.training.checkpoint import (
    CHECKPOINT,
    METRICS,
    History,
    Row,
    fingerprint,
    get_random,
    load_checkpoint,
    monitored,
    open_run,
    set_random,
    to_line,
)
from qbp.training.metrics import LOSSES, Loss, check_data, evaluate, measure, modes, objective, place, summary
from qbp.training.options import ANY_EPOCHS, Training, new_optimizer, new_schedule, training_of, with_options

__all__ = ["LOSSES", "DivergenceError", "History", "Training", "evaluate", "fit", "load_checkpoint"]


class DivergenceError(QbpError, FloatingPointError):
    """The loss is no longer a finite number."""


@with_options
def fit(
    model: nn.Module,
    train: Dataset,
    training: Training | Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    run_dir: str | Path | None = None,
    resume: bool = False,
    progress: bool | Callable[[Row], object] = False,
    **options: Any,
) -> History:
    """Train `model` in place by mini-batches.

    `seed` drives the order of the rows, dropout, and all else that draws from torch's global generator, whose
    state is put back afterwards. With `run_dir` there is a checkpoint from the start and after every epoch, with a row
    in `metrics.jsonl`; a run killed at any moment and resumed has the bits of one that was not (same machine, threads).

    Args:
        model: maps (B, I) to (B, n_classes), to (B, 1) logits for two classes, or to (B, T) for a regression.
        train: the data.
        training: how it is trained.
        seed: the one seed.
        run_dir: where metrics and checkpoint go.
        resume: go on from the checkpoint in `run_dir`, if there is one.
        progress: True draws a bar with the time left; a function gets every epoch's row.
        options: options of `Training`, in place of those of `training`, as in ``fit(model, train, epochs=5)``.

    Returns:
        The metrics of all epochs, also of those before a resume.

    Raises:
        ArgumentError: an argument is wrong, or data and model do not fit.
        ConfigError: `run_dir` holds a checkpoint already, or one of a different run.
        DivergenceError: the loss is infinite or nan; the checkpoint is the epoch's before.

    Warns:
        UserWarning: a function among the options of a run that goes on holds what cannot be compared with before.

    Example:
        >>> import qbp.data, qbp.nn.models
        >>> train, test = qbp.data.load("iris")
        >>> history = fit(qbp.nn.models.mlp(4, 8, 3, seed=0), train, epochs=30)
        >>> history.last["accuracy"] > 0.9
        True
    """
    training = training_of(training, options)
    check_seed("seed", seed)
    if run_dir is None and resume:
        raise ArgumentError("Argument `run_dir` must name a directory to resume from, but is None")
    train, held_out = _parts(model, train, training, seed)
    run = None if run_dir is None else Path(run_dir)
    state = _State.new(model, training, seed)
    sizes = batch_sizes(model, len(train), training.batch_size)
    prepare(model, state.optimizer, training.epochs * len(sizes))
    config, opaque = _config(model, train, held_out, training, seed)
    saved = None if run is None else open_run(run, resume, config, training.epochs, opaque)
    with seeded(seed, model), modes(model), _bar(progress, training.epochs, len(sizes)) as tick:
        if saved is not None:
            state.load(saved)
        elif run is not None:
            state.save(run, config)  # what stops within the first epoch resumes from these weights
        model.train()
        measure_row = _measures(state, train, held_out, sizes, tick)
        while not state.is_done():
            row = measure_row(len(state.rows) + 1)
            state.note(row, keep=run is not None)
            if run is not None:
                with open(run / METRICS, "a", encoding="utf-8") as file:
                    file.write(to_line(row))
                state.save(run, config)
            if callable(progress):
                progress(row)
        if training.early_stopping is not None:
            model.load_state_dict(state.best["model"])
    return History(tuple(state.rows))


def batch_sizes(model: nn.Module, n_rows: int, batch_size: int) -> list[int]:
    """Return how many rows each step of an epoch takes.

    Batch normalisation needs two rows at least: one that would be left alone joins the step before.

    Example:
        >>> batch_sizes(nn.Linear(2, 2), 33, 16), batch_sizes(nn.BatchNorm1d(2), 33, 16)
        ([16, 16, 1], [16, 17])
    """
    sizes = [min(batch_size, n_rows - begin) for begin in range(0, n_rows, batch_size)]
    if len(sizes) > 1 and sizes[-1] == 1 < batch_size and any(isinstance(m, _BatchNorm) for m in model.modules()):
        sizes[-2:] = [sizes[-2] + 1]
    return sizes


@dataclass
class _State:
    """What is trained, and how far it has come."""

    model: nn.Module
    training: Training
    parameters: list[nn.Parameter]
    optimizer: Optimizer
    scheduler: Any
    order: torch.Generator
    rows: list[Row] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=lambda: {"epoch": 0, "value": math.inf, "model": {}})

    @classmethod
    def new(cls, model: nn.Module, training: Training, seed: int) -> _State:
        """A training that has not begun."""
        parameters, optimizer = new_optimizer(model, training)
        scheduler = new_schedule(optimizer, training)
        return cls(model, training, parameters, optimizer, scheduler, torch.Generator().manual_seed(seed))

    def is_done(self) -> bool:
        """Whether all epochs are over, or training stops early."""
        patience = self.training.early_stopping
        stops = patience is not None and len(self.rows) - self.best["epoch"] >= patience
        return stops or len(self.rows) >= self.training.epochs

    def note(self, row: Row, keep: bool) -> None:
        """Take an epoch's row, with the weights where it is the best and they are to be kept."""
        self.rows.append(row)
        value = monitored(row)
        if value < self.best["value"]:
            self.best = {"epoch": row["epoch"], "value": value, "model": {}}
            if keep or self.training.early_stopping is not None:
                self.best["model"] = copy.deepcopy(self.model.state_dict())
        if isinstance(self.scheduler, lr_scheduler.ReduceLROnPlateau):
            self.scheduler.step(value)
        elif self.scheduler is not None:
            self.scheduler.step()

    def save(self, run: Path, config: Mapping[str, Any]) -> None:
        """Write the checkpoint."""
        state = {
            "config": dict(config),
            "epoch": len(self.rows),
            "best": self.best,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.scheduler.state_dict() if self.scheduler is not None else None,
            "order": self.order.get_state(),
            "random": get_random(self.model),
        }
        save_state(run / CHECKPOINT, state)

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `open_run` read."""
        self.rows, self.best = state["rows"], state["best"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["schedule"])
        self.order.set_state(state["order"])
        set_random(self.model, state["random"])


def _parts(model: nn.Module, train: Dataset, training: Training, seed: int) -> tuple[Dataset, Dataset | None]:
    """The rows to train on and those held out, checked."""
    check_data(model, train, "train")
    if isinstance(training.validation, float):
        return split(train, training.validation, seed=seed)
    if training.validation is not None:
        check_data(model, training.validation, "validation")
    return train, training.validation


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
    state: _State,
    train: Dataset,
    held_out: Dataset | None,
    sizes: Sequence[int],
    tick: Callable[[int, int], None] | None,
) -> Callable[[int], Row]:
    """Return what trains for one epoch and gives its row of metrics."""
    model, loss = state.model, state.training.loss
    x, y = place(model, train)
    target, held_target = objective(train, loss), objective(held_out if held_out is not None else train, loss)
    validation = None if held_out is None else place(model, held_out)

    def epoch(number: int) -> Row:
        began = time.perf_counter()
        outputs, labels, losses = _epoch(state, x, y, target, sizes, tick)
        weights = torch.tensor(sizes, dtype=torch.float64)
        total = float(torch.stack(losses).double().cpu() @ weights)  # once: every `.item()` waits for a GPU
        row: Row = {"epoch": number, "loss": total / len(x), **summary(torch.cat(outputs), labels)}
        if validation is not None:
            row |= {f"val_{key}": score for key, score in measure(model, *validation, held_target)[1].items()}
        row |= {"lr": state.optimizer.param_groups[0]["lr"], "seconds": time.perf_counter() - began}
        if not all(map(math.isfinite, row.values())):
            raise DivergenceError(f"The loss is not finite in epoch {number}: use an `lr` below {state.training.lr}")
        return row

    return epoch


def _epoch(
    state: _State,
    x: Tensor,
    y: Tensor,
    target: Loss,
    sizes: Sequence[int],
    tick: Callable[[int, int], None] | None,
) -> tuple[list[Tensor], Tensor, list[Tensor]]:
    """Take the steps of one epoch; outputs by step, targets in their order, losses by step."""
    if state.training.shuffle:
        permutation = torch.randperm(len(x), generator=state.order).to(x.device)
        x, y = x[permutation], y[permutation]
    outputs, losses = [], []
    for x_batch, y_batch in zip(x.split(list(sizes)), y.split(list(sizes)), strict=True):
        output, value = take_step(
            state.model, x_batch, y_batch, target, state.optimizer, state.parameters, state.training.clip_grad_norm
        )
        outputs.append(output)
        losses.append(value)
        if tick is not None:
            tick(len(state.rows) + 1, len(losses))
    return outputs, y, losses


def take_step(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    target: Loss,
    optimizer: Optimizer,
    parameters: list[nn.Parameter],
    clip_grad_norm: float | None,
) -> tuple[Tensor, Tensor]:
    """Take one step; outputs and loss before it."""
    optimizer.zero_grad(set_to_none=True)
    try:
        outputs = model(x)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):  # as torch says it
            raise
        raise ArgumentError(
            "Argument `batch_size` must let each step have two rows or more, as batch normalisation needs, but one "
            f"has {len(x)}"
        ) from error
    value = target(outputs, y)
    value.backward()
    if clip_grad_norm is not None:
        nn.utils.clip_grad_norm_(parameters, clip_grad_norm)
    optimizer.step()
    return outputs.detach(), value.detach()


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
