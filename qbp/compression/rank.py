"""Weights that a circuit can do without, by the rank of its outputs' Jacobian, and how to go without them.

The rank over many inputs is that of the task: a direction of the weights in its null space changes no output for any
input. (The quantum Fisher information of one input (arXiv 2102.01659) sees less than a model uses, and of many inputs
also what no measurement does.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from qbp.analysis.fisher import jacobian
from qbp.circuit.edit import affine_angles
from qbp.circuit.program import Expval
from qbp.executors import backend
from qbp.nn.layer import QuantumLayer
from qbp.nn.shrink import flat_values, shrink

__all__ = ["drop_redundant", "live_parameters"]

RANK = 1e-9
"""Singular values below this share of the largest are 0: far above rounding, far below what weights do."""

ROUNDING = 1e-13
"""Derivatives below this share of what a rotation by one radian can change the outputs are rounding errors."""

EXACT = 1e-12
"""Largest difference of the outputs, on the inputs that weights are solved for."""

CHECKED = 1e-10
"""Largest difference of the outputs on other inputs."""

STEP, MOST_STEPS = 0.2, 60
"""Length of the steps, in radians, in which weights are carried, and how many of them at most."""


def live_parameters(layer: QuantumLayer, *, seed: int = 0) -> int:
    """How many independent directions the weights of a layer have: the rank of the Jacobian of its outputs.

    Taken over random inputs, at two random sets of weights: at special ones, as all 0, it is smaller.

    Args:
        layer: the layer.
        seed: of inputs and weights.

    Example:
        >>> live_parameters(QuantumLayer("strongly_entangling", n_qubits=4, n_layers=3))
        28
    """
    return max(_rank(task, _floor(layer, task)) for task in _task_jacobians(layer, seed, {}))


def _inputs(layer: QuantumLayer, seed: int) -> Tensor:
    """Random inputs, (B, I), more than enough to tell all weights apart."""
    circuit = layer.circuit
    n_outputs, n_weights = circuit.program.n_outputs, circuit.angle_map.n_weights
    count = max(16, math.ceil(3 * n_weights / n_outputs))
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand(count, circuit.n_inputs, generator=generator, dtype=torch.float64) * 2 - 1) * math.pi
    return torch.nn.functional.normalize(x) if circuit.normalized else x


def _task_jacobians(layer: QuantumLayer, seed: int, fixed: Mapping[int, float]) -> list[Tensor]:
    """Jacobians (B M, P) at two random sets of weights, but for the fixed ones."""
    x = _inputs(layer, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    sets = 2 * math.pi * torch.rand(2, layer.circuit.angle_map.n_weights, generator=generator, dtype=torch.float64)
    for p, value in fixed.items():
        sets[:, p] = value
    return [jacobian(layer, x, weights).flatten(0, 1) for weights in sets]


def _rank(task: Tensor, floor: float) -> int:
    if not task.numel():
        return 0
    values = torch.linalg.svdvals(task)
    return int((values > max(floor, RANK * float(values[0]))).sum())


def _floor(layer: QuantumLayer, task: Tensor) -> float:
    """Singular values of a Jacobian (B M, P) below it come of rounding."""
    program = layer.circuit.program
    measured = [sum(abs(c) for c, _, _ in m.terms) if isinstance(m, Expval) else 1.0 for m in program.measurements]
    _, slopes, _ = affine_angles(layer.circuit.angle_map)
    steepest = max(1.0, float(slopes.abs().max())) if slopes.numel() else 1.0
    return ROUNDING * max(measured) * steepest * (1 + len(program.ops)) * math.sqrt(task.numel())


def drop_redundant(layer: QuantumLayer, *, seed: int = 0) -> None:
    """Remove from a layer, in place, the weights beyond the rank of its Jacobian; it still computes the same.

    A redundant weight that alone turns a rotation is carried to where that is the identity, step by step, while the
    others follow so that no output changes (Gauss-Newton on random inputs). Where the way is blocked, and where a
    rotation depends on inputs or on other weights too, a weight is fixed at its value.

    Args:
        layer: the layer, in float64.
        seed: of inputs and weights.
    """
    weights = flat_values(layer)
    live, targets = list(range(len(weights))), _targets(layer)
    gone: dict[int, float] = {}
    while redundant := _redundant(layer, live, gone, seed):
        way = {p: abs(targets[p].past(float(weights[p]))) for p in redundant if p in targets}
        for p in sorted(way, key=way.__getitem__):
            if (moved := _carry(layer, weights, live, p, targets[p], seed)) is not None:
                weights = moved
                gone[p] = float(weights[p])
                break
        else:
            p = redundant[-1]
            gone[p] = float(weights[p])
        live.remove(p)
    if gone:
        start = 0
        with torch.no_grad():
            for weight in layer.qnode_weights.values():
                weight.copy_(weights[start : start + weight.numel()].reshape(weight.shape))
                start += weight.numel()
        shrink(layer, weights=gone)


def _redundant(layer: QuantumLayer, live: Sequence[int], gone: Mapping[int, float], seed: int) -> list[int]:
    """The weights of which any one can be spared, for all that the others can do."""
    if not live:
        return []
    tasks = [task[:, live] for task in _task_jacobians(layer, seed, gone)]
    rank, task = max(((_rank(task, _floor(layer, task)), task) for task in tasks), key=lambda pair: pair[0])
    if rank == len(live):
        return []
    _, _, directions = torch.linalg.svd(task, full_matrices=True)
    size = directions[rank:].square().sum(0)  # how much of the null space each weight is part of
    return [p for p, share in zip(live, size.tolist(), strict=True) if share > 1e-12]


def _targets(layer: QuantumLayer) -> dict[int, _Target]:
    """For each weight that alone decides an angle, and no other: where that turns nothing."""
    circuit, targets = layer.circuit, dict[int, _Target]()
    angle_map, n_inputs, groups = circuit.angle_map, circuit.n_inputs, circuit.program.angle_rotations()
    if any(g is not None for g in (angle_map.batched_graph, angle_map.shared_graph, angle_map.amplitudes_graph)):
        return targets
    angles, slopes, offsets = affine_angles(angle_map)
    for k, slope, offset in zip(angles, slopes, offsets.tolist(), strict=True):
        sources = torch.nonzero(slope).flatten().tolist()
        alone = len(sources) == 1 and sources[0] >= n_inputs and int((slopes[:, sources[0]] != 0).sum()) == 1
        if alone and not any(r.offset for r in groups[k]):
            p, factor = sources[0] - n_inputs, float(slope[sources[0]])
            period = 2 * math.pi / min(abs(r.scale) for r in groups[k])
            targets[p] = _Target(-offset / factor, abs(period / factor))
    return targets


class _Target(NamedTuple):
    """Values at which a weight turns nothing: `value`, and all that are whole periods away."""

    value: float
    period: float

    def nearest(self, weight: float) -> float:
        return self.value + self.period * round((weight - self.value) / self.period)

    def past(self, weight: float) -> float:
        """By how many periods the weight is past the nearest target, -1/2 to 1/2."""
        return (weight - self.nearest(weight)) / self.period


def _carry(layer: QuantumLayer, weights: Tensor, live: list[int], p: int, target: _Target, seed: int) -> Tensor | None:
    """Weights (P,) with weight p at its target and the same outputs; None where no way there is found.

    The live weights walk along the set of equal outputs, at first straight for the target and then straight on, so that
    a fold of the set does not stop them; a Gauss-Newton step after each brings the outputs back.
    """
    circuit, engine, x = layer.circuit, backend("native"), _inputs(layer, seed + 2)

    def outputs(at: Tensor, x: Tensor = x) -> Tensor:
        angles, start = circuit.angle_map(x, at), circuit.angle_map.amplitudes(x, at)
        return engine(circuit.program, angles, start).values.detach()

    def slopes(at: Tensor, columns: list[int]) -> Tensor:
        return jacobian(layer, x, at).flatten(0, 1)[:, columns]

    def solved(at: Tensor, columns: list[int]) -> Tensor | None:
        """The nearest weights that give the outputs wanted, of which only `columns` move."""
        before = math.inf
        for _ in range(10):
            error = wanted - outputs(at)
            size = float(error.abs().max())
            if size < EXACT or size >= before:
                break
            before, at = size, at.clone()
            at[columns] += _least_squares(slopes(at, columns), error.flatten())
        return at if size < EXACT else None

    wanted, wanted_elsewhere = outputs(weights), outputs(weights, _inputs(layer, seed + 3))
    others, place = [q for q in live if q != p], live.index(p)
    toward = 1.0 if target.past(float(weights[p])) < 0 else -1.0
    for sign in (toward, -toward):
        now, ahead = weights, torch.zeros(len(live), dtype=torch.float64)
        ahead[place] = sign
        for _ in range(MOST_STEPS):
            ahead = _in_null_space(slopes(now, live), ahead)
            trial = now.clone()
            trial[live] += STEP * ahead
            past = target.past(float(now[p])), target.past(float(trial[p]))
            if past[0] * past[1] <= 0 and abs(past[0] - past[1]) < 0.5:
                there = now + (trial - now) * past[0] / (past[0] - past[1])
                there[p] = target.nearest(float(there[p]))
                solution = solved(there, others)
                if (
                    solution is not None
                    and (outputs(solution, _inputs(layer, seed + 3)) - wanted_elsewhere).abs().max() < CHECKED
                ):
                    return solution
            moved = solved(trial, live)
            if moved is None:
                break
            now = moved
    return None


def _in_null_space(slopes: Tensor, direction: Tensor) -> Tensor:
    """The unit vector in the null space of the slopes that is nearest to a direction."""
    _, values, rows = torch.linalg.svd(slopes, full_matrices=True)
    null = rows[int((values > 1e-8 * values[0]).sum()) :]
    return torch.nn.functional.normalize(null.T @ (null @ direction), dim=0)


def _least_squares(slopes: Tensor, error: Tensor) -> Tensor:
    """The smallest change that makes up for an error, in the directions that do anything."""
    left, values, rows = torch.linalg.svd(slopes, full_matrices=False)
    rank = int((values > 1e-8 * values[0]).sum())
    return rows[:rank].T @ ((left[:, :rank].T @ error) / values[:rank])
