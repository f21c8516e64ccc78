"""Training: `fit`, `evaluate` and the learning-rate range test. A killed run resumes bit-equal."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler

from qbp.data import Dataset, split
from qbp.errors import ArgumentError, QbpError, check_choice
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
    name_of,
    open_run,
    set_random,
    to_line,
    untouched,
)
from qbp.training.metrics import LOSSES, Loss, check_data, evaluate, measure, modes, objective, place, summary

__all__ = [
    "LOSSES",
    "OPTIMIZERS",
    "SCHEDULES",
    "DivergenceError",
    "History",
    "LearningRateTest",
    "evaluate",
    "fit",
    "load_checkpoint",
    "lr_range_test",
]


class DivergenceError(QbpError, FloatingPointError):
    """The loss is no longer a finite number."""


# fused and foreach: one call for all parameters, which saves two thirds of a step of a small model.
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": torch.optim.SGD,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
    "rmsprop": partial(torch.optim.RMSprop, foreach=True),
    "adagrad": partial(torch.optim.Adagrad, foreach=True),
    "adam": partial(torch.optim.Adam, fused=True),
    "adamw": partial(torch.optim.AdamW, fused=True),
}


def _warmup(optimizer: Optimizer, epochs: int) -> lr_scheduler.LambdaLR:
    """Rise linearly to the full rate over the first tenth of the epochs, then fall to 0 along a cosine."""
    rise = max(1, round(epochs / 10))
    fall = max(1, epochs - rise)
    return lr_scheduler.LambdaLR(
        optimizer,
        lambda t: (t + 1) / (rise + 1) if t < rise else (1 + math.cos(math.pi * (t - rise) / fall)) / 2,
    )


# name -> (optimizer, epochs) -> scheduler, which takes one step after every epoch.
SCHEDULES: dict[str, Callable[[Optimizer, int], Any]] = {
    "step": lambda optimizer, epochs: lr_scheduler.StepLR(optimizer, step_size=10, gamma=0.5),
    "exponential": lambda optimizer, epochs: lr_scheduler.ExponentialLR(optimizer, gamma=0.95),
    "cosine": lambda optimizer, epochs: lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs),
    "plateau": lambda optimizer, epochs: lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=3),
    "warmup": _warmup,
}
_ANY_EPOCHS = (None, "step", "exponential", "plateau")  # the others depend on the number of epochs


def fit(
    model: nn.Module,
    train: Dataset,
    *,
    epochs: int = 20,
    lr: float = 0.01,
    optimizer: str | Callable[..., Optimizer] = "adam",
    batch_size: int = 32,
    schedule: str | Callable[[Optimizer, int], Any] | None = None,
    validation: Dataset | float | None = None,
    loss: str | Loss | None = None,
    early_stopping: int | None = None,
    seed: int = 0,
    run_dir: str | Path | None = None,
    resume: bool = False,
    progress: bool | Callable[[Row], object] = False,
    shuffle: bool = True,
    clip_grad_norm: float | None = None,
) -> History:
    """Train `model` in place by mini-batches.

    `seed` drives the order of the rows, dropout, and all else that draws from torch's global generator, whose
    state is put back afterwards. With `run_dir` there is a checkpoint from the start and after every epoch, with a row
    in `metrics.jsonl`; a run killed at any moment and resumed has the bits of one that was not (same machine, threads).

    Args:
        model: maps (B, I) to (B, n_classes), to (B, 1) logits for two classes, or to (B, T) for a regression.
        train: the data.
        epochs: passes over the data.
        lr: learning rate.
        optimizer: a key of `OPTIMIZERS`, or a function of (parameters, lr=...).
        batch_size: rows per step; the last step of an epoch takes what is left.
        schedule: a key of `SCHEDULES`, or a function of (optimizer, epochs) that returns a torch scheduler.
        validation: a data set, or the share of `train` to split off (stratified, by `seed`).
        loss: a key of `LOSSES`, or a function of (outputs, targets). None: cross entropy for labels ("bce" if
            the model has one output), mean squared error for targets.
        early_stopping: stop after this many epochs without a smaller validation loss (or loss, without
            validation). The model ends with the weights of the best epoch, stopped or not.
        seed: the one seed.
        run_dir: where metrics and checkpoint go.
        resume: go on from the checkpoint in `run_dir`, if there is one.
        progress: True draws a bar with the time left; a function gets every epoch's row.
        shuffle: a new order of the rows every epoch.
        clip_grad_norm: largest norm of the gradient of all parameters together.

    Returns:
        The metrics of all epochs, also of those before a resume.

    Raises:
        ArgumentError: an argument is wrong, or data and model do not fit.
        ConfigError: `run_dir` holds a checkpoint already, or one of a different run.
        DivergenceError: the loss is infinite or nan; the checkpoint is the epoch's before.

    Example:
        >>> import qbp.data, qbp.nn.models
        >>> train, test = qbp.data.load("iris")
        >>> history = fit(qbp.nn.models.mlp(4, 8, 3, seed=0), train, epochs=30)
        >>> history.last["accuracy"] > 0.9
        True
    """
    check_data(model, train, "train")
    _check(epochs, lr, batch_size, early_stopping, clip_grad_norm)
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ArgumentError(f"Argument `seed` must be an integer in 0..2**32-1, but is {seed!r}")
    if run_dir is None and resume:
        raise ArgumentError("Argument `run_dir` must name a directory to resume from, but is None")
    if isinstance(validation, float):
        train, validation = split(train, validation, seed=seed)
    elif validation is not None:
        check_data(model, validation, "validation")
    parameters, adapt = _optimizer(model, optimizer, lr)
    scheduler = _choose("schedule", schedule, SCHEDULES)(adapt, epochs) if schedule is not None else None
    target, val_target = objective(train, loss), objective(validation or train, loss)
    x, y = place(model, train)
    prepare(model, adapt, epochs * math.ceil(len(x) / batch_size))
    held_out = place(model, validation) if validation is not None else None
    config = {
        "model": fingerprint(model),
        "data": train.hash(),
        "validation": validation.hash() if validation is not None else None,
        "optimizer": name_of(optimizer),
        "lr": lr,
        "batch_size": batch_size,
        "schedule": name_of(schedule) if schedule in _ANY_EPOCHS else f"{name_of(schedule)} over {epochs} epochs",
        "loss": name_of(loss),
        "early_stopping": early_stopping,
        "seed": seed,
        "shuffle": shuffle,
        "clip_grad_norm": clip_grad_norm,
    }
    run = Path(run_dir) if run_dir is not None else None
    state = open_run(run, resume, config, epochs) if run is not None else None
    rows: list[Row] = []
    best: dict[str, Any] = {"epoch": 0, "value": math.inf, "model": {}}
    order = torch.Generator().manual_seed(seed)

    def snapshot(epoch: int) -> dict[str, Any]:
        return {
            "config": config,
            "epoch": epoch,
            "best": best,
            "model": model.state_dict(),
            "optimizer": adapt.state_dict(),
            "schedule": scheduler.state_dict() if scheduler is not None else None,
            "order": order.get_state(),
            "random": get_random(model),
        }

    with seeded(seed, model), modes(model), _bar(progress, epochs, math.ceil(len(x) / batch_size)) as tick:
        if state is not None:
            rows, best = state["rows"], state["best"]
            model.load_state_dict(state["model"])
            adapt.load_state_dict(state["optimizer"])
            if scheduler is not None:
                scheduler.load_state_dict(state["schedule"])
            order.set_state(state["order"])
            set_random(model, state["random"])
        elif run is not None:
            save_state(run / CHECKPOINT, snapshot(0))  # what stops within the first epoch resumes from these weights
        model.train()

        for epoch in range(len(rows) + 1, epochs + 1):
            if early_stopping is not None and epoch - 1 - best["epoch"] >= early_stopping:
                break
            began = time.perf_counter()
            x_now, y_now = x, y
            if shuffle:
                permutation = torch.randperm(len(x), generator=order).to(x.device)
                x_now, y_now = x[permutation], y[permutation]
            outputs, losses = [], []
            for x_batch, y_batch in zip(x_now.split(batch_size), y_now.split(batch_size), strict=True):
                output, value = _step(model, x_batch, y_batch, target, adapt, parameters, clip_grad_norm)
                outputs.append(output)
                losses.append(value)
                if tick is not None:
                    tick(epoch, len(losses))
            sizes = torch.tensor([len(output) for output in outputs], dtype=torch.float64)
            total = float(torch.stack(losses).double().cpu() @ sizes)  # once: every `.item()` waits for a GPU
            row: Row = {"epoch": epoch, "loss": total / len(x), **summary(torch.cat(outputs), y_now)}
            if held_out is not None:
                scores = measure(model, *held_out, val_target)[1]
                row |= {f"val_{key}": score for key, score in scores.items()}
            row |= {"lr": adapt.param_groups[0]["lr"], "seconds": time.perf_counter() - began}
            if not all(map(math.isfinite, row.values())):
                raise DivergenceError(f"The loss is not finite in epoch {epoch}: use an `lr` below {lr}")
            rows.append(row)
            if monitored(row) < best["value"]:
                best = {"epoch": epoch, "value": monitored(row), "model": {}}
                if run is not None or early_stopping is not None:
                    best["model"] = copy.deepcopy(model.state_dict())
            if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
                scheduler.step(monitored(row))
            elif scheduler is not None:
                scheduler.step()
            if run is not None:
                with open(run / METRICS, "a", encoding="utf-8") as file:
                    file.write(to_line(row))
                save_state(run / CHECKPOINT, snapshot(epoch))
            if callable(progress):
                progress(row)

        if early_stopping is not None:
            model.load_state_dict(best["model"])
    return History(tuple(rows))


@dataclass(frozen=True)
class LearningRateTest:
    """What `lr_range_test` found: rates, smoothed losses at them, and the rate of the steepest descent."""

    lrs: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float


def lr_range_test(
    model: nn.Module,
    data: Dataset,
    *,
    lr_min: float = 1e-5,
    lr_max: float = 1.0,
    steps: int = 100,
    optimizer: str | Callable[..., Optimizer] = "adam",
    batch_size: int = 32,
    loss: str | Loss | None = None,
    smoothing: float = 0.9,
    seed: int = 0,
) -> LearningRateTest:
    """Raise the learning rate exponentially, step by step, and watch the loss (Smith, arXiv 1506.01186).

    The loss is smoothed by an exponential moving average without bias. The test ends early when that is four
    times its smallest value. Model, gradients and random states are left as they were.

    Args:
        model, data, optimizer, batch_size, loss: as in `fit`; take the optimiser to train with.
        lr_min, lr_max: the first and the last rate.
        steps: mini-batches, at least 10.
        smoothing: weight of the past in the average, at least 0 and below 1.
        seed: of the order of the rows and of torch's global generator.

    Returns:
        The curve, and the rate where the smoothed loss falls fastest over log(rate), before its minimum.

    Raises:
        ArgumentError: an argument is wrong, or data and model do not fit.
        DivergenceError: the loss explodes at once.
    """
    check_data(model, data)
    _check(steps, lr_min, batch_size)
    if not (lr_min < lr_max < math.inf and 0 <= smoothing < 1 and steps >= 10):
        raise ArgumentError(
            "Arguments must have `lr_min` < `lr_max`, 0 <= `smoothing` < 1 and `steps` >= 10, but are "
            f"{lr_min}, {lr_max}, {smoothing} and {steps}"
        )
    parameters, adapt = _optimizer(model, optimizer, lr_min)
    target = objective(data, loss)
    x, y = place(model, data)
    order = torch.Generator().manual_seed(seed)
    rates: list[float] = []
    losses: list[float] = []
    average = 0.0
    batches: list[Tensor] = []
    with untouched(model), seeded(seed, model):
        model.train()
        for step in range(steps):
            rate = lr_min * (lr_max / lr_min) ** (step / (steps - 1))
            for group in adapt.param_groups:
                group["lr"] = rate
            batches = batches or list(torch.randperm(len(x), generator=order).to(x.device).split(batch_size))
            rows = batches.pop(0)
            value = _step(model, x[rows], y[rows], target, adapt, parameters, None)[1].item()
            average = smoothing * average + (1 - smoothing) * value
            smooth = average / (1 - smoothing ** (step + 1))
            if not math.isfinite(smooth) or (losses and smooth > 4 * min(losses)):
                break
            rates.append(rate)
            losses.append(smooth)
    # Slopes over a tenth of the test each way: neighbours differ by the luck of their batches.
    window = steps // 10
    if len(losses) <= 3 * window:
        raise DivergenceError(f"The loss explodes within {len(losses)} steps: use an `lr_min` below {lr_min}")
    last = max(2 * window, losses.index(min(losses)) - window)
    steepest = min(range(2 * window, last + 1), key=lambda k: losses[k + window] - losses[k - window])
    return LearningRateTest(tuple(rates), tuple(losses), rates[steepest])


def _step(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    target: Loss,
    optimizer: Optimizer,
    parameters: list[nn.Parameter],
    clip_grad_norm: float | None,
) -> tuple[Tensor, Tensor]:
    optimizer.zero_grad(set_to_none=True)
    outputs = model(x)
    value = target(outputs, y)
    value.backward()
    if clip_grad_norm is not None:
        nn.utils.clip_grad_norm_(parameters, clip_grad_norm)
    optimizer.step()
    return outputs.detach(), value.detach()


def _choose(argument: str, choice: Any, table: dict[str, Any]) -> Any:
    if callable(choice):
        return choice
    check_choice(argument, choice, table)
    return table[choice]


def _optimizer(model: nn.Module, optimizer: Any, lr: float) -> tuple[list[nn.Parameter], Optimizer]:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ArgumentError("Argument `model` must have parameters that want a gradient, but has none")
    return parameters, _choose("optimizer", optimizer, OPTIMIZERS)(parameters, lr=lr)


def _check(
    epochs: int, lr: float, batch_size: int, early_stopping: int | None = None, clip_grad_norm: float | None = None
) -> None:
    for name, count in (("epochs", epochs), ("batch_size", batch_size), ("early_stopping", early_stopping)):
        if count is not None and (not isinstance(count, int) or count < 1):
            raise ArgumentError(f"Argument `{name}` must be a positive integer, but is {count!r}")
    for name, value in (("lr", lr), ("clip_grad_norm", clip_grad_norm)):
        if value is not None and (isinstance(value, str | bool) or not 0 < value < math.inf):
            raise ArgumentError(f"Argument `{name}` must be positive and finite, but is {value!r}")


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
