"""What is trained, how far it has come, and the steps that it takes."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer, lr_scheduler

from qbp.data.inputs import Input, call
from qbp.errors import ArgumentError
from qbp.storage.container import save_state
from qbp.training.batches import Batch
from qbp.training.checkpoint import CHECKPOINT, Row, get_random, monitored, set_random
from qbp.training.metrics import Objective
from qbp.training.options import Training, mode_of, new_optimizer, new_schedule

__all__ = ["TrainingState", "forward", "loss_of", "take_step"]


@dataclass
class TrainingState:
    """What is trained, and how far it has come.

    Attributes:
        order: draws the order of the rows.
        rows: of `History`.
        best: the best epoch, the value of what is monitored, and the weights then.
        average: of the weights by name, where one is kept.
        is_stopped: whether a callback has ended it.
    """

    model: nn.Module
    training: Training
    parameters: list[nn.Parameter]
    optimizer: Optimizer
    scheduler: Any
    order: torch.Generator
    loader: Any = None
    rows: list[Row] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)
    is_stopped: bool = False

    @classmethod
    def new(cls, model: nn.Module, training: Training, seed: int, steps: int, loader: Any = None) -> TrainingState:
        """A training that has not begun, of so many steps an epoch."""
        parameters, optimizer = new_optimizer(model, training)
        scheduler = new_schedule(optimizer, training, steps)
        order = torch.Generator().manual_seed(seed)
        state = cls(model, training, parameters, optimizer, scheduler, order, loader)
        state.best = {"epoch": 0, "value": -math.inf if state.mode == "max" else math.inf, "model": {}}
        return state

    @property
    def mode(self) -> str:
        """Whether the largest or the smallest value is the best."""
        return mode_of(self.training.monitor, self.training.mode)

    @property
    def monitor(self) -> str | None:
        """The column that is looked at; None: the validation loss, or the loss."""
        return self.training.monitor

    def is_done(self) -> bool:
        """Whether all epochs are over, or training stops early."""
        patience = self.training.early_stopping
        stops = patience is not None and len(self.rows) - self.best["epoch"] >= patience
        return stops or self.is_stopped or len(self.rows) >= self.training.epochs

    def step(self, batches: Sequence[Batch], target: Objective) -> tuple[list[Tensor], list[Tensor]]:
        """Take one step; outputs and losses of its batches before it."""
        results = take_step(self.model, batches, target, self.optimizer, self.parameters, self.training.clip_grad_norm)
        self.stepped()
        return results

    def stepped(self) -> None:
        """Note that the optimiser has taken a step."""
        if self.training.ema_decay is not None:
            self._follow(self.training.ema_decay)
        if self.scheduler is not None and self.training.schedule_interval == "step":
            self.scheduler.step()

    def _follow(self, decay: float) -> None:
        """Move the average on; it begins with the weights after the first step."""
        if not self.average:
            self.average = {name: p.detach().clone() for name, p in self.model.named_parameters() if p.requires_grad}
            return
        weights = dict(self.model.named_parameters())
        torch._foreach_lerp_(list(self.average.values()), [weights[name].detach() for name in self.average], 1 - decay)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Let the model have the average of its weights, where one is kept."""
        if not self.average:
            yield
            return
        weights = dict(self.model.named_parameters())
        before = {name: weights[name].detach().clone() for name in self.average}
        with torch.no_grad():
            for name, value in self.average.items():
                weights[name].copy_(value)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in before.items():
                    weights[name].copy_(value)

    def note(self, row: Row, keep: bool) -> None:
        """Take an epoch's row, with the weights where it is the best and they are to be kept."""
        self.rows.append(row)
        value = monitored(row, self.monitor)
        if value > self.best["value"] if self.mode == "max" else value < self.best["value"]:
            self.best = {"epoch": row["epoch"], "value": value, "model": {}}
            if keep or self.training.early_stopping is not None:
                with self.averaged():
                    self.best["model"] = _kept(self.model)
        if self.scheduler is None or self.training.schedule_interval == "step":
            return
        if isinstance(self.scheduler, lr_scheduler.ReduceLROnPlateau):
            self.scheduler.step(value)
        else:
            self.scheduler.step()

    def finish(self) -> None:
        """Give the model the weights that training ends with."""
        if self.training.early_stopping is not None:
            self.model.load_state_dict(self.best["model"])
        elif self.average:
            self.model.load_state_dict(self.average, strict=False)

    def save(self, run: Path, config: Mapping[str, Any], preprocessing: Mapping[str, Any]) -> None:
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
            "average": self.average,
            "stopped": self.is_stopped,
            "loader": None if (own := self._loaders()) is None else own.get_state(),
            "preprocessing": dict(preprocessing),
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
        devices = {name: p.device for name, p in self.model.named_parameters()}
        self.average = {name: value.to(devices[name]) for name, value in state.get("average", {}).items()}
        self.is_stopped = state.get("stopped", False)
        if (own := self._loaders()) is not None and state.get("loader") is not None:
            own.set_state(state["loader"])

    def _loaders(self) -> torch.Generator | None:
        """What a loader of the user's own draws from."""
        own: torch.Generator | None = getattr(self.loader, "generator", None)
        return own


def _kept(model: nn.Module) -> dict[str, Any]:
    """The state of a model as it is now."""
    state: dict[str, Any] = model.state_dict()
    for key, value in state.items():
        state[key] = value.clone() if isinstance(value, Tensor) else copy.deepcopy(value)
    return state


def take_step(
    model: nn.Module,
    batches: Sequence[Batch],
    target: Objective,
    optimizer: Optimizer,
    parameters: list[nn.Parameter],
    clip_grad_norm: float | None,
) -> tuple[list[Tensor], list[Tensor]]:
    """Take one step with the gradient of the mean loss of all rows of the batches; outputs and losses before it."""
    outputs: list[Tensor] = []
    losses: list[Tensor] = []
    rows = sum(len(batch.x) for batch in batches)

    def closure() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        first, total = not losses, []
        for batch in batches:
            output = forward(model, batch.x, inputs=target.data.inputs)
            value = loss_of(target, output, batch.y, batch.weights)
            share = value if len(batches) == 1 else value * (len(batch.x) / rows)
            share.backward()
            total.append(share.detach())
            if first:
                outputs.append(output.detach())
                losses.append(value.detach())
        if clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(parameters, clip_grad_norm)
        return total[0] if len(total) == 1 else torch.stack(total).sum()

    if isinstance(optimizer, LBFGS):
        optimizer.step(closure)
    else:
        closure()
        optimizer.step()
    return outputs, losses


def loss_of(target: Objective, outputs: Tensor, y: Tensor, weights: Tensor | None) -> Tensor:
    """The loss of a batch."""
    value = target(outputs, y, weights) if weights is not None else target(outputs, y)
    if value.ndim:
        raise ArgumentError(
            f"Argument `loss` must give one number for a batch, but gives {tuple(value.shape)}: a value for "
            "each row is for rows that have weights"
        )
    return value


def forward(model: Any, x: Tensor, axis: int = 0, inputs: tuple[Input, ...] = ()) -> Tensor:
    """The outputs of a batch, whose rows are that axis."""
    try:
        outputs: Tensor = call(model, x, inputs)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):  # as torch says it
            raise
        raise ArgumentError(
            "Argument `batch_size` must let each step have two rows or more, as batch normalisation needs, but one "
            f"has {x.shape[axis]}"
        ) from error
    return outputs
