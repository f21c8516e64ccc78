"""What a circuit, and a model around it, is able to do: expressibility, entangling capability, gradients by number of
qubits, Fisher spectrum, effective dimension. All of it exactly and in float64, whatever the layer itself runs on.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from qbp.analysis.fisher import angle_jacobian
from qbp.circuit.angles import Angles
from qbp.circuit.program import Expval, Measurement, Program
from qbp.circuit.tracing import Circuit
from qbp.errors import CircuitError
from qbp.executors.dense import Dense
from qbp.nn.layer import QuantumLayer
from qbp.nn.simulability import WIDEST_STATE

__all__ = [
    "entangling_capability",
    "expressibility",
    "fidelities",
    "max_divergence",
    "random_states",
    "variance_by_qubits",
]


def random_states(layer: QuantumLayer, x: Tensor, *, n_states: int = 100, seed: int = 0) -> Tensor:
    """States at the end of the circuit for random weights, uniform in [0, 2 pi), and random rows of `x`.

    Args:
        layer: the quantum layer; its weights are not touched.
        x: inputs (B, I).
        n_states: S, how many are drawn.
        seed: of the draws.

    Returns:
        (S, 2^N), complex128.

    Raises:
        CircuitError: the layer is a QNode that runs itself.
    """
    circuit, angles, amplitudes = _draw(layer, x, n_states, seed)
    return Dense().state(circuit.program, Angles.of(angles), amplitudes)


def fidelities(states: Tensor) -> Tensor:
    """Fidelities ``|<a|b>|^2`` of all pairs of states (S, 2^N): (S (S - 1) / 2,), between 0 and 1."""
    first, second = torch.triu_indices(len(states), len(states), 1)
    return (states @ states.mH).abs().square()[first, second].clamp(0, 1)


def expressibility(states: Tensor, *, n_bins: int = 75) -> float:
    """How far the states are from random ones: the Kullback-Leibler divergence of the distribution of their
    fidelities from that of Haar-random states, ``P(F) = (2^N - 1) (1 - F)^(2^N - 2)`` (arXiv 1905.10876).

    Args:
        states: (S, 2^N), as `random_states` draws them.
        n_bins: of the histogram of the fidelities.

    Returns:
        The divergence in nats: 0 for a circuit that reaches every state alike, `max_divergence` for one that does
        nothing.

    Example:
        >>> idle = torch.eye(2, dtype=torch.complex128)[:1].repeat(10, 1)
        >>> round(expressibility(idle), 3), round(math.log(75), 3)
        (4.317, 4.317)
    """
    counts = torch.histc(fidelities(states), n_bins, 0, 1)
    shares = counts / counts.sum()
    log_haar = _log_haar(states.shape[1], n_bins)
    seen = shares > 0
    return float((shares[seen] * (shares[seen].log() - log_haar[seen])).sum())


def max_divergence(n_qubits: int, n_bins: int = 75) -> float:
    """Expressibility of a circuit that always gives the same state: ``(2^N - 1) log(n_bins)``."""
    return (2**n_qubits - 1) * math.log(n_bins)


def _log_haar(dimension: int, n_bins: int) -> Tensor:
    """Logarithm of the probability that two Haar-random states have a fidelity in each bin."""
    edges = torch.linspace(0, 1, n_bins + 1, dtype=torch.float64)
    low, high = 1 - edges[:-1], 1 - edges[1:]
    return (dimension - 1) * low.log() + torch.log1p(-((high / low) ** (dimension - 1)))


def entangling_capability(states: Tensor) -> float:
    """Mean Meyer-Wallach measure ``Q = 2 (1 - mean_k tr rho_k^2)`` of states (S, 2^N) (arXiv 1905.10876).

    Returns:
        Between 0 (no state is entangled) and 1 (every qubit is maximally entangled with the others).

    Example:
        >>> bell = torch.tensor([[1, 0, 0, 1]]) / math.sqrt(2)
        >>> round(entangling_capability(bell.to(torch.complex128)), 6)
        1.0
    """
    n_qubits = states.shape[1].bit_length() - 1
    purities = []
    for wire in range(n_qubits):
        parts = states.reshape(len(states), 2**wire, 2, -1).transpose(1, 2).flatten(2)
        purities.append((parts @ parts.mH).abs().square().sum((1, 2)))
    return float(2 * (1 - torch.stack(purities).mean()))


def variance_by_qubits(
    layer: QuantumLayer, x: Tensor, *, n_samples: int = 50, seed: int = 0
) -> tuple[list[int], list[float]]:
    """Variance of the gradients over random weights, of the circuit and of what it is on its first wires only.

    A barren plateau is a variance that falls exponentially with the number of qubits (arXiv 1803.11173). The circuit on
    n wires keeps the gates and the parts of the observables that lie within the first n. Of more than 20 qubits, whose
    whole state nobody has, only the circuit itself is measured.

    Args:
        layer: the quantum layer; its weights are not touched.
        x: inputs (B, I), of which random rows are taken.
        n_samples: how many sets of weights are drawn.
        seed: of the draws.

    Returns:
        Numbers of qubits, the layer's own last, and for each the variance of a derivative of an output, whose range is
        made [-1, 1]: of every live angle for the output that it moves most, on average over angles.

    Raises:
        CircuitError: the layer is a QNode that runs itself.
    """
    circuit, angles, amplitudes = _draw(layer, x, n_samples, seed)
    weighted = torch.tensor(circuit.angle_map.needs(False, True))
    sizes, variances = [], []
    whole = amplitudes is not None or circuit.n_qubits > WIDEST_STATE  # amplitudes cannot be cut
    smallest = circuit.n_qubits if whole else 1
    for n_qubits in range(smallest, circuit.n_qubits + 1):
        part = _first_wires(circuit.program, n_qubits)
        if part is None:
            continue
        jacobian = angle_jacobian(part, Angles.of(angles), amplitudes)[:, :, weighted] / _ranges(part)[:, None]
        of_angles = jacobian.var(0).amax(0)
        live = of_angles > 1e-24
        if live.any():
            sizes.append(n_qubits)
            variances.append(float(of_angles[live].mean()))
    return sizes, variances


def _draw(layer: QuantumLayer, x: Tensor, n_draws: int, seed: int) -> tuple[Circuit, Tensor, Tensor | None]:
    """The circuit, and its angles (S, K) and amplitudes for random weights and random rows."""
    if layer.executor is None:
        raise CircuitError("This QNode runs itself: nothing is known about its circuit but its outputs")
    circuit = layer.circuit_for(x.shape[1])
    x = x.detach().cpu().double()
    generator = torch.Generator().manual_seed(seed)
    rows = x[torch.randint(len(x), (n_draws,), generator=generator)]
    weights = torch.rand(n_draws, circuit.angle_map.n_weights, generator=generator, dtype=torch.float64) * 2 * math.pi
    pairs = [(row[None], w) for row, w in zip(rows, weights, strict=True)]
    angles = torch.cat([circuit.angle_map(row, w).full() for row, w in pairs])
    amplitudes = [circuit.angle_map.amplitudes(row, w) for row, w in pairs]
    return circuit, angles, torch.cat([a for a in amplitudes if a is not None]) if circuit.program.amplitudes else None


def _first_wires(program: Program, n_qubits: int) -> Program | None:
    """What a program is on its first wires only; None where it measures nothing there."""
    measurements: list[Measurement] = []
    for m in program.measurements:
        if not isinstance(m, Expval):
            wires = tuple(w for w in m.wires if w < n_qubits)
            measurements += [replace(m, wires=wires)] if wires else []
            continue
        terms = []
        for coefficient, word, wires in m.terms:
            kept = [(p, w) for p, w in zip(word, wires, strict=True) if w < n_qubits]
            terms += [(coefficient, "".join(p for p, _ in kept), tuple(w for _, w in kept))] if kept else []
        measurements += [Expval(tuple(terms))] if terms else []
    ops = tuple(op for op in program.ops if max(op.wires) < n_qubits)
    return replace(program, n_qubits=n_qubits, ops=ops, measurements=tuple(measurements)) if measurements else None


def _ranges(program: Program) -> Tensor:
    """Half the range of every output (M,)."""
    halves: list[float] = []
    for m in program.measurements:
        halves += [sum(abs(c) for c, _, _ in m.terms)] if isinstance(m, Expval) else [0.5] * 2 ** len(m.wires)
    return torch.tensor(halves, dtype=torch.float64)
