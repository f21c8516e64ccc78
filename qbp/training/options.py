"""How a model is trained: the options that everything that trains has in common, said once."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from qbp.data import Dataset
from qbp.errors import ArgumentError, check_choice, check_count, check_positive
from qbp.storage.identity import identity
from qbp.training.metrics import Loss, check_loss

__all__ = [
    "ANY_EPOCHS",
    "OPTIMIZERS",
    "SCHEDULES",
    "Training",
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
ANY_EPOCHS = (None, "step", "exponential", "plateau")  # the others depend on the number of epochs


@dataclass(frozen=True)
class Training:
    """How a model is trained: what `fit`, `distill`, `compare`, `prune` and `plan` take, and a config's `train`.

    Args:
        epochs: passes over the data.
        lr: learning rate.
        optimizer: a key of `OPTIMIZERS`, or a function of (parameters, lr=...).
        batch_size: rows per step; the last step of an epoch takes what is left.
        schedule: a key of `SCHEDULES`, or a function of (optimizer, epochs) that returns a torch scheduler.
        validation: a data set, or the share of the training data to split off (stratified, by the seed).
        loss: a key of `LOSSES`, or a function of (outputs, targets). None: cross entropy for labels ("bce" if the model
            has one output), mean squared error for targets.
        early_stopping: stop after this many epochs without a smaller validation loss (or loss, without validation). The
            model ends with the weights of the best epoch, stopped or not.
        clip_grad_norm: largest norm of the gradient of all parameters together.
        shuffle: a new order of the rows every epoch.

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
    validation: Dataset | float | None = None
    loss: str | Loss | None = None
    early_stopping: int | None = None
    clip_grad_norm: float | None = None
    shuffle: bool = True

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "early_stopping"):
            if getattr(self, name) is not None or name != "early_stopping":
                check_count(name, getattr(self, name))
        check_positive("lr", self.lr)
        if self.clip_grad_norm is not None:
            check_positive("clip_grad_norm", self.clip_grad_norm)
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
    return parameters, make(parameters, lr=training.lr)


def new_schedule(optimizer: Optimizer, training: Training) -> Any:
    """Return a scheduler of the learning rate; None without a schedule."""
    if training.schedule is None:
        return None
    make = SCHEDULES[training.schedule] if isinstance(training.schedule, str) else training.schedule
    return make(optimizer, training.epochs)
