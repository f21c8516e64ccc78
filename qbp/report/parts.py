"""Parts that pages have in common."""

from __future__ import annotations

import csv
import json
import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from qbp.analysis.diagnosis import Finding
from qbp.circuit.qasm.listing import format_observables
from qbp.data import Dataset
from qbp.nn.layer import QuantumLayer
from qbp.report import charts
from qbp.report.circuit import circuit
from qbp.report.document import (
    Badge,
    Block,
    Cell,
    Code,
    Column,
    Details,
    Grid,
    Heat,
    Paragraph,
    Scale,
    Section,
    Table,
    number,
)
from qbp.runs.config import Config, dump
from qbp.runs.folder import CONFIG
from qbp.storage.folder import VERSIONS

__all__ = [
    "circuit_blocks",
    "confusion",
    "diagnosis",
    "pairs",
    "points",
    "provenance",
    "quantum_layers",
    "scale_of",
    "tables_of",
    "whole_percent",
    "whole_points",
    "wilson",
    "within",
]

MOST_DRAWN = 40
"""Qubits of a circuit that is drawn."""

# Tables that other commands leave in a directory, as tidy CSV, and what a page calls them.
TABLES = {
    "compression.csv": ("compression", "Pruning and distillation"),
    "noise.csv": ("noise", "Under noise"),
}


def quantum_layers(model: nn.Module) -> list[QuantumLayer]:
    """Return the quantum layers whose circuit is known."""
    return [m for m in model.modules() if isinstance(m, QuantumLayer) and m.executor is not None]


def circuit_blocks(layer: QuantumLayer) -> Iterator[Block]:
    """Draw a layer's circuit, and count what is in it."""
    program, angle_map = layer.traced.program, layer.traced.angle_map
    n_two = sum(len(op.wires) > 1 for op in program.ops)
    combined = " Its outputs are made of what it measures." if layer.is_combined else ""
    said = f"{program.n_qubits} qubits, {len(program.ops)} gates, {n_two} of them on two qubits or more.{combined}"
    if program.n_qubits > MOST_DRAWN:
        yield Paragraph(f"{said} It is too wide to be drawn.")
    else:
        yield circuit(layer.traced, f"{said} Orange rotations encode data, blue ones turn by weights.")
    counts = {
        "inputs": angle_map.n_inputs,
        "weights": angle_map.n_weights,
        "angles": program.n_angles,
        "outputs": layer.n_outputs or 0,
        **program.counts(),
    }
    columns = (Column("measured", "text"), *(Column(name) for name in counts))
    row = (format_observables(program.measurements), *map(number, counts.values()))
    yield Table("What the circuit consists of", columns, (row,))


def confusion(caption: str, counts: Sequence[Sequence[float]], classes: Sequence[str]) -> Table:
    """A confusion matrix, shaded by the share of its row."""
    columns = (Column("true \\ predicted", "text"), *(Column(name) for name in classes))
    rows: list[tuple[Cell, ...]] = []
    for name, row in zip(classes, counts, strict=True):
        total = max(sum(row), 1)
        rows.append((name, *(Heat(number(count), count / total) for count in row)))
    return Table(caption, columns, tuple(rows))


def diagnosis(findings: Sequence[Finding]) -> tuple[Block, ...]:
    """What a diagnosis found: warnings with their pictures, all numbers, and the other pictures for who wants them."""
    warn = [finding for finding in findings if finding.warns]
    fine = [finding for finding in findings if not finding.warns]
    said = (
        "Nothing is wrong that the diagnosis knows of." if not warn else f"{len(warn)} of {len(findings)} checks warn."
    )
    blocks: list[Block] = [Paragraph(said)]
    blocks += [Paragraph(f"{finding.code}: {finding.says}") for finding in warn]
    if warn:
        blocks.append(_pictures(warn))
    columns = (
        Column("check", "text"),
        Column("", "lead"),
        Column("what is measured", "text"),
        Column("value"),
        Column("warns"),
    )
    rows = tuple((f.code, Badge("warns" if f.warns else "passed"), f.title, number(f.value), f.limit) for f in findings)
    blocks.append(Table("All checks", columns, rows))
    if fine:
        blocks.append(Details("The numbers behind the checks that pass", (_pictures(fine),)))
    return tuple(blocks)


def _pictures(findings: Sequence[Finding]) -> Grid:
    return Grid(
        tuple(charts.finding(f.picture, f"{f.code}. {f.says}", f"{f.title}: {number(f.value)}.") for f in findings)
    )


def pairs(caption: str, values: Mapping[str, Any]) -> Table:
    """A table of names and values."""
    rows = tuple((name, "-" if value is None else str(value)) for name, value in values.items())
    return Table(caption, (Column("", "text"), Column("value", "text")), rows)


def provenance(folder: Path, command: str, config: Config, split: tuple[Dataset, Dataset]) -> Iterator[Block]:
    """What a run can be done again from."""
    yield Paragraph("The same versions, seed and machine give the same bits.")
    yield Code("Command", shlex.join(("qbp", command, str(folder / CONFIG), "--name", "again")))
    versions = json.loads((folder / VERSIONS).read_text(encoding="utf-8"))
    hashes = {"train rows, SHA-256": split[0].hash(), "test rows, SHA-256": split[1].hash()}
    table = pairs("Versions, machine, data", {**versions, **hashes})
    yield Grid((Code(CONFIG, dump(config).rstrip()), table))


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share.

    Example:
        >>> [round(end, 3) for end in wilson(248, 250)]
        [0.971, 0.998]
    """
    from scipy.stats import binomtest

    interval = binomtest(successes, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def tables_of(folder: Path) -> Iterator[Section]:
    """The tables that other commands left in a directory."""
    for name, (anchor, title) in TABLES.items():
        if not (folder / name).is_file():
            continue
        with open(folder / name, newline="", encoding="utf-8") as file:
            head, *rows = csv.reader(file)
        numeric = [all(_is_number(row[k]) for row in rows) for k in range(len(head))]
        columns = tuple(
            Column(h.replace("_", " "), "number" if n else "text") for h, n in zip(head, numeric, strict=True)
        )
        cells = tuple(
            tuple(number(float(cell)) if n and cell else cell for cell, n in zip(row, numeric, strict=True))
            for row in rows
        )
        yield Section(anchor, title, (Table(title, columns, cells),))


def _is_number(text: str) -> bool:
    try:
        float(text or "nan")
    except ValueError:
        return False
    return True


def points(difference: float) -> str:
    """Write a difference of shares in points.

    Example:
        >>> points(-0.0123), points(-1e-9)
        ('-1.2', '+0.0')
    """
    return f"{round(100 * difference, 1) + 0.0:+.1f}"


def whole_percent(share: float) -> str:
    """Write a round share as percent.

    Example:
        >>> whole_percent(0.95)
        '95 %'
    """
    return f"{round(100 * share, 6):g} %"


def within(rope: float) -> str:
    """Write the half width of the region of practical equivalence.

    Example:
        >>> within(0.01), within(0.025)
        ('1 point', '2.5 points')
    """
    return f"{100 * rope:g} point" + ("" if rope == 0.01 else "s")


def whole_points(difference: float) -> str:
    """Write a round difference of shares in points.

    Example:
        >>> whole_points(-0.05), whole_points(0.0)
        ('-5', '0')
    """
    return f"{round(100 * difference, 6):+g}" if round(difference, 8) else "0"


def scale_of(
    values: Sequence[float],
    *,
    label: Callable[[float], str] = number,
    line: float | None = None,
    band: tuple[float, float] | None = None,
) -> Scale:
    """A scale that holds all values, the line and the band, with three to six round ticks."""
    inside = [value for value in values if value == value]
    inside += [line] if line is not None else []
    inside += list(band or ())
    low, high = min(inside), max(inside)
    room = (high - low or 0.01) * 0.06
    low, high = low - room, high + room
    step = 10 ** math.floor(math.log10((high - low) / 3))
    step *= next(factor for factor in (5, 2, 1) if (high - low) / (step * factor) >= 3)
    first = math.ceil(low / step)
    ticks = [step * k for k in range(first, math.floor(high / step) + 1)]
    return Scale(low, high, tuple((tick, label(tick)) for tick in ticks), line, band)
