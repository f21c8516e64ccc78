"""The grid of a comparison: which cells there are, and how each is run, in any process, by its name alone."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from qbp.comparison.cell import Job, Protocol, run_jobs
from qbp.comparison.controls import MATCHED_TIME, RIVALS, controls_of
from qbp.comparison.estimators import ESTIMATORS, estimators_for
from qbp.comparison.gates import share_known
from qbp.comparison.scores import METRICS, TARGET_METRICS
from qbp.comparison.twins import TWIN, has_twin
from qbp.data import DATASETS, Dataset, load, split
from qbp.errors import ArgumentError, ConfigError
from qbp.nn.layer import QuantumLayer
from qbp.nn.models import renew
from qbp.nn.stacking import WIDEST
from qbp.training.checkpoint import fingerprint

__all__ = [
    "CELLS",
    "Cell",
    "Grid",
    "Source",
    "Subject",
    "build",
    "cell_path",
    "check_classes",
    "check_names",
    "check_sizes",
    "model_names",
    "right_rows",
    "sources_of",
    "wide",
]

CELLS = "cells"
ROW_METRICS = ("accuracy", "balanced_accuracy", "r2", "mae")
"""Scores that are a mean over test rows, which tests on rows need."""
MOST_TOGETHER = 128
"""Trainings of small models that are one."""
IDENTICAL = "identical"  # the A/A check: the subject again, with other random numbers on the same split

Subject = nn.Module | Callable[[int, int], nn.Module]


class Cell(NamedTuple):
    """One run of the grid: a model on the data of a seed, trained on all rows or on `n_train` of them."""

    dataset: str
    model: str
    seed: int
    n_train: int | None


@dataclass(frozen=True)
class Source:
    """Where the parts of each seed come from: a recipe of `qbp.data.load`, or parts that stay as they are."""

    recipe: Mapping[str, Any] | None
    parts: tuple[Dataset, Dataset] | None = None

    @property
    def fresh(self) -> bool:
        """Whether each seed draws new data, and does not split the same data again."""
        name = None if self.recipe is None else self.recipe["name"]
        return isinstance(name, str) and name in DATASETS and "seed" in inspect.signature(DATASETS[name]).parameters

    def split(self, seed: int) -> tuple[Dataset, Dataset]:
        if self.parts is not None:
            return self.parts
        return load(**{**(self.recipe or {}), "seed": seed})


@dataclass(frozen=True)
class Grid:
    """Runs any cells, in any process, with nothing but their names."""

    sources: Mapping[str, Source]
    models: Mapping[str, Subject]
    protocol: Protocol
    splits: Mapping[str, Mapping[int, str]]
    exact: bool = False
    alone: frozenset[tuple[str, str]] = frozenset()  # data sets and subjects of which each cell is one by itself
    times: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # `qbp.comparison.timing.times_of`
    last: dict[tuple[str, int], tuple[Dataset, Dataset]] = field(default_factory=dict, repr=False)

    def together(self, cell: Cell) -> Hashable:
        """Cells of which this is the same train together: those of a small model on the same data set, but for seeds.

        It does not depend on who runs them: who trains with whom changes the last bits.
        """
        subject = cell.model.partition("/")[0]
        if self.exact or cell.model in ESTIMATORS or (cell.dataset, subject) in self.alone:
            return cell
        seeds, trainings = list(self.splits[cell.dataset]), self.protocol.budget * self.protocol.folds
        return cell.dataset, cell.model, cell.n_train, seeds.index(cell.seed) // max(1, MOST_TOGETHER // trainings)

    def __call__(self, cells: Sequence[Cell]) -> list[dict[str, Any]]:
        """Run cells that differ in their seeds only."""
        jobs: list[Job] = []
        about: list[dict[str, Any]] = []
        for cell in cells:
            train, test = self._parts(cell)
            if not jobs:
                model, subject, role = self._model(cell, train)
            if cell.n_train is not None:
                train = split(train, cell.n_train / len(train), seed=cell.seed)[1]
            jobs.append(Job(model, train, test, _seed(cell), role in RIVALS, role == TWIN))
            about.append(
                {
                    "dataset": cell.dataset,
                    "split": self.splits[cell.dataset][cell.seed],
                    "seed": cell.seed,
                    "model": cell.model,
                    "subject": subject,
                    "role": role,
                    "n_train": len(train),
                    "n_test": len(test),
                    "overlap": share_known(train.x.numpy(), test.x.numpy()),
                }
            )
        protocol = self.protocol
        if role == MATCHED_TIME:
            epochs = protocol.training.epochs * self.times[cells[0].dataset][subject]
            protocol = replace(protocol, training=replace(protocol.training, epochs=epochs))
        done = run_jobs(jobs, protocol, self.exact)
        return [each | {"row": said | each["row"]} for each, said in zip(done, about, strict=True)]

    def _parts(self, cell: Cell) -> tuple[Dataset, Dataset]:
        key = cell.dataset, cell.seed
        if key not in self.last:
            if len(self.last) >= MOST_TOGETHER:  # cells of the same splits follow each other
                self.last.clear()
            parts = self.sources[cell.dataset].split(cell.seed)
            if split_hash(*parts) != self.splits[cell.dataset][cell.seed]:
                raise ConfigError(
                    f"Data set {cell.dataset!r}, seed {cell.seed}: the split is not the one that was frozen"
                )
            self.last[key] = parts
        return self.last[key]

    def _model(self, cell: Cell, train: Dataset) -> tuple[nn.Module | str, str, str]:
        """What to train, the subject that it belongs to, and its role."""
        if cell.model in ESTIMATORS:
            return cell.model, "", cell.model
        subject, _, control = cell.model.partition("/")
        shape = train.x.shape[1], train.n_outputs
        model = build(self.models[subject], *shape)
        if not control:
            return model, subject, "subject"
        if control in (IDENTICAL, TWIN):
            return model, subject, control
        return controls_of(model, *shape)[control], subject, control


def _seed(cell: Cell) -> int:
    """The seed of a cell's training."""
    return cell.seed + 1_000_000 * cell.model.endswith(f"/{IDENTICAL}")


def cell_path(dataset: str, model: str, seed: int, n_train: int | None = None) -> Path:
    """Return the path of a cell's JSON below the directory of a comparison."""
    name = f"{seed}.json" if n_train is None else f"{seed}-n{n_train}.json"
    return Path(CELLS, dataset, model.replace("/", "+"), name)


def sources_of(
    train: Dataset | None, test: Dataset | None, data: Mapping[str, Mapping[str, Any]] | None
) -> dict[str, Source]:
    """Return the sources by the name of the data set.

    Raises:
        ArgumentError: neither a pair nor recipes, or both.
    """
    if (train is None) != (test is None) or (train is None) == (data is None):
        raise ArgumentError("Give the data as `train` and `test`, or as `data`")
    if data is not None:
        return {name: Source(recipe) for name, recipe in data.items()}
    assert train is not None and test is not None
    for name, part in (("train", train), ("test", test)):
        if not isinstance(part, Dataset):
            raise ArgumentError(f"Argument `{name}` must be a qbp.data.Dataset, but is a {type(part).__name__}")
    if train.recipe is not None and train.recipe is test.recipe:  # two parts of one load
        return {train.name: Source(train.recipe)}
    if (train.x.shape[1], train.n_outputs) != (test.x.shape[1], test.n_outputs) or train.classes != test.classes:
        raise ArgumentError(
            f"Argument `test` must have the columns and classes of `train`, {train.x.shape[1]} and {train.classes}, "
            f"but has {test.x.shape[1]} and {test.classes}"
        )
    return {train.name: Source(None, (train, test))}


def split_hash(train: Dataset, test: Dataset) -> str:
    """Return the SHA-256 of both parts."""
    return hashlib.sha256(f"{train.hash()} {test.hash()}".encode()).hexdigest()


def build(subject: Subject, n_inputs: int, n_outputs: int) -> nn.Module:
    """Return a subject's model for data of so many columns and classes."""
    return subject if isinstance(subject, nn.Module) else subject(n_inputs, n_outputs)


def check_names(names: Sequence[str], kind: str) -> None:
    """Refuse names that are no names of directories, or that controls have."""
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name) or name in ESTIMATORS:
            raise ArgumentError(
                f"Argument `{kind}` must have names of letters, digits, '_', '-' and '.', none a control's, but has "
                f"{name!r}"
            )


def model_names(models: Mapping[str, Subject], train: Dataset, aa: bool) -> tuple[str, ...]:
    """Return the names of all models of a data set: subjects, their controls, and the controls of all.

    Every one is built, so that what cannot be is told before anything is trained.

    Raises:
        ArgumentError: a model or a control cannot be built.
    """
    shape = train.x.shape[1], train.n_outputs
    names: list[str] = []
    for name, subject in models.items():
        model = renew(build(subject, *shape), 0)
        names.append(name)
        names += [f"{name}/{control}" for control in controls_of(model, *shape)]
        names += [f"{name}/{TWIN}"] * has_twin(model, shape[0])
        names += [f"{name}/{IDENTICAL}"] * aa
    return (*names, *estimators_for(train.n_classes))


def fingerprints(models: Mapping[str, Subject], train: Dataset) -> dict[str, str]:
    """Return a hash of the structure of each subject."""
    shape = train.x.shape[1], train.n_outputs
    return {name: fingerprint(build(subject, *shape)) for name, subject in models.items()}


def wide(models: Mapping[str, Subject], train: Dataset) -> set[str]:
    """Return the subjects whose circuits are so wide that nothing is gained by training several together."""
    shape = train.x.shape[1], train.n_outputs
    built = {name: build(subject, *shape) for name, subject in models.items()}
    return {name for name, model in built.items() if any(layer.traced.n_qubits > WIDEST for layer in _layers(model))}


def _layers(model: nn.Module) -> list[QuantumLayer]:
    return [m for m in model.modules() if isinstance(m, QuantumLayer) and m.n_outputs is not None]


def check_classes(name: str, source: Source, trains: Sequence[Dataset], metric: str) -> None:
    """Refuse a class that cannot be learned, a score that is none of such data, and one of test rows that cannot be
    taken row by row."""
    if trains[0].is_multilabel:
        raise ArgumentError(f"Data set {name!r} must have one label a row, or targets, but has several labels")
    fits = [each for each in METRICS if (each in TARGET_METRICS) == (trains[0].n_classes is None)]
    if metric not in fits:
        kind = "targets" if trains[0].n_classes is None else "labels"
        raise ArgumentError(
            f"Argument `metric` must be one of {', '.join(fits)} for the {kind} of data set {name!r}, but is {metric!r}"
        )
    for train in trains if trains[0].n_classes else ():
        counts = np.bincount(train.y.numpy(), minlength=train.n_classes or 0)
        if absent := [label for label, count in zip(train.classes, counts, strict=True) if not count]:
            raise ArgumentError(f"Data set {name!r}: class {absent[0]!r} must have rows to train on, but has none")
    if source.parts is not None and metric not in ROW_METRICS:
        fits = [each for each in fits if each in ROW_METRICS]
        raise ArgumentError(
            f"Argument `metric` must be one of {', '.join(fits)} for a test set of your own, but is {metric!r}"
        )


def check_sizes(sizes: Sequence[int], train: Dataset) -> None:
    """Refuse numbers of rows that there are not, or that cannot hold all classes."""
    for size in sizes:
        if not 2 * (train.n_classes or 2) <= size < len(train):
            raise ArgumentError(
                f"Argument `sizes` must be {2 * (train.n_classes or 2)} to {len(train) - 1} rows, but has {size}"
            )


def right_rows(
    cells: Sequence[Cell], done: Sequence[Mapping[str, Any]], folder: Path | None, metric: str, names: set[str]
) -> dict[str, dict[str, np.ndarray]]:
    """For data sets with a test part of the user's own: by model and test row the share of seeds that are right, or
    what the score of targets is the mean of."""
    shares: dict[str, dict[str, list[np.ndarray]]] = {name: {} for name in names}
    for cell, result in zip(cells, done, strict=True):
        if cell.dataset not in names or cell.n_train is not None:
            continue
        if folder is None:
            arrays = result["arrays"]
        else:
            with np.load((folder / cell_path(*cell)).with_suffix(".npz"), allow_pickle=False) as file:
                arrays = dict(file)
        y = arrays["y"]
        if metric in TARGET_METRICS:
            shares[cell.dataset].setdefault(cell.model, []).append(_goodness(metric, y, arrays["predicted"]))
            continue
        counts = np.bincount(y)
        weights = len(y) / (counts[y] * np.count_nonzero(counts)) if metric == "balanced_accuracy" else 1.0
        shares[cell.dataset].setdefault(cell.model, []).append((y == arrays["predicted"]) * weights)
    return {name: {model: np.mean(seeds, 0) for model, seeds in models.items()} for name, models in shares.items()}


def _goodness(metric: str, y: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Of each row of targets (n, T) what r2 is the mean of over rows, or minus mae; larger is better."""
    if metric == "mae":
        return -abs(y - predicted).mean(1)
    spread = y.var(0)
    return (1 - (y - predicted) ** 2 / np.where(spread > 0, spread, 1.0)).mean(1)
