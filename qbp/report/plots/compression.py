"""Pictures of smaller models: accuracy against what is left, and circuits before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qbp.circuit.gates import GATES
from qbp.circuit.program import Channel, Op, Program, Rotation
from qbp.compression.experiment import summary
from qbp.errors import ArgumentError
from qbp.report.plots.training import COLOURS, INK, _figure, _save, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["circuits", "pareto"]

TITLES = {
    "ideal": "accuracy",
    "with_shots": "accuracy with shots",
    "with_noise": "accuracy with the device's noise",
    "two_qubit": "two-qubit gates",
    "device_two_qubit": "two-qubit gates after transpilation",
    "circuits": "circuits in a training step",
    "parameters": "parameters",
}


def pareto(
    rows: Sequence[Mapping[str, Any]], path: str | Path, *, cost: str = "two_qubit", score: str = "ideal"
) -> Path:
    """Draw how good each model is against what it costs: small points are seeds, large ones means with their spread.

    Args:
        rows: of `qbp.compression.experiment.compression`, or more such rows under other names in `model`.
        path: where to; the suffix (.png, .svg, .pdf) is the format.
        cost, score: which of the rows' numbers.

    Returns:
        The path.

    Raises:
        ArgumentError: there are no rows, they lack a number, or the format is unknown.
    """
    for key in (cost, score):
        if not rows or any(key not in row for row in rows):
            raise ArgumentError(f"Argument `rows` must hold rows with {key!r} each, but does not")
    drawn = _figure(5.2, 3.4)
    axes = drawn.subplots()
    for k, (name, values) in enumerate(summary(rows).items()):
        colour, own = COLOURS[k % len(COLOURS)], [row for row in rows if row["model"] == name]
        axes.plot([r[cost] for r in own], [r[score] for r in own], ".", color=colour, alpha=0.35, markersize=5)
        (x, wide), (y, high) = values[cost], values[score]
        axes.errorbar(x, y, xerr=wide, yerr=high, fmt="o", color=colour, capsize=2, label=name)
    label(axes, TITLES.get(cost, cost), TITLES.get(score, score))
    axes.legend(frameon=False, fontsize=8)
    return _save(drawn, path)


def circuits(programs: Mapping[str, Program], path: str | Path) -> Path:
    """Draw circuits one below the other, as before and after pruning; dashed boxes turn by a fixed angle.

    Args:
        programs: by title.
        path: where to; the suffix is the format.

    Returns:
        The path.

    Raises:
        ArgumentError: there is nothing to draw, or the format is unknown.
    """
    if not programs:
        raise ArgumentError("Argument `programs` must hold at least one circuit, but is empty")
    columns = {title: _columns(program) for title, program in programs.items()}
    longest = max(max(starts, default=0) for starts in columns.values()) + 2
    heights = [program.n_qubits + 0.6 for program in programs.values()]
    drawn = _figure(min(14.0, 1.2 + 0.42 * longest), 0.42 * sum(heights))
    parts = drawn.subplots(len(programs), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for axes, (title, program) in zip(parts, programs.items(), strict=True):
        _draw(axes, program, columns[title], longest)
        axes.set_title(title, fontsize=9, color=INK, loc="left")
    return _save(drawn, path)


def _columns(program: Program) -> list[int]:
    """The column of each op, as far left as the wires that it spans allow."""
    free, columns = [0] * program.n_qubits, []
    for op in program.ops:
        span = range(min(op.wires), max(op.wires) + 1)
        columns.append(column := max(free[w] for w in span))
        for w in span:
            free[w] = column + 1
    return columns


def _draw(axes: Axes, program: Program, columns: Sequence[int], longest: int) -> None:
    n = program.n_qubits
    for wire in range(n):
        axes.plot([-1, longest], [n - 1 - wire] * 2, color="#bbbbbb", linewidth=0.8, zorder=0)
        axes.text(-1.2, n - 1 - wire, f"q{wire}", ha="right", va="center", fontsize=8, color=INK)
    for op, x in zip(program.ops, columns, strict=True):
        heights = [n - 1 - w for w in op.wires]
        colour = COLOURS[1] if len(op.wires) > 1 else COLOURS[0]
        if len(op.wires) > 1:
            axes.plot([x, x], [min(heights), max(heights)], color=colour, linewidth=1.2, zorder=1)
        fixed = not isinstance(op, Rotation) or op.angle is None
        box = {"boxstyle": "round,pad=0.18", "facecolor": "white", "edgecolor": colour, "linewidth": 0.9}
        for letter, y in zip(_letters(op), heights, strict=True):
            style = "--" if fixed and isinstance(op, Rotation) else "-"
            axes.text(x, y, letter, ha="center", va="center", fontsize=7, color=INK, bbox=box | {"linestyle": style})
    axes.set_xlim(-1.8, longest)
    axes.set_ylim(-0.6, n - 0.4)
    axes.set_axis_off()


NOISE = "~"
_CONTROLLED = {"CNOT": ("●", "X"), "CY": ("●", "Y"), "CZ": ("●", "●")}
_SHORT = {"Hadamard": "H", "Adjoint(S)": "S†", "Adjoint(SX)": "SX†"}


def _letters(op: Op) -> tuple[str, ...]:
    if isinstance(op, Rotation):
        return tuple(op.pauli)
    if isinstance(op, Channel):
        return (NOISE,) * len(op.wires)
    if op.name in _CONTROLLED:
        return _CONTROLLED[op.name]
    return (_SHORT.get(op.name, op.name.removeprefix("Pauli")),) * GATES[op.name].n_wires
