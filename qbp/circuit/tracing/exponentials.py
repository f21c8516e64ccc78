"""``exp(-i t H)`` of weighted sums of Pauli words, as gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
from torch import Tensor

from qbp.circuit.gates import Step
from qbp.circuit.pauli import Word
from qbp.circuit.tracing.circuit import Recorder
from qbp.circuit.tracing.controlled import controlled
from qbp.circuit.tracing.qiskit_gates import MAX_MATRIX_WIRES, record_unitary
from qbp.errors import CircuitError

__all__ = ["Term", "record_exponential"]

Term = tuple[str, tuple[int, ...], Any]
"""A Pauli word, its wires, and its coefficient (a number or a traced tensor)."""

_PAULI = {
    "I": np.eye(2, dtype=complex),
    "X": np.array([[0, 1], [1, 0]], dtype=complex),
    "Y": np.array([[0, -1j], [1j, 0]]),
    "Z": np.diag([1.0 + 0j, -1]),
}


def record_exponential(
    recorder: Recorder, terms: Sequence[Term], time: Any, controls: Mapping[int, bool] | None = None, name: str = ""
) -> None:
    """Record ``exp(-i time sum_k c_k P_k)``, exactly, where the `controls` have their values.

    Words that commute with all others are rotations by ``2 c_k time``. Groups of words that do not commute are
    diagonalised: ``H = V D V^+`` gives ``V exp(-i time D) V^+``, in which D is a sum of words of Z, so that `time` may
    be traced.

    Args:
        recorder: where the gates go.
        terms: the words of H.
        time: a number or a traced tensor.
        controls: the value of each control wire at which the gate acts.
        name: what errors call the gate.

    Raises:
        CircuitError: if words that do not commute act on more than `MAX_MATRIX_WIRES` wires, or if their coefficients
            are no plain numbers.
    """
    controls = controls or {}
    for group in _groups(terms):
        if len(group) == 1:
            ((word, wires, coefficient),) = group
            _rotation(recorder, word, wires, 2 * coefficient * time, controls)
            continue
        wires = tuple(sorted({w for _, on, _ in group for w in on}))
        if any(isinstance(c, Tensor) for *_, c in group):
            raise CircuitError(
                f"{name or 'An exponential'} is no product of rotations: its Pauli words do not commute, and their "
                "coefficients depend on inputs or weights. Use a product formula (TrotterProduct)"
            )
        if len(wires) > MAX_MATRIX_WIRES:
            raise CircuitError(
                f"{name or 'An exponential'} is no product of rotations: its Pauli words do not commute, and act on "
                f"{len(wires)} wires, where at most {MAX_MATRIX_WIRES} can be diagonalised. Use a product formula "
                "(PennyLane's TrotterProduct, a Qiskit circuit after decompose())"
            )
        energies, vectors = np.linalg.eigh(_matrix(group, wires))
        record_unitary(recorder, vectors.conj().T, wires)
        for word, on, coefficient in _diagonal_terms(energies, wires):
            _rotation(recorder, word, on, 2 * coefficient * time, controls)
        record_unitary(recorder, vectors, wires)


def _rotation(recorder: Recorder, word: str, wires: tuple[int, ...], angle: Any, controls: Mapping[int, bool]) -> None:
    if controls:
        gate = controlled((Step(word, tuple(range(len(wires))), param=0),), len(wires), list(controls.values()))
        recorder.gate(gate, (*controls, *wires), [angle])
    elif word:  # the empty word is a global phase
        recorder.gate(word, wires, [angle])


def _groups(terms: Sequence[Term]) -> list[list[Term]]:
    """The terms in groups: words of different groups commute."""
    n_wires = 1 + max((w for _, wires, _ in terms for w in wires), default=0)
    masks = [Word.of(word, wires, n_wires) for word, wires, _ in terms]
    groups: list[list[int]] = []
    for k in range(len(terms)):
        touching = [group for group in groups if any(masks[k].anticommutes(masks[j]) for j in group)]
        groups = [group for group in groups if group not in touching] + [[*(j for g in touching for j in g), k]]
    return [[terms[k] for k in sorted(group)] for group in sorted(groups, key=min)]


def _matrix(terms: Sequence[Term], wires: tuple[int, ...]) -> np.ndarray:
    matrix = np.zeros((2 ** len(wires),) * 2, dtype=complex)
    for word, on, coefficient in terms:
        letters = dict(zip(on, word, strict=True))
        matrix += float(coefficient) * reduce(np.kron, [_PAULI[letters.get(w, "I")] for w in wires])
    return matrix


def _diagonal_terms(energies: np.ndarray, wires: tuple[int, ...]) -> list[Term]:
    """A diagonal matrix as a sum of words of Z."""
    n = len(wires)
    terms: list[Term] = []
    for subset in range(2**n):
        signs = np.array([(-1) ** (state & subset).bit_count() for state in range(2**n)])
        coefficient = float(signs @ energies) / 2**n
        on = tuple(wires[w] for w in range(n) if subset >> (n - 1 - w) & 1)
        if abs(coefficient) > 1e-14:
            terms.append(("Z" * len(on), on, coefficient))
    return terms
