"""What a value of a config may be, where its type does not say it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from qbp.data import DATASETS
from qbp.data.files import SUFFIXES
from qbp.errors import is_finite

__all__ = [
    "among",
    "class_weight",
    "data_name",
    "flat_keys",
    "label",
    "listed",
    "not_bool",
    "number",
    "search",
    "seeds_of",
]


def among(choices: Collection[str | None]) -> AfterValidator:
    """Return what refuses any other value."""

    def check(value: str | None) -> str | None:
        if value not in choices:
            raise PydanticCustomError("choice", "is not a choice", {"allowed": list(choices)})
        return value

    return AfterValidator(check)


def data_name(value: str) -> str:
    """Refuse what is neither a data set nor a file of data."""
    if value not in DATASETS and not value.endswith(tuple(SUFFIXES)):
        raise PydanticCustomError("choice", "is not a choice", {"allowed": [*DATASETS, *(f"*{s}" for s in SUFFIXES)]})
    return value


def not_bool(value: Any) -> Any:
    """Refuse true and false in the place of a number."""
    if isinstance(value, bool):  # YAML reads `lr: on` as true, and pydantic true as 1.0
        raise PydanticCustomError("number", "must be a number")
    return value


def number(value: Any) -> int | float:
    """Refuse what is no finite number; a whole one stays whole."""
    try:
        result = value if type(value) is int else float(not_bool(value))
    except (TypeError, ValueError):
        raise PydanticCustomError("number", "must be a number") from None
    if not is_finite(result):
        raise PydanticCustomError("number", "must be a finite number")
    return result


def label(value: Any) -> Any:
    """Refuse what is neither the name nor the number of a class."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise PydanticCustomError("label", "must be the name or the number of a class")
    return value


def class_weight(value: Any) -> Any:
    """Refuse what are no weights of classes."""
    weights = value.values() if isinstance(value, dict) else value
    try:
        if value in (None, "balanced"):
            return value
        if not weights or not all(isinstance(w, int | float) and not isinstance(w, bool) and w >= 0 for w in weights):
            raise TypeError
    except TypeError:
        raise PydanticCustomError("weights", "must be balanced, null, or weights of at least 0 by class") from None
    return {str(key): float(w) for key, w in value.items()} if isinstance(value, dict) else tuple(map(float, value))


def seeds_of(fewest: int, what: str) -> AfterValidator:
    """Return what refuses all but a number of seeds, or a list of different ones, `fewest` or more."""

    def check(value: Any) -> int | tuple[int, ...]:
        numbers = range(value) if isinstance(value, int) and not isinstance(value, bool) else value
        whole = isinstance(numbers, range | list | tuple) and all(type(n) is int and 0 <= n < 2**32 for n in numbers)
        if not whole or len(set(numbers)) < max(fewest, len(numbers)):
            raise PydanticCustomError("seeds", what)
        return value if isinstance(numbers, range) else tuple(numbers)

    return AfterValidator(check)


def listed(value: Any) -> Any:
    """A list, of one where it is a name."""
    return () if value is None else (value,) if isinstance(value, str) else value


RANGE = {"low", "high", "log", "step"}


def flat_keys(value: Any) -> Any:
    """Dotted keys for sections within sections, which is what overrides make of them."""
    if not isinstance(value, dict):
        return value
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, dict) and not RANGE & set(inner):
            flat |= {f"{key}.{rest}": each for rest, each in flat_keys(inner).items()}
        else:
            flat[str(key)] = inner
    return flat


def search(value: Any) -> Any:
    """A list of choices, or a range: of integers if both its ends are."""
    if isinstance(value, list | tuple):
        labels = {(type(choice), str(choice)) for choice in value}
        if not value or len(labels) < len(value):
            raise PydanticCustomError("search", "must have different choices, one or more")
        return tuple(value)
    if not isinstance(value, dict) or not {"low", "high"} <= set(value) <= RANGE:
        raise PydanticCustomError(
            "search", "must be a list of choices, or have `low` and `high` (and `log`, or `step`)"
        )
    kind = int if all(type(value[end]) is int for end in ("low", "high")) else float
    try:
        numbers = {key: kind(value[key]) for key in ("low", "high", "step") if value.get(key) is not None}
    except (TypeError, ValueError, OverflowError):
        raise PydanticCustomError("search", "must have numbers as `low`, `high` and `step`") from None
    log, step = value.get("log", False), numbers.get("step")
    if not isinstance(log, bool) or (log and step is not None):
        raise PydanticCustomError("search", "must have true or false as `log`, and true only without a `step`")
    if (
        not all(map(is_finite, numbers.values()))
        or not numbers["low"] < numbers["high"]
        or (log and numbers["low"] <= 0)
        or (step or 1) <= 0
    ):
        raise PydanticCustomError(
            "search", "must have a `low` below `high` (and above 0, with `log`), and a `step` above 0"
        )
    return {**numbers, "log": log}
