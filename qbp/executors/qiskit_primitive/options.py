"""How a circuit is run on a device, in the words of Qiskit's primitives."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

from qbp.errors import ArgumentError, check_choice, check_count, check_positive, check_seed, check_share, suggests_names

__all__ = ["DEFAULT_SHOTS", "MITIGATION", "TRANSPILING", "Options"]

DEFAULT_SHOTS = 1024
"""Shots of a quantum computer's circuits where nobody says how many; the client's own default is 4096."""

MITIGATION = (
    "resilience_level",
    "measure_twirling",
    "gate_twirling",
    "num_randomizations",
    "shots_per_randomization",
    "dynamical_decoupling",
    "zne_noise_factors",
    "zne_amplifier",
    "zne_extrapolator",
    "layer_noise_model",
    "rep_delay",
    "private",
    "dry_run",
)
"""Options that simulators ignore."""

TRANSPILING = ("optimization_level", "seed_transpiler", "initial_layout", "fractional_gates")
"""Options that simulators of any circuit ignore."""

AMPLIFIERS = ("gate_folding", "gate_folding_front", "gate_folding_back", "pea")
EXTRAPOLATORS = (
    "linear",
    "exponential",
    "double_exponential",
    *(f"polynomial_degree_{k}" for k in range(1, 8)),
    "fallback",
)


@suggests_names
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
        num_randomizations, shots_per_randomization: of twirling; None for the client's choice, at least 64 shots each.
            Shots are rounded up to whole randomizations.
        dynamical_decoupling: pulses on idle qubits: "XX", "XpXm", "XY4", or None.
        zne_noise_factors: noise factors of zero-noise extrapolation, as in ``(1, 3, 5)``; None for the level's own.
        zne_amplifier: how noise is amplified: "gate_folding", "gate_folding_front", "gate_folding_back", or "pea"
            (probabilistic error amplification, Nature 618, 500 (2023)); None for the client's own.
        zne_extrapolator: name of a fit, or several of which the first that succeeds counts: "linear", "exponential",
            "double_exponential", "polynomial_degree_1" to 7, "fallback"; None for the client's own.
        layer_noise_model: for "pea" the learned noise of the circuit's layers, pairs (layer, Pauli-Lindblad map), as
            `qiskit_ibm_runtime.NoiseLearnerV3` gives it; clients before 0.50 leave that to the service.
        rep_delay: seconds between two executions, within what the device allows; None for the device's own.
        private: the service shows neither circuits nor angles, and gives the results once, after which they are only in
            the ledger.
        dry_run: the service checks jobs and says what they would take, runs none and charges nothing; results are
            random numbers.
        optimization_level: the transpiler's, 0 to 3.
        seed_transpiler: seed of the transpiler: equal seeds give equal circuits and qubits.
        initial_layout: the device's qubit on which each wire starts; None for the transpiler's choice.
        fractional_gates: use RX and RZZ of any angle where the device has them; not with gate twirling or
            extrapolation, which the service refuses.
        max_executions: most executions (circuits times shots) in one job; more are several jobs.

    Raises:
        ArgumentError: a value is none of those, or two do not go together.

    Example:
        >>> Options(resilience_level=1, dynamical_decoupling="XY4").changed()
        ['resilience_level', 'dynamical_decoupling']
    """

    precision: float | None = None
    resilience_level: int = 0
    measure_twirling: bool = False
    gate_twirling: bool = False
    dynamical_decoupling: str | None = None
    num_randomizations: int | None = None
    shots_per_randomization: int | None = None
    zne_noise_factors: tuple[float, ...] | None = None
    zne_amplifier: str | None = None
    zne_extrapolator: str | tuple[str, ...] | None = None
    layer_noise_model: Any = field(default=None, repr=False, compare=False)
    rep_delay: float | None = None
    private: bool = False
    dry_run: bool = False
    optimization_level: int = 3
    seed_transpiler: int = 0
    initial_layout: tuple[int, ...] | None = None
    fractional_gates: bool = False
    max_executions: int = 5_000_000

    def __post_init__(self) -> None:
        check_choice("resilience_level", self.resilience_level, (0, 1, 2))
        check_choice("optimization_level", self.optimization_level, (0, 1, 2, 3))
        check_choice("dynamical_decoupling", self.dynamical_decoupling, (None, "XX", "XpXm", "XY4"))
        if self.precision is not None:
            check_share("precision", self.precision)
        for name in ("num_randomizations", "shots_per_randomization"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        if self.rep_delay is not None:
            check_positive("rep_delay", self.rep_delay, zero=True)
        check_count("max_executions", self.max_executions)
        check_seed("seed_transpiler", self.seed_transpiler)
        self._check_extrapolation()
        layout = self.initial_layout
        if layout is not None:
            for qubit in layout:
                check_count("initial_layout", qubit, least=0)
            if len(set(layout)) < len(layout):
                raise ArgumentError(f"Argument `initial_layout` must name each qubit once, but is {layout!r}")
        if self.fractional_gates and (self.gate_twirling or self.extrapolates):
            raise ArgumentError(
                "Argument `fractional_gates` must be False with gate twirling or extrapolation, which exclude it"
            )

    def _check_extrapolation(self) -> None:
        factors = self.zne_noise_factors
        if factors is not None:
            for factor in factors:
                check_positive("zne_noise_factors", factor)
            if len(factors) < 2 or min(factors) < 1:
                raise ArgumentError(
                    f"Argument `zne_noise_factors` must be two or more numbers from 1 on, but is {factors!r}"
                )
        check_choice("zne_amplifier", self.zne_amplifier, (None, *AMPLIFIERS))
        for name in self.extrapolators:
            check_choice("zne_extrapolator", name, EXTRAPOLATORS)
        if (self.zne_amplifier or self.extrapolators) and not self.extrapolates:
            raise ArgumentError(
                "Argument `zne_noise_factors`, or a `resilience_level` of 2, must be given with an amplifier or a fit"
            )

    @property
    def extrapolators(self) -> tuple[str, ...]:
        """The fits that are asked for."""
        named = self.zne_extrapolator
        return () if named is None else (named,) if isinstance(named, str) else tuple(named)

    @property
    def extrapolates(self) -> bool:
        """Whether there is zero-noise extrapolation."""
        return self.zne_noise_factors is not None or self.resilience_level == 2

    def told(self) -> str:
        """All that results depend on, in words that are the same in every process and version."""
        words = [(name, getattr(self, name)) for name in self.changed() if name != "private"]
        if self.layer_noise_model is not None:
            words.append(("layer_noise_model", [noise.to_sparse_list() for _, noise in self.layer_noise_model]))
        return repr(words)

    def shots_of(self, shots: int | None) -> int | None:
        """The number of shots that was given, or that the precision asks for; None where neither was."""
        if self.precision is None:
            return shots
        if shots is not None:
            raise ArgumentError(f"Argument `shots` must be None where the options have a precision, but is {shots}")
        return math.ceil(1 / self.precision**2)

    def check_client(self, mitigates: bool) -> None:
        """Raise `ArgumentError` for what the client lacks: `mitigates` says whether it does so by itself."""
        if self.dry_run and not mitigates:
            raise ArgumentError("Argument `dry_run` needs qiskit-ibm-runtime 0.50 or newer")
        if self.zne_amplifier == "pea" and mitigates and self.layer_noise_model is None:
            raise ArgumentError("Argument `layer_noise_model` must be given for the amplifier 'pea': the learned noise")

    @property
    def repeats(self) -> int:
        """How often every circuit is executed, with its noise amplified by one factor after the other."""
        if self.zne_noise_factors is not None:
            return len(self.zne_noise_factors)
        return 3 if self.extrapolates else 1

    def changed(self, names: Iterable[str] | None = None) -> list[str]:
        """Which of `names` (default: all) are not as they are by default."""
        return [
            f.name
            for f in fields(self)
            if (names is None or f.name in names) and f.compare and getattr(self, f.name) != f.default
        ]

    def warn_ignored(self, by: str, names: Iterable[str]) -> None:
        """Warn of those of `names` that were set, and that `by` ignores."""
        ignored = self.changed(names)
        if ignored:
            warnings.warn(f"{by} ignores {', '.join(ignored)}", UserWarning, stacklevel=5)
