"""Columns of words and numbers become rows of features and a target; what cannot be told for sure is an error."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qbp.data.cells import listed, numbers_or_words, of_kind
from qbp.data.raw import Column, Raw, numbered
from qbp.errors import ArgumentError, did_you_mean

__all__ = [
    "as_arrays",
    "check_names",
    "check_rows_of_classes",
    "encode",
    "names_of",
    "read_columns",
    "read_table",
    "read_target",
]

_MOST_LEVELS = 50
_LONGEST_NAME = 500


def read_table(columns: Mapping[str, Sequence[Any]], target: str | int | None = None) -> Raw:
    """Make rows of named columns, text or numbers.

    Args:
        columns: the values of each column, strings as a file has them or numbers; None and NaN are missing.
        target: the column to predict, by name or position; None for the last one.

    Returns:
        The rows, with one column of 0 and 1 for each word of a column of words.

    Raises:
        ArgumentError: a value is missing, or a column is neither of numbers nor of words; the row is named.
    """
    names = list(columns)
    check_names(names)
    if len(names) < 2:
        raise ArgumentError(f"A table must have two columns or more, but has {len(names)}")
    position = -1 if target is None else target
    is_position = isinstance(position, int) and -len(names) <= position < len(names)
    chosen = names[position] if is_position else str(target)  # type: ignore[index]
    if chosen not in columns:
        raise ArgumentError(f"Argument `target` must be one of {listed(names)}, but is {target!r}")
    inputs = {name: values for name, values in columns.items() if name != chosen}
    x, kinds = read_columns(inputs)
    return read_target(x, columns[chosen], kinds, chosen)


def read_columns(columns: Mapping[str, Sequence[Any]]) -> tuple[np.ndarray, tuple[Column, ...]]:
    """Make features (n, I) of named columns, and say what each column is.

    Raises:
        ArgumentError: as `read_table`.
    """
    check_names(list(columns))
    parts, kinds = [], []
    for name, values in columns.items():
        cleaned, kind = numbers_or_words(name, values)
        if cleaned.dtype.kind == "U":
            kind = kind._replace(levels=_levels(name, cleaned))
        parts.append(_feature(cleaned, kind))
        kinds.append(kind)
    return np.concatenate(parts, axis=1), tuple(kinds)


def encode(columns: Mapping[str, Sequence[Any]], kinds: Sequence[Column]) -> np.ndarray:
    """Make features (n, I) of the columns of a table as were made of those that a model was trained on.

    Args:
        columns: the values of each column, in any order; those that are not among `kinds` are left out.
        kinds: what `read_columns` said.

    Raises:
        ArgumentError: a column is missing, or holds what the model has not seen: another word, or no number.
    """
    if missing := [kind.name for kind in kinds if kind.name not in columns]:
        others = [name for name in columns if name not in {kind.name for kind in kinds}]
        raise ArgumentError(
            f"The table must have the columns that the model was trained on, but lacks {listed(missing)}"
            f"{did_you_mean(missing[0], others, 'is it ')} (it has {listed(list(columns))})"
        )
    return np.concatenate([_feature(of_kind(columns[kind.name], kind), kind) for kind in kinds], axis=1)


def names_of(kinds: Sequence[Column]) -> tuple[str, ...]:
    """Return the names of the features that columns become.

    Example:
        >>> names_of([Column("age"), Column("sex", ("f", "m")), Column("hue", ("blue", "green", "red"))])
        ('age', 'sex=f', 'hue=blue', 'hue=green', 'hue=red')
    """
    return tuple(
        name
        for kind in kinds
        for name in ([f"{kind.name}={level}" for level in _kept(kind)] if kind.levels else [kind.name])
    )


def check_names(names: Sequence[str]) -> None:
    """Raise `ArgumentError` where a column has no name or one like a text, or two have the same."""
    first: dict[str, int] = {}
    for k, name in enumerate(names):
        if len(name) > _LONGEST_NAME:
            raise ArgumentError(
                f"Column {k + 1} must have a name of at most {_LONGEST_NAME} characters, but its name has {len(name)}: "
                f"{name[:40]!r}..."
            )
        if not name:
            raise ArgumentError(f"Column {k + 1} must have a name, but its name is empty: name it, or leave it out")
        if name in first:
            raise ArgumentError(
                f"Column {name!r} must be there once, but is column {first[name] + 1} and column {k + 1}"
            )
        first[name] = k


def as_arrays(x: np.ndarray, y: np.ndarray) -> Raw:
    """Rows of two arrays: numbers (n, I), and labels or targets (n,) or (n, T)."""
    if x.ndim != 2 or x.dtype.kind not in "biuf" or not x.size or y.ndim not in (1, 2) or len(y) != len(x):
        raise ArgumentError(
            f"Arrays must be numbers (n, I) and labels or targets (n,), but are {x.dtype} {x.shape} and {y.dtype} "
            f"{y.shape}"
        )
    names = numbered("x", x.shape[1])
    x = x.astype(np.float64)
    _check_finite("feature", x, names)
    if y.ndim == 2 and y.shape[1] != 1:
        if y.dtype.kind not in "biuf" or not y.size:
            raise ArgumentError(f"Several targets must be numbers (n, T), but are {y.dtype} {y.shape}")
        _check_finite("target", y.astype(np.float64), numbered("y", y.shape[1]))
        return Raw(x, y.astype(np.float64), (), names, target="y")
    return read_target(x, y.reshape(-1).tolist(), tuple(map(Column, names)), "y", numerals="U")


def read_target(
    x: np.ndarray, values: Sequence[Any], columns: tuple[Column, ...], target: str, numerals: str = "i"
) -> Raw:
    """Rows with classes where the target is words or whole numbers, with one number to predict elsewhere.

    Args:
        x: features (n, I).
        values: the target of each row.
        columns: what `x` was made of.
        target: what the target is called.
        numerals: what the names of classes are that are numbers as text: "i", or "U", words.
    """
    y, _ = numbers_or_words(target, values)
    return _labelled(x, y, names_of(columns), target)._replace(columns=columns, kind=kind_of(y, values, numerals))


def kind_of(cleaned: np.ndarray, values: Sequence[Any], numerals: str) -> str:
    """Return of what kind the names of classes are, as the letter of a NumPy dtype."""
    if cleaned.dtype.kind == "U":
        return "U"
    if any(isinstance(value, str) for value in values):
        return numerals
    kinds = {np.asarray(value).dtype.kind for value in values}
    return "b" if kinds == {"b"} else "f" if "f" in kinds else "i"


# ---- features and target -------------------------------------------------------------------------------------------


def _levels(name: str, column: np.ndarray) -> tuple[str, ...]:
    levels = sorted(set(column.tolist()))
    if len(levels) > _MOST_LEVELS:
        raise ArgumentError(
            f"Column {name!r} must be numbers or have at most {_MOST_LEVELS} different words, but has {len(levels)}: "
            "leave it out"
        )
    return tuple(levels)


def _kept(kind: Column) -> tuple[str, ...]:
    """The words that get a column: of two one says it all."""
    return kind.levels[:1] if len(kind.levels) == 2 else kind.levels


def _feature(column: np.ndarray, kind: Column) -> np.ndarray:
    """What a column becomes, (n, 1), or a column of 0 and 1 for each of its words."""
    if not kind.levels:
        return column[:, None]
    return (column[:, None] == np.array(_kept(kind))).astype(np.float64)


def _labelled(x: np.ndarray, y: np.ndarray, names: tuple[str, ...], target: str) -> Raw:
    """Rows with classes where `y` is words or whole numbers, with one target for a regression elsewhere."""
    if y.dtype.kind == "f" and not np.array_equal(y, np.round(y)):
        if np.ptp(y) == 0:
            raise ArgumentError(
                f"Target {target!r} must hold different values, but holds {y[0]:g} in all {len(y)} rows"
            )
        return Raw(x, y[:, None], (), names, target=target)
    if y.dtype.kind == "f" and np.abs(y).max() >= 2**63:
        raise ArgumentError(f"Target {target!r} must hold labels below 2^63, but holds {y[np.abs(y).argmax()]:g}")
    if y.dtype.kind == "U" and (twins := _only_in_case(set(y.tolist()))):
        warnings.warn(
            f"Target {target!r} has classes that differ in upper and lower case only: {', '.join(map(repr, twins))}",
            UserWarning,
            stacklevel=8,
        )
    values, labels = np.unique(y.astype(np.int64) if y.dtype.kind == "f" else y, return_inverse=True)
    if len(values) < 2:
        raise ArgumentError(
            f"Target {target!r} must have two classes or more, but is {str(values[0])[:40]!r} in all {len(y)} rows"
        )
    return Raw(x, labels.reshape(-1).astype(np.int64), tuple(map(str, values)), names, target=target)


def _only_in_case(words: set[str]) -> list[str]:
    """Two words that are the same but for their case, if there are such."""
    first: dict[str, str] = {}
    for word in sorted(words):
        if first.setdefault(word.casefold(), word) != word:
            return [first[word.casefold()], word]
    return []


def check_rows_of_classes(raw: Raw) -> None:
    """Raise `ArgumentError` where a class has too few rows to stand in two parts."""
    counts = Counter(raw.y.tolist())
    few = [name for k, name in enumerate(raw.classes) if counts[k] < 2]
    if few:
        raise ArgumentError(
            f"Target {raw.target!r} must have two rows or more of every class, one to train and one to test on, but "
            f"{len(few)} of its {len(raw.classes)} classes have fewer ({listed(few, 3)}). Whole numbers are labels: "
            "for a regression make a qbp.data.Dataset whose targets are floating point, (n, 1)"
        )


def _check_finite(what: str, array: np.ndarray, names: Sequence[str]) -> None:
    if not np.isfinite(array).all():
        row, column = map(int, np.argwhere(~np.isfinite(array))[0])
        value = array[row, column]
        said = "nan" if math.isnan(value) else "infinity"
        raise ArgumentError(f"Every {what} must be finite, but row {row + 1} holds {said} in column {names[column]!r}")
