"""A circuit as a figure: a line for each wire, time from left to right, in rows of the same width."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from qbp.circuit.qasm.text_drawing import columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["figure"]

PER_ROW = 16  # columns
INK, BOX = "#444444", "#eef3f8"


def figure(
    n_wires: int, gates: Sequence[Mapping[int, str]], ends: Sequence[Mapping[int, str]], legend: Sequence[str] = ()
) -> Figure:
    """Gates as boxes, each given by what stands on its wires, and what is measured at the ends.

    Args:
        n_wires: N.
        gates, ends: what stands on which wire.
        legend: lines below.
    """
    from matplotlib.figure import Figure

    whole = [*columns(n_wires, gates), *columns(n_wires, ends)]
    rows = [whole[k : k + PER_ROW] for k in range(0, len(whole), PER_ROW)] or [[]]
    n_gates = len(columns(n_wires, gates))
    width, height = max(map(len, rows)) + 1, len(rows) * (n_wires + 0.6)
    drawing = Figure(figsize=(max(2.0, 0.75 * width), max(1.2, 0.5 * (height + 0.5 * len(legend)))))
    axes = drawing.add_axes((0, 0, 1, 1))
    for r, row in enumerate(rows):
        top = r * (n_wires + 0.6)
        end = min(len(row), max(0, n_gates - r * PER_ROW))
        for wire in range(n_wires):
            axes.text(-0.55, top + wire, f"q{wire}", ha="right", va="center", color=INK, fontsize=9)
            axes.plot([-0.45, end - 0.4], [top + wire] * 2, color=INK, lw=0.8, zorder=0)
        for column, gates_here in enumerate(row):
            for gate in gates_here:
                _gate(axes, column, top, gate)
    for k, line in enumerate(legend):
        axes.text(-0.45, height + 0.5 * k, line, va="center", color=INK, fontsize=8)
    axes.set_xlim(-1.1, width - 0.5)
    axes.set_ylim(height + 0.5 * len(legend) - 0.2, -0.7)
    axes.axis("off")
    return drawing


def _gate(axes: Axes, x: float, top: float, gate: Mapping[int, str]) -> None:
    if len(gate) > 1:
        axes.plot([x, x], [top + min(gate), top + max(gate)], color=INK, lw=0.8, zorder=1)
    for wire, text in gate.items():
        if text == "●":
            axes.plot([x], [top + wire], marker="o", color=INK, markersize=5, zorder=2)
            continue
        box = {"boxstyle": "round,pad=0.25", "facecolor": BOX, "edgecolor": INK, "linewidth": 0.8}
        shown = re.sub(r"(?<=[a-z])(?=[A-Z])|(?=\()", "\n", text) if len(text) > 5 else text
        axes.text(x, top + wire, shown, ha="center", va="center", fontsize=7, bbox=box, zorder=2)
