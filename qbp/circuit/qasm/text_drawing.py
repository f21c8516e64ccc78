"""Circuits as text: one line for each wire, time from left to right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from qbp.circuit.qasm.expression import Expression
from qbp.circuit.qasm.listing import Call, Listing
from qbp.errors import ArgumentError

__all__ = ["columns", "draw", "drawn", "labels", "shortened"]

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
    return drawn(listing.n_qubits, [_labels(call, listing) for call in listing.calls], width)


def drawn(n_wires: int, gates: Sequence[Mapping[int, str]], width: int, ends: Sequence[Mapping[int, str]] = ()) -> str:
    """Gates as text, each given by what stands on its wires; `ends` likewise, behind the ends of the wires."""
    if width < 20:
        raise ArgumentError(f"Argument `width` must be at least 20, but is {width}")
    names = [f"q{wire}: " for wire in range(n_wires)]
    start = [name.ljust(len(names[-1])) + "─" for name in names]
    blocks, lines = [], list(start)
    for gates_of_column in columns(n_wires, gates):
        cells = _cells(n_wires, gates_of_column)
        size = max(map(len, cells)) + 1
        if len(lines[0]) + size > width and lines != start:
            blocks.append(lines)
            lines = list(start)
        lines = [line + cell.ljust(size, "─") for line, cell in zip(lines, cells, strict=True)]
    if ends:
        lines = [f"{line}┤" for line in lines]
    for gates_of_column in columns(n_wires, ends):
        cells = _cells(n_wires, gates_of_column)
        size = max(map(len, cells)) + 1
        lines = [f"{line} {cell.ljust(size - 1)}" for line, cell in zip(lines, cells, strict=True)]
    return "\n\n".join("\n".join(line.rstrip() for line in block) for block in [*blocks, lines])


def columns(n_wires: int, gates: Iterable[Mapping[int, str]]) -> list[list[Mapping[int, str]]]:
    """Gates in columns, each as far left as the wires that it spans allow."""
    drawn: list[list[Mapping[int, str]]] = []
    free = [0] * n_wires  # for each wire the first column that is free from there on
    for gate in gates:
        top, bottom = min(gate), max(gate)
        column = max(free[top : bottom + 1])
        free[top : bottom + 1] = [column + 1] * (bottom + 1 - top)
        if column == len(drawn):
            drawn.append([])
        drawn[column].append(gate)
    return drawn


def _cells(n_wires: int, gates: Iterable[Mapping[int, str]]) -> list[str]:
    """What a column has on each wire."""
    cells = [""] * n_wires
    for gate in gates:
        top, bottom = min(gate), max(gate)
        edges = {top: "╭", bottom: "╰"} if top < bottom else {top: ""}
        for wire in range(top, bottom + 1):
            cells[wire] = edges.get(wire, "├" if wire in gate else "│") + gate.get(wire, "")
    return cells


def labels(name: str, wires: Sequence[int], params: Sequence[str]) -> dict[int, str]:
    """What a gate puts on each of its wires."""
    symbols = _SYMBOLS.get(name, (name,) * len(wires))
    ending = f"({','.join(params)})" if params else ""
    return dict(zip(wires, (*symbols[:-1], symbols[-1] + ending), strict=True))


def shortened(param: Expression, order: Sequence[str]) -> str:
    """A parameter; where it is long, the names that it depends on, in this order."""
    text = str(param).replace(" ", "")
    if len(text) <= _MAX_PARAMETER:
        return text
    names = sorted(param.variables(), key=order.index)
    return ",".join(names) if names else f"{param.evaluate({}):.4g}"


def _labels(call: Call, listing: Listing) -> dict[int, str]:
    order = listing.inputs + listing.weights
    return labels(call.name, call.wires, [shortened(param, order) for param in call.params])
