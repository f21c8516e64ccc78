"""Plain values of a file that anybody may have written, each checked where it is read."""

from __future__ import annotations

from typing import Any

from qbp.errors import ConfigError

__all__ = [
    "as_dict",
    "as_flag",
    "as_identifier",
    "as_list",
    "as_number",
    "as_shape",
    "as_text",
    "as_whole",
    "check_axes",
    "shown",
]

MOST_OPS = 50_000
"""Ops, terms of an observable, and nodes of a graph."""
MOST_AXES = 256
MOST_NUMBERS = 2**24
"""Elements of a tensor in a graph; inputs of a circuit."""


def as_dict(value: Any, what: str) -> dict[str, Any]:
    """The value, which must be names and values."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"A model file must have names and values as {what}, but has {shown(value)}")
    return value


def as_list(value: Any, what: str) -> list[Any]:
    """The value, which must be a list."""
    if not isinstance(value, list):
        raise ConfigError(f"A model file must have a list as {what}, but has {shown(value)}")
    if len(value) > MOST_NUMBERS or (what in ("ops", "terms", "a graph") and len(value) > MOST_OPS):
        raise ConfigError(f"A model file must have at most {MOST_OPS} entries as {what}, but has {len(value)}")
    return value


def as_whole(value: Any, what: str, least: int, most: int) -> int:
    """The value, which must be an integer in a range."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ConfigError(f"A model file must have an integer of {least} to {most} as {what}, but has {shown(value)}")
    return value


def as_number(value: Any, what: str) -> float:
    """The value, which must be a finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1e300:
        raise ConfigError(f"A model file must have a finite number as {what}, but has {shown(value)}")
    return value


def as_flag(value: Any, what: str) -> bool:
    """The value, which must be true or false."""
    if not isinstance(value, bool):
        raise ConfigError(f"A model file must have true or false as {what}, but has {shown(value)}")
    return value


def as_text(value: Any) -> str:
    """The value, which must be text."""
    if not isinstance(value, str):
        raise ConfigError(f"A model file must have a name here, but has {shown(value)}")
    return value


def as_identifier(value: Any) -> str:
    """The value, which must be the name of a weight."""
    if not (isinstance(value, str) and value.isidentifier()) or value.startswith("__"):
        raise ConfigError(f"A weight in a model file must have a name, but has {shown(value)}")
    return value


def as_shape(value: Any) -> tuple[int, ...]:
    """The value, which must be a short list of sizes."""
    sizes = tuple(as_whole(size, "a size", 0, MOST_NUMBERS) for size in as_list(value, "a shape"))
    if len(sizes) > 64:
        raise ConfigError("A shape in a model file must have at most 64 sizes")
    return sizes


def check_axes(values: list[Any] | tuple[Any, ...]) -> None:
    """Refuse a list of more numbers than a shape or a split has: torch takes seconds over a thousand axes."""
    if len(values) > MOST_AXES and not any(isinstance(value, dict) for value in values):
        raise ConfigError(f"A list of numbers in a model file must have at most {MOST_AXES}, but has {len(values)}")


def shown(value: Any) -> str:
    """A value for an error, short whatever it is."""
    if isinstance(value, dict | list):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**18:
        return "a huge integer"
    return repr(value)[:80]
