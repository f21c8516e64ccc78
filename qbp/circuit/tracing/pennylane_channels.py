"""PennyLane's channels as those of qbp; the errors with which its mixed-state simulator reads wires."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qbp.circuit.channels import Channel
from qbp.circuit.gates import GATES
from qbp.circuit.noise_rows import ROWS, of_kraus, pauli_error
from qbp.circuit.tracing.circuit import Recorder, sparse_word
from qbp.errors import ArgumentError, CircuitError

__all__ = ["record_channel"]

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
