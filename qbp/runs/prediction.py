"""Predictions of a model, of a run or of a model file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from qbp.errors import suggests_names
from qbp.training import prediction as of_models

__all__ = ["predict"]


@suggests_names
def predict(
    model_or_run: nn.Module | str | Path,
    x: Any,
    *,
    probabilities: bool = False,
    batch_size: int = 1024,
    trust: bool = False,
) -> np.ndarray:
    """Say what a trained model predicts of rows, in evaluation mode and without gradients.

    Args:
        model_or_run: a model that `qbp.fit` has trained; the directory of a run of `qbp train`, wherever that is, whose
            data are not needed; or a file of `qbp.save_model`.
        x: rows as those of the user's file: a DataFrame or a mapping of columns (in any order; others are left out), an
            array, a tensor or a list with the columns in their order, or the path of a table; or a `Dataset`, whose
            rows are ready for the model.
        probabilities: return those of the classes, not labels.
        batch_size: rows per call of the model.
        trust: whether a run or a file may name a backend that has to be imported, or that uses your account.

    Returns:
        The names of classes (n,), as they were given to `fit`; with `probabilities` (n, classes), in the order of
        `qbp.data.preprocessing_of(model).classes`; for a regression values (n,), or (n, T) of several targets, in the
        units that the targets had.

    Raises:
        ArgumentError: the model has not been trained; a column is missing; a value is missing, or of another kind than
            in training.
        ConfigError: there is no such run or file.

    Example:
        >>> import pandas, qbp
        >>> table = pandas.DataFrame({"size": [1.0, 1.2, 3.1, 3.3], "hue": ["red", "red", "blue", "red"]})
        >>> model = qbp.mlp(2, 4, 2, seed=0)
        >>> history = qbp.fit(model, (table, ["small", "small", "large", "large"]), epochs=80, lr=0.05)
        >>> qbp.predict(model, table[["hue", "size"]].tail(2)).tolist()  # in any order
        ['large', 'large']
    """
    options: dict[str, Any] = {"probabilities": probabilities, "batch_size": batch_size}
    if isinstance(model_or_run, nn.Module):
        return of_models.predict(model_or_run, x, **options)
    from qbp.runs.run import opened, threads  # which `import qbp` does not wait for

    model, count = opened(Path(model_or_run), trust)
    with threads(count):
        return of_models.predict(model, x, **options)
