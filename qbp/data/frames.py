"""Arrays and tables of many kinds: NumPy, torch, pandas and what looks like it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qbp.data.cells import listed
from qbp.errors import ArgumentError

__all__ = ["array_of", "check_same_order", "column_of", "spell", "table_of", "tensor_of"]


def table_of(x: Any) -> dict[str, Any] | None:
    """The named columns of a DataFrame (pandas, polars or alike) or of a mapping; None of anything else."""
    if isinstance(x, Mapping):
        return {str(name): column_of(values) for name, values in x.items()}
    if not hasattr(x, "columns") or not hasattr(x, "shape"):
        return None
    names = list(x.columns)
    if len(set(map(str, names))) < len(names):
        raise ArgumentError(
            f"Argument `x` must have columns of different names, but has {listed(list(map(str, names)))}"
        )
    return {str(name): column_of(x[name]) for name in names}


def column_of(values: Any) -> Any:
    """The values of a column, as an array of numbers where they are such."""
    _check_mask("x", values)
    kept = values if isinstance(values, list | tuple) else np.asarray(values)
    if isinstance(kept, np.ndarray):
        return kept if kept.dtype.kind in "biuf" else kept.tolist()
    return list(kept)


def array_of(name: str, values: Any) -> np.ndarray:
    """An array, a tensor, a Series or a list as an array."""
    if isinstance(values, Tensor):
        return values.detach().cpu().numpy()
    if hasattr(values, "toarray"):
        raise ArgumentError(
            f"Argument `{name}` must be dense, but is a sparse {type(values).__name__}: call `.toarray()`"
        )
    _check_mask(name, values)
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ArgumentError(f"Argument `{name}` must be an array, but its rows differ in length") from error
    if array.dtype.kind not in "biufUSO" or array.ndim == 0:
        raise ArgumentError(
            f"Argument `{name}` must hold rows of numbers or words, but is {array.dtype} of shape {array.shape}"
        )
    return array


def _check_mask(name: str, values: Any) -> None:
    """NumPy gives what is below a mask when it is asked for a plain array."""
    if np.ma.is_masked(values):
        rows = np.asarray(np.ma.getmaskarray(values).reshape(len(values), -1).any(axis=1))
        raise ArgumentError(
            f"Argument `{name}` must have a value in each row, but in {int(rows.sum())} of {len(rows)} one is masked "
            f"(row {int(rows.argmax()) + 1} first)"
        )


def check_same_order(x: Any, y: Any) -> None:
    """Raise `ArgumentError` where a DataFrame and a Series hold the same index in another order."""
    a: Any = getattr(x, "index", None)
    b: Any = getattr(y, "index", None)
    if not (hasattr(a, "equals") and hasattr(b, "equals")) or len(a) != len(b) or a.equals(b):
        return
    if a.is_unique and a.isin(b).all():
        row = next(k for k, (first, second) in enumerate(zip(a, b, strict=True)) if first != second)
        raise ArgumentError(
            f"Argument `y` must have the index of `x` in its order, but in row {row + 1} its index is "
            f"{str(b[row])[:40]}, not {str(a[row])[:40]}: `y.loc[x.index]`, or `.to_numpy()` where rows belong "
            "together as they stand"
        )


def tensor_of(name: str, rows: np.ndarray) -> Tensor:
    """Numbers as a tensor of floating point, of their own precision where they have one."""
    if rows.dtype.kind not in "biuf" or rows.ndim < 2 or not len(rows):
        raise ArgumentError(
            f"Argument `{name}` must hold numbers of shape (n, I), but is {rows.dtype} of shape {rows.shape}"
            + (": for one column `.reshape(-1, 1)` it" if rows.ndim == 1 else "")
        )
    kind = rows.dtype if rows.dtype in (np.float32, np.float64) else np.float32
    return torch.from_numpy(np.array(rows, dtype=kind))  # a copy: what is given may be read-only


def spell(value: Any) -> str:
    """A label as the name of its class."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
