"""One model in training: its rows, what an epoch of it came to, and where that is kept. `fit` trains one, or many."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from qbp.data import Dataset, as_dataset, preprocessing_of, split
from qbp.data.conversion import described
from qbp.data.preprocessing import attach
from qbp.errors import ArgumentError, QbpError, check_choice
from qbp.gradients.stateful import prepare
from qbp.training.batches import Batches
from qbp.training.checkpoint import METRICS, History, Row, fingerprint, open_run, to_line
from qbp.training.metrics import Objective, check_data, objective, place
from qbp.training.options import ANY_EPOCHS, Training
from qbp.training.state import TrainingState

__all__ = ["DivergenceError", "Member", "call"]


class DivergenceError(QbpError, FloatingPointError):
    """The loss is no longer a finite number."""


@dataclass
class Member:
    """A model that is trained.

    Attributes:
        state: how far it has come.
        batches: its rows.
        held_out: those to validate on.
        seed: the one seed.
        run: where it is kept, or None.
        saved: what it goes on from, or None.
        config: what a run that goes on must have in common with its begin.
        preprocessing: as it is kept.
        together: with how many others, itself included, it trains at once.
        random: torch's global random numbers of this member, where others have their turn between its steps.
    """

    state: TrainingState
    batches: Batches
    held_out: Dataset | None
    seed: int
    run: Path | None = None
    saved: dict[str, Any] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    together: int = 1

    @classmethod
    def new(
        cls,
        model: nn.Module,
        rows: Dataset,
        training: Training,
        seed: int,
        *,
        loader: Any = None,
        run: Path | None = None,
        resume: bool = False,
    ) -> Member:
        """A member that has not begun: its arguments are checked, and its folder is claimed."""
        of_model = preprocessing_of(model)
        data, held_out, training = _parts(model, rows, training, seed, loader)
        batches = Batches(model, data, training, loader)
        steps = batches.steps(training.accumulate_grad_batches)
        state = TrainingState.new(model, training, seed, steps, loader)
        prepare(model, state.optimizer, training.epochs * steps)
        preprocessing = described(data, of_model)
        member = cls(state, batches, held_out, seed, run)
        if run is not None:
            member.config, opaque = _config(model, data, held_out, training, seed)
            member.saved = open_run(run, resume, member.config, training.epochs, opaque)
            member.preprocessing = preprocessing.to_state()
        attach(model, preprocessing)
        return member

    def __post_init__(self) -> None:
        loss, data = self.state.training.loss, self.batches.data
        self.random = torch.Generator().manual_seed(self.seed)
        self.target = objective(data, loss)
        self.held_target: Objective = objective(self.held_out if self.held_out is not None else data, loss)
        self.validation = None if self.held_out is None else place(self.state.model, self.held_out)

    @property
    def model(self) -> nn.Module:
        """What is trained."""
        return self.state.model

    def begin(self) -> None:
        """Go on from what was saved, or save the start: what stops in the first epoch resumes from these weights."""
        if self.saved is not None:
            self.state.load(self.saved)
        elif self.run is not None:
            self.state.save(self.run, self.config, self.preprocessing)
        self.saved = None
        self.model.train()

    def row(self, train: Mapping[str, float], held: Mapping[str, float] | None, seconds: float) -> Row:
        """The metrics of an epoch: of the rows trained on, taken while the weights move, and of those held out."""
        training, groups = self.state.training, self.state.optimizer.param_groups
        row: Row = {"epoch": len(self.state.rows) + 1, **train}
        if held is not None:
            row |= {f"val_{key}": score for key, score in held.items()}
        row["lr"] = groups[0]["lr"]
        if training.quantum_lr is not None:
            row["quantum_lr"] = groups[-1]["lr"]
        row["seconds"] = seconds
        mine = {*(training.metrics or ()), *(f"val_{name}" for name in training.metrics or ())}
        if not all(math.isfinite(value) for name, value in row.items() if name not in mine):
            raise DivergenceError(f"The loss is not finite in epoch {row['epoch']}: use an `lr` below {training.lr}")
        return row

    def end(self, row: Row, callbacks: Sequence[Any] = (), progress: object = None) -> None:
        """Take the row of an epoch that is over."""
        state = self.state
        state.note(row, keep=self.run is not None)
        state.is_stopped |= any([call(each, "on_epoch_end", row, self.model) for each in callbacks])
        if self.run is not None:
            with open(self.run / METRICS, "a", encoding="utf-8") as file:
                file.write(to_line(row))
            state.save(self.run, self.config, self.preprocessing)
        if callable(progress):
            progress(row)

    def history(self) -> History:
        """All epochs, also those before a resume."""
        state = self.state
        return History(tuple(state.rows), state.monitor, state.mode, state.model, self.together)

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Let torch's global random numbers be this member's, as if it trained alone."""
        torch.set_rng_state(self.random.get_state())
        yield
        self.random.set_state(torch.get_rng_state())


def call(callback: Any, when: str, row: Row, model: nn.Module) -> bool:
    """Call a callback where it wants to be called; whether it ends the training."""
    method: Callable[[Row, nn.Module], object] | None = getattr(callback, when, None)
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
