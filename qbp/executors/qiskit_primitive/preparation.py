"""Amplitudes as angles: a circuit that prepares any state, so that samples differ by angles only.

A program that starts from amplitudes becomes one that starts from |0...0> and has more angles. So a batch of states is
one circuit with many parameter sets, like any other batch: transpiled once, sent as one job.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qbp.circuit.program import Clifford, Op, Program, Rotation

__all__ = ["preparation_angles", "prepared"]


def prepared(program: Program, is_complex: bool) -> Program:
    """The program with its preparation as ops; `preparation_angles` are the values of its further angles.

    Uniformly controlled RY rotations set the absolute values and, for real amplitudes, the signs; uniformly controlled
    RZ rotations then set the phases of complex ones (arXiv quant-ph/0407010, figure 2). All up to a global phase.
    """
    n, k = program.n_qubits, program.n_angles
    ops: list[Op] = []
    for letter in "YZ" if is_complex else "Y":
        for target in range(n):
            ops += _uniformly_controlled(letter, target, k)
            k += 2**target
    return replace(program, ops=(*ops, *program.ops), n_angles=k, amplitudes=False)


def preparation_angles(amplitudes: np.ndarray) -> np.ndarray:
    """The angles of the preparation.

    Args:
        amplitudes: (S, 2^N), real or complex, of norm 1.

    Returns:
        (S, 2^N - 1) of real, (S, 2 (2^N - 1)) of complex amplitudes, in radians.
    """
    n_sets, dim = amplitudes.shape
    n = dim.bit_length() - 1
    columns = []
    for target in range(n):  # the qubit's angle for each state of those before it
        halves = amplitudes.reshape(n_sets, 2**target, 2, -1)
        if target == n - 1 and not np.iscomplexobj(amplitudes):
            sides = halves[..., 0]
        else:
            sides = np.linalg.norm(halves, axis=3)
        columns.append(_mixed(2 * np.arctan2(sides[:, :, 1], sides[:, :, 0])))
    if np.iscomplexobj(amplitudes):
        phases = np.angle(amplitudes)
        for target in range(n):
            halves = phases.reshape(n_sets, 2**target, 2, -1).mean(axis=3)
            columns.append(_mixed(halves[:, :, 1] - halves[:, :, 0]))
    return np.concatenate(columns, axis=1)


def _uniformly_controlled(letter: str, target: int, first: int) -> list[Op]:
    """A rotation of wire `target` whose angle depends on the wires before it: 2^target rotations and CNOTs."""
    n_steps = 2**target
    ops: list[Op] = []
    for step in range(n_steps):
        ops.append(Rotation(letter, (target,), first + step))
        if target:
            changes = _gray(step) ^ _gray((step + 1) % n_steps)
            ops.append(Clifford("CNOT", (target - changes.bit_length(), target)))
    return ops


def _gray(i: int) -> int:
    return i ^ (i >> 1)


def _mixed(angles: np.ndarray) -> np.ndarray:
    """The angles of the steps from the angles for each state of the controls, (S, 2^k) both.

    The CNOTs turn the sign of step i, for state j, to the parity of ``j & gray(i)``.
    """
    size = angles.shape[1]
    bits = np.arange(size)[:, None] & np.array([_gray(i) for i in range(size)])[None, :]
    signs = (-1.0) ** np.array([[int(b).bit_count() for b in row] for row in bits])
    return angles @ signs / size
