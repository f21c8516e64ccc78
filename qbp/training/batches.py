"""The rows of an epoch: in which order, how many at once, and how much each counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from qbp.data import Dataset, as_dataset
from qbp.data.conversion import apart
from qbp.data.frames import spell
from qbp.errors import ArgumentError, did_you_mean
from qbp.training.metrics import place
from qbp.training.options import Training

__all__ = ["Batch", "Batches", "batch_sizes"]


class Batch(NamedTuple):
    """Rows of one call of the model: x, y, and how much each row counts (B,), or None where all count alike."""

    x: Tensor
    y: Tensor
    weights: Tensor | None = None


class Batches:
    """Gives the batches of every epoch.

    Args:
        model: on whose device, and in whose precision, they are.
        data: all rows.
        training: says how many rows a batch has, in which order, and how much classes count.
        loader: gives the batches, in place of the rows of `data` in an order of qbp's own.
    """

    def __init__(self, model: nn.Module, data: Dataset, training: Training, loader: Any = None) -> None:
        self.x, self.y = place(model, data)
        self.data, self.loader, self.shuffle = data, loader, training.shuffle
        self.by_class = _by_class(data, training.class_weight)
        self.sizes = batch_sizes(model, len(data), training.batch_size)
        self.n_batches = len(self.sizes if loader is None else list(islice(_index_batches(loader), 10**9)))
        self.mean = 1.0
        self.weights = self._weights(data.y, data.sample_weight)
        if self.weights is not None:
            self.mean = float(self.weights.mean())
            if not self.mean > 0:
                raise ArgumentError("Argument `class_weight` must leave rows that count, but all have weight 0")
            self.weights = self._placed(self.weights / self.mean)

    def steps(self, accumulate: int) -> int:
        """Steps of an epoch."""
        return -(-self.n_batches // accumulate)

    def epoch(self, order: torch.Generator) -> Iterator[Batch]:
        """The batches of an epoch."""
        if self.loader is not None:
            yield from map(self._from_loader, self.loader)
            return
        x, y, weights = self.rows(order)
        parts: Any = [None] * len(self.sizes) if weights is None else weights.split(self.sizes)
        yield from map(Batch, x.split(self.sizes), y.split(self.sizes), parts)

    def rows(self, order: torch.Generator) -> Batch:
        """All rows in the order of an epoch."""
        x, y, weights = self.x, self.y, self.weights
        if self.shuffle:
            permutation = torch.randperm(len(x), generator=order).to(x.device)
            x, y = x[permutation], y[permutation]
            weights = None if weights is None else weights[permutation]
        return Batch(x, y, weights)

    def _from_loader(self, batch: Any) -> Batch:
        x, y, *weight = batch
        rows = as_dataset((apart(x), y, *weight), self.data.preprocessing)
        weights = self._weights(rows.y, rows.sample_weight)
        weights = None if weights is None else self._placed(weights / self.mean)
        return Batch(rows.x.to(self.x), rows.y.to(self.y), weights)

    def _weights(self, y: Tensor, sample_weight: Tensor | None) -> Tensor | None:
        if self.by_class is None:
            return sample_weight
        weights = self.by_class[y.cpu()]
        return weights if sample_weight is None else weights * sample_weight.cpu()

    def _placed(self, weights: Tensor) -> Tensor:
        return weights.to(self.x.device, self.x.dtype)


def _index_batches(loader: DataLoader[Any]) -> Iterator[Any]:
    """What stands for each batch of a loader, without loading one where it says how many there are."""
    try:
        return iter(range(len(loader)))
    except TypeError:
        return iter(loader)


def batch_sizes(model: nn.Module, n_rows: int, batch_size: int) -> list[int]:
    """Return how many rows each step of an epoch takes.

    Batch normalisation needs two rows at least: one that would be left alone joins the step before.

    Example:
        >>> batch_sizes(nn.Linear(2, 2), 33, 16), batch_sizes(nn.BatchNorm1d(2), 33, 16)
        ([16, 16, 1], [16, 17])
    """
    sizes = [min(batch_size, n_rows - begin) for begin in range(0, n_rows, batch_size)]
    if len(sizes) > 1 and sizes[-1] == 1 < batch_size and any(isinstance(m, _BatchNorm) for m in model.modules()):
        sizes[-2:] = [sizes[-2] + 1]
    return sizes


def _by_class(data: Dataset, class_weight: str | Mapping[Any, float] | Sequence[float] | None) -> Tensor | None:
    """How much the rows of each class count (n_classes,); None where classes count alike."""
    if class_weight is None:
        return None
    if data.n_classes is None:
        what = "rows of several labels" if data.is_multilabel else "a regression"
        raise ArgumentError(f"Argument `class_weight` must be None for {what}")
    if class_weight == "balanced":
        rows = torch.ones(len(data), dtype=torch.float64) if data.sample_weight is None else data.sample_weight.double()
        counts = torch.zeros(data.n_classes, dtype=torch.float64).index_add(0, data.y.cpu(), rows.cpu())
        return torch.where(counts > 0, counts.sum() / (data.n_classes * counts), 0.0)
    if isinstance(class_weight, Mapping):
        given = {spell(name): float(weight) for name, weight in class_weight.items()}
        for name in given:
            if name not in data.classes:
                raise ArgumentError(
                    f"Argument `class_weight` must name classes of the data ({', '.join(data.classes[:20])}), but "
                    f"names {name!r}{did_you_mean(name, data.classes)}"
                )
        return torch.tensor([given.get(name, 1.0) for name in data.classes], dtype=torch.float64)
    weights = torch.as_tensor(class_weight, dtype=torch.float64)
    if weights.shape != (data.n_classes,):
        raise ArgumentError(
            f"Argument `class_weight` must have a weight for each of {data.n_classes} classes, but has shape "
            f"{tuple(weights.shape)}"
        )
    return weights
