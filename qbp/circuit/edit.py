"""Edits of a traced circuit: ops dropped, angles added up, inputs and weights held fixed. What is left is smaller."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from qbp.circuit import fx_graphs as graphs
from qbp.circuit.angles import AngleMap, Terms, trace_angles
from qbp.circuit.program import Op, Rotation
from qbp.circuit.tracing import Circuit
from qbp.errors import CircuitError

__all__ = ["Sums", "affine_angles", "drop_ops", "is_identity", "remake", "split", "used"]

Sums = Sequence[Sequence[tuple[int, float]]]
"""For each new angle the old ones that it is the sum of, with their factors."""

EXACT = 1e-12  # radians


def is_identity(op: Op) -> bool:
    """Whether an op is a fixed rotation by a multiple of 2 pi: the identity, up to the global phase."""
    if not isinstance(op, Rotation) or op.angle is not None:
        return False
    return abs(math.remainder(op.offset, 2 * math.pi)) < EXACT


def affine_angles(angle_map: AngleMap) -> tuple[tuple[int, ...], Tensor, Tensor]:
    """Which angles are affine in inputs and weights, with their slopes (A, I + P) and offsets (A,); the rest come
    from a torch graph."""
    n_affine = len(angle_map.inputs)
    shared = range(angle_map.n_batched, angle_map.n_batched + len(angle_map.shared))
    batched = torch.cat(
        [angle_map.inputs.dense(angle_map.n_inputs), angle_map.weights.dense(angle_map.n_weights)], dim=1
    )
    of_weights = angle_map.shared.dense(angle_map.n_weights)
    slopes = torch.cat([batched, torch.cat([of_weights.new_zeros(len(shared), angle_map.n_inputs), of_weights], dim=1)])
    offsets = torch.tensor(
        [a + b for a, b in zip(angle_map.inputs.offset, angle_map.weights.offset, strict=True)]
        + list(angle_map.shared.offset),
        dtype=torch.float64,
    )
    return (*range(n_affine), *shared), slopes, offsets


def used(circuit: Circuit) -> tuple[set[int], set[int]]:
    """The inputs, and the flat indices of the weights, that an angle or the amplitudes depend on."""
    angle_map = circuit.angle_map
    n_inputs = angle_map.n_inputs
    _, slopes, _ = affine_angles(angle_map)
    both = set(torch.nonzero((slopes != 0).any(0)).flatten().tolist())
    inputs, weights = {i for i in both if i < n_inputs}, {p - n_inputs for p in both if p >= n_inputs}
    for graph in (angle_map.batched_graph, angle_map.shared_graph, angle_map.amplitudes_graph):
        if graph is not None:
            inputs |= graphs.reads_elements(graph, 0, n_inputs)
            weights |= graphs.reads_elements(graph, 1, angle_map.n_weights)
    return inputs, weights


def drop_ops(circuit: Circuit, positions: Sequence[int]) -> Circuit:
    """The circuit without some ops, and without what no measurement can see any more."""
    program, kept = circuit.program.drop_ops(positions)
    seen, again = program.lightcone()
    return replace(circuit, program=seen, angle_map=circuit.angle_map.select([kept[k] for k in again]))


def remake(
    circuit: Circuit,
    ops: Sequence[Op],
    *,
    sums: Sums | None = None,
    inputs: Mapping[int, float] | None = None,
    weights: Mapping[int, float] | None = None,
) -> Circuit:
    """The circuit with other ops, and angles that are sums of its own, some inputs and weights held fixed.

    An angle that no longer depends on anything becomes a fixed rotation, or none where that is the identity.

    Args:
        circuit: the circuit.
        ops: what there is now; they name the new angles.
        sums: the new angles; by default the old ones.
        inputs: values of the inputs that are inputs no longer, by index.
        weights: values of the weights that are weights no longer, by flat index.
    """
    old = circuit.angle_map
    inputs, weights = inputs or {}, weights or {}
    sums = [[(k, 1.0)] for k in range(circuit.program.n_angles)] if sums is None else sums
    turning = sorted({op.angle for op in ops if isinstance(op, Rotation) and op.angle is not None})
    kept_inputs = [i for i in range(old.n_inputs) if i not in inputs]
    shapes = kept_shapes(circuit, weights)
    affine, slopes, offsets = affine_angles(old)
    row = {k: r for r, k in enumerate(affine)}
    plain = [k for k in turning if all(term in row for term, _ in sums[k])]
    picks = torch.zeros(len(plain), len(affine), dtype=torch.float64)
    for r, k in enumerate(plain):
        for term, factor in sums[k]:
            picks[r, row[term]] += factor
    place_x, fixed_x = _placement(old.n_inputs, inputs)
    place_w, fixed_w = _placement(old.n_weights, weights)
    if len(plain) == len(turning) and old.amplitudes_graph is None:  # nothing to trace
        kept = torch.tensor([*kept_inputs, *(old.n_inputs + p for p in range(old.n_weights) if p not in weights)])
        values = torch.zeros(old.n_inputs + old.n_weights, dtype=torch.float64)
        for column, value in [*inputs.items(), *((old.n_inputs + p, v) for p, v in weights.items())]:
            values[column] = value
        slopes, offsets = picks @ slopes, picks @ (offsets + slopes @ values)
        return _remade(circuit, ops, turning, *_affine_map(slopes[:, kept.long()], offsets, len(kept_inputs)), shapes)
    parts = ((len(old.inputs), old.batched_graph), (old.n_batched + len(old.shared), old.shared_graph))

    def angles(x: Tensor, named: dict[str, Tensor]) -> tuple[list[Tensor], Tensor | None]:
        flat = [named[name].reshape(-1) for name in shapes]
        w = torch.cat(flat) if flat else x.new_zeros(0)
        x, w = torch.cat([x, fixed_x])[place_x], torch.cat([w, fixed_w])[place_w]
        both = torch.cat([x, w])
        value_of = dict(zip(plain, (picks @ slopes @ both + picks @ offsets).unbind(), strict=True))
        if len(plain) < len(turning):
            every = dict(zip(affine, (slopes @ both + offsets).unbind(), strict=True))
            for first, graph in parts:
                if graph is not None:
                    every |= dict(enumerate(graph(x, w).unbind(), first))
            for k in turning:
                if k not in value_of:
                    value_of[k] = torch.stack([every[term] * factor for term, factor in sums[k]]).sum()
        return [value_of[k] for k in turning], None if old.amplitudes_graph is None else old.amplitudes_graph(x, w)

    return _remade(circuit, ops, turning, *trace_angles(angles, len(kept_inputs), shapes), shapes)


def _affine_map(slopes: Tensor, offsets: Tensor, n_inputs: int) -> tuple[AngleMap, list[int | float]]:
    """What `trace_angles` makes of affine angles, from their slopes (K, I + P) and offsets (K,)."""
    of_inputs, of_weights = slopes[:, :n_inputs], slopes[:, n_inputs:]
    batched = torch.nonzero((of_inputs != 0).any(1)).flatten().tolist()
    shared = torch.nonzero((of_weights != 0).any(1) & ~(of_inputs != 0).any(1)).flatten().tolist()
    angle_map = AngleMap(
        n_inputs,
        of_weights.shape[1],
        Terms.of_jacobian(of_inputs[batched], offsets[batched]),
        Terms.of_jacobian(of_weights[batched], torch.zeros(len(batched), dtype=torch.float64)),
        Terms.of_jacobian(of_weights[shared], offsets[shared]),
    )
    resolved: list[int | float] = offsets.tolist()
    for index, k in enumerate([*batched, *shared]):
        resolved[k] = index
    return angle_map, resolved


def _remade(
    circuit: Circuit,
    ops: Sequence[Op],
    turning: Sequence[int],
    angle_map: AngleMap,
    resolved: Sequence[int | float],
    shapes: dict[str, tuple[int, ...]],
) -> Circuit:
    """The circuit with the ops whose angles `turning` became what is `resolved`: an angle of the map, or a number."""
    became = dict(zip(turning, resolved, strict=True))
    new: list[Op] = []
    for op in ops:
        if isinstance(op, Rotation) and op.angle is not None:
            at = became[op.angle]
            if isinstance(at, int):
                op = replace(op, angle=at)
            else:
                op = replace(op, angle=None, scale=1.0, offset=op.scale * at + op.offset)
        if not is_identity(op):
            new.append(op)
    n_angles = angle_map.n_batched + angle_map.n_shared
    program = replace(circuit.program, ops=tuple(new), n_angles=n_angles)
    return replace(circuit, program=program, angle_map=angle_map, weight_shapes=shapes)


def kept_shapes(circuit: Circuit, fixed: Mapping[int, float]) -> dict[str, tuple[int, ...]]:
    """The shapes of the weights without the fixed ones: as before where all elements stay, else flat."""
    shapes: dict[str, tuple[int, ...]] = {}
    start = 0
    for name, shape in circuit.weight_shapes.items():
        size = math.prod(shape)
        left = size - sum(start <= p < start + size for p in fixed)
        if left:
            shapes[name] = tuple(shape) if left == size else (left,)
        start += size
    return shapes


def _placement(n: int, fixed: Mapping[int, float]) -> tuple[Tensor, Tensor]:
    """Where n numbers stand, by index, once the fixed ones (the second result) come after the others."""
    kept = [i for i in range(n) if i not in fixed]
    place = torch.empty(n, dtype=torch.int64)
    place[kept + list(fixed)] = torch.arange(n)
    return place, torch.tensor(list(fixed.values()), dtype=torch.float64)


def split(circuit: Circuit, values: Tensor) -> dict[str, Tensor]:
    """Flat weights (P,) by name, in their shapes."""
    sizes = [math.prod(shape) for shape in circuit.weight_shapes.values()]
    if sum(sizes) != len(values):
        raise CircuitError(f"The circuit has {sum(sizes)} weights, but there are {len(values)} values")
    parts = torch.split(values, sizes) if sizes else ()
    named = zip(circuit.weight_shapes.items(), parts, strict=True)
    return {name: part.reshape(shape) for (name, shape), part in named}
