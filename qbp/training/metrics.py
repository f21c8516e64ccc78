"""Losses, and how good a model is on a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qbp.data import Dataset
from qbp.errors import ArgumentError, check_choice, check_count
from qbp.nn.layer import QuantumLayer

__all__ = ["LOSSES", "Loss", "evaluate", "main_metric", "metrics_of"]

Loss = Callable[[Tensor, Tensor], Tensor]


def _bce(outputs: Tensor, labels: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(outputs.squeeze(1), labels.to(outputs.dtype))


LOSSES: dict[str, Loss] = {
    "cross_entropy": F.cross_entropy,
    "bce": _bce,
    "mse": F.mse_loss,
    "l1": F.l1_loss,
    "huber": F.huber_loss,
}


def evaluate(
    model: nn.Module, data: Dataset, *, batch_size: int = 1024, loss: str | Loss | None = None
) -> dict[str, Any]:
    """Measure a model on a data set, without gradients and in evaluation mode (the mode is put back).

    Args:
        model: maps (B, I) to (B, n_classes), to (B, 1) logits for two classes, or to (B, T) for a regression.
        data: the data.
        batch_size: rows per call of the model.
        loss: a key of `LOSSES`, or a function of (outputs, targets). None: cross entropy for labels ("bce" if
            the model has one output), mean squared error for targets.

    Returns:
        For labels `loss`, `accuracy`, `per_class_accuracy` (None for a class without rows) and `confusion`
        (counts, row = true class, column = predicted class); for targets `loss`, `mse`, `mae` and `r2`. Where a
        layer's backend approximates, also `truncation`, how far its outputs may be off: a bias that no mean makes
        smaller.

    Raises:
        ArgumentError: data and model do not fit.

    Example:
        >>> data = Dataset(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([0, 1, 1]))
        >>> evaluate(nn.Identity(), data)["confusion"]  # one output: a logit, and 0 is not above 0
        [[1, 0], [0, 2]]
    """
    check_data(model, data)
    check_count("batch_size", batch_size)
    x, y = place(model, data)
    outputs, result = measure(model, x, y, objective(data, loss), batch_size)
    result |= _truncation(model)
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
    found = [float(t.max()) for t in told if t is not None and t.numel()]
    return {"truncation": max(found)} if found else {}


def objective(data: Dataset, loss: str | Loss | None) -> Loss:
    """Return the loss as a function, whose first call refuses outputs that do not fit `data`."""
    check_loss(loss)
    chosen: Loss | None = None

    def call(outputs: Tensor, targets: Tensor) -> Tensor:
        nonlocal chosen
        if chosen is None:
            chosen = _pick(outputs, data, loss)
        return chosen(outputs, targets)

    return call


def check_loss(loss: object) -> None:
    """Raise `ArgumentError` unless `loss` is a key of `LOSSES`, a function, or None."""
    if isinstance(loss, str):
        check_choice("loss", loss, LOSSES)
    elif loss is not None and not callable(loss):
        raise ArgumentError(f"Argument `loss` must be a name, a function or None, but is {loss!r}")


def _pick(outputs: Tensor, data: Dataset, loss: str | Loss | None) -> Loss:
    if not isinstance(outputs, Tensor) or outputs.ndim != 2:
        have = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ArgumentError(f"Argument `model` must give outputs of shape (B, columns), but gave {have}")
    columns = outputs.shape[1]
    fits: tuple[str, ...]
    if data.n_classes is None:
        wanted, for_what, fits = data.y.shape[1], f"{data.y.shape[1]} target(s)", ("mse", "l1", "huber")
    elif data.n_classes <= 2 and columns == 1:
        wanted, for_what, fits = 1, "2 classes", ("bce",)
    else:
        wanted, for_what, fits = data.n_classes, f"{data.n_classes} classes", ("cross_entropy",)
    if columns != wanted:
        raise ArgumentError(
            f"Argument `model` must give outputs of shape (B, {wanted}) for {for_what}, but gave "
            f"{tuple(outputs.shape)}: let it end with torch.nn.Linear({columns}, {wanted})"
        )
    if isinstance(loss, str) and loss not in fits:
        raise ArgumentError(
            f"Argument `loss` must be one of {', '.join(map(repr, fits))} for {for_what} and {columns} "
            f"output(s), but is {loss!r}"
        )
    return loss if callable(loss) else LOSSES[loss or fits[0]]


def measure(
    model: nn.Module, x: Tensor, y: Tensor, loss: Loss, batch_size: int = 1024
) -> tuple[Tensor, dict[str, Any]]:
    """Return the outputs for all rows, in evaluation mode and without gradients, with loss and `summary`."""
    with modes(model), torch.no_grad():
        model.eval()
        outputs = torch.cat([model(part) for part in x.split(batch_size)])
        return outputs, {"loss": loss(outputs, y).item(), **summary(outputs, y)}


def summary(outputs: Tensor, y: Tensor) -> dict[str, float]:
    """Return `accuracy` for labels; `mae` and `r2` (mean over columns, as scikit-learn's) for targets."""
    if not y.is_floating_point():
        return {"accuracy": (predicted(outputs) == y).double().mean().item()}
    error = (outputs - y).double()
    squares, spread = error.square().sum(0), (y.double() - y.double().mean(0)).square().sum(0)
    r2 = torch.where(spread > 0, 1 - squares / spread, (squares == 0).double())
    return {"mae": error.abs().mean().item(), "r2": r2.mean().item()}


def main_metric(result: Mapping[str, Any]) -> str:
    """Return what a result of `evaluate`, or a row that holds one, is judged by: "accuracy", or "r2" of targets."""
    return "accuracy" if "accuracy" in result else "r2"


def metrics_of(result: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the metrics that a table shows of such a result, the main one first."""
    return ("accuracy", "loss") if "accuracy" in result else ("r2", "mae", "loss")


def predicted(outputs: Tensor) -> Tensor:
    return (outputs[:, 0] > 0).long() if outputs.shape[1] == 1 else outputs.argmax(1)


def check_data(model: nn.Module, data: Dataset, name: str = "data") -> None:
    """Raise `ArgumentError` unless `data` is a `Dataset` with as many columns as a sequential model takes."""
    if not isinstance(data, Dataset):
        raise ArgumentError(f"Argument `{name}` must be a qbp.data.Dataset, but is a {type(data).__name__}")
    first = model
    while isinstance(first, nn.Sequential) and len(first):
        first = first[0]
    wanted = getattr(first, "in_features", None) or getattr(first, "n_inputs", None)
    if isinstance(wanted, int) and wanted != data.x.shape[1]:
        raise ArgumentError(
            f"Argument `{name}` must have rows of {wanted} features, as the model begins with a "
            f"{type(first).__name__} of {wanted} inputs, but has {data.x.shape[1]}"
        )


def place(model: nn.Module, data: Dataset) -> tuple[Tensor, Tensor]:
    """Return x and y on the model's device, floating-point ones in its dtype."""
    like = next((p for p in model.parameters() if p.is_floating_point()), data.x)
    y = data.y.to(like.device, like.dtype if data.y.is_floating_point() else None)
    return data.x.to(like.device, like.dtype), y


@contextmanager
def modes(model: nn.Module) -> Iterator[None]:
    """Put every module's training flag back afterwards."""
    before = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
