"""Noise models as plain data: which channels follow which gates, and how wires are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qbp.circuit.channels import Channel
from qbp.circuit.gates import GATES, PENNYLANE, Gate, qiskit_name
from qbp.circuit.noise_rows import ROWS
from qbp.errors import ArgumentError, did_you_mean

__all__ = ["WRITTEN", "GateError", "NoiseModel", "gate_row"]

BASIS = ("RZ", "SX", "PauliX", "CNOT")
"""Gates that circuits are written in, besides those that have errors; Aer's choice, too."""

_TURNS = ("RX", "RY", "RZ", "PhaseShift", "U2", "U3", "IsingXX", "IsingYY", "IsingZZ", "RZX")
_WRITTEN = {
    row.name: row
    for row in GATES.values()
    if row.steps and qiskit_name(row) and (row.is_clifford or row.name in _TURNS)
}
WRITTEN: dict[str, Gate] = {
    **{alias: _WRITTEN[row.name] for alias, row in PENNYLANE.items() if row.name in _WRITTEN},
    **{qiskit_name(row): row for row in _WRITTEN.values()},
    **{"u1": GATES["PhaseShift"], "u3": GATES["U3"]},  # Qiskit's of old, which old devices have
}
"""Gates that circuits can be written in, by PennyLane's and Qiskit's names: Clifford gates, Pauli rotations, and what
old devices have on one wire."""


@dataclass(frozen=True)
class GateError:
    """What follows a gate.

    Attributes:
        gate: its name in PennyLane or in Qiskit ("CNOT", "cx"); kept as PennyLane's.
        channels: in order of time; their wires count those of the gate: 0 is its first.
        wires: the wires that the gate has to act on, in its order; None for any.

    Raises:
        ArgumentError: if there is no such gate, or a channel acts beside it.
    """

    gate: str
    channels: tuple[Channel, ...]
    wires: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        row = gate_row(self.gate)
        object.__setattr__(self, "gate", row.name)
        if self.wires is not None and len(self.wires) != row.n_wires:
            raise ArgumentError(f"Argument `wires` must name {row.n_wires} wires for {row.name}, but is {self.wires}")
        for channel in self.channels:
            if not all(0 <= wire < row.n_wires for wire in channel.wires):
                raise ArgumentError(
                    f"Argument `channels` of {row.name} must act on its wires, from 0 to {row.n_wires - 1}, but "
                    f"{channel.name} acts on {channel.wires}"
                )


@dataclass(frozen=True)
class NoiseModel:
    """The noise of a device, as plain data: what follows each gate, and how each wire is read.

    A circuit is first written in the gates that have errors and in RZ, SX, PauliX and CNOT; then every gate is followed
    by its error: by that for its own wires, or else by that for any. This is how Qiskit Aer reads its noise models.

    Attributes:
        errors: of gates; at most one for each gate and wires.
        readout: ``(wire, p(1|0), p(0|1))`` for each wire that is read wrongly; wire None stands for all others.
        basis: further gates that circuits are written in, by their names.

    Raises:
        ArgumentError: if a gate is unknown or has two errors for the same wires, or a probability is none.

    Example:
        >>> noise = NoiseModel.of({"SX": {"DepolarizingChannel": 0.001}, "CNOT": {"DepolarizingChannel": 0.01}}, 0.02)
        >>> [(error.gate, len(error.channels)) for error in noise.errors], noise.readout
        ([('SX', 1), ('CNOT', 2)], ((None, 0.02, 0.02),))
    """

    errors: tuple[GateError, ...] = ()
    readout: tuple[tuple[int | None, float, float], ...] = ()
    basis: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "basis", tuple(dict.fromkeys(gate_row(name).name for name in self.basis)))
        for what, keys in (
            ("errors", [(error.gate, error.wires) for error in self.errors]),
            ("readout", [wire for wire, _, _ in self.readout]),
        ):
            twice = next((key for k, key in enumerate(keys) if key in keys[:k]), None)
            if len(set(keys)) < len(keys):
                raise ArgumentError(f"Argument `{what}` must have one entry for {twice}, but has several")
        for _, ones, zeros in self.readout:
            if not (0 <= ones <= 1 and 0 <= zeros <= 1):
                raise ArgumentError(f"Argument `readout` must hold probabilities, but has {ones!r}, {zeros!r}")

    @staticmethod
    def of(
        gates: Mapping[str, Mapping[str, float | Sequence[float]]],
        readout: float | tuple[float, float] = 0.0,
    ) -> NoiseModel:
        """A model in which each wire of a gate has the same noise, wherever the gate acts.

        Args:
            gates: for each gate, by PennyLane's or Qiskit's name, channels by PennyLane's names with their parameters,
                as in ``{"CNOT": {"DepolarizingChannel": 0.01, "AmplitudeDamping": 0.005}}``.
            readout: p(1|0) and p(0|1) of every wire, or one number for both.
        """
        errors = []
        for name, noise in gates.items():
            channels = []
            for kind, strengths in noise.items():
                if kind not in ROWS:
                    raise ArgumentError(
                        f"Argument `gates` must name channels among {', '.join(ROWS)}, but has {kind!r}"
                        f"{did_you_mean(kind, ROWS)}"
                    )
                values = strengths if isinstance(strengths, Sequence) else (strengths,)
                matrix = ROWS[kind](*values)
                channels += [Channel.of_matrix(kind, (wire,), matrix) for wire in range(gate_row(name).n_wires)]
            errors.append(GateError(name, tuple(channels)))
        ones, zeros = readout if isinstance(readout, tuple) else (readout, readout)
        return NoiseModel(tuple(errors), ((None, ones, zeros),) if ones or zeros else ())

    @property
    def gates(self) -> tuple[str, ...]:
        """The gates that circuits are written in."""
        return tuple(dict.fromkeys((*BASIS, *self.basis, *(error.gate for error in self.errors))))

    def after(self, gate: str, wires: tuple[int, ...]) -> tuple[Channel, ...]:
        """The channels that follow a gate, by PennyLane's name, on these wires."""
        of_gate = {error.wires: error.channels for error in self.errors if error.gate == gate}
        channels = of_gate.get(wires, of_gate.get(None, ()))
        return tuple(Channel(c.name, tuple(wires[w] for w in c.wires), c.transfer) for c in channels)

    def reading(self, wires: Sequence[int]) -> tuple[tuple[int, float, float], ...]:
        """The readout errors of these wires."""
        of_wire = {wire: (ones, zeros) for wire, ones, zeros in self.readout}
        errors = ((wire, *of_wire.get(wire, of_wire.get(None, (0.0, 0.0)))) for wire in wires)
        return tuple((wire, ones, zeros) for wire, ones, zeros in errors if ones or zeros)


def gate_row(name: str) -> Gate:
    """The gate of the table with a name of PennyLane's or Qiskit's.

    Raises:
        ArgumentError: if there is none, or circuits are never written in it.
    """
    row = WRITTEN.get(name)
    if row is None:
        raise ArgumentError(
            f"A noise model must name gates among {', '.join(_WRITTEN)}, or the same in Qiskit's words, but names "
            f"{str(name)[:80]!r}{did_you_mean(name, _WRITTEN)}"
        )
    return row
