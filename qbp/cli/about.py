"""`qbp circuits` and `info`: what is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from qbp.cli.console import out, table

if TYPE_CHECKING:
    from qbp.circuit.qasm.listing import Listing

__all__ = ["circuits", "info"]


def circuits(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Draw this one: a name or a .qasm file.")] = None,
) -> None:
    """List the circuits that come with qbp, or draw one."""
    from qbp.circuit import qasm

    if name is None:
        rows = table(str(qasm.circuits_dir()), "name", "title", "qubits", "inputs", "weights", "gates", "outputs")
        for each in qasm.available():
            rows.add_row(each, *_counts(qasm.load(each)))
        out().print(rows)
        return
    from qbp.circuit.qasm.listing import format_observables
    from qbp.circuit.qasm.text_drawing import draw

    listing = qasm.load(name)
    title, *counts = _counts(listing)
    said = [f"{count} {what}" for count, what in zip(counts, ("qubits", "inputs", "weights", "gates"), strict=False)]
    lines = [title, listing.reference, ", ".join(said), f"observables: {format_observables(listing.measurements)}"]
    out().print("\n".join([*filter(None, lines), "", draw(listing)]), markup=False, highlight=False)


def info() -> None:
    """Print versions, processor, threads, engine and backends: what a bug report needs."""
    from importlib.metadata import entry_points

    import numpy as np
    import torch

    from qbp.executors.native.kernels import batch as kernels
    from qbp.executors.native.kernels import simd as lanes
    from qbp.storage.provenance import versions

    width = [f"{lanes.lanes_of(np.dtype(name))} x {name}" for name in ("float32", "float64")]
    devices = sorted({point.name for point in entry_points(group="pennylane.plugins")})
    about = {
        **versions(),
        "torch threads": torch.get_num_threads(),
        "native engine": f"{' or '.join(width)} in a register",
        "compiled kernels": kernels.forward.stats.cache_path,
        "backends": "auto, native, dense, qiskit, aer, fake:NAME, ibm:NAME, package.module:Thing, PennyLane's: "
        + ", ".join(devices),
    }
    for key, value in about.items():
        out().print(f"{key:<17} {'-' if value is None else value}", markup=False, highlight=False)


def _counts(listing: Listing) -> tuple[str, ...]:
    counts = listing.n_qubits, len(listing.inputs), len(listing.weights), len(listing.calls), len(listing.measurements)
    return (listing.title, *map(str, counts))
