"""What a trained model says of new rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from qbp.data import Dataset, Preprocessing, preprocessing_of
from qbp.data.conversion import described
from qbp.data.files import read_inputs
from qbp.errors import ArgumentError, check_count, suggests_names
from qbp.training.metrics import outputs_of, place_rows

__all__ = ["Prediction", "predict", "prediction"]


class Prediction(NamedTuple):
    """What a model says of rows.

    Attributes:
        values: labels (n,), or targets (n,) or (n, T) in their own units.
        probabilities: of the classes, (n, classes) in float64; None for a regression.
        preprocessing: of the model.
    """

    values: np.ndarray
    probabilities: np.ndarray | None
    preprocessing: Preprocessing

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.preprocessing.classes


@suggests_names
def predict(model: nn.Module, x: Any, *, probabilities: bool = False, batch_size: int = 1024) -> np.ndarray:
    """Say what a trained model predicts of rows, in evaluation mode and without gradients.

    Args:
        model: a model that `qbp.fit` has trained, or `qbp.load_model` has read.
        x: rows as those that it was trained on were before they were prepared: a DataFrame or a mapping of columns (in
            any order; others are left out), an array, a tensor or a list with the columns in their order, or the path
            of a table; or a `Dataset`, whose rows are ready.
        probabilities: return those of the classes, not labels.
        batch_size: rows per call of the model.

    Returns:
        The names of classes (n,), as they were given to `fit`; with `probabilities` (n, classes), in the order of
        `preprocessing_of(model).classes`; where rows may have several labels, 0 or 1 (or False and True) for each
        (n, L), or the probability of each; for a regression values (n,), or (n, T) of several targets, in the units
        that the targets had.

    Raises:
        ArgumentError: the model has not been trained; a column is missing; a value is missing, or of another kind than
            in training.

    Example:
        >>> import qbp
        >>> x, y = [[0.0, 0.1], [0.1, 0.0], [1.0, 0.9], [0.9, 1.0]], ["low", "low", "high", "high"]
        >>> model = qbp.mlp(2, 4, 2, seed=0)
        >>> history = qbp.fit(model, (x, y), epochs=60, lr=0.05)
        >>> qbp.predict(model, [[0.05, 0.0], [1.0, 1.0]]).tolist()
        ['low', 'high']
    """
    said = prediction(model, x, batch_size=batch_size)
    if not probabilities:
        return said.values
    if said.probabilities is None:
        raise ArgumentError("Argument `probabilities` must be False for a regression, but is True")
    return said.probabilities


def prediction(model: nn.Module, x: Any, *, batch_size: int = 1024) -> Prediction:
    """Return values and probabilities, as `predict`."""
    check_count("batch_size", batch_size)
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"Argument `model` must be a torch.nn.Module, but is a {type(model).__name__}")
    preprocessing = preprocessing_of(model)
    if isinstance(x, Dataset):
        preprocessing, rows = described(x, preprocessing), x.x
    elif preprocessing is None:
        raise ArgumentError(
            "Argument `model` must have been trained by qbp.fit, which keeps what its classes are called and what was "
            "done to its rows: or give a qbp.data.Dataset"
        )
    else:
        rows = preprocessing.transform(read_inputs(x, preprocessing.columns) if isinstance(x, str | Path) else x)
    outputs = outputs_of(model, place_rows(model, rows), batch_size, preprocessing.inputs)
    return _meaning(outputs, preprocessing)


def _meaning(outputs: Tensor, preprocessing: Preprocessing) -> Prediction:
    """What outputs (n, M) say."""
    wanted = {preprocessing.n_outputs, 1} if len(preprocessing.classes) == 2 else {preprocessing.n_outputs}
    if outputs.ndim != 2 or outputs.shape[1] not in wanted:
        raise ArgumentError(
            f"Argument `model` must give outputs of shape (n, {preprocessing.n_outputs}), but gave "
            f"{tuple(outputs.shape)}"
        )
    given = outputs.double().cpu()
    if preprocessing.multilabel:
        has = (given > 0).numpy()
        return Prediction(
            has if preprocessing.kind == "b" else has.astype(np.int64), given.sigmoid().numpy(), preprocessing
        )
    if not preprocessing.classes:
        return Prediction(preprocessing.values(given.numpy()), None, preprocessing)
    logits = torch.cat([torch.zeros_like(given), given], 1) if given.shape[1] == 1 else given
    # of equal logits the first, as where accuracy is measured
    numbers = (given[:, 0] > 0).long() if given.shape[1] == 1 else given.argmax(1)
    return Prediction(preprocessing.names(numbers.numpy()), logits.softmax(1).numpy(), preprocessing)
