"""How much each group of what could be removed matters (`SCORES`): neurons and gates alike.

Every group has a gate variable, 1 as the model is and 0 without the group: it multiplies a neuron's sum, and the angle
by which a gate's rotations turn, counted from the nearest identity. Scores that look at data are derivatives of the
loss with respect to it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from qbp.circuit.program import Channel, Clifford, Op, Rotation
from qbp.compression.groups import Chain, Group, neuron_chains
from qbp.data import Dataset
from qbp.errors import ArgumentError, check_choice
from qbp.executors import backend
from qbp.gradients.autograd import ErrorBars, Expectation, Task
from qbp.nn.copying import copied
from qbp.nn.flow import exact_copy
from qbp.nn.layer import QuantumLayer
from qbp.training.metrics import check_data, objective, place

__all__ = ["SCORES", "Gated", "score", "with_gates"]


# ---- a model with gate variables -------------------------------------------------------------------------------------


def nearest(turns: Tensor) -> Tensor:
    """Angles counted from the nearest multiple of 2 pi, where a rotation is the identity up to the global phase."""
    return turns - 2 * math.pi * torch.round(turns.detach() / (2 * math.pi))


class Gated(nn.Module):
    """A quantum layer with a variable for each of some gates: 1 as it is, 0 without the gate.

    Args:
        layer: the layer; its weights are shared. The circuit runs exactly, on the native engine.
        positions: for each gate the positions of its ops.
    """

    def __init__(self, layer: QuantumLayer, positions: Sequence[Sequence[int]]):
        super().__init__()
        self.layer = layer
        self.gates = torch.ones(1, len(positions), dtype=torch.float64)
        self._executor = backend("native")
        gate_of = {p: g for g, group in enumerate(positions) for p in group}
        program, flat, owners = layer.circuit.program, list[Rotation](), list[int]()
        ops: list[Op] = []
        for p, op in enumerate(program.ops):
            if isinstance(op, Channel) or (isinstance(op, Clifford) and p not in gate_of):
                ops.append(op)
                continue
            for step in replace(program, ops=(op,)).rotations():
                ops.append(Rotation(step.pauli, step.wires, len(flat)))
                flat.append(step)
                owners.append(gate_of.get(p, -1))
        self._program = replace(program, ops=tuple(ops), n_angles=len(flat))
        self._source = torch.tensor([-1 if r.angle is None else r.angle for r in flat], dtype=torch.int64)
        self._scale = torch.tensor([0.0 if r.angle is None else r.scale for r in flat], dtype=torch.float64)
        self._offset = torch.tensor([r.offset for r in flat], dtype=torch.float64)
        self._owner = torch.tensor(owners, dtype=torch.int64)
        self.rotations = flat

    def turns(self, x: Tensor) -> Tensor:
        """By how much each of the program's rotations turns, (B, R)."""
        angles = self.layer.circuit.angle_map(x, self.layer.flat_weights(x)).full()
        padded = torch.cat([angles, angles.new_zeros(len(angles), 1)], dim=1)
        return padded[:, self._source] * self._scale + self._offset

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (*, M) of inputs (*, I)."""
        *lead, n_inputs = x.shape
        rows = x.reshape(-1, n_inputs).double()
        turns = self.turns(rows)
        if self.gates.shape[1]:
            gates = _for_rows(self.gates.to(turns), x)
            gated = nearest(turns) * gates[:, self._owner.clamp(min=0)]
            turns = torch.where(self._owner >= 0, gated, turns)
        start = self.layer.circuit.angle_map.amplitudes(rows, self.layer.flat_weights(rows))
        task = Task(self._program, self._executor, "adjoint", (True,) * turns.shape[1], None, ErrorBars())
        outputs = Expectation.apply(turns, turns.new_empty(0), start, task)
        outputs = outputs.reshape(lead if self.layer.circuit.is_scalar else (*lead, outputs.shape[1]))
        return outputs.to(x.dtype if x.is_floating_point() else torch.get_default_dtype())


class _OtherRows(Exception):
    """A layer gets other rows than the model, so that it is not known which row of the model each belongs to."""


def _for_rows(gates: Tensor, x: Tensor) -> Tensor:
    """Gate variables (B or 1, G) for each row of x (B, ..., I) without its last axis."""
    if len(gates) == 1:
        return gates
    if x.ndim < 2 or len(x) != len(gates):
        raise _OtherRows
    return gates.repeat_interleave(math.prod(x.shape[1:-1]), 0)


def with_gates(model: nn.Module, groups: Sequence[Group], gates: Tensor) -> nn.Module:
    """A copy of a model, in float64 on the CPU and in evaluation mode, with gate variables (B or 1, G).

    Its circuits run exactly, on the native engine.
    """
    gated = exact_copy(model).double().cpu()
    columns: dict[str, list[int]] = defaultdict(list)
    for g, group in enumerate(groups):
        columns[group.owner].append(g)
    layers: dict[int, Any] = {}
    for owner, own in columns.items():
        module = gated.get_submodule(owner)
        if isinstance(module, QuantumLayer):
            layers[id(module)] = layer = Gated(module, [groups[g].index for g in own])
            layer.gates = gates[:, own]
    gated = copied(gated, layers)  # wherever the layers are used
    for owner, own in columns.items():
        if groups[own[0]].kind == "neuron":
            rows = torch.tensor([groups[g].index[0] for g in own])
            hook = partial(_gate_neurons, rows=rows, gates=gates[:, own])
            gated.get_submodule(owner).register_forward_hook(hook)
    return gated


def _gate_neurons(module: nn.Module, inputs: object, outputs: Tensor, *, rows: Tensor, gates: Tensor) -> Tensor:
    gates = _for_rows(gates, outputs)
    return outputs * outputs.new_ones(len(gates), outputs.shape[1]).index_copy(1, rows, gates)


# ---- scores ----------------------------------------------------------------------------------------------------------


def score(
    model: nn.Module, groups: Sequence[Group], data: Dataset | None = None, *, by: str = "taylor", seed: int = 0
) -> Tensor:
    """How much each group matters: 0 for one without which the model is the same, as far as the score can know.

    Args:
        model: the model.
        groups: of `groups_of`.
        data: for the scores that look at data, and for encoding angles.
        by: a key of `SCORES`.
        seed: of "random".

    Returns:
        (len(groups),), float64.

    Raises:
        ArgumentError: `by` is unknown, or it needs data and there are none.

    Example:
        >>> import qbp
        >>> from qbp.compression.groups import groups_of
        >>> model = qbp.hybrid(8, 2, seed=0)
        >>> score(model, groups_of(model, "rotation"), by="l1").shape
        torch.Size([24])
    """
    check_choice("by", by, SCORES)
    if not groups:
        return torch.zeros(0, dtype=torch.float64)
    with torch.enable_grad():  # whatever the caller has switched off
        return SCORES[by](model, groups, data, seed)


def sensitivities(model: nn.Module, groups: Sequence[Group], data: Dataset | None) -> Tensor:
    """The derivative of each sample's loss with respect to each group's variable, (B, G)."""
    if data is None:
        raise ArgumentError("Argument `data` must be a qbp.data.Dataset for this score, but is None")
    check_data(model, data)
    try:
        return _sensitivities(model, groups, data)
    except _OtherRows:
        return torch.cat([_sensitivities(model, groups, data.subset([row])) for row in range(len(data))])


def _sensitivities(model: nn.Module, groups: Sequence[Group], data: Dataset) -> Tensor:
    gates = torch.ones(len(data), len(groups), dtype=torch.float64, requires_grad=True)
    gated = with_gates(model, groups, gates)
    x, y = place(gated, data)
    loss = objective(data, None)(gated(x), y) * len(data)  # the sum over the samples
    (gradient,) = torch.autograd.grad(loss + 0 * gates.sum(), gates)  # of an output that no gate changes too
    return gradient


def _taylor(model: nn.Module, groups: Sequence[Group], data: Dataset | None, seed: int) -> Tensor:
    return sensitivities(model, groups, data).mean(0).abs()


def _fisher(model: nn.Module, groups: Sequence[Group], data: Dataset | None, seed: int) -> Tensor:
    return sensitivities(model, groups, data).square().mean(0)


def _random(model: nn.Module, groups: Sequence[Group], data: Dataset | None, seed: int) -> Tensor:
    return torch.rand(len(groups), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _norm(model: nn.Module, groups: Sequence[Group], data: Dataset | None, seed: int, *, order: int) -> Tensor:
    def of_gate(turns: Tensor, rotations: Sequence[Rotation]) -> Tensor:
        return torch.linalg.vector_norm(nearest(turns), order, dim=1).mean()

    return _each(model, groups, data, of_gate, partial(_neuron_norm, order=order))


def _identity(model: nn.Module, groups: Sequence[Group], data: Dataset | None, seed: int) -> Tensor:
    return _each(model, groups, data, _distance, partial(_neuron_norm, order=2, column=False))


def _distance(turns: Tensor, rotations: Sequence[Rotation]) -> Tensor:
    """``1 - |tr V| / 2^n`` of the gate's matrix: whatever its global phase, 0 for the identity only."""
    wires = sorted({w for r in rotations for w in r.wires})
    matrix = torch.eye(2 ** len(wires), dtype=torch.complex128).expand(len(turns), -1, -1)
    for turn, r in zip(turns.unbind(1), rotations, strict=True):
        word = torch.ones(1, 1, dtype=torch.complex128)
        for wire in wires:
            word = torch.kron(word, _PAULI[r.pauli[r.wires.index(wire)] if wire in r.wires else "I"])
        half = turn[:, None, None] / 2
        matrix = torch.cos(half) * matrix - 1j * torch.sin(half) * (word @ matrix)
    trace = matrix.diagonal(dim1=1, dim2=2).sum(1).abs()
    return (1 - trace / 2 ** len(wires)).clamp(min=0).mean()


_PAULI = {
    "I": torch.eye(2, dtype=torch.complex128),
    "X": torch.tensor([[0, 1], [1, 0]], dtype=torch.complex128),
    "Y": torch.tensor([[0, -1j], [1j, 0]], dtype=torch.complex128),
    "Z": torch.tensor([[1, 0], [0, -1]], dtype=torch.complex128),
}


def _neuron_norm(layer: nn.Linear, row: int, chain: Chain, *, order: int, column: bool = True) -> Tensor:
    parts = [layer.weight[row]] + ([] if layer.bias is None else [layer.bias[row : row + 1]])
    if column and isinstance(chain.reader, nn.Linear):
        parts.append(chain.reader.weight[:, row])
    return torch.linalg.vector_norm(torch.cat(parts).detach().double(), order)


def _each(
    model: nn.Module,
    groups: Sequence[Group],
    data: Dataset | None,
    of_gate: Callable[[Tensor, Sequence[Rotation]], Tensor],
    of_neuron: Callable[[nn.Linear, int, Chain], Tensor],
) -> Tensor:
    """A score that looks at the parameters of one group after the other."""
    chains = neuron_chains(model, None if data is None else data.x)
    scores = []
    inputs = _layer_inputs(model, data)
    for group in groups:
        module = model.get_submodule(group.owner)
        if isinstance(module, nn.Linear):
            scores.append(of_neuron(module, group.index[0], chains[group.owner]))
            continue
        assert isinstance(module, QuantumLayer)
        x = inputs.get(group.owner)
        if x is None:
            if data is None and _reads_inputs(module, group):
                raise ArgumentError("Argument `data` must be given to score a gate that depends on inputs, but is None")
            x = torch.zeros(1, module.circuit.n_inputs, dtype=torch.float64)
        gated = Gated(module, [group.index])
        own = (gated._owner == 0).nonzero().flatten()
        with torch.no_grad():
            turns = gated.turns(x.double().cpu())[:, own]
        scores.append(of_gate(turns, [gated.rotations[r] for r in own.tolist()]))
    return torch.stack(scores).double().cpu()


def _reads_inputs(layer: QuantumLayer, group: Group) -> bool:
    needs = layer.circuit.angle_map.needs(True, False)
    ops = [layer.circuit.program.ops[p] for p in group.index]
    return any(isinstance(op, Rotation) and op.angle is not None and needs[op.angle] for op in ops)


def _layer_inputs(model: nn.Module, data: Dataset | None) -> dict[str, Tensor]:
    """What each quantum layer gets when the model reads the data, in all its calls, (R, I)."""
    rows: dict[str, list[Tensor]] = defaultdict(list)
    if data is None:
        return {}
    exact = exact_copy(model).double().cpu()
    for name, module in exact.named_modules():
        if isinstance(module, QuantumLayer):
            module.register_forward_pre_hook(lambda module, args, name=name: rows[name].append(args[0].flatten(0, -2)))
    with torch.no_grad():
        exact(place(exact, data)[0])
    return {name: torch.cat(calls) for name, calls in rows.items()}


Score = Callable[[nn.Module, Sequence[Group], Dataset | None, int], Tensor]

SCORES: dict[str, Score] = {
    "l1": partial(_norm, order=1),
    "l2": partial(_norm, order=2),
    "identity": _identity,
    "taylor": _taylor,
    "fisher": _fisher,
    "random": _random,
}
"""Scores by name, ``(model, groups, data, seed) -> (len(groups),)``: the norms of a group's weights and angles; the
distance of a gate from the identity, of a neuron's sum from 0; the loss's first derivative (gradient times weight) and
its square averaged over samples (Fisher), both with respect to the group's variable."""
