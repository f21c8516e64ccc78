"""A circuit as a drawing: a line for each wire, time from left to right, in rows of the same width."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from qbp.circuit.program import Op, Program, Rotation
from qbp.circuit.qasm.listing import format_observables
from qbp.circuit.tracing import Circuit
from qbp.report.document import Figure

__all__ = ["circuit"]

STEP, LINE, BOX = 46, 42, 15  # pixels: between columns, between wires, half a box
LEFT = 34
PER_ROW = 17  # columns
NAMES = {"Hadamard": "H", "PauliX": "X", "PauliY": "Y", "PauliZ": "Z", "Adjoint(S)": "S†", "Adjoint(SX)": "SX†"}
TARGETS = {"CNOT": "plus", "CZ": "dot", "SWAP": "cross", "CY": "Y"}


def circuit(drawn: Circuit, caption: str) -> Figure:
    """Draw a circuit; rotations that encode data and rotations by weights have colours of their own."""
    program = drawn.program
    names = _names(drawn)
    columns = list(_columns(program))
    rows = [columns[k : k + PER_ROW] for k in range(0, len(columns), PER_ROW)] or [[]]
    height = program.n_qubits * LINE
    parts = []
    for k, row in enumerate(rows):
        top = k * (height + 18)
        end = LEFT + STEP * len(row) + 8
        for wire in range(program.n_qubits):
            y = top + LINE * wire + LINE // 2
            parts.append(f'<path class="wire" d="M{LEFT} {y}H{end}"/><text class="name" x="0" y="{y}">q{wire}</text>')
        for column, ops in enumerate(row):
            x = LEFT + STEP * column + STEP // 2
            for op in ops:
                parts += _op(op, x, top + LINE // 2, names, drawn.angle_map.n_batched)
    width = LEFT + STEP * max(map(len, rows)) + 16
    size = height * len(rows) + 18 * (len(rows) - 1)
    counts = ", ".join(f"{count} {name}" for name, count in program.counts().items())
    alt = f"Circuit of {program.n_qubits} qubits: {counts}. Measured: {format_observables(program.measurements)}."
    svg = (
        f'<svg class="circuit" viewBox="0 0 {width} {size}" role="img" aria-label="{escape(alt, quote=True)}" '
        f'style="width: {width}px; max-width: none">{"".join(parts)}</svg>'
    )
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


def _op(op: Op, x: int, top: int, names: Sequence[str], n_batched: int) -> Iterator[str]:
    ys = [top + LINE * wire for wire in op.wires]
    if len(ys) > 1:
        yield f'<path class="link" d="M{x} {min(ys)}V{max(ys)}"/>'
    if isinstance(op, Rotation):
        kind = "" if op.angle is None else "data" if op.angle < n_batched else "weight"
        below = f"{op.offset:.3g}" if op.angle is None else names[op.angle]
        letters = [f"R{op.pauli}"] if len(ys) == 1 else list(op.pauli)
        for k, (letter, y) in enumerate(zip(letters, ys, strict=True)):
            yield from _box(x, y, letter, kind, below if k == len(ys) - 1 else "")
        return
    for k, y in enumerate(ys):
        kind = TARGETS.get(op.name, "") if k or op.name == "SWAP" else "dot" if op.name in TARGETS else ""
        if kind == "dot":
            yield f'<circle class="dot" cx="{x}" cy="{y}" r="4"/>'
        elif kind == "plus":
            yield f'<circle class="ring" cx="{x}" cy="{y}" r="9"/>'
            yield f'<path class="plus" d="M{x - 9} {y}h18M{x} {y - 9}v18"/>'
        elif kind == "cross":
            yield f'<path class="plus" d="M{x - 6} {y - 6}l12 12M{x + 6} {y - 6}l-12 12"/>'
        else:
            yield from _box(x, y, kind or NAMES.get(op.name, op.name), "", "")


def _box(x: int, y: int, text: str, kind: str, below: str) -> Iterator[str]:
    half = BOX + 4
    yield f'<rect class="box {kind}" x="{x - half}" y="{y - BOX}" width="{2 * half}" height="{2 * BOX}"/>'
    yield f'<text x="{x}" y="{y - 5 if below else y}">{escape(text)}</text>'
    if below:
        yield f'<text class="below" x="{x}" y="{y + 8}">{escape(below)}</text>'
