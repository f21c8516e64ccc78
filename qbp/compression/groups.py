"""What pruning removes together: neurons with their weights, encoding angles with what feeds them, gates (`Group`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qbp.circuit.program import Channel, Op, Rotation
from qbp.errors import ArgumentError, check_choice
from qbp.nn.flow import ROWS, Flow, Step, flow_of, guessed_rows, tensors_in, whole_modules
from qbp.nn.layer import QuantumLayer
from qbp.nn.models import BoundedAngle

__all__ = ["KINDS", "Chain", "Group", "groups_of", "kinds_of", "neuron_chains", "prunable", "rows_for"]

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

# Functions of torch that do so, with numbers for their other arguments.
ELEMENTWISE_FUNCTIONS = {
    *(getattr(torch, n) for n in ("tanh", "relu", "sigmoid", "sin", "cos", "atan", "neg", "mul", "div", "add", "sub")),
    *(getattr(Tensor, n) for n in ("tanh", "relu", "sigmoid", "sin", "cos", "atan", "neg", "mul", "div", "add", "sub")),
    *(getattr(Tensor, n) for n in ("__mul__", "__rmul__", "__truediv__", "__add__", "__radd__", "__sub__", "__neg__")),
    *(F.relu, F.gelu, F.silu, F.leaky_relu, F.elu, F.softplus, F.softsign, F.hardtanh, F.tanh, F.sigmoid, F.dropout),
}


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


def groups_of(model: nn.Module, what: str | Sequence[str] = "both", x: Tensor | None = None) -> list[Group]:
    """The groups of a model, in order of its modules and of time.

    Neurons are those of a linear layer that leads, through element-wise functions and by no other way, to another
    linear layer or to a quantum layer. Gates are those of every quantum layer. Fixed gates of one wire are no groups.
    Layers whose weights are tied to those of others, or read by anything else, have none (see `neuron_chains`), nor
    have quantum layers whose outputs are made of what their circuits measure (`QuantumLayer.is_combined`).

    Args:
        model: the model.
        what: "neurons", "gates", "both", a key of `KINDS`, or several of these keys.
        x: rows to run it on, as of `neuron_chains`.

    Raises:
        ArgumentError: if `what` is unknown.

    Example:
        >>> import qbp
        >>> [group.index for group in groups_of(qbp.hybrid(8, 2, n_qubits=3, n_layers=1), "entangler")]
        [(12,), (13,), (14,)]
    """
    kinds = kinds_of(what)
    groups: list[Group] = []
    chains, layers = prunable(model, x)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and "neuron" in kinds and name in chains:
            groups += [Group("neuron", name, (row,)) for row in range(module.out_features)]
        elif isinstance(module, QuantumLayer) and name in layers and set(kinds) - {"neuron"}:
            gates = _gates(module, runs="run" in kinds)
            groups += [Group(kind, name, positions) for kind, positions in gates if kind in kinds]
    return groups


@dataclass(frozen=True)
class Chain:
    """Where the neurons of a linear layer lead: through element-wise functions to the one module that reads them.

    Attributes:
        between: modules, and functions of torch as they were called.
        reader, name: the module.
    """

    between: tuple[Callable[[Tensor], Tensor], ...]
    reader: nn.Linear | QuantumLayer
    name: str

    def constant(self, dtype: torch.dtype = torch.float64) -> float:
        """What the reader gets of a neuron whose sum is always 0."""
        value = torch.zeros(1, dtype=dtype)
        for function in self.between:
            value = value if isinstance(function, nn.Dropout) else function(value)
        return float(value)


def neuron_chains(model: nn.Module, x: Tensor | None = None) -> dict[str, Chain]:
    """Of every linear layer whose neurons can go where they lead, by its name.

    Seen when the model runs, in training and in evaluation: the layer and its reader are called once, with weights of
    their own, and nothing else reads the neurons in between.

    Args:
        model: the model.
        x: rows to run it on; None for random ones, where their shape can be told from the modules.
    """
    return prunable(model, x)[0]


def prunable(model: nn.Module, x: Tensor | None) -> tuple[dict[str, Chain], set[str]]:
    """`neuron_chains`, and the names of the quantum layers whose gates can go."""
    whole = {name for name in whole_modules(model) if not getattr(model.get_submodule(name), "is_combined", False)}
    owned = [(name, module) for name, module in model.named_modules() if name in whole]
    layers = {name for name, module in owned if isinstance(module, QuantumLayer)}
    linear = [name for name, module in owned if type(module) is nn.Linear]
    if not (layers or linear) or (x := rows_for(model, x)) is None:
        return {}, layers
    try:
        flows = [flow_of(model, x, training=training) for training in (True, False)]
    except Exception:  # whatever a model raises of random rows, or where it cannot be trained as it is
        return {}, layers
    chains: dict[str, Chain] = {}
    for owner in linear:
        training, evaluating = (_chain(model, flow, owner, whole) for flow in flows)
        if training is not None and evaluating is not None and training.name == evaluating.name:
            chains[owner] = evaluating
    return chains, layers.difference(*(flow.read_outside for flow in flows))


def rows_for(model: nn.Module, x: Tensor | None) -> Tensor | None:
    """A few rows that a model can be run on: some of `x`, or random ones; None where their shape is not known."""
    if x is None or not len(x):
        return guessed_rows(model)
    first = next((p for p in model.parameters() if p.is_floating_point()), x)
    return x[torch.arange(ROWS) % len(x)].to(first)


def _chain(model: nn.Module, flow: Flow, owner: str, whole: set[str]) -> Chain | None:
    def only_call(name: str) -> Step | None:
        calls = flow.calls(name)
        return calls[0] if len(calls) == 1 and name in whole and name not in flow.read_outside else None

    between: list[Callable[[Tensor], Tensor]] = []
    step = only_call(owner)
    while step is not None and len(step.gives) == 1:
        readers = flow.readers(step.gives[0])
        if len(readers) != 1 or step.gives[0] in flow.outputs or len(flow.shapes[step.gives[0]]) != 2:
            return None
        (step,) = readers
        if step.name is None:
            if (function := _elementwise(step)) is None:
                return None
            between.append(function)
            continue
        reader = model.get_submodule(step.name)
        if type(reader) in ELEMENTWISE and step.name in whole:
            between.append(reader)
            continue
        takes_columns = isinstance(reader, QuantumLayer) and reader.n_inputs is not None and reader.executor is not None
        if (type(reader) is nn.Linear or takes_columns) and only_call(step.name) is not None:
            return Chain(tuple(between), reader, step.name)  # type: ignore[arg-type]
        return None
    return None


def _elementwise(step: Step) -> Callable[[Tensor], Tensor] | None:
    """A function as it was called, of one tensor, where it works element by element."""
    arguments, keywords = step.arguments
    if step.what not in ELEMENTWISE_FUNCTIONS or tensors_in((arguments[1:], keywords)):
        return None
    return lambda value: step.what(value, *arguments[1:], **keywords)


def _gates(layer: QuantumLayer, runs: bool) -> list[tuple[str, tuple[int, ...]]]:
    """The gates of a program as (kind, positions of their ops)."""
    circuit = layer.circuit
    of_inputs = circuit.angle_map.needs(True, False)
    atoms: dict[object, list[int]] = {}  # ops of one angle stand together; any other op stands alone
    for position, op in enumerate(circuit.program.ops):
        angle = op.angle if isinstance(op, Rotation) else None
        atoms.setdefault(("angle", angle) if angle is not None else position, []).append(position)
    last: dict[int, int | None] = {}  # by wire: the gate that acted on it last
    gates: list[tuple[str, list[int], set[int]]] = []
    for positions in atoms.values():
        ops = [circuit.program.ops[p] for p in positions]
        wires = {w for op in ops for w in op.wires}
        if isinstance(ops[0], Channel):  # noise stays, and no gates are one that have some in between
            last.update(dict.fromkeys(wires, None))
            continue
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
