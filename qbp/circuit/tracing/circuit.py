"""`Circuit`, and the recorder that every source writes its gates into."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from qbp.circuit.angles import AngleMap, trace_angles
from qbp.circuit.channels import Channel
from qbp.circuit.combination import Combination, Entry
from qbp.circuit.gates import Gate
from qbp.circuit.program import Expval, Measurement, Op, Program, Rotation, gate_ops, inverse_ops

__all__ = ["Circuit", "Recorder", "build", "sparse_word", "z_on_every_wire"]


@dataclass(frozen=True, repr=False)
class Circuit:
    """A program, and where its angles come from.

    Attributes:
        program: the structure.
        angle_map: ``(inputs (B, I), weights (P,)) -> Angles``.
        weight_shapes: the shape of each weight tensor by name; flattened one after the other they are the P weights.
        is_scalar: whether its function returned one bare expectation value, so that a sample's output has no axis.
        normalized: whether the amplitudes it starts from must come normalised.
        bits: the inputs that must be 0 or 1, since they are embedded as basis states.
        classical: wires that were measured and asked for their outcome: on them X and Y have no expectation value.
        combination: what makes the outputs of what the program measures, where they are more than that: variances, and
            observables whose coefficients train.
    """

    program: Program
    angle_map: AngleMap
    weight_shapes: dict[str, tuple[int, ...]]
    is_scalar: bool = False
    normalized: bool = False
    bits: tuple[int, ...] = ()
    classical: tuple[int, ...] = field(default=(), compare=False)
    combination: Combination | None = None

    @property
    def n_inputs(self) -> int:
        """I, the number of features of a sample."""
        return self.angle_map.n_inputs

    @property
    def n_outputs(self) -> int:
        """M, the number of outputs of a sample."""
        return self.program.n_outputs if self.combination is None else self.combination.n_outputs

    @property
    def reads_numbers(self) -> bool:
        """Whether inputs are more than amplitudes: angles, or coefficients of observables."""
        combined = 0 if self.combination is None else self.combination.coefficients.n_batched
        return bool(self.angle_map.n_batched + combined)

    @property
    def n_qubits(self) -> int:
        return self.program.n_qubits

    def __repr__(self) -> str:
        gates = ", ".join(f"{count} {name}" for name, count in self.program.counts().items())
        n_weights = sum(math.prod(shape) for shape in self.weight_shapes.values())
        return (
            f"Circuit({self.n_qubits} qubits, {self.n_inputs} inputs, {n_weights} weights, "
            f"{self.n_outputs} outputs: {gates or 'no gates'})"
        )

    def describe(self) -> tuple[object, ...]:
        """Everything that outputs are made of but inputs and weights, as values with a `repr`."""
        combined = () if self.combination is None else self.combination.describe()
        return (self.program, *self.angle_map.describe(), *combined)

    def drop_ops(self, drop: Callable[[Op], bool] | Sequence[int]) -> Circuit:
        """The circuit without some ops, and without the angles that only those used."""
        program, kept = self.program.drop_ops(drop)
        return replace(self, program=program, angle_map=self.angle_map.select(kept))


class Recorder:
    """Collects gates whose parameters are numbers or traced tensors; the ops are made once it is known which is
    which."""

    def __init__(self) -> None:
        self.entries: list[tuple[Gate | Channel | str, tuple[int, ...], int, bool]] = []
        self.values: list[Tensor | float] = []
        self.amplitudes: tuple[Tensor, tuple[int, ...]] | None = None
        self.normalized = False
        self.has_bits = False  # whether basis states are made of traced tensors
        self.readout: tuple[tuple[int, float, float], ...] = ()
        self.classical: set[int] = set()
        self.coefficients: list[Tensor] = []  # of observables
        self.terms: tuple[Entry, ...] = ()  # that outputs are the sums of, where they are more than what is measured

    def gate(self, gate: Gate | str, wires: Sequence[int], params: Sequence[Any] = (), inverse: bool = False) -> None:
        """A gate of the table, or a rotation about a Pauli word (a string)."""
        self.entries.append((gate, tuple(wires), len(params), inverse))
        self.values += [p if isinstance(p, Tensor) else float(p) for p in params]

    def channel(self, channel: Channel) -> None:
        """Noise, unless it does nothing."""
        if any(row != column or value != 1.0 for row, column, value in channel.transfer):
            self.entries.append((channel, channel.wires, 0, False))

    def is_untouched(self, wires: Sequence[int]) -> bool:
        """Whether the wires are still in |0>."""
        embedded = () if self.amplitudes is None else self.amplitudes[1]
        return {w for _, on, _, _ in self.entries for w in on}.union(embedded).isdisjoint(wires)

    def start(self, vector: Tensor, wires: tuple[int, ...], normalized: bool) -> None:
        """Embed amplitudes on untouched wires, beside those that are embedded on others."""
        if self.amplitudes is not None:
            first, others = self.amplitudes
            vector, wires = (first[:, None] * vector).reshape(-1), (*others, *wires)
        self.amplitudes, self.normalized = (vector, wires), self.normalized or normalized

    def state(self, n_qubits: int) -> Tensor | None:
        """The amplitudes over all wires, those that embed nothing in |0>."""
        if self.amplitudes is None:
            return None
        vector, wires = self.amplitudes
        source = []
        for i in range(2**n_qubits):
            bits = [i >> (n_qubits - 1 - w) & 1 for w in range(n_qubits)]
            inside = all(bits[w] == 0 for w in range(n_qubits) if w not in wires)
            source.append(int("".join(str(bits[w]) for w in wires), 2) if inside else 2 ** len(wires))
        if source == list(range(2**n_qubits)):
            return vector
        return torch.cat([vector, torch.zeros_like(vector[:1])])[torch.tensor(source)]

    def ops(self, resolved: Sequence[int | float]) -> tuple[Op, ...]:
        rest = iter(resolved)
        ops: list[Op] = []
        for gate, wires, n_params, inverse in self.entries:
            angles = [next(rest) for _ in range(n_params)]
            if isinstance(gate, Channel):
                new: tuple[Op, ...] = (gate,)
            elif isinstance(gate, str):
                (angle,) = angles
                new = (
                    Rotation(gate, wires, angle)
                    if isinstance(angle, int)
                    else Rotation(gate, wires, None, offset=angle),
                )
            else:
                new = gate_ops(gate, wires, angles)
            ops += inverse_ops(new) if inverse else new
        return tuple(ops)


def build(
    record: Callable[[Recorder, Tensor, dict[str, Tensor]], tuple[int, tuple[Measurement, ...], bool]],
    n_inputs: int,
    weight_shapes: Mapping[str, tuple[int, ...]],
) -> Circuit:
    """Trace `record`, which fills a recorder and returns (number of qubits, measurements, whether the output is
    scalar)."""
    recorder = Recorder()
    records: list[tuple[int, tuple[Measurement, ...], bool]] = []

    def values(inputs: Tensor, weights: dict[str, Tensor]) -> tuple[list[Tensor | float], Tensor | None]:
        records.append(record(recorder, inputs, weights))
        return [*recorder.values, *recorder.coefficients], recorder.state(records[0][0])

    angle_map, resolved = trace_angles(values, n_inputs, weight_shapes)
    ((n_qubits, measurements, is_scalar),) = records
    combination = None
    if recorder.terms:
        combination = _combination(recorder.terms, angle_map, resolved[len(recorder.values) :])
        kept = sorted({k for k in resolved[: len(recorder.values)] if isinstance(k, int)})
        angle_map, place = angle_map.select(kept), {k: index for index, k in enumerate(kept)}
        resolved = [place[k] if isinstance(k, int) else k for k in resolved[: len(recorder.values)]]
    program = Program(
        n_qubits,
        recorder.ops(resolved),
        measurements,
        angle_map.n_batched + angle_map.n_shared,
        amplitudes=recorder.amplitudes is not None,
        readout=recorder.readout,
    )
    classical = tuple(sorted(recorder.classical))
    return Circuit(
        program,
        angle_map,
        dict(weight_shapes),
        is_scalar,
        recorder.normalized,
        classical=classical,
        combination=combination,
    )


def _combination(entries: Sequence[Entry], traced: AngleMap, resolved: Sequence[int | float]) -> Combination:
    """The combination of what was traced: functions by their number in the traced map, or numbers."""
    kept = sorted({k for k in resolved if isinstance(k, int)})
    resolved_entries: list[Entry] = []
    for entry in entries:
        if entry.coefficient is not None:
            at = resolved[entry.coefficient]
            entry = (
                entry._replace(coefficient=kept.index(at))
                if isinstance(at, int)
                else entry._replace(number=at, coefficient=None)
            )
        resolved_entries.append(entry)
    own = traced.select(kept)
    functions = AngleMap(
        own.n_inputs, own.n_weights, own.inputs, own.weights, own.shared, own.batched_graph, own.shared_graph
    )
    return Combination(1 + max(entry.output for entry in resolved_entries), tuple(resolved_entries), functions)


def z_on_every_wire(n_qubits: int) -> tuple[Measurement, ...]:
    """The default measurement: the expectation value of Z on each wire."""
    return tuple(Expval.word("Z", w) for w in range(n_qubits))


def sparse_word(letters: Mapping[int, str]) -> tuple[str, tuple[int, ...]]:
    """A Pauli word given wire by wire, as (word, wires) without its identities."""
    kept = {w: letter for w, letter in sorted(letters.items()) if letter != "I"}
    return "".join(kept.values()), tuple(kept)
