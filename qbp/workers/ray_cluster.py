"""A Ray cluster: many machines, of which any may be lost."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from qbp.errors import ArgumentError, MissingPackageError
from qbp.workers.processes import MOST_DEATHS

__all__ = ["need_ray", "on_ray"]

Run = Callable[[Any], Any]


def need_ray() -> Any:
    """Return the module `ray`; raise `MissingPackageError` where it is not installed."""
    try:
        import ray
    except ImportError as error:
        raise MissingPackageError("The executor 'ray' needs Ray: pip install 'qbp[ray]'") from error
    return ray


@contextmanager
def on_ray(run: Run, address: str) -> Iterator[Callable[[Sequence[Any]], Iterator[tuple[int, Any]]]]:
    """Connect to a cluster, or start one of this machine, until the block ends; see `qbp.workers.pool`.

    One that this process is connected to already is used as it is, and stays.
    """
    ray = need_ray()
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, address)
    try:
        call = ray.remote(num_cpus=1, max_retries=MOST_DEATHS - 1)(_in_worker)
        given = [ray.put(run)]  # in a list: a worker reads it once, not for every argument
        left: list[Any] = []

        def each(arguments: Sequence[Any]) -> Iterator[tuple[int, Any]]:
            numbers = {call.remote(given, argument): k for k, argument in enumerate(arguments)}
            left[:] = numbers
            while left:
                (done,), left[:] = ray.wait(left, num_returns=1)
                yield numbers[done], _result(ray, done)

        try:
            yield each
        finally:
            for reference in left:
                ray.cancel(reference, force=True)
    finally:
        if ours:
            ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    if ":" in address:
        _knock(address)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    reports = os.environ.get("RAY_USAGE_STATS_ENABLED")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that is started here tells nobody
    try:
        ray.init(address=address or None, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _nobody(address or "RAY_ADDRESS", error) from error
    finally:
        if reports is None:
            os.environ.pop("RAY_USAGE_STATS_ENABLED")


def _knock(address: str) -> None:
    """Raise `ArgumentError` where nobody listens: Ray would go on asking for minutes."""
    host, _, port = address.rpartition("//")[2].partition("/")[0].rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise _nobody(address, error) from error


def _nobody(address: str, error: Exception) -> ArgumentError:
    return ArgumentError(
        f"Argument `executor` must name a Ray cluster that runs, but there is none at {address!r}: {error}"
    )


def _result(ray: Any, reference: Any) -> Any:
    errors = ray.exceptions
    try:
        return ray.get(reference)
    except errors.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from error
    except errors.RayError as error:
        raise ArgumentError(
            "Argument `executor` must name machines with more memory or fewer processors, since workers ended by "
            f"themselves {MOST_DEATHS} times over the same: {error}"
        ) from error


# ---- in workers ----------------------------------------------------------------------------------------------------

_runs: dict[str, Run] = {}


def _in_worker(given: list[Any], argument: Any) -> Any:
    import ray

    key = given[0].hex()
    if key not in _runs:
        torch.set_num_threads(1)
        _runs.clear()
        _runs[key] = ray.get(given[0])
    return _runs[key](argument)
