"""Losses, and how good a model is on a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qbp.data import Dataset, as_dataset, preprocessing_of
from qbp.data.inputs import Input, call
from qbp.errors import ArgumentError, check_choice, check_count, suggests_names
from qbp.nn.layer import QuantumLayer

__all__ = ["LOSSES", "Loss", "Metric", "evaluate", "main_metric", "metrics_of"]

Loss = Callable[[Tensor, Tensor], Tensor]
Metric = Callable[[Tensor, Tensor], Any]


def _bce(outputs: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    logits = outputs if labels.ndim == 2 else outputs.squeeze(1)
    return F.binary_cross_entropy_with_logits(logits, labels.to(outputs.dtype), reduction=reduction)


# Of (outputs, targets), means over the rows; with ``reduction="none"`` not yet.
LOSSES: dict[str, Callable[..., Tensor]] = {
    "cross_entropy": F.cross_entropy,
    "bce": _bce,
    "mse": F.mse_loss,
    "l1": F.l1_loss,
    "huber": F.huber_loss,
}


@suggests_names
def evaluate(
    model: nn.Module,
    data: Any,
    *,
    batch_size: int = 1024,
    loss: str | Loss | None = None,
    metrics: Mapping[str, Metric] | None = None,
) -> dict[str, Any]:
    """Measure a model on a data set, without gradients and in evaluation mode (the mode is put back).

    Args:
        model: maps (B, I) to (B, n_classes), to (B, 1) logits for two classes, or to (B, T) for a regression.
        data: a `Dataset`, whose rows are ready for the model; or a pair (X, y) of arrays, or of a DataFrame and a
            Series, a `TensorDataset` or a `DataLoader`, whose rows and labels are as those that the model was trained
            on were before they were prepared. Every row counts once.
        batch_size: rows per call of the model.
        loss: a key of `LOSSES`, or a function of (outputs, targets). None: cross entropy for labels ("bce" if
            the model has one output), mean squared error for targets.
        metrics: metrics of your own by name: functions of (outputs, targets) that give a number.

    Returns:
        For labels `loss`, `accuracy`, `per_class_accuracy` (None for a class without rows) and `confusion`
        (counts, row = true class, column = predicted class); for rows that may have several labels `loss`, `accuracy`
        (share of labels that are right), `exact_match` (of rows with all labels right) and `per_label_accuracy`; for
        targets `loss`, `mse`, `mae` and `r2`, of targets as
        the model sees them (those of `qbp.data.load` are standardised). Where a layer's backend approximates, also
        `truncation`, how far its outputs may be off: a bias that no mean makes smaller.

    Raises:
        ArgumentError: data and model do not fit.

    Example:
        >>> data = Dataset(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([0, 1, 1]))
        >>> evaluate(nn.Identity(), data)["confusion"]  # one output: a logit, and 0 is not above 0
        [[1, 0], [0, 2]]
    """
    data = as_dataset(data, preprocessing_of(model))
    check_data(model, data, several=True)
    check_count("batch_size", batch_size)
    x, y = place(model, data)
    outputs, result = measure(model, x, y, objective(data, loss), batch_size, metrics, data.inputs)
    result |= _truncation(model)
    if data.is_multilabel:
        return result | {"per_label_accuracy": ((outputs > 0) == y).double().mean(0).tolist()}
    if data.n_classes is None:
        return result | {"mse": F.mse_loss(outputs, y).item()}
    size = data.n_classes
    pairs = torch.bincount(y * size + predicted(outputs), minlength=size * size)
    confusion = pairs.reshape(size, size).tolist()
    shares = [row[k] / sum(row) if sum(row) else None for k, row in enumerate(confusion)]
    return result | {"per_class_accuracy": shares, "confusion": confusion}


def _truncation(model: nn.Module) -> dict[str, float]:
    """How far the outputs of the quantum layers may be off, at most, where one approximates."""
    told = [layer.last_truncation for layer in model.modules() if isinstance(layer, QuantumLayer)]
    largest = [float(t.max()) for t in told if t is not None and t.numel()]
    return {"truncation": max(largest)} if largest else {}


class Objective:
    """A loss as a function of (outputs, targets), whose first call refuses outputs that do not fit the data.

    Args:
        data: the data.
        loss: a key of `LOSSES`, a function, or None.
    """

    def __init__(self, data: Dataset, loss: str | Loss | None) -> None:
        check_loss(loss)
        self.data, self.loss = data, loss
        self.chosen: Callable[..., Tensor] | None = None

    def __call__(self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the mean loss; with `weights` (B,) the mean of that of each row times its weight."""
        if self.chosen is None:
            self.chosen = _pick(outputs, self.data, self.loss)
        if weights is None:
            return self.chosen(outputs, targets)
        if not callable(self.loss):
            return (weights * self.each(outputs, targets)).mean()
        values = self.chosen(outputs, targets)
        if values.shape != weights.shape:
            raise ArgumentError(
                f"Argument `loss` must give a value for each row, of shape ({len(weights)},), where rows have weights, "
                f'but gives {tuple(values.shape)}: as torch\'s do with `reduction="none"`'
            )
        return (weights * values).mean()

    def each(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each row (B,), where it is a key of `LOSSES`."""
        if self.chosen is None:
            self.chosen = _pick(outputs, self.data, self.loss)
        values = self.chosen(outputs, targets, reduction="none")
        return values.flatten(1).mean(1) if values.ndim > 1 else values


def objective(data: Dataset, loss: str | Loss | None) -> Objective:
    """Return the loss as a function, whose first call refuses outputs that do not fit `data`."""
    return Objective(data, loss)


def check_loss(loss: object) -> None:
    """Raise `ArgumentError` unless `loss` is a key of `LOSSES`, a function, or None."""
    if isinstance(loss, str):
        check_choice("loss", loss, LOSSES)
    elif loss is not None and not callable(loss):
        raise ArgumentError(f"Argument `loss` must be a name, a function or None, but is {loss!r}")


def _pick(outputs: Tensor, data: Dataset, loss: str | Loss | None) -> Callable[..., Tensor]:
    if not isinstance(outputs, Tensor) or outputs.ndim != 2:
        have = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ArgumentError(f"Argument `model` must give outputs of shape (B, columns), but gave {have}")
    columns = outputs.shape[1]
    fits: tuple[str, ...]
    if data.is_multilabel:
        wanted, for_what, fits = data.y.shape[1], f"{data.y.shape[1]} labels", ("bce",)
    elif data.n_classes is None:
        wanted, for_what, fits = data.y.shape[1], f"{data.y.shape[1]} target(s)", ("mse", "l1", "huber")
    elif data.n_classes <= 2 and columns == 1:
        wanted, for_what, fits = 1, "2 classes", ("bce",)
    else:
        wanted, for_what, fits = data.n_classes, f"{data.n_classes} classes", ("cross_entropy",)
    if columns != wanted:
        raise ArgumentError(
            f"Argument `model` must give outputs of shape (B, {wanted}) for {for_what}, but gave "
            f"{tuple(outputs.shape)}: let it end with torch.nn.Linear({columns}, {wanted})"
            + (", or give targets of floating point for a regression" if data.n_classes and columns == 1 else "")
            + (", or give labels that are integers for classes" if not data.n_classes and wanted == 1 else "")
        )
    if isinstance(loss, str) and loss not in fits:
        raise ArgumentError(
            f"Argument `loss` must be one of {', '.join(map(repr, fits))} for {for_what} and {columns} "
            f"output(s), but is {loss!r}"
        )
    return loss if callable(loss) else LOSSES[loss or fits[0]]


def measure(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    loss: Loss,
    batch_size: int = 1024,
    metrics: Mapping[str, Metric] | None = None,
    inputs: tuple[Input, ...] = (),
) -> tuple[Tensor, dict[str, Any]]:
    """Return the outputs for all rows, in evaluation mode and without gradients, with loss and `summary`."""
    with modes(model), torch.no_grad():
        outputs = outputs_of(model, x, batch_size, inputs)
        model.eval()  # a loss may ask for the mode
        return outputs, {"loss": loss(outputs, y).mean().item(), **summary(outputs, y), **own(metrics, outputs, y)}


def outputs_of(model: nn.Module, x: Tensor, batch_size: int = 1024, inputs: tuple[Input, ...] = ()) -> Tensor:
    """Return the outputs for all rows, in evaluation mode and without gradients."""
    with modes(model), torch.no_grad():
        model.eval()
        return torch.cat([call(model, part, inputs) for part in x.split(batch_size)])


def own(metrics: Mapping[str, Metric] | None, outputs: Tensor, y: Tensor) -> dict[str, float]:
    """Return the user's own metrics, which must be numbers."""
    values: dict[str, float] = {}
    for name, metric in (metrics or {}).items():
        value = metric(outputs, y)
        try:
            values[name] = float(value)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise ArgumentError(
                f"Argument `metrics` must hold functions that give numbers, but {name!r} gives {type(value).__name__}"
            ) from error
    return values


def summary(outputs: Tensor, y: Tensor) -> dict[str, float]:
    """Return `accuracy` for labels, with `exact_match` where a row may have several; `mae` and `r2` (mean over columns,
    as scikit-learn's) for targets."""
    return summaries(outputs[None], y[None])[0]


def summaries(outputs: Tensor, y: Tensor) -> list[dict[str, float]]:
    """Return the summary of each of K models: of outputs (K, N, M) and targets (K, N) or (K, N, T)."""
    if y.dtype == torch.bool:
        right = (outputs > 0) == y
        shares = right.double().mean((1, 2)).tolist(), right.all(2).double().mean(1).tolist()
        return [{"accuracy": share, "exact_match": whole} for share, whole in zip(*shares, strict=True)]
    if not y.is_floating_point():
        said = predicted(outputs.flatten(0, 1)).view(y.shape)
        return [{"accuracy": score} for score in (said == y).double().mean(1).tolist()]
    error, wanted = (outputs - y).double(), y.double()
    squares, spread = error.square().sum(1), (wanted - wanted.mean(1, keepdim=True)).square().sum(1)
    r2 = torch.where(spread > 0, 1 - squares / spread, (squares == 0).double()).mean(1).tolist()
    return [{"mae": m, "r2": r} for m, r in zip(error.abs().mean((1, 2)).tolist(), r2, strict=True)]


def calibration_error(y: np.ndarray, probabilities: np.ndarray, n_bins: int = 15) -> float:
    """Return how far the confidence of a model is from its accuracy (ECE: Guo et al., arXiv 1706.04599, equation 3).

    Args:
        y: (n,) labels.
        probabilities: (n, n_classes); the largest of a row is its confidence.
        n_bins: intervals of equal width from 0 to 1; each counts by its rows.

    Example:
        >>> calibration_error(np.array([0, 1]), np.array([[0.75, 0.25], [0.75, 0.25]]))  # right by half
        0.25
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == y
    bins = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    gaps = np.bincount(bins, right - confidence, minlength=n_bins)  # of each bin, times its rows
    return float(np.abs(gaps).sum() / len(y))


def main_metric(result: Mapping[str, Any]) -> str:
    """Return what a result of `evaluate`, or a row that holds one, is judged by: "accuracy", or "r2" of targets."""
    return "accuracy" if "accuracy" in result else "r2"


def metrics_of(result: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the metrics that a table shows of such a result, the main one first."""
    return ("accuracy", "loss") if "accuracy" in result else ("r2", "mae", "loss")


def predicted(outputs: Tensor) -> Tensor:
    return (outputs[:, 0] > 0).long() if outputs.shape[1] == 1 else outputs.argmax(1)


def check_data(model: nn.Module, data: Dataset, name: str = "data", *, several: bool = False) -> None:
    """Raise `ArgumentError` unless `data` is a `Dataset` with as many columns as a sequential model takes."""
    if not isinstance(data, Dataset):
        raise ArgumentError(f"Argument `{name}` must be a qbp.data.Dataset, but is a {type(data).__name__}")
    first = model
    while isinstance(first, nn.Sequential) and len(first):
        first = first[0]
    wanted = getattr(first, "in_features", None) or getattr(first, "n_inputs", None)
    if data.inputs:
        if not several:
            raise ArgumentError(f"Argument `{name}` must have one input here, but has {len(data.inputs)}")
        return  # only the model knows what it makes of them
    if isinstance(wanted, int) and wanted != data.x.shape[-1]:
        raise ArgumentError(
            f"Argument `{name}` must have rows of {wanted} features, as the model begins with a "
            f"{type(first).__name__} of {wanted} inputs, but has {data.x.shape[-1]}"
        )


def place(model: nn.Module, data: Dataset) -> tuple[Tensor, Tensor]:
    """Return x and y on the model's device, floating-point ones in its dtype."""
    x = place_rows(model, data.x)
    return x, data.y.to(x.device, x.dtype if data.y.is_floating_point() else None)


def place_rows(model: nn.Module, x: Tensor) -> Tensor:
    """Return x on the model's device and in its dtype."""
    like = next((p for p in model.parameters() if p.is_floating_point()), x)
    return x.to(like.device, like.dtype)


@contextmanager
def modes(model: nn.Module) -> Iterator[None]:
    """Put every module's training flag back afterwards."""
    before = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
