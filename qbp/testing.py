"""The conformance suite: what every executor, gradient rule and module is held to; usable from outside qbp.

Two independent answers for every number: the second one is `reference`, dense matrices in NumPy, built from
Kronecker products and textbook matrices, which shares no code with the executors. The programs are nasty:
`NASTY` holds known traps, `random_program` everything in between. A check that fails raises `AssertionError`
and says where.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from qbp.angles import Angles
from qbp.gates import GATES
from qbp.program import Clifford, Expval, Measurement, Op, Probs, Program, Rotation, gate_ops

__all__ = ["random_angles", "random_program"]

PI = math.pi


# ---- programs ----------------------------------------------------------------------------------------


def random_program(
    rng: np.random.Generator,
    *,
    n_qubits: tuple[int, int] = (1, 5),
    n_ops: tuple[int, int] = (0, 20),
    n_angles: tuple[int, int] = (0, 12),
    gates: Iterable[str] | None = None,
    amplitudes: bool = False,
    measurements: Sequence[Measurement] | None = None,
) -> Program:
    """A random program made to be nasty.

    Gates of all kinds, in which a parameter is an angle or fixed (often at a multiple of pi/2); rotations
    about Pauli words of any length, with scales and offsets; one angle for several commuting words; angles that
    turn nothing; unused wires; circuits that end in Hadamard gates; weighted sums of words, identities,
    probabilities of wires in any order.

    Args:
        rng: the source of randomness; equal states give equal programs.
        n_qubits, n_ops, n_angles: smallest and largest number of wires, of gate calls and of angles.
        gates: names in `qbp.gates.GATES` to draw from; all of them by default.
        amplitudes: whether the program starts from amplitudes.
        measurements: what is measured, instead of something random.
    """

    def between(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    n = between(*n_qubits)
    wires = [int(w) for w in rng.permutation(n)]
    live = wires[: max(1, n - (rng.random() < 0.3))]  # sometimes one wire stays unused
    rows = [GATES[name] for name in (GATES if gates is None else gates) if GATES[name].n_wires <= len(live)]
    least, most = n_angles
    n_all = between(least, most)
    unused = [int(k) for k in rng.permutation(n_all)]

    def some_wires(k: int) -> tuple[int, ...]:
        return tuple(int(w) for w in rng.choice(live, k, replace=False))

    def word(k: int) -> str:
        return "".join(rng.choice(list("XYZ"), k))

    def value() -> int | float:
        if unused and rng.random() < 0.8:
            return unused.pop()
        return float(rng.choice([PI / 2 * between(-4, 4), rng.uniform(-7, 7), 1e-9]))

    ops: list[Op] = []
    for _ in range(between(*n_ops)):
        kind = rng.random()
        if rows and (kind < 0.7 or gates is not None):
            gate = rows[between(0, len(rows) - 1)]
            ops += gate_ops(gate, some_wires(gate.n_wires), [value() for _ in range(gate.n_params)])
        elif gates is None:
            k = between(1, len(live))
            # Words that differ on two wires commute.
            words, on, turn = [word(k)], some_wires(k), value()
            if kind > 0.9 and k > 1:
                others = [rng.choice(list("XYZ".replace(letter, ""))) for letter in words[0][:2]]
                words.append("".join(others) + words[0][2:])
            for pauli in words:
                scale, offset = float(rng.choice([1, 1, -1, 0.5, 2])), float(rng.choice([0, 0, PI / 2, 0.3]))
                if isinstance(turn, int):
                    ops.append(Rotation(pauli, on, turn, scale, offset))
                else:
                    ops.append(Rotation(pauli, on, None, offset=turn))
    if rng.random() < 0.4:
        ops += [Clifford("Hadamard", (w,)) for w in live]
    def measurement() -> Measurement:
        def term() -> tuple[float, str, tuple[int, ...]]:
            k = between(0, n)
            return float(rng.normal()), word(k), tuple(int(w) for w in rng.permutation(n)[:k])

        kind = rng.random()
        if kind < 0.2:
            return Probs(tuple(int(w) for w in rng.permutation(n)[: between(1, n)]))
        if kind < 0.5:
            return Expval.word("Z", between(0, n - 1))
        return Expval(tuple(term() for _ in range(between(1, 3))))

    measured = measurements or [measurement() for _ in range(between(1, 3))]
    program = Program(n, tuple(ops), tuple(measured), n_all, amplitudes)
    # Sometimes angles that turn nothing stay.
    return program.drop_ops(())[0] if least == 0 and rng.random() < 0.7 else program


def random_angles(
    rng: np.random.Generator,
    program: Program,
    n_samples: int,
    *,
    n_batched: int,
    dtype: torch.dtype = torch.float64,
) -> Angles:
    """Random angles of a batch, some of them at multiples of pi/2 or beyond one turn.

    Args:
        program: the program they are for.
        n_samples: B.
        n_batched: Kb, how many of the program's angles differ between samples.
    """
    values = rng.normal(scale=2.0, size=(n_samples + 1, program.n_angles))
    special = rng.choice([0.0, PI / 2, -PI, 2 * PI, 9.0], size=values.shape)
    full = torch.tensor(np.where(rng.random(values.shape) < 0.2, special, values), dtype=dtype)
    return Angles(full[:n_samples, :n_batched].clone(), full[n_samples, n_batched:].clone())
