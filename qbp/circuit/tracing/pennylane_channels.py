"""PennyLane's channels as those of qbp; the errors with which its mixed-state simulator reads wires."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qbp.circuit.channels import LETTERS, Channel
from qbp.circuit.gates import GATES
from qbp.circuit.noise_rows import ROWS, of_kraus, pauli_error
from qbp.circuit.program import Expval
from qbp.circuit.tracing.circuit import Recorder, sparse_word
from qbp.circuit.tracing.pennylane_tapes import is_qnode, original_device
from qbp.errors import ArgumentError, CircuitError

__all__ = ["before_channel", "readout_of", "record_channel"]

MOST_WIRES = 2
"""Of a channel that is given by Kraus operators, or by a Pauli word without the gates that make it shorter."""

_TO_Z = {"X": ("Hadamard",), "Y": ("Adjoint(S)", "Hadamard"), "Z": ()}
_FROM_Z = {"X": ("Hadamard",), "Y": ("Hadamard", "S"), "Z": ()}


def record_channel(recorder: Recorder, op: Any, values: Sequence[Any] | None, wires: tuple[int, ...]) -> None:
    """Record one of PennyLane's channels.

    Args:
        op: the operation.
        values: its parameters as numbers and arrays; None where one of them depends on inputs or weights.
        wires: the wires it acts on.

    Raises:
        CircuitError: if its strength depends on inputs or weights, or it is none of PennyLane's channels on few wires.
    """
    if values is None:
        raise CircuitError(f"The strength of {op.name} must be a number, but depends on inputs or weights")
    try:
        if op.name == "PauliError":
            letters, on = sparse_word(dict(zip(wires, op.hyperparameters["operators"], strict=True)))
            return _record_pauli_error(recorder, letters, on, float(values[0]))
        if op.name in ROWS:
            matrix = ROWS[op.name](*(float(value) for value in values))
        elif op.name == "QubitChannel" and len(wires) <= MOST_WIRES:
            matrix = of_kraus([np.asarray(value) for value in values])
        else:
            raise CircuitError(f"{op.name} on {len(wires)} wires is no channel that qbp knows")
        recorder.channel(Channel.of_matrix(op.name, wires, matrix))
    except ArgumentError as error:
        raise CircuitError(f"{op.name} on wires {wires} is no channel: {error}") from error


def _record_pauli_error(recorder: Recorder, word: str, wires: tuple[int, ...], p: float) -> None:
    """A Pauli word with probability p. A long one is a flip of its last wire's phase between Clifford gates that turn
    the one word into the other."""
    if len(word) <= MOST_WIRES:
        if word:
            recorder.channel(Channel.of_matrix("PauliError", wires, pauli_error(word, p)))
        return
    last = wires[-1]
    for letter, wire in zip(word, wires, strict=True):
        for gate in _TO_Z[letter]:
            recorder.gate(GATES[gate], (wire,))
    for wire in wires[:-1]:
        recorder.gate(GATES["CNOT"], (wire, last))
    recorder.channel(Channel.of_matrix("PhaseFlip", (last,), ROWS["PhaseFlip"](p)))
    for wire in wires[:-1]:
        recorder.gate(GATES["CNOT"], (wire, last))
    for letter, wire in zip(word, wires, strict=True):
        for gate in _FROM_Z[letter]:
            recorder.gate(GATES[gate], (wire,))


def before_channel(measured: Expval, channel: Channel) -> Expval:
    """What has the same expectation value before a channel as this has after it."""
    rows: dict[int, list[tuple[int, float]]] = {}
    for row, column, value in channel.transfer:
        rows.setdefault(row, []).append((column, value))
    n, terms = len(channel.wires), dict[tuple[str, tuple[int, ...]], float]()
    for coefficient, word, wires in measured.terms:
        letters = dict(zip(wires, word, strict=True))
        index = 0
        for wire in channel.wires:
            index = 4 * index + LETTERS.index(letters.get(wire, "I"))
        for column, value in rows.get(index, ()):
            there = {w: LETTERS[column >> 2 * (n - 1 - k) & 3] for k, w in enumerate(channel.wires)}
            key = sparse_word(letters | there)
            terms[key] = terms.get(key, 0.0) + coefficient * value
    return Expval(tuple((c, word, wires) for (word, wires), c in terms.items()) or ((0.0, "", ()),))


def readout_of(
    source: Any, measured: Sequence[Any], wire_map: Mapping[Any, int]
) -> tuple[tuple[int, float, float], ...]:
    """The readout errors of the device of a QNode: bit flips of the wires that it measures.

    Raises:
        CircuitError: if it has others than one probability, or measures what it does not read wire by wire.
    """
    device: Any = original_device(source.device)[0] if is_qnode(source) else None
    p = getattr(device, "readout_err", None)
    if not p:
        return ()
    if not isinstance(p, int | float):
        raise CircuitError(f"The readout errors of {device.name} must be one probability, but are {p}")
    for m in measured:
        obs = m.obs
        terms = list(obs.terms()[1]) if type(obs).__name__ in _SUMS and source.diff_method in _AS_TENSORS else [obs]
        if obs is not None and not all(map(_is_read_wire_by_wire, terms)):
            raise CircuitError(f"{device.name} does not read {obs} wire by wire")
    wires = sorted({wire_map[w] for m in measured for w in (m.wires or wire_map)})
    return tuple((w, float(p), float(p)) for w in wires)


_SUMS = ("Sum", "LinearCombination")
_AS_TENSORS = ("best", "backprop")  # with other gradients PennyLane takes sums as matrices, and errs in no wire
_PAULIS = ("Identity", "PauliX", "PauliY", "PauliZ")


def _is_read_wire_by_wire(observable: Any) -> bool:
    """Whether it is a Pauli word, or a multiple of one, that PennyLane measures in its own basis."""
    kind = type(observable).__name__
    if kind == "SProd":
        return _is_read_wire_by_wire(observable.base)
    if kind == "Prod":
        parts = observable.operands
        return len(observable.wires) == sum(len(p.wires) for p in parts) and all(map(_is_read_wire_by_wire, parts))
    return kind in _PAULIS
