"""Circuit families: plain functions of (n_qubits, n_layers) that return a `Listing`.

Each encodes one feature per wire. Weights are numbered in the order of the flattened tensor of `weight_shape`.
``python -m qbp.circuit.ansatz circuits/`` writes the files of ``circuits/``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from qbp.circuit.couplings import edges_of
from qbp.circuit.program import Expval
from qbp.circuit.qasm.expression import PI, Expression
from qbp.circuit.qasm.listing import Call, Listing
from qbp.errors import ArgumentError, check_choice, check_count
from qbp.limits import check_gates

__all__ = [
    "ANSATZE",
    "basic_entangler",
    "hardware_efficient",
    "iqp",
    "matrix_product",
    "qcnn",
    "real_amplitudes",
    "reuploading",
    "strongly_entangling",
    "tree_tensor",
    "weight_shapes",
    "xor",
    "zz_map",
]


# ---- what they are made of ---------------------------------------------------------------------------


def _count(name: str, value: int, least: int = 1) -> int:
    check_count(name, value, least)
    return int(value)


def _power_of_two(n_qubits: int) -> int:
    number = _count("n_qubits", n_qubits, 2)
    if number.bit_count() != 1:
        raise ArgumentError(f"Argument `n_qubits` must be a power of two, but is {number}")
    return number


def _variables(letter: str, *shape: int) -> Any:
    """An array of the variables x_0, x_1... or w_0, w_1... in C order."""
    _check_gates(math.prod(shape))  # a gate takes each
    array = np.empty(math.prod(shape), dtype=object)
    array[:] = [Expression.variable(f"{letter}_{k}") for k in range(len(array))]
    return array.reshape(shape)


def _check_gates(number: int) -> None:
    check_gates(number, "A circuit of so many qubits and layers")


def _listing(
    x: Any, w: Any, calls: Sequence[Call], title: str, reference: str, measured: Sequence[int] | None = None
) -> Listing:
    """The listing of a family: Z is measured on the wires `measured`, on all of them by default."""
    n_qubits = len(x)
    wires = range(n_qubits) if measured is None else measured
    return Listing(
        n_qubits,
        tuple(map(str, x)),
        tuple(map(str, w.flat)),
        tuple(calls),
        tuple(Expval.word("Z", wire) for wire in wires),
        title,
        reference,
        w.shape,
    )


def _each(gate: str, angles: Sequence[Expression]) -> list[Call]:
    """One rotation on every wire."""
    return [Call(gate, (wire,), (angle,)) for wire, angle in enumerate(angles)]


def _joined(gate: str, pairs: Sequence[tuple[int, int]]) -> list[Call]:
    """One gate on every pair."""
    return [Call(gate, pair) for pair in pairs]


def _strong_layers(w: Any) -> list[Call]:
    """The layers of arXiv 1804.00633 for weights (L, n, 3), with PennyLane's ranges of the CNOTs."""
    n_qubits = w.shape[1]
    calls = []
    for layer, angles in enumerate(w):
        for wire in range(n_qubits):
            calls += [Call(g, (wire,), (a,)) for g, a in zip(("RZ", "RY", "RZ"), angles[wire], strict=True)]
        if n_qubits > 1:
            reach = layer % (n_qubits - 1) + 1
            calls += [Call("CNOT", (wire, (wire + reach) % n_qubits)) for wire in range(n_qubits)]
    return calls


def _real_layers(w: Any) -> list[Call]:
    """Rotations RY and ladders of CNOTs from the last wire to the first, in turns, for weights (L + 1, n)."""
    ladder = [Call("CNOT", (wire, wire + 1)) for wire in reversed(range(w.shape[1] - 1))]
    return [*_each("RY", w[0]), *(call for angles in w[1:] for call in (*ladder, *_each("RY", angles)))]


def _blocks(w: Any, pairs: Sequence[tuple[int, int]]) -> list[Call]:
    """The blocks of a tensor network for weights (L, n - 1, 2): on each pair L times RY, RY and CNOT."""
    calls = []
    for block, (first, second) in enumerate(pairs):
        for angles in w[:, block]:
            calls += [Call("RY", (first,), angles[:1]), Call("RY", (second,), angles[1:])]
            calls.append(Call("CNOT", (first, second)))
    return calls


# ---- the families ------------------------------------------------------------------------------------


def strongly_entangling(n_qubits: int, n_layers: int) -> Listing:
    """Strongly entangling layers (arXiv 1804.00633) behind an angle embedding: PennyLane's `AngleEmbedding` and
    `StronglyEntanglingLayers`, with their defaults.

    Each layer turns every wire by RZ, RY, RZ and joins wire i to wire i + r by a CNOT, ``r = layer mod (n - 1) + 1``.

    Args:
        n_qubits: n, at least 1; as many inputs.
        n_layers: L; the weights have shape (L, n, 3).

    Returns:
        The circuit; Z is measured on every wire.
    """
    n, layers = _count("n_qubits", n_qubits), _count("n_layers", n_layers)
    x, w = _variables("x", n), _variables("w", layers, n, 3)
    calls = _each("RX", x) + _strong_layers(w)
    return _listing(x, w, calls, "Strongly entangling layers", "arXiv 1804.00633")


def basic_entangler(n_qubits: int, n_layers: int, *, coupling_map: Any = None) -> Listing:
    """Rotations RX and a ring of CNOTs behind an angle embedding: PennyLane's `AngleEmbedding` and
    `BasicEntanglerLayers`, with their defaults.

    Args:
        n_qubits: n, at least 1; as many inputs. Two wires are joined by a single CNOT.
        n_layers: L; the weights have shape (L, n).
        coupling_map: edges to take instead of the ring, see `qbp.circuit.couplings.edges_of`.

    Returns:
        The circuit; Z is measured on every wire.
    """
    n, layers = _count("n_qubits", n_qubits), _count("n_layers", n_layers)
    x, w = _variables("x", n), _variables("w", layers, n)
    ring = [(wire, (wire + 1) % n) for wire in range(n if n > 2 else n - 1)]
    pairs = ring if coupling_map is None else edges_of(coupling_map, n)
    calls = _each("RX", x) + [call for angles in w for call in (*_each("RX", angles), *_joined("CNOT", pairs))]
    return _listing(x, w, calls, "Basic entangler layers", "PennyLane: BasicEntanglerLayers")


def hardware_efficient(n_qubits: int, n_layers: int, *, coupling_map: Any = None) -> Listing:
    """The hardware-efficient circuit of arXiv 1704.05018: layers of entanglers between layers of rotations.

    The first layer of rotations is RY of the data. Each of the L others follows a chain of CZ gates between
    neighbours and is RZ, RY on every wire: Qiskit's `n_local` with `rotation_blocks=["rz", "ry"]`,
    `entanglement_blocks="cz"`, `entanglement="linear"`.

    Args:
        n_qubits: n, at least 1; as many inputs.
        n_layers: L; the weights have shape (L, n, 2).
        coupling_map: edges to take instead of the chain, see `qbp.circuit.couplings.edges_of`.

    Returns:
        The circuit; Z is measured on every wire.
    """
    n, layers = _count("n_qubits", n_qubits), _count("n_layers", n_layers)
    x, w = _variables("x", n), _variables("w", layers, n, 2)
    calls = _each("RY", x)
    for angles in w:
        calls += _joined("CZ", edges_of(coupling_map, n))
        calls += [Call(g, (i,), (a,)) for i in range(n) for g, a in zip(("RZ", "RY"), angles[i], strict=True)]
    return _listing(x, w, calls, "Hardware-efficient circuit", "arXiv 1704.05018")


def real_amplitudes(n_qubits: int, n_layers: int) -> Listing:
    """Qiskit's `real_amplitudes` (entanglement "reverse_linear") behind RY of the data: all amplitudes are real.

    Args:
        n_qubits: n, at least 1; as many inputs.
        n_layers: L, Qiskit's `reps`; the weights have shape (L + 1, n), as a last layer of rotations follows.

    Returns:
        The circuit; Z is measured on every wire.
    """
    n, layers = _count("n_qubits", n_qubits), _count("n_layers", n_layers)
    x, w = _variables("x", n), _variables("w", layers + 1, n)
    return _listing(x, w, _each("RY", x) + _real_layers(w), "Real amplitudes", "Qiskit: real_amplitudes")


def reuploading(n_qubits: int, n_layers: int, *, coupling_map: Any = None) -> Listing:
    """Data re-uploading (arXiv 1907.02085): every layer encodes the data again, ``RX(scale * x + offset)``.

    A layer turns wire i by ``RX(w[l, i, 0] * x[i] + w[l, i, 1])`` and ``RY(w[l, i, 2])``; a chain of CZ gates stands
    between layers. With L layers a wire's output holds frequencies of x up to L times the scale (arXiv 2008.08605).

    Args:
        n_qubits: n, at least 1; as many inputs.
        n_layers: L; the weights have shape (L, n, 3): scale, offset, RY.
        coupling_map: edges to take instead of the chain, see `qbp.circuit.couplings.edges_of`.

    Returns:
        The circuit; Z is measured on every wire.
    """
    n, layers = _count("n_qubits", n_qubits), _count("n_layers", n_layers)
    x, w = _variables("x", n), _variables("w", layers, n, 3)
    calls = []
    for layer in range(layers):
        if layer:
            calls += _joined("CZ", edges_of(coupling_map, n))
        scale, offset, turn = w[layer].T
        calls += _each("RX", scale * x + offset) + _each("RY", turn)
    return _listing(x, w, calls, "Data re-uploading", "arXiv 1907.02085")


def zz_map(n_qubits: int, n_layers: int, *, reps: int = 2) -> Listing:
    """Qiskit's `zz_feature_map` (arXiv 1804.11326, entanglement "full") followed by its `real_amplitudes`.

    Each repetition is H and ``P(2 x_i)`` on every wire and a phase of ``2 (pi - x_i) (pi - x_j)`` on the parity of
    every pair.

    Args:
        n_qubits: n, at least 1; as many inputs.
        n_layers: L of the real amplitudes; the weights have shape (L + 1, n).
        reps: repetitions of the feature map.

    Returns:
        The circuit; Z is measured on every wire.
    """
    n, layers, reps = _count("n_qubits", n_qubits), _count("n_layers", n_layers), _count("reps", reps)
    x, w = _variables("x", n), _variables("w", layers + 1, n)
    _check_gates(reps * 3 * math.comb(n, 2))
    calls = [Call("Hadamard", (wire,)) for wire in range(n)] + _each("PhaseShift", 2 * x)
    for i, j in itertools.combinations(range(n), 2):
        phase = Call("PhaseShift", (j,), (2 * (PI - x[i]) * (PI - x[j]),))
        calls += [Call("CNOT", (i, j)), phase, Call("CNOT", (i, j))]
    return _listing(x, w, reps * calls + _real_layers(w), "ZZ feature map and real amplitudes", "arXiv 1804.11326")


def iqp(n_qubits: int, n_layers: int, *, repeats: int = 1) -> Listing:
    """PennyLane's `IQPEmbedding` (arXiv 1804.11326) followed by its `StronglyEntanglingLayers`.

    Each repetition is H and ``RZ(x_i)`` on every wire and ``exp(-i x_i x_j Z_i Z_j / 2)`` on every pair.

    Args:
        n_qubits: n, at least 1; as many inputs.
        n_layers: L; the weights have shape (L, n, 3).
        repeats: repetitions of the embedding, PennyLane's `n_repeats`.

    Returns:
        The circuit; Z is measured on every wire.
    """
    n, layers, repeats = _count("n_qubits", n_qubits), _count("n_layers", n_layers), _count("repeats", repeats)
    x, w = _variables("x", n), _variables("w", layers, n, 3)
    _check_gates(repeats * 3 * math.comb(n, 2))
    calls = [Call("Hadamard", (wire,)) for wire in range(n)] + _each("RZ", x)
    for i, j in itertools.combinations(range(n), 2):
        calls += [Call("CNOT", (i, j)), Call("RZ", (j,), (x[i] * x[j],)), Call("CNOT", (i, j))]
    calls = repeats * calls + _strong_layers(w)
    return _listing(x, w, calls, "IQP embedding and strongly entangling layers", "arXiv 1804.11326")


def matrix_product(n_qubits: int, n_layers: int) -> Listing:
    """A matrix product state: a staircase of two-qubit blocks along the wires behind RY of the data.

    PennyLane's `MPS` with `n_block_wires=2` (arXiv 1803.11537); a block is L times RY, RY and CNOT.

    Args:
        n_qubits: n, at least 2; as many inputs.
        n_layers: L; the weights have shape (L, n - 1, 2): repetition, block, wire of the block.

    Returns:
        The circuit; Z is measured on every wire.
    """
    n, layers = _count("n_qubits", n_qubits, 2), _count("n_layers", n_layers)
    x, w = _variables("x", n), _variables("w", layers, n - 1, 2)
    calls = _each("RY", x) + _blocks(w, list(itertools.pairwise(range(n))))
    return _listing(x, w, calls, "Matrix product state", "arXiv 1803.11537")


def tree_tensor(n_qubits: int, n_layers: int) -> Listing:
    """A tree tensor network (arXiv 1803.11537): blocks join pairs of wires, then pairs of pairs, up to the last wire.

    A block is L times RY, RY and CNOT; what it says goes on along its second wire. RY encodes the data.

    Args:
        n_qubits: n, a power of two of at least 2; as many inputs.
        n_layers: L; the weights have shape (L, n - 1, 2): repetition, block, wire of the block.

    Returns:
        The circuit; Z is measured on the last wire.
    """
    n, layers = _power_of_two(n_qubits), _count("n_layers", n_layers)
    x, w = _variables("x", n), _variables("w", layers, n - 1, 2)
    pairs, wires = [], list(range(n))
    while len(wires) > 1:
        pairs += list(zip(wires[::2], wires[1::2], strict=True))
        wires = wires[1::2]
    return _listing(x, w, _each("RY", x) + _blocks(w, pairs), "Tree tensor network", "arXiv 1803.11537", wires)


def qcnn(n_qubits: int, n_layers: int) -> Listing:
    """A quantum convolutional network (arXiv 1810.03787): each level convolves neighbours, then pools half the wires.

    A convolution applies one block, with the same four weights everywhere, to all neighbours on a ring: RY, RY, CNOT,
    RY, RY. Pooling turns every second wire by CRZ and CRX under control of the wire before it, which is then left
    alone: the unitary form of measuring it. RY encodes the data.

    Args:
        n_qubits: n, a power of two of at least 2; as many inputs.
        n_layers: L convolutions before each pooling; the weights have shape (log2(n), 4 L + 2): for each level
            those of its convolutions, then those of its pooling.

    Returns:
        The circuit; Z is measured on the wire that is left, the last one.
    """
    n, layers = _power_of_two(n_qubits), _count("n_layers", n_layers)
    x, w = _variables("x", n), _variables("w", n.bit_length() - 1, 4 * layers + 2)
    _check_gates(10 * n * layers)  # five for each pair of neighbours, n of them, n / 2 on the next level...
    calls, wires = _each("RY", x), list(range(n))
    for level in w:
        ring = [*wires, wires[0]] if len(wires) > 2 else wires
        pairs = list(itertools.pairwise(ring))
        for a, b, c, d in level[:-2].reshape(layers, 4):
            for first, second in pairs[::2] + pairs[1::2]:
                calls += [Call("RY", (first,), (a,)), Call("RY", (second,), (b,)), Call("CNOT", (first, second))]
                calls += [Call("RY", (first,), (c,)), Call("RY", (second,), (d,))]
        for pair in pairs[::2]:
            calls += [Call("CRZ", pair, level[-2:-1]), Call("CRX", pair, level[-1:])]
        wires = wires[1::2]
    return _listing(x, w, calls, "Quantum convolutional network", "arXiv 1810.03787", wires)


def xor(n_qubits: int = 2, n_layers: int = 1) -> Listing:
    """The smallest circuit that learns XOR, and with more wires parity: ``<Z> = prod_i cos(scale_i x_i + offset_i)``.

    ``RX(scale * x + offset)`` on every wire, and a chain of CNOTs that gathers the parity on the last one. With bits
    0 and 1 as data, scale pi and offset 0 solve the problem exactly: +1 for an even number of ones, -1 for an odd one.

    Args:
        n_qubits: n, at least 2; as many inputs.
        n_layers: 1; the weights have shape (n, 2): scale and offset of each wire.

    Returns:
        The circuit; Z is measured on the last wire.
    """
    n = _count("n_qubits", n_qubits, 2)
    if n_layers != 1:
        raise ArgumentError(f"Argument `n_layers` of the XOR circuit must be 1, but is {n_layers!r}")
    x, w = _variables("x", n), _variables("w", n, 2)
    calls = _each("RX", w[:, 0] * x + w[:, 1]) + [Call("CNOT", pair) for pair in itertools.pairwise(range(n))]
    return _listing(x, w, calls, "XOR", "Minsky and Papert, Perceptrons (1969)", [n - 1])


ANSATZE: dict[str, Callable[..., Listing]] = {
    "strongly_entangling": strongly_entangling,
    "basic_entangler": basic_entangler,
    "hardware_efficient": hardware_efficient,
    "real_amplitudes": real_amplitudes,
    "reuploading": reuploading,
    "zz_map": zz_map,
    "iqp": iqp,
    "matrix_product": matrix_product,
    "tree_tensor": tree_tensor,
    "qcnn": qcnn,
    "xor": xor,
}
"""Every family by its name."""

COUPLED = ("basic_entangler", "hardware_efficient", "reuploading")
"""Those that take a `coupling_map`."""


def weight_shapes(name: str, n_qubits: int, n_layers: int) -> dict[str, tuple[int, ...]]:
    """The shape of the weights of a family's circuit, as `QuantumLayer` and PennyLane's `TorchLayer` take it.

    Args:
        name: one of `ANSATZE`.
        n_qubits, n_layers: as for the family.

    Example:
        >>> weight_shapes("strongly_entangling", n_qubits=4, n_layers=2)
        {'weights': (2, 4, 3)}
    """
    check_choice("name", name, ANSATZE)
    return {"weights": ANSATZE[name](n_qubits, n_layers).weight_shape}
