"""Distillation by how rows lie to each other: does it matter that they are compared as quantum states?

Teacher and student are classical networks for images (arXiv 2508.13054); the terms are those of `qbp.distill`.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import torch
from pydantic import Field
from torch import nn

from qbp.compression.distillation import distill
from qbp.data import Dataset, load
from qbp.errors import ConfigError
from qbp.nn.models import n_parameters
from qbp.nn.seeding import seeded
from qbp.runs.schema import Count, Positive, Section, Share
from qbp.runs.values import among
from qbp.training.fitting import fit
from qbp.training.metrics import evaluate
from qbp.trials.cell import Cell, Row
from qbp.trials.digits import MEAN, SPREAD

__all__ = ["ARMS", "Options", "cells", "images", "network", "rotated", "together", "train", "train_together"]

ARMS: dict[str, tuple[str, ...]] = {
    "labels": (),
    "kd": ("kd",),
    "rkd": ("kd", "relational"),
    "qrkd": ("kd", "relational", "fidelity"),
    "classical kernel": ("kd", "relational", "amplitude_fidelity"),
}
"""Each arm: the terms beside the labels."""

FEATURES = 13
"""Where in a network its last hidden layer is given, in the axes of its principal components."""


class Options(Section):
    """Who teaches whom, and how.

    Attributes:
        arms: of `ARMS`.
        idx: a folder with the four files of MNIST (train-images-idx3-ubyte...), packed by gzip or not; null: the 5,000
            images that qbp has.
        test_size: share of these for test; the files have their own.
        teacher, student: channels of two convolutions, and the width of the hidden layer.
        epochs, teacher_epochs, lr, batch_size: of Adam.
        temperature, kd: of soft targets, and their weight.
        weight: of each other term; the labels' is 1.
    """

    arms: Annotated[tuple[Annotated[str, among(ARMS)], ...], Field(min_length=2)] = tuple(ARMS)
    idx: str | None = None
    test_size: Share = 0.2
    teacher: tuple[Count, Count, Count] = (1, 18, 31)
    student: tuple[Count, Count, Count] = (19, 4, 4)
    epochs: Count = 10
    teacher_epochs: Count = 20
    lr: Positive = 3e-3
    batch_size: Count = 64
    temperature: Positive = 4.0
    kd: Positive = 0.25
    weight: Positive = 1.0


def images(options: Options, seed: int) -> tuple[Dataset, Dataset]:
    """Digits of 28 x 28 pixels, standardised: (B, 784)."""
    if options.idx is None:
        parts = load("mnist", test_size=options.test_size, scale=None, seed=seed)
    else:
        parts = (_read(Path(options.idx), "train"), _read(Path(options.idx), "t10k"))
    train, test = (Dataset((part.x - MEAN) / SPREAD, part.y, part.name) for part in parts)
    return train, test


def _read(folder: Path, name: str) -> Dataset:
    arrays = []
    for kind, header in (("images-idx3", 16), ("labels-idx1", 8)):
        path = next((p for p in sorted(folder.glob(f"{name}-{kind}-ubyte*")) if p.suffix in ("", ".gz")), None)
        if path is None:
            raise ConfigError(f"Option `idx` must be a folder with {name}-{kind}-ubyte, but {folder} has none")
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        arrays.append(np.frombuffer(data, np.uint8, offset=header))
    pixels, labels = arrays
    x = torch.from_numpy(pixels.reshape(len(labels), -1).astype(np.float32) / 255)
    return Dataset(x, torch.from_numpy(labels.astype(np.int64)), "mnist")


def network(channels: int, more: int, hidden: int, seed: int) -> nn.Sequential:
    """Two convolutions, pooling to 4 x 4, a 1 x 1 convolution to 12 channels, a hidden layer, and 10 logits."""
    with seeded(seed):
        return nn.Sequential(
            nn.Unflatten(1, (1, 28, 28)),
            nn.Conv2d(1, channels, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.Conv2d(channels, more, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.AdaptiveAvgPool2d(4),
            nn.Conv2d(more, 12, 1, bias=False),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(12 * 4 * 4, hidden),
            nn.ReLU(),
            nn.Identity(),  # of the teacher: its principal components
            nn.Identity(),
            nn.Linear(hidden, 10),
        )


def rotated(model: nn.Sequential, x: torch.Tensor) -> nn.Sequential:
    """The same function with the last hidden layer along its principal components on rows `x`, the first the largest.

    Distances and angles stay; its first columns, which a student with few neurons is compared with, say the most.
    """
    with torch.no_grad():
        below, last = nn.Sequential(*list(model)[:12]), cast(nn.Linear, model[14])
        hidden = torch.cat([below(part) for part in x.split(1024)])
        mean, axes = hidden.mean(0), torch.linalg.svd(hidden - hidden.mean(0), full_matrices=False).Vh
        there, head = nn.Linear(len(mean), len(axes)), nn.Linear(len(axes), 10)
        there.weight.copy_(axes)
        there.bias.copy_(-axes @ mean)
        head.weight.copy_(last.weight @ axes.T)
        head.bias.copy_(last.bias + last.weight @ mean)
    return nn.Sequential(*below, there, nn.Identity(), head)


def cells(options: Options, seeds: Sequence[int]) -> list[Cell]:
    """Return every way to teach for every seed."""
    return [Cell("mnist", arm, seed) for seed in seeds for arm in options.arms]


def together(options: Options, cell: Cell) -> int:
    """Students of one seed have one teacher."""
    return cell.seed


def train(options: Options, cell: Cell) -> Row:
    """Train the teacher, and one student; see `train_together`."""
    return train_together(options, [cell])[0]


def train_together(options: Options, cells: Sequence[Cell]) -> list[Row]:
    """Train a teacher, and the students of one seed: the same weights at first, and the same order of rows.

    Returns:
        For each student `accuracy` on test rows, `teacher`, that of its teacher, and what it cost.
    """
    seed = cells[0].seed
    train_rows, test_rows = images(options, seed)
    how: dict[str, Any] = {"lr": options.lr, "batch_size": options.batch_size, "seed": seed}
    teacher = network(*options.teacher, seed=seed)
    fit(teacher, train_rows, epochs=options.teacher_epochs, **how)
    teacher = rotated(teacher, train_rows.x)
    of_teacher = evaluate(teacher, test_rows)["accuracy"]
    rows = []
    for cell in cells:
        student, began = network(*options.student, seed=seed), time.perf_counter()
        # distill's labels have weight 1/2, and so has what is beside them
        weights = {name: options.kd if name == "kd" else options.weight for name in ARMS[cell.arm]}
        if weights:
            layers = {name: (str(FEATURES), str(FEATURES)) for name in weights if name != "kd"}
            taught: dict[str, Any] = {"method": weights, "layers": layers or None, "temperature": options.temperature}
            student = distill(teacher, student, train_rows, alpha=0.5, epochs=options.epochs, **taught, **how)  # type: ignore[assignment]
        else:
            fit(student, train_rows, epochs=options.epochs, **how)
        rows.append(
            {
                "accuracy": evaluate(student, test_rows)["accuracy"],
                "teacher": of_teacher,
                "n_parameters": n_parameters(student),
                "train_seconds": time.perf_counter() - began,
                "test_share": len(test_rows) / len(train_rows),
            }
        )
    return rows
