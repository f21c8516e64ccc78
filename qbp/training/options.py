"""How a model is trained: the options that everything that trains has in common, said once."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from qbp.data import Dataset
from qbp.errors import ArgumentError, check_choice, check_count, check_positive, check_share, suggests_names
from qbp.nn.layer import QuantumLayer
from qbp.storage.identity import identity
from qbp.training.metrics import Loss, Metric, check_loss

__all__ = [
    "ANY_EPOCHS",
    "INTERVALS",
    "MODES",
    "OPTIMIZERS",
    "SCHEDULES",
    "TRAINING",
    "Training",
    "mode_of",
    "new_optimizer",
    "new_schedule",
    "training_of",
    "with_options",
]

# fused and foreach: one call for all parameters, which saves two thirds of a step of a small model.
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": torch.optim.SGD,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
    "rmsprop": partial(torch.optim.RMSprop, foreach=True),
    "adagrad": partial(torch.optim.Adagrad, foreach=True),
    "adam": partial(torch.optim.Adam, fused=True),
    "adamw": partial(torch.optim.AdamW, fused=True),
    "lbfgs": partial(torch.optim.LBFGS, line_search_fn="strong_wolfe"),  # for whole data as one batch, `lr` 1
}


def _warmup(optimizer: Optimizer, epochs: int) -> lr_scheduler.LambdaLR:
    """Rise linearly to the full rate over the first tenth of the epochs, then fall to 0 along a cosine."""
    rise = max(1, round(epochs / 10))
    fall = max(1, epochs - rise)
    return lr_scheduler.LambdaLR(
        optimizer,
        lambda t: (t + 1) / (rise + 1) if t < rise else (1 + math.cos(math.pi * (t - rise) / fall)) / 2,
    )


# name -> (optimizer, epochs) -> scheduler, which takes one step after every epoch (or step, if that is the interval).
SCHEDULES: dict[str, Callable[[Optimizer, int], Any]] = {
    "step": lambda optimizer, epochs: lr_scheduler.StepLR(optimizer, step_size=10, gamma=0.5),
    "exponential": lambda optimizer, epochs: lr_scheduler.ExponentialLR(optimizer, gamma=0.95),
    "cosine": lambda optimizer, epochs: lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs),
    "plateau": lambda optimizer, epochs: lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=3),
    "warmup": _warmup,
}
MODES = (None, "min", "max")
INTERVALS = ("epoch", "step")
ANY_EPOCHS = (None, "step", "exponential", "plateau")  # the others depend on the number of epochs


@suggests_names
@dataclass(frozen=True)
class Training:
    """How a model is trained: what `fit`, `distill`, `compare`, `prune` and `plan` take, and a config's `train`.

    Args:
        epochs: passes over the data.
        lr: learning rate.
        optimizer: a key of `OPTIMIZERS`, or a function of (parameters, lr=...).
        batch_size: rows per step; the last step of an epoch takes what is left.
        schedule: a key of `SCHEDULES`, or a function of (optimizer, epochs) that returns a torch scheduler.
        validation: data, or the share of the training data to split off (stratified, by the seed).
        loss: a key of `LOSSES`, or a function of (outputs, targets). None: cross entropy for labels ("bce" if the model
            has one output), mean squared error for targets.
        early_stopping: stop after this many epochs in which `monitor` was no better than before. The model ends with
            the weights of the best epoch, stopped or not.
        clip_grad_norm: largest norm of the gradient of all parameters together.
        shuffle: a new order of the rows every epoch.
        quantum_lr: learning rate of the weights of quantum layers; None: `lr`.
        class_weight: how much the rows of each class count: weights by the name of the class, or in the order of the
            classes, or "balanced", as many as make all classes count alike. A loss of your own must then give a value
            for each row.
        metrics: metrics of your own by name: functions of (outputs, targets) that give a number.
        monitor: the column of `History` that early stopping, "best" and the schedule "plateau" look at; None:
            "val_loss", or "loss" without validation.
        mode: whether the smallest ("min") or the largest ("max") value of `monitor` is the best; None: "max" of
            accuracy and r2, "min" of losses and errors; a metric of your own needs one of the two.
        accumulate_grad_batches: batches whose gradients are one step, which is that of one batch of all their rows.
        schedule_interval: whether the schedule takes a step after every "epoch" or after every "step" of the optimiser;
            `epochs` is then the number of steps for it.
        ema_decay: train as usual, but measure and keep an exponential moving average of the weights, as 0.999.

    Raises:
        ArgumentError: a value is wrong.

    Example:
        >>> import qbp
        >>> training = Training(epochs=30, lr=0.03)
        >>> train, test = qbp.data.load("iris")
        >>> model = qbp.mlp(4, 8, 3, seed=0)
        >>> len(qbp.fit(model, train, training).rows), len(qbp.fit(model, train, training, epochs=5).rows)
        (30, 5)
    """

    epochs: int = 20
    lr: float = 0.01
    optimizer: str | Callable[..., Optimizer] = "adam"
    batch_size: int = 32
    schedule: str | Callable[[Optimizer, int], Any] | None = None
    validation: Any = None
    loss: str | Loss | None = None
    early_stopping: int | None = None
    clip_grad_norm: float | None = None
    shuffle: bool = True
    quantum_lr: float | None = None
    class_weight: str | Mapping[Any, float] | Sequence[float] | None = None
    metrics: Mapping[str, Metric] | None = None
    monitor: str | None = None
    mode: str | None = None
    accumulate_grad_batches: int = 1
    schedule_interval: str = "epoch"
    ema_decay: float | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "early_stopping", "accumulate_grad_batches"):
            if getattr(self, name) is not None or name != "early_stopping":
                check_count(name, getattr(self, name))
        check_positive("lr", self.lr)
        for name in ("clip_grad_norm", "quantum_lr"):
            if getattr(self, name) is not None:
                check_positive(name, getattr(self, name))
        if self.ema_decay is not None:
            check_share("ema_decay", self.ema_decay)
        check_choice("mode", self.mode, MODES)
        check_choice("schedule_interval", self.schedule_interval, INTERVALS)
        if self.schedule == "plateau" and self.schedule_interval == "step":
            raise ArgumentError("Argument `schedule_interval` must be 'epoch' for 'plateau', but is 'step'")
        if self.optimizer == "lbfgs" and self.quantum_lr is not None:
            raise ArgumentError(f"Argument `quantum_lr` must be None for 'lbfgs', but is {self.quantum_lr!r}")
        check_class_weight(self.class_weight)
        check_metrics(self.metrics)
        if not callable(self.optimizer):
            check_choice("optimizer", self.optimizer, OPTIMIZERS)
        if self.schedule is not None and not callable(self.schedule):
            check_choice("schedule", self.schedule, SCHEDULES)
        check_loss(self.loss)
        if not isinstance(self.shuffle, bool):
            raise ArgumentError(f"Argument `shuffle` must be True or False, but is {self.shuffle!r}")

    def describe(self, model: nn.Module | None = None) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Return every option as plain data, functions by what they do; and what of them cannot be compared.

        Args:
            model: what is trained: a function that uses it, as a loss that looks at its weights, is no other one
                because they have moved.
        """
        trained = {} if model is None else {id(part): name for name, part in model.named_modules()}
        if model is not None:
            tensors = [*model.named_parameters(), *model.named_buffers()]
            trained |= {id(tensor): name for name, tensor in tensors}
        said: dict[str, Any] = {}
        opaque: list[str] = []
        for name in TRAINING:
            value = getattr(self, name)
            if isinstance(value, Dataset):
                value = value.hash()
            elif name == "metrics" and value is not None:
                identities = {key: identity(function, trained) for key, function in value.items()}
                opaque += [f"`metrics` ({kind})" for each in identities.values() for kind in each.opaque]
                value = {key: each.text for key, each in identities.items()}
            elif name == "class_weight" and value is not None and not isinstance(value, str):
                value = repr(value)
            elif callable(value):
                value, cannot = identity(value, trained)
                opaque += [f"`{name}` ({kind})" for kind in cannot]
            said[name] = value
        return said, tuple(opaque)


TRAINING = tuple(field.name for field in fields(Training))


def training_of(training: Training | Mapping[str, Any] | None, options: Mapping[str, Any]) -> Training:
    """Return `training`, or the default, with the options that a call names besides.

    Raises:
        ArgumentError: a value is wrong, or `training` is no training.
        TypeError: an option is unknown.
    """
    given = {} if training is None else training
    for name in (*options, *(given if isinstance(given, Mapping) else ())):
        if name not in TRAINING:
            near = difflib.get_close_matches(name, TRAINING, n=1)
            meant = f"; did you mean `{near[0]}`?" if near else ""
            raise TypeError(f"`{name}` is no option of qbp.Training, which has {', '.join(TRAINING)}{meant}")
    if isinstance(given, Mapping):
        return Training(**{**given, **options})
    if not isinstance(given, Training):
        raise ArgumentError(f"Argument `training` must be a qbp.Training, but is a {type(given).__name__}")
    return replace(given, **options) if options else given


Function = TypeVar("Function", bound=Callable[..., Any])


def with_options(function: Function) -> Function:
    """Let `help`, notebooks and editors show the options of `Training` where a function takes `**options`."""
    own = inspect.signature(function)
    options = [p.replace(kind=p.KEYWORD_ONLY) for p in inspect.signature(Training).parameters.values()]
    kept = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
    function.__signature__ = own.replace(parameters=[*kept, *options])  # type: ignore[attr-defined]
    return function


def new_optimizer(model: nn.Module, training: Training) -> tuple[list[nn.Parameter], Optimizer]:
    """Return the parameters that want a gradient, and an optimiser of them."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ArgumentError("Argument `model` must have parameters that want a gradient, but has none")
    make = OPTIMIZERS[training.optimizer] if isinstance(training.optimizer, str) else training.optimizer
    if training.quantum_lr is None:
        return parameters, make(parameters, lr=training.lr)
    quantum = {id(p) for m in model.modules() if isinstance(m, QuantumLayer) for p in m.parameters()}
    groups = [
        {"params": [p for p in parameters if (id(p) in quantum) is is_quantum], "lr": lr}
        for is_quantum, lr in ((False, training.lr), (True, training.quantum_lr))
    ]
    if not groups[1]["params"]:
        raise ArgumentError("Argument `quantum_lr` must be None for a model without weights of quantum layers")
    return parameters, make([group for group in groups if group["params"]], lr=training.lr)


def new_schedule(optimizer: Optimizer, training: Training, steps: int) -> Any:
    """Return a scheduler of the learning rate; None without a schedule.

    Args:
        optimizer: whose rates they are.
        training: how often, and for how long.
        steps: of the optimiser in an epoch.
    """
    if training.schedule is None:
        return None
    total = training.epochs * (steps if training.schedule_interval == "step" else 1)
    if training.schedule == "plateau":
        is_max = mode_of(training.monitor, training.mode) == "max"
        mode: Any = "max" if is_max else "min"
        return lr_scheduler.ReduceLROnPlateau(optimizer, mode=mode, factor=0.5, patience=3)
    make = SCHEDULES[training.schedule] if isinstance(training.schedule, str) else training.schedule
    return make(optimizer, total)


def mode_of(monitor: str | None, mode: str | None = None) -> str:
    """Return whether the smallest ("min") or the largest ("max") value of a column is the best.

    Raises:
        ArgumentError: it is a metric of the user's own, and `mode` does not say it.
    """
    if mode is not None or monitor is None:
        return mode or "min"
    better = BETTER.get(monitor.removeprefix("val_"))
    if better is None:
        raise ArgumentError(f"Argument `mode` must be 'min' or 'max' for the metric {monitor!r}, but is None")
    return better


BETTER = {"loss": "min", "mae": "min", "mse": "min", "accuracy": "max", "exact_match": "max", "r2": "max"}


def check_class_weight(value: object) -> None:
    """Raise `ArgumentError` unless it is "balanced", None, or positive weights."""
    if value is None or (isinstance(value, str) and value == "balanced"):
        return
    weights = list(value.values()) if isinstance(value, Mapping) else value
    if isinstance(weights, str) or not isinstance(weights, Sequence | torch.Tensor) or not len(weights):
        raise ArgumentError(f"Argument `class_weight` must be 'balanced', weights by class or None, but is {value!r}")
    for weight in weights:
        check_positive("class_weight", float(weight) if not isinstance(weight, bool | str) else weight, zero=True)


def check_metrics(value: object) -> None:
    """Raise `ArgumentError` unless it maps names that are free to functions."""
    if value is None:
        return
    if not isinstance(value, Mapping) or not all(isinstance(k, str) and callable(f) for k, f in value.items()):
        raise ArgumentError(f"Argument `metrics` must map names to functions of (outputs, targets), but is {value!r}")
    taken = {*BETTER, "epoch", "lr", "quantum_lr", "seconds"}
    if clash := [name for name in value if name in taken or name.startswith("val_")]:
        raise ArgumentError(f"Argument `metrics` must have names other than those of qbp, but has {clash[0]!r}")
