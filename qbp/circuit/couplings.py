"""Which qubits of a device are coupled, as edges between the wires of a circuit."""

from __future__ import annotations

from typing import Any

from qbp.errors import ArgumentError

__all__ = ["edges_of", "size_of"]


def edges_of(coupling_map: Any, n_qubits: int) -> list[tuple[int, int]]:
    """The edges between the first wires, each once, in the order in which they come.

    Args:
        coupling_map: pairs of wires, or a Qiskit `CouplingMap`; None for a chain.
        n_qubits: how many wires; edges of others are left out.

    Raises:
        ArgumentError: it holds something else, or nothing between these wires.

    Example:
        >>> edges_of([(0, 1), (1, 0), (1, 3), (3, 4)], n_qubits=4)
        [(0, 1), (1, 3)]
    """
    if coupling_map is None:
        return [(wire, wire + 1) for wire in range(n_qubits - 1)]
    each = {(min(pair), max(pair)): None for pair in _pairs(coupling_map)}
    edges = [edge for edge in each if edge[1] < n_qubits]
    if not edges and n_qubits > 1:
        raise ArgumentError(f"Argument `coupling_map` must join some of the wires 0 to {n_qubits - 1}, but joins none")
    return edges


def size_of(coupling_map: Any) -> int:
    """How many qubits it has: one more than the last that is coupled.

    Example:
        >>> size_of([(0, 1), (1, 4)])
        5
    """
    pairs = _pairs(coupling_map)
    if not pairs:
        raise ArgumentError("Argument `coupling_map` must hold one pair of wires or more, but is empty")
    return 1 + max(map(max, pairs))


def _pairs(coupling_map: Any) -> list[tuple[int, int]]:
    get_edges = getattr(coupling_map, "get_edges", None)
    try:
        pairs = [tuple(pair) for pair in (get_edges() if callable(get_edges) else coupling_map)]
    except TypeError:
        raise _wrong(coupling_map) from None
    for pair in pairs:
        whole = all(isinstance(wire, int) and not isinstance(wire, bool) and wire >= 0 for wire in pair)
        if len(pair) != 2 or not whole or pair[0] == pair[1]:
            raise _wrong(pair)
    return pairs


def _wrong(value: Any) -> ArgumentError:
    return ArgumentError(
        "Argument `coupling_map` must be pairs of two different wires, a Qiskit CouplingMap or the name of a device, "
        f"but holds {value!r:.60}"
    )
