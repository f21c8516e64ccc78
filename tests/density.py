"""What a circuit with noise gives, by density matrices in torch that share no code with the executors."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from qbp.circuit.channels import Channel
from qbp.circuit.program import Clifford, Expval, Program
from qbp.circuit.tracing import Circuit
from qbp.testing.reference import CLIFFORD, PAULI

LETTERS = {letter: torch.as_tensor(matrix, dtype=torch.complex128) for letter, matrix in PAULI.items()}


def word_matrix(letters: str) -> Tensor:
    """A Pauli word as a matrix, its first letter that of the most significant bit."""
    return reduce(torch.kron, [LETTERS[letter] for letter in letters], torch.ones(1, 1, dtype=torch.complex128))


def spread(word: str, wires: tuple[int, ...], n: int) -> Tensor:
    on = dict(zip(wires, word, strict=True))
    return word_matrix("".join(on.get(w, "I") for w in range(n)))


def density_outputs(program: Program, angles: Tensor) -> Tensor:
    """Outputs (M,) of one sample's angles (K,)."""
    n = program.n_qubits
    rho = torch.zeros(2**n, 2**n, dtype=torch.complex128)
    rho[0, 0] = 1
    for op in program.ops:
        if isinstance(op, Channel):
            k = len(op.wires)
            names = ["".join("IXYZ"[q >> 2 * (k - 1 - i) & 3] for i in range(k)) for q in range(4**k)]
            left = _on_the_left(rho, op.wires, n)
            parts = {q: _partial(left, word_matrix(names[q])) for q in {column for _, column, _ in op.transfer}}
            new = sum(v / 2**k * torch.kron(word_matrix(names[p]), parts[q]) for p, q, v in op.transfer)
            rho = _from_the_left(new, op.wires, n)
            continue
        if isinstance(op, Clifford):
            small = torch.as_tensor(CLIFFORD[op.name], dtype=torch.complex128)
            rest = torch.eye(2 ** (n - len(op.wires)), dtype=torch.complex128)
            turned = torch.kron(small, rest)
            rho = _from_the_left(turned @ _on_the_left(rho, op.wires, n) @ turned.mH, op.wires, n)
        else:
            t = op.offset + (0 if op.angle is None else op.scale * angles[op.angle])
            t = torch.as_tensor(t, dtype=torch.float64)
            word = spread(op.pauli, op.wires, n)
            unitary = torch.cos(t / 2) * torch.eye(2**n, dtype=torch.complex128) - 1j * torch.sin(t / 2) * word
            rho = unitary @ rho @ unitary.mH
    outputs = []
    flips = {wire: (p10, p01) for wire, p10, p01 in program.readout}
    for m in program.measurements:
        if isinstance(m, Expval):
            total = torch.zeros((), dtype=torch.float64)
            for c, word, wires in m.terms:
                seen = torch.eye(2**n, dtype=torch.complex128)
                for letter, w in zip(word, wires, strict=True):
                    p10, p01 = flips.get(w, (0.0, 0.0))
                    seen = seen @ (
                        (p01 - p10) * torch.eye(2**n, dtype=torch.complex128)
                        + (1 - p10 - p01) * spread(letter, (w,), n)
                    )
                total = total + c * torch.trace(rho @ seen).real
            outputs.append(total[None])
        else:
            p = rho.diagonal().real.reshape([2] * n)
            for w in m.wires:
                p10, p01 = flips.get(w, (0.0, 0.0))
                read = torch.tensor([[1 - p10, p01], [p10, 1 - p01]], dtype=torch.float64)
                p = torch.tensordot(read, p, ([1], [w])).movedim(0, w)
            rest = [w for w in range(n) if w not in m.wires]
            outputs.append(p.permute(*m.wires, *rest).reshape(2 ** len(m.wires), -1).sum(1))
    return torch.cat(outputs)


def _on_the_left(rho: Tensor, wires: tuple[int, ...], n: int) -> Tensor:
    order = [*wires, *[w for w in range(n) if w not in wires]]
    cube = rho.reshape([2] * 2 * n).permute(*order, *[n + w for w in order])
    return cube.reshape(2**n, 2**n)


def _from_the_left(rho: Tensor, wires: tuple[int, ...], n: int) -> Tensor:
    order = [*wires, *[w for w in range(n) if w not in wires]]
    back = [order.index(w) for w in range(n)]
    return rho.reshape([2] * 2 * n).permute(*back, *[n + w for w in back]).reshape(2**n, 2**n)


def _partial(rho: Tensor, word: Tensor) -> Tensor:
    """The trace of `rho` with a word on its first wires, over these."""
    k, rest = len(word), len(rho) // len(word)
    return torch.einsum("ij,jaib->ab", word, rho.reshape(k, rest, k, rest))


def circuit_outputs(circuit: Circuit, inputs: Tensor, weights: Tensor) -> Tensor:
    """Outputs (B, M) of a traced circuit, which torch differentiates."""
    full = circuit.angle_map(inputs, weights).full()
    return torch.stack([density_outputs(circuit.program, row) for row in full])
