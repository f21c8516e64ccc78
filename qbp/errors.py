"""The few kinds of error that qbp raises; each is also the builtin kind it refines."""

from __future__ import annotations

from collections.abc import Iterable

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
    "check_shape",
]


class QbpError(Exception):
    """Base of every error raised by qbp."""


class ArgumentError(QbpError, ValueError):
    """An argument has a wrong value, shape or type."""


class CircuitError(QbpError, ValueError):
    """A circuit cannot be read, or holds something that qbp cannot express."""


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
        raise ArgumentError(f"Argument `{name}` must be one of {listed}, but is {value!r}")


def check_shape(name: str, shape: Iterable[int], expected: Iterable[int | str]) -> None:
    """Raise `ArgumentError` unless `shape` fits `expected`, in which a string is any size ("B")."""
    shape, expected = tuple(shape), tuple(expected)
    fits = len(shape) == len(expected) and all(
        isinstance(want, str) or have == want for have, want in zip(shape, expected, strict=True)
    )
    if not fits:
        wanted = ", ".join(map(str, expected)) + ("," if len(expected) == 1 else "")
        raise ArgumentError(f"Argument `{name}` must have shape ({wanted}), but has {shape}")
