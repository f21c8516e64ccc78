"""Pictures of what `speed.py` measured: each workload peer by peer, and time against qubits and against batch."""

from __future__ import annotations

import json
from itertools import cycle
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

QBP, PEER, MUTED = "#d1495b", "#30638e", "#8d99ae"
LINES = ("#1f77b4", "#e08e0b", "#2ca02c", "#7b4fa3", "#17becf", "#7f7f7f")  # of peers; none like qbp's
LABELS = {
    "qbp_layer": "qbp",
    "default_qubit_backprop": "PennyLane default.qubit",
    "lightning_adjoint": "PennyLane lightning.qubit",
    "pennylane_jax": "PennyLane + JAX",
    "tensorcircuit_jax": "TensorCircuit-NG (JAX)",
    "flagquantum_module": "flagquantum",
    "torchquantum_module": "TorchQuantum-ng",
    "deepquantum_circuit": "DeepQuantum",
    "pyqtorch_circuit": "pyqtorch",
    "qulacs_gradient": "qulacs",
    "scaluq_batched": "scaluq",
    "qiskit_estimator_qnn": "Qiskit ML EstimatorQNN",
}
COLUMNS = {
    "PennyLane `TorchLayer`, default.qubit": ["default_qubit_backprop"],
    "`TorchLayer`, lightning.qubit, adjoint": ["lightning_adjoint"],
    "fastest torch package": ["flagquantum_module", "torchquantum_module", "deepquantum_circuit", "pyqtorch_circuit"],
    "fastest with JAX": ["pennylane_jax", "tensorcircuit_jax"],
    "fastest other": ["qulacs_gradient", "scaluq_batched", "qiskit_estimator_qnn"],
}
"""Of the table: the peers of each column."""

WHAT = {"step": "training step", "forward": "forward only", "shift": "step by parameter-shift"}


def plot(results: Path) -> None:
    """Write speed.png/svg and sweeps.png/svg beside the results that are there."""
    for name, draw in (("speed", _workloads), ("sweeps", _sweeps)):
        path = results / f"{name}.json"
        if path.exists():
            result = json.loads(path.read_text())
            figure = draw(result["rows"])
            machine = result["machine"]
            note = f"{machine['processor']}, threads: {machine['threads']}; medians, logarithmic"
            figure.text(0.01, 0.005, note, fontsize=8, color=MUTED)
            for suffix in ("png", "svg"):
                figure.savefig(path.with_suffix(f".{suffix}"), dpi=150)
            plt.close(figure)


def table(rows: list[dict]) -> str:
    """A Markdown table: qbp's time for each workload, and the ratios of the fastest peer of each column."""
    lines = [f"| qubits, layers, batch | qbp | {' | '.join(COLUMNS)} |", "|---" * (2 + len(COLUMNS)) + "|"]
    for name in dict.fromkeys(row["name"] for row in rows):
        here = {row["peer"]: row for row in rows if row["name"] == name}
        own = here["qbp_layer"]
        what = {"step": "", "forward": ", forward only", "shift": ", parameter-shift"}[own["mode"]]
        kind = " blocks" if own["blocks"] else ""
        cells = [f"{own['n_qubits']}, {own['n_layers']}{kind}, {own['batch']}{what}", _milliseconds(own["median_ms"])]
        for peers in COLUMNS.values():
            there = [here[peer] for peer in peers if peer in here]
            done = sorted((row["ratio"], LABELS[row["peer"]]) for row in there if "ratio" in row)
            cell = f"{done[0][0]:,.{0 if done[0][0] >= 10 else 1}f} x" if done else ", ".join({_why(r) for r in there})
            cells.append(cell + (f" ({done[0][1]})" if done and len(peers) > 1 else ""))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _milliseconds(ms: float) -> str:
    return f"{ms:.3g} ms" if ms < 1000 else f"{ms / 1000:.3g} s"


def _workloads(rows: list[dict]):
    """One panel a workload: the peers from fastest to slowest, each with its time and its ratio to qbp."""
    names = sorted({row["name"] for row in rows})
    across = min(3, len(names))
    down = -(-len(names) // across)
    figure, axes = plt.subplots(down, across, figsize=(5.2 * across, 3.3 * down), squeeze=False)
    for axis in axes.flat[len(names) :]:
        axis.remove()
    for axis, name in zip(axes.flat, names, strict=False):
        panel = sorted((r for r in rows if r["name"] == name), key=lambda r: r.get("median_ms", float("inf")))
        times = [row["median_ms"] for row in panel if "median_ms" in row] or [1.0]
        low, high = min(times) / 2, max(times) * 1.5
        for y, row in enumerate(panel):
            color = QBP if row["peer"] == "qbp_layer" else PEER
            if "median_ms" in row:
                axis.plot([low, row["median_ms"]], [y, y], color=color, lw=1, alpha=0.4)
                axis.plot(row["median_ms"], y, "o", color=color, ms=5)
                at = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", "fontsize": 7, "color": color}
                axis.annotate(_figures(row), (row["median_ms"], y), **at)
            else:
                axis.text(low * 1.1, y, _why(row), va="center", fontsize=7, color=MUTED)
        axis.set_xscale("log")
        axis.set_xlim(low, high * (high / low) ** 0.4)
        axis.set_yticks(range(len(panel)), [LABELS[row["peer"]] for row in panel], fontsize=8)
        axis.set_ylim(len(panel) - 0.5, -0.5)
        axis.tick_params(axis="x", labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
        first = panel[0]
        layers = f"{first['n_layers']} {'blocks' if first['blocks'] else 'layers'}"
        size = f"{first['n_qubits']} qubits, {layers}, batch {first['batch']}"
        axis.set_title(f"{name.split()[0]}: {size}, {WHAT[first['mode']]}", fontsize=9, loc="left")
    figure.tight_layout(rect=(0, 0.015, 1, 1))
    return figure


def _figures(row: dict) -> str:
    """The time, and for a peer its ratio to qbp."""
    time = _milliseconds(row["median_ms"])
    if row["peer"] == "qbp_layer" or "ratio" not in row:
        return time
    return f"{time}, {row['ratio']:,.{0 if row['ratio'] >= 10 else 1}f} x"


def _why(row: dict) -> str:
    """Why a peer has no time, in a word or two."""
    error = row["error"]
    return "too slow" if "too slow" in error else "other numbers" if error.startswith("differs") else "cannot"


def _sweeps(rows: list[dict]):
    """Time of a training step against the number of qubits and against the batch, one line a peer."""
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.6), sharey=True)
    for axis, key, word in zip(axes, ("n_qubits", "batch"), ("qubits", "batch"), strict=True):
        own = [row for row in rows if word in row["name"]]
        colors = cycle(LINES)
        for peer in dict.fromkeys(row["peer"] for row in own):
            points = sorted((r[key], r["median_ms"]) for r in own if r["peer"] == peer and "median_ms" in r)
            if points:
                style = {"lw": 2.5, "color": QBP} if peer == "qbp_layer" else {"lw": 1.3, "color": next(colors)}
                axis.plot(*zip(*points, strict=True), "o-", ms=4, label=LABELS[peer], **style)
        if own:
            fixed = f"batch {own[0]['batch']}" if word == "qubits" else f"{own[0]['n_qubits']} qubits"
            axis.set_title(f"{fixed}, {own[0]['n_layers']} layers", fontsize=9, loc="left")
        axis.set_yscale("log")
        axis.set_xlabel(word)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[1].set_xscale("log", base=2)
    axes[0].set_ylabel("milliseconds a training step")
    axes[0].legend(fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    return figure
