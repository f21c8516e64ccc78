"""What a program gives, a second time: dense matrices in NumPy, sharing no code with the executors.

Gates are textbook matrices, words are Kronecker products, gradients are shifts of single rotations: slow and plain.
With noise states are density matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, reduce

import numpy as np

from qbp.circuit.angles import Angles
from qbp.circuit.program import Channel, Clifford, Expval, Program, Rotation

__all__ = ["reference_outputs", "reference_vjp"]

PAULI = {
    "I": np.eye(2),
    "X": np.array([[0, 1], [1, 0]]),
    "Y": np.array([[0, -1j], [1j, 0]]),
    "Z": np.diag([1, -1]),
}
CLIFFORD = {
    "Identity": PAULI["I"],
    "PauliX": PAULI["X"],
    "PauliY": PAULI["Y"],
    "PauliZ": PAULI["Z"],
    "Hadamard": np.array([[1, 1], [1, -1]]) / np.sqrt(2),
    "S": np.diag([1, 1j]),
    "Adjoint(S)": np.diag([1, -1j]),
    "SX": np.array([[1 + 1j, 1 - 1j], [1 - 1j, 1 + 1j]]) / 2,
    "Adjoint(SX)": np.array([[1 - 1j, 1 + 1j], [1 + 1j, 1 - 1j]]) / 2,
    "CNOT": np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]),
    "CY": np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, -1j], [0, 0, 1j, 0]]),
    "CZ": np.diag([1, 1, 1, -1]),
    "SWAP": np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]),
    "ISWAP": np.array([[1, 0, 0, 0], [0, 0, 1j, 0], [0, 1j, 0, 0], [0, 0, 0, 1]]),
    "ECR": np.array([[0, 0, 1, 1j], [0, 0, 1j, 1], [1, -1j, 0, 0], [-1j, 1, 0, 0]]) / np.sqrt(2),
}


@dataclass(frozen=True)
class ReferenceGradients:
    """Gradients of ``sum(grad * outputs)``: of each sample's angles (B, K), and amplitudes (B, 2^N) or None."""

    angles: np.ndarray
    amplitudes: np.ndarray | None


def reference_outputs(program: Program, angles: Angles | np.ndarray, amplitudes: object = None) -> np.ndarray:
    """The outputs (B, M) of a program, from dense matrices in float64.

    Args:
        program: what runs.
        angles: `Angles`, or all angles of all samples as an array (B, K), in radians.
        amplitudes: (B, 2^N), real or complex, where the program starts from amplitudes.
    """
    full = _full(angles)
    return _run(program, _turns(program, full), _states(program, len(full), amplitudes))


def reference_vjp(
    program: Program, angles: Angles | np.ndarray, grad: object, amplitudes: object = None
) -> ReferenceGradients:
    """Gradients of ``sum(grad * outputs)``, exact: no step is small.

    Each rotation has its own two-term shift, ``df/dt = [f(t + pi/2) - f(t - pi/2)] / 2`` (arXiv 1811.11184), and an
    angle adds up those of the rotations that it turns. Outputs are quadratic in the amplitudes, so that
    ``[f(a + e) - f(a - e)] / 2`` is the derivative along e; complex gradients are ``d/dRe + i d/dIm``, as torch's.

    Args:
        grad: (B, M).
    """
    full, weight = _full(angles), np.asarray(grad, dtype=float)
    turns, states = _turns(program, full), _states(program, len(full), amplitudes)

    def slopes(turns: list[np.ndarray], states: list[np.ndarray]) -> np.ndarray:
        """(S, B) from S pairs of runs, side by side."""
        outputs = _run(program, np.hstack(turns), np.vstack(states)).reshape(-1, 2, *weight.shape)
        return ((outputs[:, 0] - outputs[:, 1]) / 2 * weight).sum(2)

    rotations = [op for op in program.ops if isinstance(op, Rotation)]
    turned = [r for r, op in enumerate(rotations) if op.angle is not None]
    result = np.zeros(full.shape)
    if turned:
        shifts = [sign * np.pi / 2 * np.eye(len(rotations))[:, [r]] for r in turned for sign in (1, -1)]
        all_slopes = slopes([turns + shift for shift in shifts], [states] * len(shifts))
        for r, slope in zip(turned, all_slopes, strict=True):
            result[:, rotations[r].angle] += rotations[r].scale * slope
    if amplitudes is None:
        return ReferenceGradients(result, None)
    complex_valued = np.iscomplexobj(np.asarray(amplitudes))
    units = [unit * direction for direction in (1, 1j)[: 1 + complex_valued] for unit in np.eye(states.shape[1])]
    steps = [sign * unit for unit in units for sign in (1, -1)]
    along = slopes([turns] * len(steps), [states + step for step in steps])
    wanted = along.T @ np.array(units)
    return ReferenceGradients(result, wanted if complex_valued else wanted.real)


def _full(angles: Angles | np.ndarray) -> np.ndarray:
    if not isinstance(angles, Angles):
        return np.asarray(angles, dtype=float)
    batched, shared = angles.batched.detach().double().numpy(), angles.shared.detach().double().numpy()
    return np.hstack([batched, np.tile(shared, (len(batched), 1))])


def _turns(program: Program, full: np.ndarray) -> np.ndarray:
    """The angles of all rotations, fixed ones too, (R, B)."""
    turns = [
        np.full(len(full), op.offset) if op.angle is None else op.scale * full[:, op.angle] + op.offset
        for op in program.ops
        if isinstance(op, Rotation)
    ]
    return np.array(turns).reshape(len(turns), len(full))


def _states(program: Program, n_samples: int, amplitudes: object) -> np.ndarray:
    """The states that the samples start from, (B, 2^N)."""
    if amplitudes is not None:
        return np.asarray(amplitudes, dtype=complex)
    return np.tile(np.eye(1, 2**program.n_qubits, dtype=complex), (n_samples, 1))


def _run(program: Program, turns: np.ndarray, states: np.ndarray) -> np.ndarray:
    n = program.n_qubits
    if program.is_noisy:
        return _run_noisy(program, turns, states)
    psi = states.T
    rotation = iter(turns)
    for op in program.ops:
        if isinstance(op, Clifford):
            psi = _gate(op.name, op.wires, n) @ psi
        elif isinstance(op, Rotation):
            half = next(rotation) / 2
            psi = np.cos(half) * psi - 1j * np.sin(half) * (_word(op.pauli, op.wires, n) @ psi)
    rows: list[np.ndarray] = []
    for measurement in program.measurements:
        if isinstance(measurement, Expval):
            observable = sum(c * _word(word, wires, n) for c, word, wires in measurement.terms)
            rows.append((psi.conj() * (observable @ psi)).sum(0).real)
        else:
            outcomes = np.zeros((2 ** len(measurement.wires), psi.shape[1]))
            for j in range(2**n):
                bits = f"{j:0{n}b}"
                outcomes[int("".join(bits[w] for w in measurement.wires), 2)] += abs(psi[j]) ** 2
            rows.extend(outcomes)
    return np.array(rows).T


def _run_noisy(program: Program, turns: np.ndarray, states: np.ndarray) -> np.ndarray:
    """The same with density matrices (B, 2^N, 2^N)."""
    n = program.n_qubits
    rho = states[:, :, None] * states[:, None, :].conj()
    rotation = iter(turns)
    for op in program.ops:
        if isinstance(op, Channel):
            rho = _on_wires(op, rho, n)
        else:
            if isinstance(op, Clifford):
                gate = np.broadcast_to(_gate(op.name, op.wires, n), rho.shape)
            else:
                half = next(rotation)[:, None, None] / 2
                gate = np.cos(half) * np.eye(2**n) - 1j * np.sin(half) * _word(op.pauli, op.wires, n)
            rho = gate @ rho @ gate.conj().transpose(0, 2, 1)
    errors = {wire: (ones, zeros) for wire, ones, zeros in program.readout}
    rows: list[np.ndarray] = []
    for measurement in program.measurements:
        if isinstance(measurement, Expval):
            observable = sum(
                c
                * reduce(
                    np.matmul,
                    [_as_read(letter, w, n, errors) for letter, w in zip(word, wires, strict=True)],
                    np.eye(2**n),
                )
                for c, word, wires in measurement.terms
            )
            rows.append(np.einsum("ij,bji->b", observable, rho).real)
        else:
            for outcome in range(2 ** len(measurement.wires)):
                bits = f"{outcome:0{len(measurement.wires)}b}"
                effects = [
                    (np.eye(2**n) + (-1) ** int(bit) * _as_read("Z", w, n, errors)) / 2
                    for bit, w in zip(bits, measurement.wires, strict=True)
                ]
                rows.append(np.einsum("ij,bji->b", reduce(np.matmul, effects), rho).real)
    return np.array(rows).T


def _as_read(letter: str, wire: int, n_qubits: int, errors: dict[int, tuple[float, float]]) -> np.ndarray:
    """What is measured of a letter: +1 where 0 is read, -1 where 1 is."""
    ones, zeros = errors.get(wire, (0.0, 0.0))
    plus, minus = ((np.eye(2**n_qubits) + sign * _word(letter, (wire,), n_qubits)) / 2 for sign in (1, -1))
    return (1 - 2 * ones) * plus + (2 * zeros - 1) * minus


def _on_wires(channel: Channel, rho: np.ndarray, n_qubits: int) -> np.ndarray:
    """The channel on density matrices (B, 2^N, 2^N): ``E(rho) = sum R[P, Q] P Tr(Q rho) / 2^k`` on its wires."""
    k = len(channel.wires)
    words = [_word_of(index, tuple(range(k)), k) for index in range(4**k)]
    matrix = sum(value / 2**k * np.multiply.outer(words[p], words[q].T) for p, q, value in channel.transfer)
    cube = rho.reshape(-1, *[2] * (2 * n_qubits))
    axes = [1 + w for w in channel.wires] + [1 + n_qubits + w for w in channel.wires]
    moved = np.moveaxis(cube, axes, range(1, 1 + 2 * k))
    after = np.asarray(matrix).reshape(4**k, 4**k) @ moved.reshape(len(rho), 4**k, -1)
    return np.moveaxis(after.reshape(moved.shape), range(1, 1 + 2 * k), axes).reshape(rho.shape)


def _word_of(index: int, wires: tuple[int, ...], n_qubits: int) -> np.ndarray:
    """The word with a number of base 4, the first wire the most significant digit."""
    digits = [index >> 2 * (len(wires) - 1 - k) & 3 for k in range(len(wires))]
    on = [(wire, "IXYZ"[digit]) for wire, digit in zip(wires, digits, strict=True) if digit]
    return _word("".join(letter for _, letter in on), tuple(wire for wire, _ in on), n_qubits)


@cache
def _word(pauli: str, wires: tuple[int, ...], n_qubits: int) -> np.ndarray:
    letters = ["I"] * n_qubits
    for letter, wire in zip(pauli, wires, strict=True):
        letters[wire] = letter
    return reduce(np.kron, [PAULI[letter] for letter in letters])


@cache
def _gate(name: str, wires: tuple[int, ...], n_qubits: int) -> np.ndarray:
    """The matrix of a Clifford gate on `wires` of `n_qubits`."""
    order = [*wires, *(w for w in range(n_qubits) if w not in wires)]
    matrix = np.kron(CLIFFORD[name], np.eye(2 ** (n_qubits - len(wires)))).reshape([2] * (2 * n_qubits))
    place = np.argsort(order)
    return matrix.transpose([*place, *(n_qubits + place)]).reshape(2**n_qubits, -1)
