"""Checks of a whole model: saturation, outputs, Fisher information, parameters, classes, loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from qbp.analysis.diagnosis.probe import Finding, Picture, Probe, Stage
from qbp.analysis.fisher import effective_dimension, fisher_factor, model_jacobian, spectrum
from qbp.circuit.program import Expval
from qbp.nn.copying import copied
from qbp.nn.layer import QuantumLayer
from qbp.nn.models import BoundedAngle
from qbp.nn.seeding import redraw, seeded
from qbp.training.metrics import predicted

__all__ = ["LEARNT", "classes", "fisher", "loss", "outputs", "reach", "saturation"]

LEARNT = 0.05  # of the constant prediction's loss, at least
PASSES = 64  # rows times outputs that are differentiated one by one
DRAWS = 5  # of initial weights

# How far from their limits bounded functions are: the slope for an output, relative to the largest one.
BOUNDED: dict[type[nn.Module], Callable[[nn.Module, Tensor], Tensor]] = {
    nn.Tanh: lambda module, y: 1 - y**2,
    BoundedAngle: lambda module, y: 1 - (y / module.scale) ** 2,  # type: ignore[operator]
    nn.Sigmoid: lambda module, y: 4 * y * (1 - y),
    nn.Softmax: lambda module, y: 4 * y * (1 - y),
}


def saturation(probe: Probe) -> Iterator[Finding]:
    """Functions driven to their limits, where no gradient passes."""
    for k, stage in enumerate(probe.stages):
        if type(stage.module) not in BOUNDED:
            continue
        last = k == len(probe.stages) - 1
        before = not last and isinstance(probe.stages[k + 1].module, QuantumLayer)
        slopes = BOUNDED[type(stage.module)](stage.module, stage.y).flatten().clamp(min=1e-12)
        value = float((slopes < 1e-4).double().mean())
        warns = value > 0.5
        code = "OUTPUT_SATURATED" if last else "ANGLES_SATURATED" if before else "ACTIVATION_SATURATED"
        where = f"layer {stage.name} ({type(stage.module).__name__})" if stage.name else type(stage.module).__name__
        said = f"{value:.0%} of the values of {where} lie so near their limits that no gradient passes"
        if warns:
            said += ": scale what goes in (standardise the data, smaller initial weights)"
        logs = tuple(slopes.log10().tolist())
        picture = Picture(
            "histogram", (), logs, "slope there, log10 of its share of the largest", "values", limits=(-4,)
        )
        yield Finding(code, f"Saturation of {where}", value, 0.5, warns, said + ".", picture, "above")


def outputs(probe: Probe) -> Iterator[Finding]:
    """Output range against the loss."""
    for where, _, _, y in probe.quantum:
        spreads = y.detach().std(0) if len(y) > 1 else y.new_zeros(y.shape[1])
        value = float(spreads.max())
        warns = value < 1e-3 and len(y) > 1
        said = f"From row to row the circuit's outputs{where} move by {value:.2g} (the one that moves most)"
        if warns:
            said += ": what comes after them gets a constant; look at the angles, or measure what they turn"
        picture = Picture("bars", tuple(range(len(spreads))), tuple(spreads.tolist()), "output", "standard deviation")
        yield Finding("OUTPUT_CONSTANT", f"Circuit outputs{where}", value, 1e-3, warns, said + ".", picture, "below")
    if probe.labels:
        logits = probe.outputs
        two = logits.topk(2, 1).values if logits.shape[1] > 1 else torch.cat([logits.abs(), 0 * logits], 1)
        margins = two[:, 0] - two[:, 1]
        value = float(margins.median())
        warns = value > 20
        said = f"The first class leads by {value:.3g} in the logits of the median row"
        if warns:
            said += (
                ", where a softmax is 0 or 1 and passes no gradient for rows that are right and a constant one for "
                "others: use smaller weights in the last layer, or scale its inputs"
            )
        picture = Picture("histogram", (), tuple(margins.tolist()), "lead of the first class", "rows", limits=(20,))
        yield Finding("OUTPUT_SATURATED", "Logits", value, 20, warns, said + ".", picture, "above")


def reach(probe: Probe) -> Iterator[Finding]:
    """Whether an output that is bounded can come near the targets."""
    bounds = _bounds(probe.stages[-1]) if probe.stages else None
    if bounds is None:
        return
    low, high = bounds
    y, n = probe.data.y, probe.outputs.shape[1]
    if not probe.labels:
        value = float(((y < low) | (y > high)).double().mean())
        warns, limit = value > 0.01, 0.01
        said = f"{value:.0%} of the targets lie outside of [{low:.3g}, {high:.3g}], all that the last layer can give"
        picture = Picture("histogram", (), tuple(y.flatten().tolist()), "target", "rows", limits=(low, high))
    else:
        value = math.log1p(math.exp(-high)) if n == 1 else math.log1p((n - 1) * math.exp(low - high))
        warns, limit = value > 0.1, 0.1
        said = f"Outputs in [{low:.3g}, {high:.3g}] as logits cannot bring the cross entropy below {value:.2g}"
        picture = Picture(
            "histogram", (), tuple(probe.outputs.flatten().tolist()), "output", "values", limits=(low, high)
        )
    if warns:
        said += ": end the model with a torch.nn.Linear, which scales them"
    yield Finding("OUTPUT_RANGE", "Output range against the loss", value, limit, warns, said + ".", picture, "above")


def _bounds(stage: Stage) -> tuple[float, float] | None:
    module = stage.module
    if isinstance(module, QuantumLayer) and module.executor is not None:
        if module.is_combined:
            return None
        measured = module.circuit_for(stage.x.shape[-1]).program.measurements
        halves = [sum(abs(c) for c, _, _ in m.terms) for m in measured if isinstance(m, Expval)]
        return (-max(halves), max(halves)) if len(halves) == len(measured) else (0.0, max([1.0, *halves]))
    if isinstance(module, BoundedAngle):
        return -module.scale, module.scale
    return {nn.Tanh: (-1.0, 1.0), nn.Sigmoid: (0.0, 1.0), nn.Softmax: (0.0, 1.0)}.get(type(module))


def fisher(probe: Probe) -> Iterator[Finding]:
    """Fisher spectrum, effective dimension (arXiv 2011.00027) and parameters that nothing depends on."""
    n_outputs = probe.outputs.shape[1]
    n_rows = max(1, min(len(probe.data), PASSES // n_outputs))
    x, logits = probe.data.x[:n_rows], probe.outputs[:n_rows]
    jacobian = model_jacobian(probe.model, x)
    n_parameters = jacobian.shape[2]
    if not n_parameters:
        return
    eigenvalues = spectrum(fisher_factor(jacobian, logits, labels=probe.labels))
    value = float(eigenvalues.sum()) / n_parameters
    warns = value < 1e-6 and not probe.learnt
    said = f"Predictions have a Fisher information of {value:.2g} for a parameter (mean eigenvalue)"
    if warns:
        said += (
            ": they hardly depend on any of them, so that training cannot move; look at what is saturated or constant"
        )
    picture = _spectrum(eigenvalues)
    yield Finding("FLAT_FISHER", "Fisher spectrum", value, 1e-6, warns, said + ".", picture, "below")

    live = jacobian.abs().amax((0, 1)) > 1e-9
    spectra = []
    for model in _redrawn(probe):
        jacobian = model_jacobian(model, x)
        live |= jacobian.abs().amax((0, 1)) > 1e-9
        with torch.no_grad():
            factor = fisher_factor(jacobian, model(x), labels=probe.labels)
        spectra.append(spectrum(factor))
    n_data = max(100, len(probe.data))
    most = min(n_parameters, n_rows * max(1, n_outputs - probe.labels))  # the rank that these rows can give
    dimension = effective_dimension(torch.stack(spectra), n_parameters, n_data)
    value, threshold = dimension / n_parameters, 0.1 * most / n_parameters
    warns = value < threshold
    said = f"The effective dimension at {n_data} rows is {dimension:.3g}, of {n_parameters} parameters"
    if warns:
        said += (
            f" ({most} that {n_rows} rows can tell apart): nearly all of them do the same; take fewer, or other gates"
        )
    picture = _spectrum(torch.stack(spectra).mean(0))
    yield Finding(
        "LOW_DIMENSION", "Effective dimension by parameter", value, threshold, warns, said + ".", picture, "below"
    )

    parts, shares, start = [], [], 0
    for name, parameter in probe.model.named_parameters():
        if parameter.requires_grad:
            parts.append(name)
            shares.append(1 - float(live[start : start + parameter.numel()].double().mean()))
            start += parameter.numel()
    value = max(shares)
    warns = value >= 0.5
    said = f"{int((~live).sum())} of {n_parameters} parameters change no output, whatever the data"
    if warns:
        said += (
            f", most in {parts[shares.index(value)]}: they turn about the axis that is measured, come after the last "
            "gate that a measurement sees, or feed something that is saturated; drop them"
        )
    picture = Picture("bars", tuple(parts), tuple(shares), "parameter", "share without effect", limits=(0.5,))
    yield Finding("DEAD_PARAMETERS", "Parameters without effect", value, 0.5, warns, said + ".", picture, "above")


def _spectrum(eigenvalues: Tensor) -> Picture:
    """Those that are not zero but for rounding."""
    some = eigenvalues[eigenvalues > 1e-14 * eigenvalues.max()].tolist()
    ranks = tuple(range(1, len(some) + 1))
    return Picture("points", ranks, tuple(some), "eigenvalue, by size", "Fisher information", bool(some))


def _redrawn(probe: Probe) -> Iterator[nn.Module]:
    """The model with initial weights drawn anew, a few times."""
    for draw in range(DRAWS):
        with seeded(probe.seed + draw, probe.model):
            model = copied(probe.model)
            redraw(model, strict=False)
        yield model


def classes(probe: Probe) -> Iterator[Finding]:
    """Collapse to one class, of a model that is trained: initial weights may well prefer one."""
    if probe.data.n_classes is None or probe.history is None:
        return
    names = probe.data.classes
    said_rows = torch.bincount(predicted(probe.outputs), minlength=len(names)) / len(probe.data)
    true_rows = torch.bincount(probe.data.y, minlength=len(names)) / len(probe.data)
    top = int(said_rows.argmax())
    value = float(said_rows[top])
    warns = value > 0.95 and float(true_rows[top]) < 0.9 * value
    said = f"Class {names[top]} is predicted for {value:.0%} of the rows, and true of {float(true_rows[top]):.0%}"
    if warns:
        said += (
            ": the model gives nearly the same answer to everything; look at what its circuit gets and gives, lower "
            "the learning rate, or train for longer"
        )
    picture = Picture("bars", names, tuple(said_rows.tolist()), "class", "share of rows predicted", limits=(0.95,))
    yield Finding("CLASS_COLLAPSE", "Predicted classes", value, 0.95, warns, said + ".", picture, "above")


def loss(probe: Probe) -> Iterator[Finding]:
    """A loss that does not fall."""
    if probe.history is None or not probe.constant:
        return
    losses = probe.history.column("loss")
    value = 1 - min(losses) / probe.constant
    warns = value < LEARNT
    said = f"Training took {max(value, 0):.1%} off the loss of the best constant prediction, {probe.constant:.3g}"
    if warns:
        said += (
            ": it has learnt nothing. Where nothing else warns, try `qbp lr` for the learning rate, more epochs, "
            "another scale of the data, or a larger model"
        )
    epochs = tuple(int(epoch) for epoch in probe.history.column("epoch"))
    picture = Picture("line", epochs, tuple(losses), "epoch", "loss", limits=(probe.constant,))
    yield Finding("LOSS_STALLED", "Training loss", value, LEARNT, warns, said + ".", picture, "below")
