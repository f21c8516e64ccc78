"""How a circuit is run on a device, in the words of Qiskit's primitives."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, fields

from qbp.errors import ArgumentError, check_choice

__all__ = ["DEFAULT_SHOTS", "MITIGATION", "TRANSPILING", "Options"]

DEFAULT_SHOTS = 1024
"""Shots of a quantum computer's circuits where nobody says how many; the client's own default is 4096."""

MITIGATION = ("resilience_level", "measure_twirling", "gate_twirling", "dynamical_decoupling", "zne_noise_factors")
"""Options that simulators ignore."""

TRANSPILING = ("optimization_level", "seed_transpiler")
"""Options that simulators of any circuit ignore."""


@dataclass(frozen=True)
class Options:
    """How circuits are transpiled, measured and mitigated.

    The defaults suit training: no mitigation, which costs quantum time in every job (a level of 1 or 2 is for the last
    evaluation).

    Attributes:
        precision: target standard error of expectation values, for ``ceil(1 / precision^2)`` shots; None where the
            number of shots is given.
        resilience_level: 0 none, 1 readout errors are mitigated, 2 zero-noise extrapolation too; of expectation values.
        measure_twirling: random bit flips before and after measurements.
        gate_twirling: random Paulis around two-qubit gates.
        dynamical_decoupling: pulses on idle qubits: "XX", "XpXm", "XY4", or None.
        zne_noise_factors: noise factors of zero-noise extrapolation, as in ``(1, 3, 5)``; None for the level's own.
        optimization_level: the transpiler's, 0 to 3.
        seed_transpiler: seed of the transpiler: equal seeds give equal circuits and qubits.
        max_executions: most executions (circuits times shots) in one job; more are several jobs.

    Example:
        >>> Options(resilience_level=1, dynamical_decoupling="XY4").changed()
        ['resilience_level', 'dynamical_decoupling']
    """

    precision: float | None = None
    resilience_level: int = 0
    measure_twirling: bool = False
    gate_twirling: bool = False
    dynamical_decoupling: str | None = None
    zne_noise_factors: tuple[float, ...] | None = None
    optimization_level: int = 3
    seed_transpiler: int = 0
    max_executions: int = 5_000_000

    def __post_init__(self) -> None:
        check_choice("resilience_level", self.resilience_level, (0, 1, 2))
        check_choice("optimization_level", self.optimization_level, (0, 1, 2, 3))
        check_choice("dynamical_decoupling", self.dynamical_decoupling, (None, "XX", "XpXm", "XY4"))
        if self.precision is not None and not 0 < self.precision < 1:
            raise ArgumentError(f"Argument `precision` must be between 0 and 1, but is {self.precision!r}")
        factors = self.zne_noise_factors
        if factors is not None and (len(factors) < 2 or min(factors) < 1):
            raise ArgumentError(
                f"Argument `zne_noise_factors` must be two or more numbers from 1 on, but is {factors!r}"
            )
        if self.max_executions < 1:
            raise ArgumentError(f"Argument `max_executions` must be positive, but is {self.max_executions!r}")

    def shots_of(self, shots: int | None) -> int | None:
        """The number of shots that was given, or that the precision asks for; None where neither was."""
        if self.precision is None:
            return shots
        if shots is not None:
            raise ArgumentError(f"Argument `shots` must be None where the options have a precision, but is {shots}")
        return math.ceil(1 / self.precision**2)

    @property
    def repeats(self) -> int:
        """How often every circuit is executed, with its noise amplified by one factor after the other."""
        if self.zne_noise_factors is not None:
            return len(self.zne_noise_factors)
        return 3 if self.resilience_level == 2 else 1

    def changed(self, names: Iterable[str] | None = None) -> list[str]:
        """Which of `names` (default: all) are not as they are by default."""
        return [
            f.name
            for f in fields(self)
            if (names is None or f.name in names) and getattr(self, f.name) != getattr(type(self), f.name)
        ]

    def warn_ignored(self, by: str, names: Iterable[str]) -> None:
        """Warn of those of `names` that were set, and that `by` ignores."""
        ignored = self.changed(names)
        if ignored:
            warnings.warn(f"{by} ignores {', '.join(ignored)}", UserWarning, stacklevel=5)
