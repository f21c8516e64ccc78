"""How much longer a classical network may train: as long as the model that it is compared with takes."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import nn

from qbp.comparison.cells import locked
from qbp.comparison.controls import CONTROLS, MATCHED_TIME
from qbp.comparison.grid import Subject, build
from qbp.data import Dataset
from qbp.nn.models import renew
from qbp.storage.atomic import write_atomic
from qbp.training.loop import train as train_alone
from qbp.training.members import DivergenceError, Member
from qbp.training.options import Training

__all__ = ["MOST_TIMES", "times_as_many", "times_of"]

TIMES = "times.json"

MOST_TIMES = 32
"""How many times the epochs of a model its rival gets at most: a network of this size has long come to its end."""

BATCHES, EPOCHS = 2, 4


def times_of(
    models: Mapping[str, Subject], trains: Mapping[str, Dataset], training: Training, folder: Path | None
) -> dict[str, dict[str, int]]:
    """Measure `times_as_many` of each data set and subject, or read what was measured when the comparison began.

    Args:
        models: the subjects by name.
        trains: for each data set rows to train on.
        training: how models are trained.
        folder: where it is kept (`times.json`), or None.
    """
    with contextlib.nullcontext() if folder is None else locked(folder, Path(TIMES)):
        if folder is not None and (folder / TIMES).is_file():
            kept: dict[str, dict[str, int]] = json.loads((folder / TIMES).read_text(encoding="utf-8"))
            return kept
        times = {
            name: {m: _times(model, train, training) for m, model in models.items()} for name, train in trains.items()
        }
        if folder is not None:
            write_atomic(folder / TIMES, (json.dumps(times, indent=2) + "\n").encode())
        return times


def _times(subject: Subject, train: Dataset, training: Training) -> int:
    shape = train.x.shape[1], train.n_outputs
    model = build(subject, *shape)
    return times_as_many(model, CONTROLS[MATCHED_TIME](model, *shape), train, training)


def times_as_many(model: nn.Module, rival: nn.Module, train: Dataset, training: Training) -> int:
    """How many epochs of `rival` take as long as one of `model`: 1, 2, 4... up to `MOST_TIMES`.

    Each trains by itself on the same few batches, in the same process; the fastest of some epochs counts. It is the
    nearest power of two, so that the same machine gives the same number again as a rule. A comparison measures once,
    before it trains, and keeps it: how many models then train at once changes nothing.

    Args:
        model: the subject, (B, I) -> (B, M).
        rival: what is trained for as long.
        train: rows to train on.
        training: how both are trained.
    """
    rows = train.subset(range(min(len(train), BATCHES * training.batch_size)))
    options = replace(
        training, epochs=EPOCHS, validation=None, monitor=None, mode=None, early_stopping=None, class_weight=None
    )
    ratio = seconds_of(model, rows, options) / seconds_of(rival, rows, options)
    return min(MOST_TIMES, max(1, 2 ** round(math.log2(ratio))))


def seconds_of(model: nn.Module, rows: Dataset, training: Training) -> float:
    """Seconds of the fastest epoch but the first, in which kernels are compiled."""
    member = Member.new(renew(model, 0), rows, training, 0)
    with contextlib.suppress(DivergenceError):  # the epochs before it have been timed
        train_alone(member)
    seconds = [float(row["seconds"]) for row in member.history().rows]
    return min(seconds[1:] or seconds, default=1e-3)
