"""The few kinds of error that qbp raises; each is also the builtin kind it refines."""

from __future__ import annotations

import difflib
import functools
import inspect
import math
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from typing import Any, TypeGuard, TypeVar

__all__ = [
    "ArgumentError",
    "BudgetError",
    "CircuitError",
    "ConfigError",
    "GradientError",
    "JobError",
    "MissingPackageError",
    "PendingError",
    "QbpError",
    "ServiceError",
    "check_choice",
    "check_count",
    "check_positive",
    "check_seed",
    "check_shape",
    "check_share",
    "did_you_mean",
    "is_finite",
    "suggests_names",
]


class QbpError(Exception):
    """Base of every error raised by qbp."""


class ArgumentError(QbpError, ValueError):
    """An argument has a wrong value, shape or type."""


class CircuitError(QbpError, ValueError):
    """A circuit cannot be read, or holds something that qbp cannot express."""


class UnsteadyError(CircuitError):
    """A circuit's function is another each time that it is called, or reads what cannot be watched."""


class GradientError(QbpError, NotImplementedError):
    """A gradient that was asked for cannot be given by this rule on this executor."""


class ConfigError(QbpError, ValueError):
    """A config file or a run directory is not valid."""


class JobError(QbpError, RuntimeError):
    """A job on a backend failed, or cannot be sent now; what was paid for is kept, and the run can be resumed."""


class BudgetError(JobError):
    """A job would cost more than the budget allows; it was not sent."""


class PendingError(JobError):
    """A job is not done yet, and is not waited for."""


class ServiceError(JobError):
    """A service gives no answer, or refuses; its jobs are as they were."""


class MissingPackageError(QbpError, ImportError):
    """An optional package is needed; the message says how to install it."""


def check_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """Raise `ArgumentError` unless `value` is one of `choices`."""
    allowed = list(choices)
    if value not in allowed:
        listed = ", ".join(repr(choice) for choice in allowed)
        raise ArgumentError(
            f"Argument `{name}` must be one of {listed}, but is {_shortened(value)}{did_you_mean(value, allowed)}"
        )


def did_you_mean(value: object, choices: Iterable[object], before: str = "did you mean ") -> str:
    """Return what an error adds where a word is nearly one of `choices`; nothing where none is near.

    Example:
        >>> did_you_mean("adm", ["sgd", "adam"])
        '; did you mean `adam`?'
    """
    words = [choice for choice in choices if isinstance(choice, str)]
    if not isinstance(value, str) or value in words:
        return ""
    lower = {word.casefold(): word for word in words}
    near = difflib.get_close_matches(value[:200].casefold(), list(lower), n=1)
    return f"; {before}`{lower[near[0]]}`?" if near else ""


Function = TypeVar("Function", bound=Callable[..., Any])


def suggests_names(function: Function) -> Function:
    """Let a call with a misspelt keyword say which one is meant, as Python itself does from 3.13 on; the `__init__` of
    a class likewise."""
    if inspect.isclass(function):
        function.__init__ = suggests_names(function.__init__)  # type: ignore[method-assign]
        return function
    names = inspect.signature(function).parameters

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        for name in options:
            if name not in names:
                meant = did_you_mean(name, names)
                raise TypeError(f"{function.__qualname__}() got an unexpected keyword argument {name!r}{meant}")
        return function(*args, **options)

    return call  # type: ignore[return-value]


def check_count(name: str, value: object, least: int = 1, most: int | None = None) -> None:
    """Raise `ArgumentError` unless `value` is an integer from `least` to `most`; True and 1.0 are none."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or int(value) < least or (most is not None and int(value) > most):  # type: ignore[call-overload]
        at_least = "a positive integer" if least == 1 else f"an integer of at least {least}"
        wanted = at_least if most is None else f"an integer of {least} to {most}"
        raise ArgumentError(f"Argument `{name}` must be {wanted}, but is {_shortened(value)}")


def check_seed(name: str, value: object) -> None:
    """Raise `ArgumentError` unless `value` is an integer that seeds NumPy's generators as well as torch's."""
    if not isinstance(value, Integral) or isinstance(value, bool) or not 0 <= int(value) < 2**32:
        raise ArgumentError(f"Argument `{name}` must be an integer in 0..2**32-1, but is {_shortened(value)}")


def check_share(name: str, value: object, *, zero: bool = False, one: bool = False) -> None:
    """Raise `ArgumentError` unless `value` is a number between 0 and 1; these two only where they are let in."""
    if not _is_number(value) or not 0 <= value <= 1 or (value == 0 and not zero) or (value == 1 and not one):
        low, high = "at least 0" if zero else "above 0", "at most 1" if one else "below 1"
        raise ArgumentError(f"Argument `{name}` must be {low} and {high}, but is {_shortened(value)}")


def check_positive(name: str, value: object, *, zero: bool = False) -> None:
    """Raise `ArgumentError` unless `value` is a finite number above 0, or 0 where `zero` lets it in."""
    if not _is_number(value) or not (is_finite(value) and value >= 0) or (value == 0 and not zero):
        wanted = "a number of at least 0" if zero else "a positive number"
        raise ArgumentError(f"Argument `{name}` must be {wanted}, but is {_shortened(value)}")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, Real) and not isinstance(value, bool)


def is_finite(value: float) -> bool:
    """Return whether a number is finite and no integer beyond all floats."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _shortened(value: object, width: int = 80) -> str:
    """What an error says of a value; an integer of a million digits would take Python minutes to write."""
    if isinstance(value, int) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= width else text[: width - 3] + "..."


def check_shape(name: str, shape: Iterable[int], expected: Iterable[int | str]) -> None:
    """Raise `ArgumentError` unless `shape` fits `expected`, in which a string is any size ("B")."""
    shape, expected = tuple(shape), tuple(expected)
    fits = len(shape) == len(expected) and all(
        isinstance(want, str) or have == want for have, want in zip(shape, expected, strict=True)
    )
    if not fits:
        wanted = ", ".join(map(str, expected)) + ("," if len(expected) == 1 else "")
        raise ArgumentError(f"Argument `{name}` must have shape ({wanted}), but has {shape}")
