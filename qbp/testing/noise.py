"""Noise to test with: `NOISY`, known traps written by hand, and `with_noise`, everything in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import reduce
from itertools import product
from typing import Any

import numpy as np

from qbp.circuit.program import Channel, Expval, Op, Program
from qbp.testing.programs import NASTY

__all__ = ["NOISY", "random_channel", "with_noise"]

_PAULI = {"I": np.eye(2), "X": np.array([[0, 1], [1, 0]]), "Y": np.array([[0, -1j], [1j, 0]]), "Z": np.diag([1, -1])}
_ONE_WIRE: dict[str, Callable[[float], Any]] = {  # Kraus operators by the strength of the noise
    "damping": lambda p: [np.diag([1, np.sqrt(1 - p)]), np.sqrt(p) * np.array([[0, 1], [0, 0]])],
    "dephasing": lambda p: [np.sqrt(1 - p) * np.eye(2), np.sqrt(p) * _PAULI["Z"]],
    "flip": lambda p: [np.sqrt(1 - p) * np.eye(2), np.sqrt(p) * _PAULI["X"]],
    "depolarizing": lambda p: [np.sqrt(1 - p) * np.eye(2), *(np.sqrt(p / 3) * _PAULI[letter] for letter in "XYZ")],
    "fully depolarizing": lambda p: [word / 2 for word in _PAULI.values()],  # PennyLane's with p = 3/4
    "reset": lambda p: [np.array([[1, 0], [0, 0]]), np.array([[0, 1], [0, 0]])],
    "reset to 1": lambda p: [np.array([[0, 0], [1, 0]]), np.array([[0, 0], [0, 1]])],
    "almost a reset": lambda p: [np.diag([1, 1e-5]), np.sqrt(1 - 1e-10) * np.array([[0, 1], [0, 0]])],
    "random": lambda p: _random_kraus(np.random.default_rng(int(1e9 * p)), 3, 2),
}


def random_channel(rng: np.random.Generator, wires: tuple[int, ...]) -> Channel:
    """Noise of any kind on some wires: unital or not, weak, or so strong that nothing undoes it.

    Args:
        rng: the source of randomness.
        wires: where it acts.
    """
    kinds = list(_ONE_WIRE) if len(wires) == 1 else ["random", "depolarizing", "correlated flips", "product"]
    kind = str(rng.choice(kinds))
    if kind == "product":
        parts = [random_channel(rng, (w,)) for w in wires]
        return Channel.of_matrix(kind, wires, reduce(np.kron, [part.matrix() for part in parts]))
    if kind in _ONE_WIRE and len(wires) == 1:
        return Channel.of_matrix(kind, wires, _transfer(_ONE_WIRE[kind](float(rng.uniform(0, 0.4)))))
    size = 2 ** len(wires)
    if kind == "depolarizing":
        p = float(rng.choice([0.02, 0.3, 1.0]))
        return Channel.of_matrix(kind, wires, np.diag([1.0] + [1 - p] * (size**2 - 1)))
    if kind == "correlated flips":
        weights = np.sqrt(rng.dirichlet(np.ones(3)))
        words = (_letters(str(rng.choice(list("IXYZ"))) for _ in wires) for _ in range(3))
        return Channel.of_matrix(kind, wires, _transfer([w * word for w, word in zip(weights, words, strict=True)]))
    n_kraus = int(rng.integers(1, 4))
    return Channel.of_matrix("random", wires, _transfer(_random_kraus(rng, n_kraus, size)))


def _random_kraus(rng: np.random.Generator, n_kraus: int, size: int) -> np.ndarray:
    """Kraus operators (n_kraus, size, size) of a random channel: the blocks of a random isometry."""
    blocks = rng.normal(size=(n_kraus * size, size)) + 1j * rng.normal(size=(n_kraus * size, size))
    return np.linalg.qr(blocks)[0].reshape(n_kraus, size, size)


def _letters(letters: Iterable[str]) -> np.ndarray:
    return reduce(np.kron, [_PAULI[letter] for letter in letters])


def _transfer(kraus: Any) -> np.ndarray:
    """The Pauli transfer matrix of Kraus operators."""
    n_wires = len(kraus[0]).bit_length() - 1
    words = [_letters(letters) for letters in product("IXYZ", repeat=n_wires)]
    after = [sum(k @ word @ k.conj().T for k in kraus) for word in words]
    return np.array([[np.trace(p @ q).real for q in after] for p in words]) / 2**n_wires


def with_noise(rng: np.random.Generator, program: Program) -> Program:
    """The program with noise after some of its ops, but not within those of one angle, and readout errors.

    Args:
        rng: the source of randomness.
        program: any program.
    """
    ops: list[Op] = []
    for k, op in enumerate(program.ops):
        ops.append(op)
        angles = [getattr(other, "angle", None) for other in program.ops[k : k + 2]]
        if len(angles) == 2 and angles[0] is not None and angles[0] == angles[1]:
            continue
        for _ in range(int(rng.choice([0, 1, 1, 2]))):
            n_wires = min(program.n_qubits, int(rng.choice([1, 1, 2])))
            ops.append(random_channel(rng, tuple(int(w) for w in rng.choice(program.n_qubits, n_wires, replace=False))))
    read = [w for w in range(program.n_qubits) if rng.random() < 0.3]
    return replace(program, ops=tuple(ops), readout=tuple((w, *rng.uniform(0, 0.3, 2).tolist()) for w in read))


def _of_three(rng: np.random.Generator) -> Channel:
    """A channel on three wires."""
    return Channel.of_matrix("QubitChannel", (2, 0, 1), _transfer(_random_kraus(rng, 2, 8)))


def _noisy(program: Program, after: str, *kinds: str, readout: tuple[tuple[int, float, float], ...] = ()) -> Program:
    """The program with noise of some kinds on each wire of each op, or only at its end."""

    def noise(wires: Iterable[int]) -> list[Op]:
        return [Channel.of_matrix(kind, (w,), _transfer(_ONE_WIRE[kind](0.07))) for w in wires for kind in kinds]

    ops: list[Op] = []
    for op in program.ops:
        ops += [op, *(noise(op.wires) if after == "each op" else ())]
    return replace(program, ops=(*ops, *(noise(range(program.n_qubits)) if after == "all" else ())), readout=readout)


NOISY: dict[str, Program] = {
    "noise alone": Program(
        1, (random_channel(np.random.default_rng(1), (0,)),), (Expval.word("Z", 0), Expval.word("X", 0)), 0
    ),
    "readout errors alone": replace(NASTY["probabilities in another order"], readout=((2, 0.1, 0.02), (0, 0.0, 0.3))),
    "words are read wrongly": replace(NASTY["asymmetric"], readout=((1, 0.05, 0.2), (2, 0.3, 0.01))),
    "depolarizing and damping": _noisy(NASTY["one angle for eight words"], "all", "depolarizing", "damping"),
    "noise after each gate": _noisy(
        NASTY["both orders of two wires"], "each op", "depolarizing", "damping", readout=((0, 0.1, 0.2),)
    ),
    "noise after long words": _noisy(NASTY["words of all wires"], "each op", "damping"),
    "nothing is left": _noisy(NASTY["controlled rotations"], "each op", "fully depolarizing"),
    "resets": _noisy(NASTY["asymmetric"], "each op", "reset"),
    "almost resets": _noisy(NASTY["both orders of two wires"], "each op", "almost a reset"),
    "noise on two wires": replace(
        NASTY["asymmetric"],
        ops=(
            *NASTY["asymmetric"].ops[:3],
            random_channel(np.random.default_rng(2), (2, 0)),
            *NASTY["asymmetric"].ops[3:],
            random_channel(np.random.default_rng(3), (0, 1)),
        ),
    ),
    "noise on three wires": replace(
        NASTY["asymmetric"],
        ops=(*NASTY["asymmetric"].ops[:4], _of_three(np.random.default_rng(4)), *NASTY["asymmetric"].ops[4:]),
    ),
    "amplitudes and noise": _noisy(NASTY["amplitudes"], "each op", "damping", "flip"),
}
"""Programs with noise on which executors may go wrong, by what is special about them."""
