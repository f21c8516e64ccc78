"""Columns of words and numbers become rows of features and a target; what cannot be told for sure is an error."""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qbp.data.raw import Raw, numbered
from qbp.errors import ArgumentError

__all__ = ["MISSING", "as_arrays", "check_names", "check_rows_of_classes", "is_number", "read_table"]

MISSING = frozenset(("", "?", "na", "n/a", "n.a.", "#n/a", "<na>", "nan", "null", "(null)", "\\n", "nil"))
"""How files write that a value is missing, in any case; beside numbers "none", "-", "." and "missing" mean it too."""

_MISSING_NUMBERS = MISSING | {"none", "-", "--", ".", "missing", "unknown", "nd", "n.d.", "#value!", "#div/0!", "#ref!"}
_LONGEST_NAME = 500
_MOST_MEASURES = 10  # different words with a number in each that are still kinds: "4 doors", "1st"
_MOST_LEVELS = 50
_PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?inf(inity)?", re.IGNORECASE)
_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
_GROUPED = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?")
_DIGITS = re.compile(
    r"[+\u2212-]?\d{1,3}([.'_\s\u2019]\d{3})+([.,]\d+)?[%\u2030]?|\u2212\d+[.,]?\d*|0x[0-9a-f]+", re.IGNORECASE
)
_MEASURE = re.compile(
    r"\W{0,3}\d[\d.,']*\s?[^\d,.;]{0,4}|\d{1,4}([-/.:]\d{1,4}){1,5}([T ]\d.*)?"
)  # "$1.50", "3 kg", a date


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
        raise ArgumentError(f"Argument `target` must be one of {_listed(names)}, but is {target!r}")
    cleaned = {name: _numbers_or_words(name, values) for name, values in columns.items()}
    features = [each for name in names if name != chosen for each in _feature(name, cleaned[name])]
    x = np.stack([column for _, column in features], axis=1)
    return _labelled(x, cleaned[chosen], tuple(name for name, _ in features), chosen)


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


def is_number(text: str) -> bool:
    """Whether a cell reads as a number: "1.5", "12%", "1,5" or "1,234.5"."""
    text = _bare(text)
    return any(pattern.fullmatch(text) for pattern in (_PLAIN, _COMMA, _GROUPED))


def _bare(text: str) -> str:
    """A cell without the spaces around it and one sign of per cent."""
    return text.strip().removesuffix("%").rstrip()


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
    return _labelled(x, _numbers_or_words("y", y.reshape(-1).tolist()), names, "y")


# ---- one column ----------------------------------------------------------------------------------------------------


def _numbers_or_words(name: str, values: Sequence[Any]) -> np.ndarray:
    """A column as numbers (n,) or words (n,); what is missing, or of another kind than the rest, is named."""
    texts = [None if value is None or value != value else value for value in values]
    words = [text.strip() if isinstance(text, str) else text for text in texts]
    if other := next((w for w in words if not (w is None or isinstance(w, str | int | float | np.number))), None):
        raise ArgumentError(f"Column {name!r} must hold numbers or words, but holds a {type(other).__name__}")
    is_numeric = [not isinstance(w, str) or is_number(w) for w in words if not _is_missing(w, _MISSING_NUMBERS)]
    mostly_numbers = 2 * sum(is_numeric) > len(is_numeric)
    gaps = [k for k, w in enumerate(words) if _is_missing(w, _MISSING_NUMBERS if mostly_numbers else MISSING)]
    if gaps:
        raise ArgumentError(
            f"Column {name!r} must have a value in each row, but {len(gaps)} of {len(words)} have none (row "
            f"{gaps[0] + 1} first{_said(values[gaps[0]])})"
        )
    if not mostly_numbers:
        _check_words(name, list(map(str, words)))
        return np.array([str(w) for w in words])
    numbers = _parse(name, words)
    if not np.isfinite(numbers).all():
        row = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise ArgumentError(
            f"Column {name!r} must hold finite numbers, but row {row + 1} holds {repr(values[row])[:60]}"
        )
    return numbers


def _check_words(name: str, words: Sequence[str]) -> None:
    """Numbers in a way that is not read are no words: each would become a column, or a class."""
    digits = [k for k, word in enumerate(words) if _DIGITS.fullmatch(word) or is_number(word)]
    measures = [k for k, word in enumerate(words) if _MEASURE.fullmatch(word)]
    if 2 * len(digits) > len(words):
        where, which = next(k for k in digits if not is_number(words[k])), "numbers written in another way"
    elif 2 * len(measures) > len(words) and len(set(words)) > _MOST_MEASURES:
        where, which = measures[0], "numbers with a unit, or dates"
    else:
        return
    raise ArgumentError(
        f"Column {name!r} must hold plain numbers or words, but most of its values are {which} (row {where + 1} first"
        f"{_said(words[where])}): write plain numbers, or leave it out"
    )


def _is_missing(word: Any, marks: frozenset[str]) -> bool:
    return word is None or (isinstance(word, str) and word.casefold() in marks)


def _parse(name: str, words: Sequence[Any]) -> np.ndarray:
    """Numbers (n,) of cells that are written in one way: plain, in per cent, or with commas."""
    texts = [w if isinstance(w, str) else None for w in words]
    strange = [k for k, text in enumerate(texts) if text is not None and not is_number(text)]
    if strange:
        raise ArgumentError(
            f"Column {name!r} must hold numbers or words, but {len(strange)} of its {len(words)} values are no numbers "
            f"(row {strange[0] + 1} first{_said(words[strange[0]])})"
        )
    if large := [k for k, w in enumerate(words) if abs(_whole(w)) > 2**53]:
        raise ArgumentError(
            f"Column {name!r} must hold numbers that double precision tells apart, but row {large[0] + 1} holds an "
            f"integer above 2^53: {str(words[large[0]])[:40]}. Leave out what is only a name"
        )
    per_cent = [text is not None and text.endswith("%") for text in texts]
    if any(per_cent) and not all(per_cent):
        row = per_cent.index(not per_cent[0])
        raise ArgumentError(f"Column {name!r} must be in per cent or not, but row {row + 1} differs{_said(words[row])}")
    plain = [w if text is None else _bare(text) for w, text in zip(words, texts, strict=True)]
    with_comma = [text for text in plain if isinstance(text, str) and "," in text]
    if with_comma:
        grouped = all(_GROUPED.fullmatch(text) for text in with_comma)
        decimal = all(_COMMA.fullmatch(text) for text in with_comma)
        with_point = any(isinstance(text, str) and "." in text for text in plain)
        is_clear = (grouped and with_point) or (grouped != decimal and not (decimal and with_point))
        if not is_clear:  # "1,234" alone is both, "1,2" beside "1,234.5" is neither, "1,2" beside "3.4" is two ways
            row = next(k for k, text in enumerate(plain) if text in with_comma)
            raise ArgumentError(
                f"Column {name!r} must have commas that are all decimal or all between thousands, but those cannot be "
                f"told apart (row {row + 1} first{_said(words[row])}): write numbers with a point"
            )
        plain = [text.replace(",", "" if grouped else ".") if isinstance(text, str) else text for text in plain]
    try:
        numbers = np.array([float(value) for value in plain])
    except OverflowError:
        raise ArgumentError(f"Column {name!r} must hold numbers of double precision, but holds larger ones") from None
    return numbers / 100 if all(per_cent) else numbers


def _whole(word: Any) -> int:
    """A cell that is an integer of many digits, or 0."""
    if isinstance(word, str):
        return int(word) if re.fullmatch(r"[+-]?\d{16,4000}", word) else 0
    return int(word) if isinstance(word, int | np.integer) else 0


def _said(value: Any) -> str:
    return f": {value[:40]!r}" if isinstance(value, str) and value else ""


def _listed(names: Sequence[str], most: int = 20) -> str:
    return ", ".join(name[:60] for name in names[:most]) + (
        f" and {len(names) - most} more" if len(names) > most else ""
    )


# ---- features and target -------------------------------------------------------------------------------------------


def _feature(name: str, column: np.ndarray) -> list[tuple[str, np.ndarray]]:
    if column.dtype.kind == "f":
        return [(name, column)]
    levels = sorted(set(column.tolist()))
    if len(levels) > _MOST_LEVELS:
        raise ArgumentError(
            f"Column {name!r} must be numbers or have at most {_MOST_LEVELS} different words, but has {len(levels)}: "
            "leave it out"
        )
    kept = levels[:1] if len(levels) == 2 else levels  # of two values one column says it all
    return [(f"{name}={level}", (column == level).astype(np.float64)) for level in kept]


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
            stacklevel=6,
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
            f"{len(few)} of its {len(raw.classes)} classes have fewer ({_listed(few, 3)}). Whole numbers are labels: "
            "for a regression make a qbp.data.Dataset whose targets are floating point, (n, 1)"
        )


def _check_finite(what: str, array: np.ndarray, names: Sequence[str]) -> None:
    if not np.isfinite(array).all():
        row, column = map(int, np.argwhere(~np.isfinite(array))[0])
        value = array[row, column]
        said = "nan" if math.isnan(value) else "infinity"
        raise ArgumentError(f"Every {what} must be finite, but row {row + 1} holds {said} in column {names[column]!r}")
