"""What pruning removes together: neurons with their weights, encoding angles with what feeds them, gates (`Group`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from qbp.circuit.program import Op, Rotation
from qbp.errors import ArgumentError, check_choice
from qbp.nn.layer import QuantumLayer
from qbp.nn.models import BoundedAngle

__all__ = ["KINDS", "Chain", "Group", "groups_of", "kinds_of", "neuron_chains"]

KINDS = {
    "neuron": "a row of a linear layer with its bias, and the column, or the encoding angles, that it feeds",
    "rotation": "an angle that turns one wire and depends on weights only",
    "encoding": "an angle that turns one wire and depends on inputs",
    "run": "such rotations of one wire with nothing in between, as a U3 or a Rot",
    "entangler": "what acts on the same two or more wires with nothing in between, with all its angles",
}
"""The kinds of groups. A run is made of rotations, so that the two are not pruned together."""

WHAT = {"neurons": ("neuron",), "gates": ("rotation", "entangler"), "both": ("neuron", "rotation", "entangler")}
"""Names for several kinds."""

# Modules that work element by element: a neuron goes through them alone.
ELEMENTWISE = (
    *(nn.Tanh, nn.ReLU, nn.Sigmoid, nn.GELU, nn.SiLU, nn.LeakyReLU, nn.ELU, nn.Softplus, nn.Softsign, nn.Hardtanh),
    *(nn.Identity, nn.Dropout, BoundedAngle),
)


@dataclass(frozen=True)
class Group:
    """What pruning removes together.

    Attributes:
        kind: a key of `KINDS`.
        owner: the name of the module, as in `torch.nn.Module.named_modules`: the linear layer or the quantum layer.
        index: the neuron's row; or the positions of the gate's ops in the layer's program.
    """

    kind: str
    owner: str
    index: tuple[int, ...]


def kinds_of(what: str | Sequence[str]) -> tuple[str, ...]:
    """The kinds that `what` names.

    Raises:
        ArgumentError: a kind is unknown, or overlaps with another.
    """
    if isinstance(what, str) and what in WHAT:
        return WHAT[what]
    kinds = (what,) if isinstance(what, str) else tuple(what)
    for kind in kinds:
        check_choice("what", kind, (*WHAT, *KINDS) if isinstance(what, str) else KINDS)
    if {"run", "rotation"} <= set(kinds):
        raise ArgumentError("Argument `what` must name either runs or single rotations, but names both")
    return kinds


def groups_of(model: nn.Module, what: str | Sequence[str] = "both") -> list[Group]:
    """The groups of a model, in order of its modules and of time.

    Neurons are those of a linear layer that leads, through element-wise modules of the same `Sequential`, to another
    linear layer or to a quantum layer. Gates are those of every quantum layer. Fixed gates of one wire are no groups.

    Args:
        model: the model.
        what: "neurons", "gates", "both", a key of `KINDS`, or several of these keys.

    Raises:
        ArgumentError: if `what` is unknown.

    Example:
        >>> import qbp
        >>> [group.index for group in groups_of(qbp.hybrid(8, 2, n_qubits=3, n_layers=1), "entangler")]
        [(12,), (13,), (14,)]
    """
    kinds = kinds_of(what)
    found: list[Group] = []
    chains = neuron_chains(model)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and "neuron" in kinds and name in chains:
            found += [Group("neuron", name, (row,)) for row in range(module.out_features)]
        elif isinstance(module, QuantumLayer) and set(kinds) - {"neuron"}:
            gates = _gates(module, runs="run" in kinds)
            found += [Group(kind, name, positions) for kind, positions in gates if kind in kinds]
    return found


@dataclass(frozen=True)
class Chain:
    """Where the neurons of a linear layer lead: through element-wise modules to the module that reads them."""

    between: tuple[nn.Module, ...]
    reader: nn.Linear | QuantumLayer
    name: str

    def constant(self, dtype: torch.dtype = torch.float64) -> float:
        """What the reader gets of a neuron whose sum is always 0."""
        value = torch.zeros(1, dtype=dtype)
        for module in self.between:
            value = value if isinstance(module, nn.Dropout) else module(value)
        return float(value)


def neuron_chains(model: nn.Module) -> dict[str, Chain]:
    """Of every linear layer whose neurons can go where they lead, by its name."""
    chains: dict[str, Chain] = {}
    inside: set[str] = set()
    for name, module in model.named_modules():
        if not isinstance(module, nn.Sequential) or name in inside:
            continue
        leaves = list(_leaves(module, name))
        inside |= {n for n, m in module.named_modules(prefix=name) if isinstance(m, nn.Sequential)}
        for k, (owner, layer) in enumerate(leaves):
            if not isinstance(layer, nn.Linear):
                continue
            between: list[nn.Module] = []
            for reader_name, reader in leaves[k + 1 :]:
                if isinstance(reader, ELEMENTWISE):
                    between.append(reader)
                    continue
                takes_columns = isinstance(reader, QuantumLayer) and reader.n_inputs is not None
                if isinstance(reader, nn.Linear) or takes_columns:
                    chains[owner] = Chain(tuple(between), reader, reader_name)  # type: ignore[arg-type]
                break
    return chains


def _leaves(module: nn.Module, name: str) -> list[tuple[str, nn.Module]]:
    """The modules of nested `Sequential`s in order."""
    if not isinstance(module, nn.Sequential):
        return [(name, module)]
    prefix = f"{name}." if name else ""
    return [leaf for key, child in module.named_children() for leaf in _leaves(child, prefix + key)]


def _gates(layer: QuantumLayer, runs: bool) -> list[tuple[str, tuple[int, ...]]]:
    """The gates of a program as (kind, positions of their ops)."""
    circuit = layer.circuit
    of_inputs = circuit.angle_map.needs(True, False)
    atoms: dict[object, list[int]] = {}  # ops of one angle stand together; any other op stands alone
    for position, op in enumerate(circuit.program.ops):
        angle = op.angle if isinstance(op, Rotation) else None
        atoms.setdefault(("angle", angle) if angle is not None else position, []).append(position)
    last: dict[int, int] = {}  # by wire: the gate that acted on it last
    gates: list[tuple[str, list[int], set[int]]] = []
    for positions in atoms.values():
        ops = [circuit.program.ops[p] for p in positions]
        wires = {w for op in ops for w in op.wires}
        kind = _kind(ops, of_inputs, runs)
        before = {last.get(w) for w in wires}
        previous = gates[g] if len(before) == 1 and (g := next(iter(before))) is not None else None
        if previous and kind == previous[0] and kind in ("entangler", "run") and wires == previous[2]:
            previous[1].extend(positions)
            continue
        last.update(dict.fromkeys(wires, len(gates)))
        gates.append((kind, positions, wires))
    return [(kind, tuple(positions)) for kind, positions, _ in gates]


def _kind(ops: Sequence[Op], of_inputs: Sequence[bool], runs: bool) -> str:
    if any(len(op.wires) > 1 for op in ops):
        return "entangler"
    angles = {op.angle for op in ops if isinstance(op, Rotation) and op.angle is not None}
    if not angles:
        return "fixed"
    if any(of_inputs[k] for k in angles):
        return "encoding"
    return "run" if runs else "rotation"
