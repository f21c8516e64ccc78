"""Data of the user's own: tables in CSV, Parquet and NumPy files, and what scikit-learn's loaders return."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qbp.data.raw import Raw, numbered
from qbp.errors import ArgumentError, MissingPackageError

__all__ = ["SUFFIXES", "read", "read_table"]


def read(source: Any, target: str | int | None = None) -> Raw:
    """Read rows and their labels or targets.

    Args:
        source: a CSV or Parquet file with named columns; a .npy file, (n, I + 1); a .npz file with `x` and `y`; a pair
            (x, y) of arrays; or a scikit-learn Bunch.
        target: the column to predict, by name or position; None for the last one.

    Returns:
        The rows as they are. A target of text or of whole numbers makes classes, one of other numbers a regression. A
        column of text becomes a column of 0 and 1 for each of its values.

    Raises:
        ArgumentError: the file is missing or of another kind; a column is not there, or has gaps.
    """
    if isinstance(source, (str, Path)):
        path = Path(source)
        if path.suffix not in SUFFIXES:
            raise ArgumentError(f"Argument `source` must end in {', '.join(SUFFIXES)}, but is {str(path)!r}")
        if not path.is_file():
            raise ArgumentError(f"Argument `source` must name a file, but there is no {path}")
        return SUFFIXES[path.suffix](path, target)
    if isinstance(source, Mapping) and {"data", "target"} <= set(source):
        labels = tuple(map(str, source.get("target_names", ())))
        raw = _arrays(np.asarray(source["data"]), np.asarray(source["target"]))
        raw = raw._replace(feature_names=tuple(map(str, source.get("feature_names", ()))))
        return raw._replace(classes=labels) if len(labels) == len(raw.classes) else raw
    if isinstance(source, tuple) and len(source) == 2:
        return _arrays(np.asarray(source[0]), np.asarray(source[1]))
    raise ArgumentError(
        "Argument `source` must be the path of a table, a pair of arrays (x, y) or a scikit-learn Bunch, but is a "
        f"{type(source).__name__}"
    )


def read_table(columns: Mapping[str, list[Any]], target: str | int | None = None) -> Raw:
    """Make rows of named columns, text or numbers."""
    names = list(columns)
    if len(names) < 2:
        raise ArgumentError(f"A table must have two columns or more, but has {len(names)}")
    position = -1 if target is None else target
    chosen = names[position] if isinstance(position, int) and -len(names) <= position < len(names) else str(target)
    if chosen not in columns:
        raise ArgumentError(f"Argument `target` must be one of {', '.join(names)}, but is {target!r}")
    for name, values in columns.items():
        gaps = [k for k, value in enumerate(values) if value is None or value == "" or value != value]
        if gaps:
            raise ArgumentError(
                f"Column {name!r} must have a value in each row, but {len(gaps)} of {len(values)} have none (row "
                f"{gaps[0] + 1} first)"
            )
    made: list[tuple[str, np.ndarray]] = []
    for name in names:
        if name != chosen:
            made += _feature(name, columns[name])
    x = np.stack([column for _, column in made], axis=1)
    return _labelled(x, np.asarray(columns[chosen]), tuple(name for name, _ in made))


def _feature(name: str, values: list[Any]) -> list[tuple[str, np.ndarray]]:
    column = np.asarray(values)
    if column.dtype.kind in "biuf":
        return [(name, column.astype(np.float64))]
    levels = sorted(set(map(str, values)))
    if len(levels) > 50:
        raise ArgumentError(
            f"Column {name!r} must be numbers or have at most 50 different words, but has {len(levels)}: leave it out"
        )
    kept = levels[:1] if len(levels) == 2 else levels  # of two values one column says it all
    return [(f"{name}={level}", (column.astype(str) == level).astype(np.float64)) for level in kept]


def _labelled(x: np.ndarray, y: np.ndarray, names: tuple[str, ...] = ()) -> Raw:
    """Rows with classes where `y` is text or whole numbers, with one target for a regression elsewhere."""
    names = names or numbered("x", x.shape[1])
    if y.dtype.kind == "f" and not np.array_equal(y, np.round(y)):
        return Raw(x, y.reshape(len(y), -1).astype(np.float64), (), names)
    values, labels = np.unique(y.astype(np.int64) if y.dtype.kind == "f" else y, return_inverse=True)
    return Raw(x, labels.reshape(-1).astype(np.int64), tuple(map(str, values)), names)


def _arrays(x: np.ndarray, y: np.ndarray) -> Raw:
    if x.ndim != 2 or x.dtype.kind not in "biuf" or len(y) != len(x):
        raise ArgumentError(
            f"Arrays must be numbers (n, I) and labels or targets (n,), but are {x.dtype} {x.shape} and {y.shape}"
        )
    if y.ndim == 2 and y.shape[1] > 1:
        return Raw(x, y.astype(np.float64), (), numbered("x", x.shape[1]))
    return _labelled(x.astype(np.float64), y.reshape(-1))


def _csv(path: Path, target: str | int | None) -> Raw:
    with open(path, newline="", encoding="utf-8-sig") as file:
        text = file.read()
    try:
        dialect: Any = csv.Sniffer().sniff(text[:65536], ",;\t")
    except csv.Error:
        dialect = csv.excel
    rows = [row for row in csv.reader(text.splitlines(), dialect) if row]
    if len(rows) < 2:
        raise ArgumentError(f"{path} must have rows, but is empty")
    header = numbered("x", len(rows[0])) if all(map(_is_number, rows[0])) else tuple(map(str.strip, rows.pop(0)))
    short = [k for k, row in enumerate(rows) if len(row) != len(header)]
    if short:
        raise ArgumentError(f"{path}: row {short[0] + 1} has {len(rows[short[0]])} columns, not {len(header)}")
    columns: dict[str, list[Any]] = {}
    for name, values in zip(header, zip(*rows, strict=True), strict=True):
        stripped = [value.strip() for value in values]
        words = [value for value in stripped if value]
        columns[name] = [float(v) if v else None for v in stripped] if all(map(_is_number, words)) else stripped
    return read_table(columns, target)


def _parquet(path: Path, target: str | int | None) -> Raw:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingPackageError("Parquet files need pyarrow: pip install 'qbp[compare]'") from error
    return read_table(parquet.read_table(path).to_pydict(), target)


def _npy(path: Path, target: str | int | None) -> Raw:
    table = np.load(path, allow_pickle=False)
    if table.ndim != 2 or table.shape[1] < 2:
        raise ArgumentError(f"{path} must hold an array (n, I + 1), but holds {table.shape}")
    names = numbered("x", table.shape[1])
    return read_table({name: table[:, k].tolist() for k, name in enumerate(names)}, target)


def _npz(path: Path, target: str | int | None) -> Raw:
    if target is not None:
        raise ArgumentError(f"Argument `target` must be None for {path}, whose labels are `y`, but is {target!r}")
    with np.load(path, allow_pickle=False) as file:
        if not {"x", "y"} <= set(file):
            raise ArgumentError(f"{path} must hold `x` and `y`, but holds {', '.join(file)}")
        return _arrays(file["x"], file["y"])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


SUFFIXES = {".csv": _csv, ".parquet": _parquet, ".npy": _npy, ".npz": _npz}
