"""Workers: one function on many arguments, in this machine's processes or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from qbp.errors import ArgumentError, check_count, did_you_mean
from qbp.workers.processes import in_processes

__all__ = ["EXECUTORS", "Each", "check_executor", "pool"]

EXECUTORS = ("processes", "ray")

Each = Callable[[Sequence[Any]], Iterator[tuple[int, Any]]]
"""Called with arguments; yields the number of an argument and what `run` gave for it, as they come."""


def check_executor(executor: object) -> None:
    """Raise `ArgumentError` unless it is "processes", "ray" or "ray:ADDRESS"; `MissingPackageError` without Ray."""
    name = executor.partition(":")[0] if isinstance(executor, str) else executor
    if name not in EXECUTORS or (isinstance(executor, str) and executor.startswith("processes:")):
        raise ArgumentError(
            "Argument `executor` must be 'processes', 'ray' or 'ray:ADDRESS', but is "
            f"{executor!r}{did_you_mean(name, EXECUTORS)}"
        )
    if name == "ray":
        from qbp.workers.ray_cluster import need_ray

        need_ray()


@contextmanager
def pool(run: Callable[[Any], Any], executor: str = "processes", workers: int = 1) -> Iterator[Each]:
    """Open workers that call a function, with one thread each, until the block ends; when it fails they end at once.

    What a worker was at that died, alone or with its machine, another one runs: so many times that memory which is too
    small, or a function that ends its process, is told.

    Args:
        run: the function. In processes it must pickle; on Ray cloudpickle takes functions of a script, too.
        executor: "processes" of this machine; "ray", the cluster of `RAY_ADDRESS`, or one on this machine; or
            "ray:ADDRESS", a cluster as `ray.init` names it: "ray:auto", "ray:ray://head:10001". Files that the function
            reads must be there on every machine of it, as must qbp.
        workers: processes, of which 1 is this one; on Ray the cluster says how many, by its processors.

    Returns:
        What yields results as they come.

    Raises:
        ArgumentError: a name or a number is wrong, the function does not pickle, or whatever runs it dies.
        MissingPackageError: Ray is not installed.

    Example:
        >>> with pool(abs) as each:
        ...     dict(each([-1, -2]))
        {0: 1, 1: 2}
    """
    check_count("workers", workers)
    check_executor(executor)
    name, _, address = executor.partition(":")
    if name == "ray":
        from qbp.workers.ray_cluster import on_ray

        with on_ray(run, address) as each:
            yield each
    else:
        with in_processes(run, workers) as each:
            yield each
