"""Channels from numbers: PennyLane's by name, Pauli errors, Kraus operators; as Pauli transfer matrices."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from qbp.circuit.channels import LETTERS, PAULI
from qbp.errors import ArgumentError

__all__ = ["ROWS", "of_kraus", "pauli_error"]


def _pauli(x: float, y: float, z: float, drift: float = 0.0) -> np.ndarray:
    """Of one wire: each letter times a number, and ``<Z>`` besides drawn towards `drift` in the end."""
    matrix = np.diag([1.0, x, y, z])
    matrix[3, 0] = drift
    return matrix


def depolarizing(p: float) -> np.ndarray:
    """One of X, Y, Z with probability p / 3 each (PennyLane's; Qiskit's parameter is 4 p / 3)."""
    _check_probability("p", p)
    kept = 1 - 4 * p / 3
    return _pauli(kept, kept, kept)


def bit_flip(p: float) -> np.ndarray:
    """X with probability p."""
    _check_probability("p", p)
    return _pauli(1, 1 - 2 * p, 1 - 2 * p)


def phase_flip(p: float) -> np.ndarray:
    """Z with probability p."""
    _check_probability("p", p)
    return _pauli(1 - 2 * p, 1 - 2 * p, 1)


def amplitude_damping(gamma: float) -> np.ndarray:
    """|1> decays into |0> with probability gamma (Nielsen and Chuang, section 8.3.5)."""
    return generalized_amplitude_damping(gamma, 0.0)


def generalized_amplitude_damping(gamma: float, p: float) -> np.ndarray:
    """Damping towards an equilibrium in which |1> has probability p (Nielsen and Chuang, equation 8.116)."""
    _check_probability("gamma", gamma)
    _check_probability("p", p)
    kept = math.sqrt(1 - gamma)
    return _pauli(kept, kept, 1 - gamma, gamma * (1 - 2 * p))


def phase_damping(gamma: float) -> np.ndarray:
    """Phase is lost and energy is not (Nielsen and Chuang, section 8.3.6)."""
    _check_probability("gamma", gamma)
    kept = math.sqrt(1 - gamma)
    return _pauli(kept, kept, 1)


def thermal_relaxation(pe: float, t1: float, t2: float, tg: float) -> np.ndarray:
    """Time tg in an environment with times of relaxation t1 and of dephasing t2, where |1> has probability pe in the
    end: coherences decay as ``exp(-tg / t2)``, populations as ``exp(-tg / t1)`` (arXiv 2101.02109)."""
    _check_probability("pe", pe)
    if not (t1 > 0 and t2 > 0 and tg >= 0 and t2 <= 2 * t1 * (1 + 1e-12)):
        raise ArgumentError(
            f"Arguments `t1`, `t2`, `tg` must be positive times with t2 at most 2 t1, but are {t1!r}, {t2!r}, {tg!r}"
        )
    energy, phase = math.exp(-tg / t1), math.exp(-tg / t2)
    return _pauli(phase, phase, energy, (1 - energy) * (1 - 2 * pe))


def reset_error(p0: float, p1: float) -> np.ndarray:
    """Reset to |0> with probability p0, to |1> with probability p1."""
    for name, p in (("p0", p0), ("p1", p1), ("p0 + p1", p0 + p1)):
        _check_probability(name, p)
    kept = 1 - p0 - p1
    return _pauli(kept, kept, kept, p0 - p1)


ROWS: dict[str, Callable[..., np.ndarray]] = {
    "DepolarizingChannel": depolarizing,
    "BitFlip": bit_flip,
    "PhaseFlip": phase_flip,
    "AmplitudeDamping": amplitude_damping,
    "GeneralizedAmplitudeDamping": generalized_amplitude_damping,
    "PhaseDamping": phase_damping,
    "ThermalRelaxationError": thermal_relaxation,
    "ResetError": reset_error,
}
"""The Pauli transfer matrices (4, 4) of channels on one wire, as functions of PennyLane's parameters."""


def pauli_error(word: str, p: float) -> np.ndarray:
    """The Pauli word with probability p: the words that anticommute with it times ``1 - 2 p``."""
    _check_probability("p", p)
    signs: np.ndarray = np.ones(1)
    for letter in word:
        signs = np.kron(signs, [1.0 if "I" in (letter, other) or letter == other else -1.0 for other in LETTERS])
    return np.diag((1 - p) + p * signs)


def of_kraus(kraus: Sequence[np.ndarray]) -> np.ndarray:
    """The Pauli transfer matrix ``R[P, Q] = sum_i Tr(P K_i Q K_i^dagger) / 2^k`` of Kraus operators (2^k, 2^k).

    The first wire is the most significant bit of their indices, as of their words.
    """
    operators = np.stack([np.asarray(k, dtype=complex) for k in kraus])
    words = np.ones((1, 1, 1), dtype=complex)
    while len(words[0]) < operators.shape[1]:
        words = np.einsum("aij,bkl->abikjl", words, PAULI).reshape(4 * len(words), *[2 * len(words[0])] * 2)
    turned = np.einsum("kij,qjl,kml->qim", operators, words, operators.conj())
    return np.einsum("pij,qji->pq", words, turned).real / len(words[0])


def _check_probability(name: str, p: float) -> None:
    if not 0 <= p <= 1:
        raise ArgumentError(f"Argument `{name}` must be a probability of 0 to 1, but is {p!r}")
