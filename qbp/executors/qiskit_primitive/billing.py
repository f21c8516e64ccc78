"""What a job is charged for: circuits, shots and quantum seconds, as IBM's client makes them of what is asked for.

The client mitigates by itself from 0.50 on, and left that to the service before.
"""

from __future__ import annotations

import math
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from qbp.executors.qiskit_primitive.options import Options

__all__ = ["bill", "client_mitigates", "randomizations"]

JOB_SECONDS, EXECUTION_SECONDS = 2.0, 0.35e-3
"""Quantum seconds of a job and of each execution, by IBM's quick formula."""

REP_DELAY = 250e-6
"""Seconds between executions that the formula contains."""

LEARNING = 32 * 1024
"""Executions with which the service learns the readout errors, for clients that leave that to it."""


@lru_cache(maxsize=1)
def client_version() -> tuple[int, ...]:
    """Of `qiskit-ibm-runtime`; the newest that is known where it is not installed."""
    try:
        return tuple(int(part) for part in version("qiskit-ibm-runtime").split(".")[:2])
    except PackageNotFoundError:
        return (0, 51)


def client_mitigates() -> bool:
    """Whether the client's own primitives mitigate."""
    return client_version() >= (0, 50)


def randomizations(options: Options, shots: int, *, sampler: bool) -> tuple[int, int]:
    """How many randomizations of each circuit there are, and shots of each.

    By default 32, of 64 shots at least (the documentation of `TwirlingOptions`).
    """
    twirled = options.measure_twirling or options.gate_twirling
    if not sampler:
        twirled = twirled or options.resilience_level > 0 or options.zne_amplifier == "pea"
    if not twirled:
        return 1, shots
    number, each = options.num_randomizations, options.shots_per_randomization
    if each is None:
        each = max(64, math.ceil(shots / 32)) if number is None else math.ceil(shots / number)
    return number or math.ceil(shots / each), each


def bill(payload: Any, n_circuits: int, learning: int | None = None) -> tuple[int, int, float]:
    """What a job of so many circuits takes: circuits that are executed, shots of each, and quantum seconds.

    Args:
        payload: with the options, the shots, and what is measured.
        n_circuits: parameter sets times groups of observables.
        learning: executions with which the service learns readout errors; None where the client mitigates.
    """
    options, sampler = payload.options, payload.compiled.measures_probs
    number, shots = randomizations(options, payload.shots or 0, sampler=sampler)
    repeats = 1 if sampler else options.repeats
    learns = not sampler and options.resilience_level > 0
    if learning is None:
        circuits = n_circuits * number * repeats + (number if learns else 0)
        executions = circuits * shots
    else:
        circuits = n_circuits * number
        executions = circuits * shots * repeats + (learning if learns else 0)
    each = EXECUTION_SECONDS + max(0.0, (options.rep_delay or 0.0) - REP_DELAY)
    return circuits, shots, JOB_SECONDS + each * executions
