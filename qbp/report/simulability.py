"""What circuits take on this computer, beside a device: the sentence, and each output."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from qbp.nn.resources import simulabilities
from qbp.nn.simulability import Output, Simulability, seconds_told
from qbp.report.document import Block, Column, Paragraph, Table, number
from qbp.storage.folder import RunFolder

__all__ = ["SIMULABILITY", "WITHOUT", "simulability_blocks", "simulability_of"]

SIMULABILITY = "simulability.json"
WITHOUT = "What it takes without a quantum computer"


def simulability_of(folder: Path, name: str, model: nn.Module) -> Sequence[Mapping[str, Any]]:
    """What the circuits of a run's model take, as it is kept there; measured, and kept, where it is not yet.

    Args:
        folder: the run's.
        name: of the model.
        model: the model.
    """
    try:
        kept = json.loads((folder / SIMULABILITY).read_text(encoding="utf-8"))
    except FileNotFoundError:
        kept = {}
    if name not in kept:
        kept[name] = simulabilities(model)
        RunFolder(folder).write(SIMULABILITY, kept)
    told: Sequence[Mapping[str, Any]] = kept[name]
    return told


def simulability_blocks(told: Sequence[Mapping[str, Any]]) -> Iterator[Block]:
    """The sentence of each circuit, and a table of what its outputs take."""
    for each in told:
        simulability = Simulability.from_json(each)
        yield Paragraph(str(simulability))
        alike: dict[Output, list[int]] = {}
        for k, output in enumerate(simulability.outputs):
            alike.setdefault(output, []).append(k)
        columns = (
            Column("outputs", "text"),
            Column("qubits seen"),
            Column("Pauli words"),
            Column("a row by words"),
            Column(f"a row on a device, {simulability.shots:,} shots"),
        )
        rows = tuple(
            (
                _ranges(outputs),
                number(output.qubits),
                f"more than {simulability.limit:,}" if output.words is None else number(output.words),
                "-" if output.seconds is None else seconds_told(output.seconds),
                seconds_told(output.device),
            )
            for output, outputs in alike.items()
        )
        note = "Each output alone; measured on the machine that made this page, the device's by IBM's formula."
        yield Table("What each output takes", columns, rows, note)


def _ranges(numbers: Sequence[int]) -> str:
    """Numbers in order, those that follow each other as one.

    Example:
        >>> _ranges([0, 1, 2, 5, 7, 8])
        '0 to 2, 5, 7, 8'
    """
    runs: list[list[int]] = []
    for k in numbers:
        if runs and runs[-1][-1] == k - 1:
            runs[-1].append(k)
        else:
            runs.append([k])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)
