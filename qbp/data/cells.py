"""The cells of one column as numbers or words; what cannot be told for sure is an error that names the row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from qbp.data.raw import Column
from qbp.errors import ArgumentError, did_you_mean

__all__ = ["MISSING", "is_number", "listed", "numbers_or_words", "of_kind"]

MISSING = frozenset(("", "?", "na", "n/a", "n.a.", "#n/a", "<na>", "nan", "null", "(null)", "\\n", "nil"))
"""How files write that a value is missing, in any case; beside numbers "none", "-", "." and "missing" mean it too."""

_MISSING_NUMBERS = MISSING | {"none", "-", "--", ".", "missing", "unknown", "nd", "n.d.", "#value!", "#div/0!", "#ref!"}
_MOST_MEASURES = 10  # different words with a number in each that are still kinds: "4 doors", "1st"
_PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?inf(inity)?", re.IGNORECASE)
_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
_GROUPED = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?")
_DIGITS = re.compile(
    r"[+\u2212-]?\d{1,3}([.'_\s\u2019]\d{3})+([.,]\d+)?[%\u2030]?|\u2212\d+[.,]?\d*|0x[0-9a-f]+"
    r"|[+-]?(\d+\.?\d*|\.\d+)d[+-]?\d+",  # "1.5D+02", as Fortran writes
    re.IGNORECASE,
)
_MEASURE = re.compile(
    r"\W{0,3}\d[\d.,']*\s?[^\d,.;]{0,4}|\d{1,4}([-/.:]\d{1,4}){1,5}([T ]\d.*)?"
)  # "$1.50", "3 kg", a date


def is_number(text: str) -> bool:
    """Whether a cell reads as a number: "1.5", "12%", "1,5" or "1,234.5"."""
    text = _bare(text)
    return any(pattern.fullmatch(text) for pattern in (_PLAIN, _COMMA, _GROUPED))


def _bare(text: str) -> str:
    """A cell without the spaces around it and one sign of per cent."""
    return text.strip().removesuffix("%").rstrip()


def numbers_or_words(name: str, values: Sequence[Any]) -> tuple[np.ndarray, Column]:
    """A column as numbers (n,) or words (n,); what is missing, or of another kind than the rest, is named."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
        return _finite(name, values.astype(np.float64), values), Column(name)
    texts = [None if value is None or value != value else value for value in values]
    words = [text.strip() if isinstance(text, str) else text for text in texts]
    _check_plain(name, words)
    is_numeric = [not isinstance(w, str) or is_number(w) for w in words if not _is_missing(w, _MISSING_NUMBERS)]
    mostly_numbers = 2 * sum(is_numeric) > len(is_numeric)
    _check_gaps(name, values, words, _MISSING_NUMBERS if mostly_numbers else MISSING)
    if not mostly_numbers:
        _check_words(name, list(map(str, words)))
        return np.array([str(w) for w in words]), Column(name)
    numbers, kind = _parse(name, words)
    return _finite(name, numbers, values), kind


def of_kind(values: Sequence[Any], kind: Column) -> np.ndarray:
    """A column as numbers (n,) or words (n,), as it was in the table that a model was trained on."""
    name = kind.name
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf" and not kind.levels and not kind.per_cent:
        return _finite(name, values.astype(np.float64), values)
    texts = [None if value is None or value != value else value for value in values]
    words = [text.strip() if isinstance(text, str) else text for text in texts]
    _check_plain(name, words)
    _check_gaps(name, values, words, MISSING - set(kind.levels) if kind.levels else _MISSING_NUMBERS)
    if not kind.levels:
        numbers, now = _parse(name, words, kind.commas)
        if now.per_cent != kind.per_cent:
            raise ArgumentError(
                f"Column {name!r} must be {'' if kind.per_cent else 'plain numbers, not '}in per cent, as when the "
                f"model was trained, but row 1 holds {str(values[0])[:40]!r}"
            )
        return _finite(name, numbers, values)
    spelled = [str(word) for word in words]
    if unknown := [k for k, word in enumerate(spelled) if word not in kind.levels]:
        raise ArgumentError(
            f"Column {name!r} must hold one of {listed(kind.levels)}, the words that the model was trained on, but "
            f"row {unknown[0] + 1} holds {spelled[unknown[0]][:40]!r}{did_you_mean(spelled[unknown[0]], kind.levels)}"
        )
    return np.array(spelled)


def _check_plain(name: str, words: Sequence[Any]) -> None:
    kinds = str | int | float | np.integer | np.floating | None
    other = [w for w in words if not isinstance(w, kinds) or isinstance(w, np.timedelta64)]  # NumPy calls it an integer
    if other:
        raise ArgumentError(f"Column {name!r} must hold numbers or words, but holds a {type(other[0]).__name__}")


def _check_gaps(name: str, values: Sequence[Any], words: Sequence[Any], marks: frozenset[str]) -> None:
    gaps = [k for k, w in enumerate(words) if _is_missing(w, marks)]
    if gaps:
        raise ArgumentError(
            f"Column {name!r} must have a value in each row, but {len(gaps)} of {len(words)} have none (row "
            f"{gaps[0] + 1} first{_said(values[gaps[0]])})"
        )


def _finite(name: str, numbers: np.ndarray, values: Sequence[Any]) -> np.ndarray:
    if not np.isfinite(numbers).all():
        row = int(np.flatnonzero(~np.isfinite(numbers))[0])
        if np.isnan(numbers[row]):
            raise ArgumentError(
                f"Column {name!r} must have a value in each row, but {int(np.isnan(numbers).sum())} of {len(numbers)} "
                f"have none (row {row + 1} first)"
            )
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


def _parse(name: str, words: Sequence[Any], commas: str = "") -> tuple[np.ndarray, Column]:
    """Numbers (n,) of cells that are written in one way: plain, in per cent, or with commas.

    Args:
        name: the column's.
        words: its cells.
        commas: what commas were when they could be told apart, for cells that alone do not say it.
    """
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
        if not is_clear and grouped and decimal and not with_point and commas:
            grouped, is_clear = commas == "thousands", True
        if not is_clear:  # "1,234" alone is both, "1,2" beside "1,234.5" is neither, "1,2" beside "3.4" is two ways
            row = next(k for k, text in enumerate(plain) if text in with_comma)
            raise ArgumentError(
                f"Column {name!r} must have commas that are all decimal or all between thousands, but those cannot be "
                f"told apart (row {row + 1} first{_said(words[row])}): write numbers with a point"
            )
        commas = "thousands" if grouped else "decimal"
        plain = [text.replace(",", "" if grouped else ".") if isinstance(text, str) else text for text in plain]
    try:
        numbers = np.array([float(value) for value in plain])
    except OverflowError:
        raise ArgumentError(f"Column {name!r} must hold numbers of double precision, but holds larger ones") from None
    kind = Column(name, per_cent=all(per_cent), commas=commas)
    return numbers / 100 if kind.per_cent else numbers, kind


def _whole(word: Any) -> int:
    """A cell that is an integer of many digits, or 0."""
    if isinstance(word, str):
        return int(word) if re.fullmatch(r"[+-]?\d{16,4000}", word) else 0
    return int(word) if isinstance(word, int | np.integer) else 0


def _said(value: Any) -> str:
    return f": {value[:40]!r}" if isinstance(value, str) and value else ""


def listed(names: Sequence[str], most: int = 20) -> str:
    """Return the first names, and how many more there are."""
    return ", ".join(name[:60] for name in names[:most]) + (
        f" and {len(names) - most} more" if len(names) > most else ""
    )
