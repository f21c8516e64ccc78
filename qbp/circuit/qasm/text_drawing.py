"""Circuits as text: one line for each wire, time from left to right."""

from __future__ import annotations

from qbp.circuit.gates import GATES
from qbp.circuit.qasm.listing import Call, Listing
from qbp.errors import ArgumentError

__all__ = ["draw"]

# What stands on each wire of a gate where that is not its name; parameters follow the last one.
_SYMBOLS: dict[str, tuple[str, ...]] = {
    **{"PauliX": ("X",), "PauliY": ("Y",), "PauliZ": ("Z",), "Hadamard": ("H",), "Identity": ("I",)},
    **{"Adjoint(S)": ("S†",), "Adjoint(T)": ("T†",), "Adjoint(SX)": ("SX†",), "PhaseShift": ("P",)},
    **{"CNOT": ("●", "X"), "CY": ("●", "Y"), "CZ": ("●", "●"), "CH": ("●", "H"), "SWAP": ("x", "x")},
    **{"Toffoli": ("●", "●", "X"), "CCZ": ("●", "●", "●"), "CSWAP": ("●", "x", "x"), "CU": ("●", "U3")},
    **{"CRX": ("●", "RX"), "CRY": ("●", "RY"), "CRZ": ("●", "RZ"), "CRot": ("●", "Rot")},
    "ControlledPhaseShift": ("●", "P"),
}
_MAX_PARAMETER = 9  # longer expressions are abbreviated to the names they depend on


def draw(listing: Listing, width: int = 100) -> str:
    """The circuit as text, in blocks of lines not much wider than `width` characters.

    A parameter that is a long expression is abbreviated to the inputs and weights that it depends on.

    Args:
        listing: the circuit.
        width: number of characters, at least 20.

    Example:
        >>> from qbp.circuit.qasm.writer import loads
        >>> print(draw(loads('OPENQASM 3.0; include "stdgates.inc"; qubit[2] q; h q[0]; cx q[0], q[1];')))
        q0: ─H─╭●─
        q1: ───╰X─
    """
    if width < 20:
        raise ArgumentError(f"Argument `width` must be at least 20, but is {width}")
    n = listing.n_qubits
    columns: list[list[str]] = []
    free = [0] * n  # for each wire the first column that is free from there on
    for call in listing.calls:
        top, bottom = min(call.wires), max(call.wires)
        column = max(free[top : bottom + 1])
        free[top : bottom + 1] = [column + 1] * (bottom + 1 - top)
        if column == len(columns):
            columns.append([""] * n)
        for wire, text in _cells(call, listing).items():
            columns[column][wire] = text
    names = [f"q{wire}: " for wire in range(n)]
    start = [name.ljust(len(names[-1])) + "─" for name in names]
    blocks, lines = [], list(start)
    for cells in columns:
        size = max(map(len, cells)) + 1
        if len(lines[0]) + size > width and lines != start:
            blocks.append(lines)
            lines = list(start)
        lines = [line + cell.ljust(size, "─") for line, cell in zip(lines, cells, strict=True)]
    return "\n\n".join("\n".join(block) for block in [*blocks, lines])


def _cells(call: Call, listing: Listing) -> dict[int, str]:
    """What a gate puts on each wire that it spans."""
    symbols = _SYMBOLS.get(call.name, (call.name,) * GATES[call.name].n_wires)
    order = listing.inputs + listing.weights
    params = []
    for param in call.params:
        text = str(param).replace(" ", "")
        if len(text) > _MAX_PARAMETER:
            names = sorted(param.variables(), key=order.index)
            text = ",".join(names) if names else f"{param.evaluate({}):.4g}"
        params.append(text)
    ending = f"({','.join(params)})" if params else ""
    labels = dict(zip(call.wires, (*symbols[:-1], symbols[-1] + ending), strict=True))
    if len(labels) == 1:
        return labels
    top, bottom = min(labels), max(labels)
    edges = {top: "╭", bottom: "╰"}
    return {
        wire: edges.get(wire, "├" if wire in labels else "│") + labels.get(wire, "") for wire in range(top, bottom + 1)
    }
