"""What a smaller model costs and how good it is, beside the controls that a claim about pruning needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from qbp.compression.pruning import prune
from qbp.compression.rank import live_parameters
from qbp.data import Dataset
from qbp.errors import ArgumentError, check_count, check_seed
from qbp.executors import Executor
from qbp.executors import backend as executor_named
from qbp.hardware.transfer import on_backend
from qbp.nn.layer import QuantumLayer
from qbp.nn.models import renew
from qbp.nn.resources import count
from qbp.training.fitting import fit
from qbp.training.metrics import evaluate, main_metric

__all__ = ["CONTROLS", "compression", "cost_of", "quality_of", "summary"]

Row = dict[str, Any]

CONTROLS = ("full", "pruned", "random", "everything", "scratch")
"""The rows of `compression`: the model before; pruned; as many groups pruned at random; all groups of those kinds
pruned; and the pruned model with new weights, trained from scratch for as many epochs as the pruned one altogether."""


def cost_of(
    model: nn.Module, *, backend: str | Executor | None = None, batch_size: int = 32, x: Tensor | None = None
) -> Row:
    """Count what a model costs.

    Args:
        model: the model.
        backend: a device, as in "fake:quito", that its circuits are transpiled for.
        batch_size: B, samples in a training step.
        x: rows that the model takes; found by trying where None.

    Returns:
        What `qbp.nn.resources.count` counts: `parameters`, `rotations`, `one_qubit`, `two_qubit` and `depth` of the
        circuits as they are, `circuits` of a training step, `multiply_adds` of a row; `live` (the parameters less those
        beyond the rank of the quantum layers' Jacobians); `bytes` of the weights. With a device also `device`,
        `seed_transpiler`, `level` and `device_one_qubit` (without RZ), `device_two_qubit`, `device_depth`.

    Example:
        >>> import qbp
        >>> {key: cost_of(qbp.hybrid(8, 2, seed=0))[key] for key in ("parameters", "rotations", "circuits")}
        {'parameters': 70, 'rotations': 28, 'circuits': 1824}
    """
    check_count("batch_size", batch_size)
    layers = [module for module in model.modules() if isinstance(module, QuantumLayer)]
    totals = count(model, x, batch_size=batch_size)
    training = [layer for layer in layers if any(weight.requires_grad for weight in layer.qnode_weights.values())]
    beyond = sum(
        layer.circuit.angle_map.n_weights - live_parameters(layer) for layer in training if not layer.is_combined
    )
    row: Row = {"parameters": totals.parameters, "live": totals.parameters - beyond, "rotations": totals.rotations}
    row |= {"one_qubit": totals.one_qubit_gates, "two_qubit": totals.two_qubit_gates, "depth": totals.depth}
    row |= {"circuits": totals.circuits, "multiply_adds": totals.multiply_adds}
    row["bytes"] = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    if backend is not None:
        from qbp.compression.device_cost import gate_counts

        device: Any = executor_named(backend) if isinstance(backend, str) else backend
        counts = [gate_counts(layer.traced.program, device) for layer in layers]
        row |= {
            "device": device.name,
            "seed_transpiler": device.options.seed_transpiler,
            "level": device.options.optimization_level,
        }
        row["device_one_qubit"] = sum(count.one_qubit for count in counts)
        row["device_two_qubit"] = sum(count.two_qubit for count in counts)
        row["device_depth"] = sum(count.depth for count in counts)
    return row


def quality_of(
    model: nn.Module, test: Dataset, *, shots: int | None = 1000, backend: str | Executor | None = None, rows: int = 300
) -> Row:
    """Measure a model: exactly, with shots, and with a device's noise.

    Args:
        model: the model.
        test: held-out data.
        shots: how many times each circuit is sampled, but for the first measurement; None leaves the second out.
        backend: the device, as in "fake:quito"; None for the model's own noise, or leaves the third out.
        rows: how many rows of the data run on the device.

    Returns:
        `ideal`, `with_shots` and `with_noise`: accuracies, or r2 of a regression.
    """

    def quality(of: nn.Module, data: Dataset) -> float:
        result = evaluate(of, data)
        return float(result[main_metric(result)])

    layers = [module for module in model.modules() if isinstance(module, QuantumLayer)]
    is_quantum = bool(layers)
    row: Row = {"ideal": quality(on_backend(model, "native") if is_quantum else model, test)}
    if is_quantum and shots is not None:
        row["with_shots"] = quality(on_backend(model, "native", shots=shots), test)
    if is_quantum and backend is not None:
        noisy = on_backend(model, backend, shots=shots)
        row["with_noise"] = quality(noisy, test.subset(range(min(rows, len(test)))))
    elif any(layer.noise is not None for layer in layers):
        row["with_noise"] = quality(model, test)
    return row


def compression(
    build: Callable[[int], nn.Module],
    train: Dataset,
    test: Dataset,
    *,
    training: Mapping[str, Any],
    pruning: Mapping[str, Any],
    after: Callable[[nn.Module], nn.Module] | None = None,
    seeds: int | Sequence[int] = 5,
    shots: int | None = 1000,
    backend: str | Executor | None = None,
) -> list[Row]:
    """Prune a model beside its controls, for several seeds; see `CONTROLS`.

    Args:
        build: makes the untrained model of a seed.
        train: what everything is trained on, and scores look at.
        test: held-out data.
        training: arguments of `qbp.fit`, as in ``{"epochs": 20, "lr": 0.01}``.
        pruning: arguments of `qbp.prune`, with `finetune` as a mapping.
        after: what else makes the pruned model smaller, as `qbp.compression.device_cost.snap`; the random one too.
        seeds: how many, at least 5 for a statement; or which.
        shots, backend: as in `quality_of`; the device is also what circuits are transpiled for.

    Returns:
        For each seed one row for each of `CONTROLS`: `model`, `seed`, what `cost_of` counts and `quality_of` measures.

    Raises:
        ArgumentError: an argument does not fit.
    """
    if not isinstance(seeds, Sequence):
        check_count("seeds", seeds)
        seeds = range(seeds)
    if not seeds:
        raise ArgumentError(f"Argument `seeds` must hold at least one seed, but is {seeds!r}")
    for seed in seeds:
        check_seed("seeds", seed)
    if isinstance(backend, str):
        backend = executor_named(backend, shots=shots)
    rows: list[Row] = []
    rounds = 1 if pruning.get("schedule", "one-shot") == "one-shot" else pruning.get("steps") or 5
    tuned = dict(pruning.get("finetune") or {})
    epochs = training.get("epochs", 20) + rounds * (tuned.get("epochs", 20) if tuned else 0)
    finish = after or (lambda model: model)
    for seed in seeds:
        full = build(seed)
        fit(full, train, **{"seed": seed, **training})
        options = {"seed": seed, "backend": backend, **pruning}
        models = {"full": full, "pruned": finish(prune(full, train, **options))}
        models["random"] = finish(prune(full, train, **options | {"by": "random", "backend": None}))
        amount = options.get("amount", 0.5)
        all_of_it: Any = dict.fromkeys(amount, 1.0) if isinstance(amount, Mapping) else 1.0
        once = {"amount": all_of_it, "schedule": "one-shot", "steps": None}
        models["everything"] = prune(full, train, **options | once)
        models["scratch"] = renew(models["pruned"], seed + 1000)  # not the weights that it was pruned from
        fit(models["scratch"], train, **{"seed": seed, **training, "epochs": epochs})
        for name in CONTROLS:
            cost = cost_of(models[name], backend=backend, x=train.x[:1])
            rows.append(
                {"model": name, "seed": seed, **cost, **quality_of(models[name], test, shots=shots, backend=backend)}
            )
    return rows


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, tuple[float, float]]]:
    """Mean and standard deviation over the seeds of every number of every model.

    Example:
        >>> summary([{"model": "full", "ideal": 0.5}, {"model": "full", "ideal": 0.7}])["full"]["ideal"]
        (0.6, 0.141421356237309...)
    """
    statistics: dict[str, dict[str, tuple[float, float]]] = {}
    for name in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == name]
        numbers = [
            key
            for key, value in own[0].items()
            if isinstance(value, int | float) and key not in ("seed", "seed_transpiler")
        ]
        statistics[name] = {key: _mean_and_std([float(row[key]) for row in own]) for key in numbers}
    return statistics


def _mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1)) if len(values) > 1 else 0.0
