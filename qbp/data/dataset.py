"""Rows of features with their labels or targets."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qbp.data.inputs import Input
from qbp.data.preprocessing import Preprocessing
from qbp.data.raw import numbered
from qbp.errors import ArgumentError

__all__ = ["Dataset"]


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Rows of features with their labels or targets.

    Args:
        x: features (n, I), floating point and finite.
        y: labels (n,) int64 in 0..n_classes-1, or targets (n, T) floating point, or (n, L) boolean: whether a row has
            each of L labels, of which it may have several.
        name: what the data is called in reports.
        n_classes: number of classes, None for regression. Taken from the labels when left out.
        classes: the names of the labels.
        feature_names: the names of the columns of `x`.
        recipe: the arguments of `load` that it was made with, None for other data.
        target: what the labels or targets are called.
        preprocessing: what was done to the rows of a file to make them those of `x`.
        sample_weight: how much each row counts in training (n,), at least 0; None: all alike.

    Raises:
        ArgumentError: a shape, a dtype or a label does not fit.

    Example:
        >>> import torch
        >>> data = Dataset(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([0, 1, 1]))
        >>> len(data), data.n_classes, data.subset([0, 2]).y.tolist()
        (3, 2, [0, 1])
    """

    x: Tensor
    y: Tensor
    name: str = "data"
    n_classes: int | None = None
    classes: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()
    recipe: Mapping[str, Any] | None = None
    target: str = "label"
    preprocessing: Preprocessing | None = None
    sample_weight: Tensor | None = None

    def __post_init__(self) -> None:
        x, y = self.x, self.y
        if x.ndim < 2 or not x.is_floating_point() or not len(x):
            raise ArgumentError(f"Argument `x` must be floating point of shape (n, I), but is {_describe(x)}")
        _check_finite("x", x)
        if y.dtype == torch.int64 and y.shape == (len(x),):
            count = int(y.max()) + 1 if self.n_classes is None else self.n_classes
            if int(y.min()) < 0 or int(y.max()) >= count:
                raise ArgumentError(f"Argument `y` must hold labels 0..{count - 1}, but has {y.min()}..{y.max()}")
            object.__setattr__(self, "n_classes", count)
            object.__setattr__(self, "classes", self.classes or tuple(map(str, range(count))))
        elif not (
            (y.is_floating_point() or y.dtype == torch.bool)
            and y.ndim == 2
            and len(y) == len(x)
            and self.n_classes is None
        ):
            raise ArgumentError(
                f"Argument `y` must be int64 labels of shape ({len(x)},), or floating point targets or "
                f"boolean labels of shape ({len(x)}, T) without `n_classes`, but is {_describe(y)}"
            )
        if y.is_floating_point():
            _check_finite("y", y)
        object.__setattr__(self, "feature_names", self.feature_names or numbered("x", x.shape[1]))
        for what, have, want in (
            ("classes", len(self.classes), self.n_classes or 0),
            ("feature_names", len(self.feature_names), x.shape[1]),
        ):
            if have != want:
                raise ArgumentError(f"Argument `{what}` must have {want} names, but has {have}")
        if self.sample_weight is not None:
            _check_weights(self.sample_weight, len(x))

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, {len(self)} rows, {self.x.shape[1]} features, {self.n_classes or 'no'} classes)"

    def __len__(self) -> int:
        return len(self.x)

    def subset(self, indices: Sequence[int] | np.ndarray | Tensor) -> Dataset:
        """Return the rows at `indices`, in that order."""
        rows = torch.as_tensor(indices, dtype=torch.int64)
        weight = None if self.sample_weight is None else self.sample_weight[rows]
        return replace(self, x=self.x[rows], y=self.y[rows], recipe=None, sample_weight=weight)

    @property
    def inputs(self) -> tuple[Input, ...]:
        """What the inputs of a row are, where a model takes several."""
        return () if self.preprocessing is None else self.preprocessing.inputs

    @property
    def is_multilabel(self) -> bool:
        """Whether a row may have several labels."""
        return self.y.dtype == torch.bool

    @property
    def n_features(self) -> int:
        """Columns of `x`."""
        return self.x.shape[1]

    @property
    def n_outputs(self) -> int:
        """Numbers that a model has to give: one a class, or one a target of a regression."""
        return self.n_classes or self.y.shape[1]

    def summary(self) -> str:
        """Return in a sentence what is to be learned from what.

        Example:
            >>> Dataset(torch.zeros(3, 2), torch.tensor([0, 1, 1]), "coins", classes=("tail", "head")).summary()
            'coins: a classification of `label` in 2 classes (tail 1, head 2) by 2 columns (x0, x1), 3 rows'
        """
        if self.is_multilabel:
            labels = () if self.preprocessing is None else self.preprocessing.multilabel
            counts = self.y.sum(0).tolist()
            rows = [f"{name} {n}" for name, n in zip(labels or range(len(counts)), counts, strict=True)]
            task = f"a classification of `{self.target}` by {len(counts)} labels ({_first(rows, 10)})"
        elif self.n_classes is None:
            task = (
                f"a regression of `{self.target}` ({self.y.shape[1]} column(s), {self.y.min():.3g}..{self.y.max():.3g})"
            )
        else:
            counts = torch.bincount(self.y, minlength=self.n_classes).tolist()
            rows = [f"{name} {count}" for name, count in zip(self.classes, counts, strict=True)]
            task = f"a classification of `{self.target}` in {self.n_classes} classes ({_first(rows, 10)})"
        columns = f"{self.x.shape[1]} columns ({_first(self.feature_names, 6)})"
        return f"{self.name}: {task} by {columns}, {len(self)} rows"

    def hash(self) -> str:
        """Return the SHA-256 of the features, targets and weights (values, shapes and dtypes; not the names)."""
        digest = hashlib.sha256()
        for part in (self.x, self.y, *(() if self.sample_weight is None else (self.sample_weight,))):
            digest.update(_describe(part).encode())
            digest.update(part.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def _check_finite(name: str, values: Tensor) -> None:
    if not torch.isfinite(values).all():
        row, column, *_ = (~torch.isfinite(values)).nonzero()[0].tolist()
        value, place = values[~torch.isfinite(values)][0].item(), f"row {row + 1}, column {column + 1}"
        raise ArgumentError(f"Argument `{name}` must be finite, but holds {value} in {place}")


def _first(words: Sequence[str], most: int) -> str:
    return ", ".join(words[:most]) + (", ..." if len(words) > most else "")


def _describe(tensor: Any) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)}"


def _check_weights(weights: Tensor, n: int) -> None:
    fits = weights.is_floating_point() and weights.shape == (n,)
    if not fits or not bool((torch.isfinite(weights) & (weights >= 0)).all()) or not weights.sum() > 0:
        raise ArgumentError(
            f"Argument `sample_weight` must be floating point of shape ({n},), finite, at least 0 and not all 0, but "
            f"is {_describe(weights)}"
        )
