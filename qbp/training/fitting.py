"""Training: `fit`, and a killed run that resumes bit-equal."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, overload

from torch import nn
from torch.utils.data import DataLoader

from qbp.data import as_dataset, preprocessing_of
from qbp.data.conversion import weighted
from qbp.errors import ArgumentError, check_count, check_seed, suggests_names
from qbp.nn.seeding import renew
from qbp.training.batches import batch_sizes
from qbp.training.checkpoint import History, Row, load_checkpoint
from qbp.training.ensemble import train_together
from qbp.training.loop import train as train_one
from qbp.training.members import DivergenceError, Member
from qbp.training.metrics import LOSSES, evaluate
from qbp.training.options import Training, training_of, with_options

__all__ = ["LOSSES", "DivergenceError", "History", "Training", "batch_sizes", "evaluate", "fit", "load_checkpoint"]


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
@suggests_names
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
        seeds: train once for each of so many seeds (0, 1, ...), or for these: every time a copy of the model with
            weights drawn anew by the seed; `model` itself stays as it is. Copies train together where that is known to
            be the same (ten small models take less than twice as long as one), and else one after the other, as with
            callbacks and a DataLoader.
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
        these, whose `together` says how many trained at once.

    Raises:
        ArgumentError: an argument is wrong, or data and model do not fit.
        ConfigError: `run_dir` holds a checkpoint already, or one of a different run.
        DivergenceError: the loss is infinite or nan; the checkpoint is the epoch's before.

    Warns:
        UserWarning: a function among the options of a run that goes on holds what cannot be compared with before; or
            models of several seeds are trained one after the other, and why.

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
    called = _check_callbacks(callbacks)
    loader = train if isinstance(train, DataLoader) else None
    rows = as_dataset(train, preprocessing_of(model), "train")
    rows = rows if sample_weight is None else weighted(rows, sample_weight)
    where: dict[str, Any] = {"loader": loader, "run": None if run_dir is None else Path(run_dir), "resume": resume}
    if seeds is None:
        member = Member.new(model, rows, training, seed, **where)
        train_one(member, called, progress)
        return member.history()
    members = []
    for number in _numbers(seeds):
        here = where | {"run": None if run_dir is None else Path(run_dir) / f"seed-{number}"}
        members.append(Member.new(renew(model, number), rows, training, number, **here))
    return _by_seed(members, called, progress)


def _by_seed(members: list[Member], callbacks: list[Any], progress: object) -> list[History]:
    """Train all, together where that can be; who does not converge is told of in the end."""
    errors: list[DivergenceError | None] = []
    if callbacks or members[0].state.loader is not None:  # which may count epochs, or draw numbers of their own
        for member in members:
            train_one(member, callbacks, progress)
    else:
        errors, reason = train_together(members, progress)
        if reason is not None:
            warnings.warn(f"The seeds are trained one after the other: {reason}", stacklevel=5)
    for member, error in zip(members, errors, strict=False):
        if error is not None:
            raise DivergenceError(f"Seed {member.seed}: {error}") from error
    return [member.history() for member in members]


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
