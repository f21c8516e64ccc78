"""Batches and sessions of the service, which are closed whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from qbp.errors import ServiceError
from qbp.executors.qiskit_primitive.client import IBM
from qbp.jobs.retry import Patience, cause, plain

__all__ = ["opened"]


@contextmanager
def opened(primitive: IBM, mode: str, max_time: float | None = None) -> Iterator[None]:
    """Run a primitive's jobs in a batch or a session.

    Args:
        primitive: whose jobs.
        mode: "batch" or "session".
        max_time: seconds after which the service closes it.

    Raises:
        ServiceError: the service refuses, as it does sessions on the open plan.
    """
    try:
        primitive.open(mode, max_time)
    except Exception as error:
        raise ServiceError(f"{primitive.name} gives no {mode}: {plain(error)}") from cause(error)
    try:
        yield
    finally:
        Patience().ask(primitive.close, primitive.transient, f"{primitive.name}, closing the {mode}")
