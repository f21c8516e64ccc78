"""What noise does to a model: error bars of its metrics, and the same model on several backends in one table.

A model that was trained without noise is trained on under noise in one line::

    qbp.fit(noisy := qbp.on_backend(model, "fake:manila"), train, epochs=3)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qbp.data import Dataset
from qbp.errors import ArgumentError, suggests_names
from qbp.executors import has_adjoint
from qbp.hardware.transfer import on_backend, spent
from qbp.nn.layer import QuantumLayer
from qbp.nn.replay import Call, Record, recorded, redrawn, replayed
from qbp.nn.seeding import seeded
from qbp.training.metrics import evaluate

__all__ = ["NoiseRow", "NoiseTable", "error_bars", "noise_table"]


DENSITY_QUBITS = 10
"""Most qubits of a circuit whose density matrix is simulated, where it is not run by the engine for noise."""


@dataclass(frozen=True)
class NoiseRow:
    """A model on one backend.

    Attributes:
        name: of the backend.
        metrics: what `qbp.evaluate` measures, but for what is counted for each class.
        stds: standard errors of the same, as the error bars of the outputs make them.
        distance: root mean square difference of the quantum layers' outputs from those without noise.
        seconds: how long the evaluation took.
        quantum_seconds: what the service charged for it.
    """

    name: str
    metrics: dict[str, float]
    stds: dict[str, float]
    distance: float
    seconds: float
    quantum_seconds: float = 0.0


@dataclass(frozen=True)
class NoiseTable:
    """The same model on several backends; the first row is without noise."""

    rows: tuple[NoiseRow, ...]

    def __getitem__(self, name: str) -> NoiseRow:
        return {row.name: row for row in self.rows}[name]

    def to_rows(self) -> list[dict[str, Any]]:
        """The table as tidy rows: metrics with their standard errors as `METRIC_std`."""
        return [
            {
                "backend": row.name,
                **row.metrics,
                **{f"{name}_std": std for name, std in row.stds.items()},
                "distance": row.distance,
                "seconds": row.seconds,
                "quantum_seconds": row.quantum_seconds,
            }
            for row in self.rows
        ]

    def __str__(self) -> str:
        columns = list(self.rows[0].metrics)
        lines = [["backend", *columns, "distance", "seconds", "quantum seconds"]]
        for row in self.rows:
            values = [f"{row.metrics[c]:.4f}" + (f" +- {row.stds[c]:.4f}" if row.stds[c] else "") for c in columns]
            lines.append([row.name, *values, f"{row.distance:.4f}", f"{row.seconds:.2f}", f"{row.quantum_seconds:.1f}"])
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        return "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines
        )


@suggests_names
def noise_table(
    model: nn.Module,
    data: Dataset,
    *,
    device: str = "fake:manila",
    shots: int = 1000,
    others: Mapping[str, nn.Module] | None = None,
    batch_size: int = 1024,
    seed: int = 0,
) -> NoiseTable:
    """Evaluate a model without noise, with shots, with a device's noise, with both, and wherever else it shall run.

    Args:
        model: holds one or more `QuantumLayer`.
        data: what it is evaluated on.
        device: a fake backend, whose noise is taken.
        shots: how many times each circuit is sampled.
        others: further models by the names of their rows: the same model elsewhere, as `on_backend` returns it for a
            quantum computer, or one that was trained in another way.
        batch_size: rows for each call of the model, and so for each job.
        seed: of the shots.

    Example:
        >>> from qbp.data import load
        >>> _, test = load("iris", seed=0)
        >>> model = nn.Sequential(QuantumLayer("basic_entangler", n_qubits=4, n_layers=1, seed=0), nn.Linear(4, 3))
        >>> [row.name for row in noise_table(model, test).rows]
        ['exact', '1000 shots', 'fake:manila', 'fake:manila, 1000 shots']
    """
    models = {
        "exact": on_backend(model, "native"),
        f"{shots} shots": on_backend(model, "qiskit", shots=shots),
        device: on_backend(model, device),
        f"{device}, {shots} shots": on_backend(model, device, shots=shots),
    }
    if not all(_is_exact(layer) for layer in models[device].modules() if isinstance(layer, QuantumLayer)):
        del models[device]
    rows: list[NoiseRow] = []
    exact: Tensor | None = None
    for name, moved in (models | dict(others or {})).items():
        with seeded(seed, model):
            before, start = spent(moved).seconds, time.perf_counter()
            with recorded(moved) as records:
                evaluate(moved, data, batch_size=batch_size)
            seconds = time.perf_counter() - start
            metrics, stds = _replayed(moved, records, data, batch_size, 100)
        outputs = torch.cat([call.outputs.flatten() for record in records for call in record]).double()
        exact = outputs if exact is None else exact
        if outputs.shape != exact.shape:
            raise ArgumentError(f"Argument `others` has {name!r}, whose quantum layers have other outputs")
        distance = float((outputs - exact).square().mean().sqrt())
        rows.append(NoiseRow(name, metrics, stds, distance, seconds, spent(moved).seconds - before))
    return NoiseTable(tuple(rows))


def error_bars(
    model: nn.Module, data: Dataset, *, batch_size: int = 1024, repeats: int = 100, seed: int = 0
) -> tuple[dict[str, float], dict[str, float]]:
    """Metrics of a model, and what the error bars of its quantum layers' outputs make of them.

    The data pass the quantum layers once; their outputs are then drawn again from normal distributions with the
    standard errors that the backend told (`QuantumLayer.last_stds`), and only the classical layers run.

    Args:
        model: holds one or more `QuantumLayer`.
        data: what it is evaluated on.
        batch_size: rows for each call of the model, and so for each job.
        repeats: how often the outputs are drawn.
        seed: of the draws.

    Returns:
        The metrics of `qbp.evaluate` that are one number, and their standard errors, 0 where the backend is exact.

    Example:
        >>> from qbp.data import load
        >>> _, test = load("iris", seed=0)
        >>> layer = QuantumLayer("basic_entangler", n_qubits=4, n_layers=1, backend="qiskit", shots=100, seed=0)
        >>> metrics, stds = error_bars(nn.Sequential(layer, nn.Linear(4, 3)), test)
        >>> sorted(stds)
        ['accuracy', 'loss']
    """
    with recorded(model) as records:
        evaluate(model, data, batch_size=batch_size)
    with seeded(seed, model):
        return _replayed(model, records, data, batch_size, repeats)


def _is_exact(layer: QuantumLayer) -> bool:
    """Whether a layer on a fake device needs no shots, or not for long."""
    executor: Any = layer.executor
    return layer.traced.n_qubits <= DENSITY_QUBITS or has_adjoint(executor, layer.traced.program)


def _replayed(
    model: nn.Module, records: list[Record], data: Dataset, batch_size: int, repeats: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Metrics of what was recorded, and their spread when it is drawn again; no circuit runs."""
    noisy = any(call.stds is not None and bool(call.stds.any()) for record in records for call in record)

    def metrics(change: Callable[[Call], Tensor]) -> dict[str, float]:
        with replayed(model, records, change):
            scores = evaluate(model, data, batch_size=batch_size)
        return {name: float(value) for name, value in scores.items() if isinstance(value, int | float)}

    told = metrics(lambda call: call.outputs)
    draws = [metrics(redrawn) for _ in range(repeats)] if noisy else []
    spread = {name: torch.tensor([draw[name] for draw in draws]).std().item() if draws else 0.0 for name in told}
    return told, spread
