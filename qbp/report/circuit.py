"""A circuit as a drawing: a line for each wire, time from left to right, in rows of the same width."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from qbp.circuit.program import Channel, Op, Program, Rotation
from qbp.circuit.qasm.listing import format_observables
from qbp.circuit.tracing import Circuit
from qbp.report.document import Figure
from qbp.report.templating import render

__all__ = ["circuit"]

STEP, LINE, BOX = 46, 42, 15  # pixels: between columns, between wires, half a box
LEFT = 34
PER_ROW = 17  # columns
NAMES = {"Hadamard": "H", "PauliX": "X", "PauliY": "Y", "PauliZ": "Z", "Adjoint(S)": "S†", "Adjoint(SX)": "SX†"}
TARGETS = {"CNOT": "plus", "CZ": "dot", "SWAP": "cross", "CY": "Y"}


class Shape(NamedTuple):
    """A part of the drawing: a wire with its name, a line between wires, a dot, plus or cross on a wire, or a box."""

    kind: str
    x: int
    y: int
    to: int = 0
    text: str = ""
    role: str = ""
    below: str = ""


def circuit(drawn: Circuit, caption: str) -> Figure:
    """Draw a circuit; rotations that encode data and rotations by weights have colours of their own."""
    program = drawn.program
    names = _names(drawn)
    columns = list(_columns(program))
    rows = [columns[k : k + PER_ROW] for k in range(0, len(columns), PER_ROW)] or [[]]
    height = program.n_qubits * LINE
    shapes = list[Shape]()
    for k, row in enumerate(rows):
        top = k * (height + 18)
        end = LEFT + STEP * len(row) + 8
        for wire in range(program.n_qubits):
            shapes.append(Shape("wire", LEFT, top + LINE * wire + LINE // 2, to=end, text=f"q{wire}"))
        for column, ops in enumerate(row):
            x = LEFT + STEP * column + STEP // 2
            for op in ops:
                shapes += _op(op, x, top + LINE // 2, names, drawn.angle_map.n_batched)
    width = LEFT + STEP * max(map(len, rows)) + 16
    size = height * len(rows) + 18 * (len(rows) - 1)
    counts = ", ".join(f"{count} {name}" for name, count in program.counts().items())
    alt = f"Circuit of {program.n_qubits} qubits: {counts}. Measured: {format_observables(program.measurements)}."
    svg = render("circuit.svg", width=width, height=size, alt=alt, shapes=shapes, half=BOX)
    return Figure(svg, caption, alt, wide=True)


def _names(drawn: Circuit) -> list[str]:
    """What each angle is called: after the one input or weight that it is, or else by its number."""
    angle_map = drawn.angle_map
    names = [f"a{k}" for k in range(drawn.program.n_angles)]
    for terms, start, letter in ((angle_map.inputs, 0, "x"), (angle_map.shared, angle_map.n_batched, "w")):
        for k, (index, scale) in enumerate(zip(terms.index, terms.scale, strict=True)):
            if sum(s != 0 for s in scale) == 1:
                i, s = next((i, s) for i, s in zip(index, scale, strict=True) if s)
                names[start + k] = f"{letter}{i}" if s == 1 else f"{s:.3g}{letter}{i}"
    return names


def _columns(program: Program) -> Iterator[list[Op]]:
    """The ops in columns, each as far left as its wires allow."""
    columns: list[list[Op]] = []
    free = [0] * program.n_qubits
    for op in program.ops:
        low, high = min(op.wires), max(op.wires)
        column = max(free[low : high + 1])
        free[low : high + 1] = [column + 1] * (high + 1 - low)
        if column == len(columns):
            columns.append([])
        columns[column].append(op)
    yield from columns


def _op(op: Op, x: int, top: int, names: Sequence[str], n_batched: int) -> Iterator[Shape]:
    ys = [top + LINE * wire for wire in op.wires]
    if len(ys) > 1:
        yield Shape("link", x, min(ys), to=max(ys))
    if isinstance(op, Rotation):
        role = "" if op.angle is None else "data" if op.angle < n_batched else "weight"
        below = f"{op.offset:.3g}" if op.angle is None else names[op.angle]
        letters = [f"R{op.pauli}"] if len(ys) == 1 else list(op.pauli)
        for letter, y in zip(letters, ys, strict=True):
            yield Shape("box", x, y, text=letter, role=role, below=below if y == ys[-1] else "")
        return
    if isinstance(op, Channel):
        for y in ys:
            yield Shape("box", x, y, text="~", below=op.name if y == ys[-1] else "")
        return
    for k, y in enumerate(ys):
        kind = TARGETS.get(op.name, "") if k or op.name == "SWAP" else "dot" if op.name in TARGETS else ""
        if kind in ("dot", "plus", "cross"):
            yield Shape(kind, x, y)
        else:
            yield Shape("box", x, y, text=kind or NAMES.get(op.name, op.name))
