"""The dense executor: state vectors in torch, written to be read. Any device, any dtype, any order of derivative.

It is the truth that every other executor is compared with, and torch itself differentiates it
(``diff_method="backprop"``).
"""

from __future__ import annotations

import torch
from torch import Tensor

from qbp.circuit.angles import Angles
from qbp.circuit.pauli import Word
from qbp.circuit.program import Expval, Program
from qbp.executors import Capabilities, Results
from qbp.limits import check_memory

__all__ = ["Dense"]


class Dense:
    """State-vector simulation with torch operations. While training it holds B * 2^N complex numbers for each
    rotation."""

    name = "dense"
    shots = None
    capabilities = Capabilities(differentiable=True)

    def __call__(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> Results:
        """Outputs (B, M), differentiable."""
        psi = self.state(program, angles, amplitudes)
        columns = []
        for measurement in program.measurements:
            if isinstance(measurement, Expval):
                terms = [
                    coefficient * _expval(psi, Word.of(word, wires, program.n_qubits), program.n_qubits)
                    for coefficient, word, wires in measurement.terms
                ]
                columns.append(sum(terms[1:], terms[0]).unsqueeze(1))
            else:
                columns.append(_probs(psi, measurement.wires, program.n_qubits))
        return Results(torch.cat(columns, dim=1))

    def state(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> Tensor:
        """The state at the end of the circuit, up to a global phase; (B, 2^N) complex."""
        full = angles.full()
        n = program.n_qubits
        numbers = len(full) * 4 + 2  # the state and three like it while a rotation is applied, and integers
        check_memory(f"{n} qubits and a batch of {len(full)} in {full.dtype}", 2 * full.itemsize * numbers, n)
        if amplitudes is None:
            psi = torch.zeros(len(full), 2**n, dtype=full.dtype.to_complex(), device=full.device)
            psi[:, 0] = 1
        else:
            psi = amplitudes.to(full.dtype.to_complex())
        for op in program.rotations():
            if op.angle is None:
                turn = full.new_full((len(full), 1), op.offset)
            else:
                turn = op.scale * full[:, op.angle : op.angle + 1] + op.offset
            psi = torch.cos(turn / 2) * psi - 1j * torch.sin(turn / 2) * _apply(psi, program.word(op), n)
        return psi


def _apply(psi: Tensor, word: Word, n_qubits: int) -> Tensor:
    """The Pauli word on a batch of states: ``(P psi)[i] = i^k (-1)^parity((i ^ x) & z) psi[i ^ x]``."""
    index = torch.arange(2**n_qubits, device=psi.device) ^ word.x
    return 1j**word.n_y * _signs(index & word.z, n_qubits).to(psi.real.dtype) * psi[:, index]


def _signs(bits: Tensor, n_qubits: int) -> Tensor:
    """(-1)^parity of each integer."""
    parity = torch.zeros_like(bits)
    for q in range(n_qubits):
        parity = parity ^ (bits >> q)
    return 1 - 2 * (parity & 1)


# Equal rows of a batch must give equal bits wherever they stand in it. Products of two complex numbers do not promise
# that (the last rows of a batch may be rounded in another way), nor do sums over an axis that is not contiguous.


def _expval(psi: Tensor, word: Word, n_qubits: int) -> Tensor:
    phi = _apply(psi, word, n_qubits)
    return (psi.real * phi.real + psi.imag * phi.imag).contiguous().sum(1)


def _probs(psi: Tensor, wires: tuple[int, ...], n_qubits: int) -> Tensor:
    p = (psi.real**2 + psi.imag**2).reshape(-1, *[2] * n_qubits)
    rest = [1 + w for w in range(n_qubits) if w not in wires]
    ordered = p.permute(0, *(1 + w for w in wires), *rest)
    return ordered.reshape(len(psi), 2 ** len(wires), 2 ** len(rest)).contiguous().sum(2)
