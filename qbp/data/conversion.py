"""Arrays, DataFrames, torch's data sets and loaders as a `Dataset`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data import Dataset as TorchDataset

from qbp.data.dataset import Dataset
from qbp.data.frames import array_of, check_same_order, spell, table_of, tensor_of
from qbp.data.inputs import Input, inputs_of, pack
from qbp.data.preprocessing import Preprocessing, plain, several_labels
from qbp.data.raw import Column
from qbp.data.tables import names_of, read_columns
from qbp.errors import ArgumentError

__all__ = ["apart", "as_dataset"]


def as_dataset(data: Any, preprocessing: Preprocessing | None = None, name: str = "data") -> Dataset:
    """Make a `Dataset` of what data are given as.

    Args:
        data: a `Dataset`, which stays as it is; a pair (X, y), or (X, y, sample_weight), of NumPy arrays, tensors or
            lists, or of a DataFrame and a Series; a `TensorDataset` or another data set of torch; or a `DataLoader`.
            Labels that are words, integers or booleans make classes, targets of floating point a regression, integers
            or booleans 0 and 1 in several columns labels of which a row may have several. X may be several inputs of a
            model: a tuple of arrays, or a mapping of arrays by the names of the arguments of its `forward`.
        preprocessing: what is done to rows and labels as they are; None: labels and words are numbered, and all else is
            taken as it is (`qbp.data.load` scales, and splits).
        name: what errors call the argument.

    Returns:
        The data. A column of words of a DataFrame becomes columns of 0 and 1.

    Raises:
        ArgumentError: it is something else, or a value is missing, infinite or unknown.

    Example:
        >>> as_dataset(([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], ["ham", "spam", "ham"]))
        Dataset('data', 3 rows, 2 features, 2 classes)
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, TensorDataset):
        parts: Any = data.tensors
    elif isinstance(data, DataLoader | TorchDataset):
        parts = _all_rows(data, name)
    else:
        parts = data
    if not isinstance(parts, tuple | list) or len(parts) not in (2, 3):
        raise ArgumentError(
            f"Argument `{name}` must be a qbp.data.Dataset, but is a {type(data).__name__}; or a pair (X, y) of "
            "arrays, tensors or of a DataFrame and a Series, a TensorDataset or a DataLoader"
        )
    x, y, *weight = parts
    check_same_order(x, y)
    dataset = _new(x, y) if preprocessing is None else _like(x, y, preprocessing)
    return weighted(dataset, weight[0]) if weight and weight[0] is not None else dataset


def weighted(data: Dataset, sample_weight: Any) -> Dataset:
    """Return the same rows with weights."""
    weights = array_of("sample_weight", sample_weight)
    if weights.dtype.kind not in "biuf":
        raise ArgumentError(f"Argument `sample_weight` must hold numbers, but is {weights.dtype}")
    return replace(data, sample_weight=torch.from_numpy(weights.astype(np.float64)))


def _new(x: Any, y: Any) -> Dataset:
    inputs: tuple[Input, ...] = ()
    columns = table_of(x) if inputs_of(x) is None else None
    if inputs_of(x) is not None:
        features, inputs = pack(x)
        kinds: tuple[Column, ...] = ()
    elif columns is None:
        rows = array_of("x", x)
        features = tensor_of("x", rows)
        kinds = tuple(Column(f"x{k}") for k in range(features.shape[1])) if features.ndim == 2 else ()
    else:
        table, kinds = read_columns(columns)
        features = torch.from_numpy(table.astype(np.float32))
    target = str(getattr(y, "name", None) or "y")
    given = array_of("y", y)
    several: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    if given.ndim == 2 and given.shape[1] > 1 and given.dtype.kind in "biu":
        targets, kind = several_labels(given, len(features), given.shape[1]), "b" if given.dtype.kind == "b" else "i"
        several = tuple(map(str, getattr(y, "columns", range(given.shape[1]))))
    else:
        targets, classes, kind = _targets(given, len(features), target)
    about: dict[str, Any] = {"target": target, "feature_names": names_of(kinds)}
    if classes:
        about |= {"n_classes": len(classes), "classes": classes}
    outputs = len(classes) or targets.shape[1]
    preprocessing = Preprocessing(kinds, (), target, classes, kind, None, outputs, several, inputs)
    return Dataset(features, targets, preprocessing=preprocessing, **about)


def _targets(y: np.ndarray, n: int, target: str) -> tuple[Tensor, tuple[str, ...], str]:
    """Labels (n,) with the names of their classes and of what kind these are, or targets (n, T) without."""
    if y.ndim > 2 or len(y) != n or (y.ndim == 2 and y.shape[1] != 1 and y.dtype.kind != "f"):
        raise ArgumentError(
            f"Argument `y` must have one label or target for each of the {n} rows, but has shape {y.shape}"
        )
    if y.dtype.kind == "f":
        return torch.from_numpy(np.array(y.reshape(n, -1))), (), "i"
    values = y.reshape(-1).tolist()
    if gaps := [k for k, value in enumerate(values) if value is None or value != value]:
        raise ArgumentError(
            f"Column {target!r} must have a value in each row, but {len(gaps)} of {n} have none (row {gaps[0] + 1} "
            "first)"
        )
    is_text = any(isinstance(value, str) for value in values)
    if is_text or y.dtype.kind == "O":
        names, numbers = np.unique([spell(value) for value in values], return_inverse=True)
        kind = "U" if is_text else "b" if all(isinstance(value, bool) for value in values) else "i"
        if kind == "i" and not all(isinstance(value, int) for value in values):
            kind = "U"
    else:
        names, numbers = np.unique(y.reshape(-1).astype(np.int64), return_inverse=True)
        kind = "b" if y.dtype.kind == "b" else "i"
    if len(names) < 2:
        raise ArgumentError(
            f"Column {target!r} must have two classes or more, but is {str(names[0])[:40]!r} everywhere"
        )
    return torch.from_numpy(numbers.reshape(-1).astype(np.int64)), tuple(map(str, names)), kind


def _like(x: Any, y: Any, preprocessing: Preprocessing) -> Dataset:
    """Rows and labels as a model that was trained wants them."""
    features, targets = preprocessing.transform(x), preprocessing.labels(y)
    if len(features) != len(targets):
        raise ArgumentError(f"Argument `y` must have a value for each of the {len(features)} rows, not {len(targets)}")
    classes = (
        {"n_classes": len(preprocessing.classes), "classes": preprocessing.classes} if preprocessing.classes else {}
    )
    return Dataset(features, targets, target=preprocessing.target, preprocessing=preprocessing, **classes)  # type: ignore[arg-type]


def _all_rows(data: Any, name: str) -> tuple[Any, ...]:
    """All rows of a data set or a loader of torch, in their order."""
    batches: Iterable[Any] = data
    if isinstance(data, TorchDataset):
        batches = DataLoader(data, batch_size=1024)
    elif not isinstance(data.dataset, torch.utils.data.IterableDataset):
        batches = DataLoader(data.dataset, batch_size=1024, collate_fn=data.collate_fn)
    parts = [batch for batch in batches]
    if not parts or not all(isinstance(batch, tuple | list) and len(batch) in (2, 3) for batch in parts):
        raise ArgumentError(f"Argument `{name}` must give pairs (x, y), but gives something else, or nothing")
    return tuple(_joined([batch[k] for batch in parts]) for k in range(len(parts[0])))


def _joined(parts: list[Any]) -> Any:
    """Batches of rows as one; of several inputs each by itself."""
    first = inputs_of(apart(parts[0]))
    if first is None:
        return torch.cat([torch.as_tensor(part) for part in parts])
    joined = {name: torch.cat([(inputs_of(apart(part)) or {})[name] for part in parts]) for name in first}
    return joined if isinstance(parts[0], Mapping) else tuple(joined.values())


def apart(x: Any) -> Any:
    """Several inputs of a batch, which a loader gives as a list, as a tuple; anything else as it is."""
    return tuple(x) if isinstance(x, list) and x and all(isinstance(part, Tensor) for part in x) else x


def described(data: Dataset, preprocessing: Preprocessing | None = None) -> Preprocessing:
    """Return the preprocessing of data; of rows that were made by hand that of the model, if it is of such rows."""
    if data.preprocessing is not None:
        return data.preprocessing
    if preprocessing is not None and data.x.ndim == 2:
        same = preprocessing.n_features == data.x.shape[1] and len(preprocessing.classes) == (data.n_classes or 0)
        if same and preprocessing.n_outputs == data.n_outputs:
            return preprocessing
    names = data.feature_names if data.x.ndim == 2 else ()
    return plain(names, data.classes, data.n_outputs, data.target)
