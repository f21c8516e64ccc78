"""Traced torch functions as graphs (`torch.fx`): what they depend on, whether they are affine, parts of them.

The functions here are those of one sample, ``(inputs (I,), weights (P,)) -> tensors``, traced in float64 on the CPU.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from qbp.circuit.constants import ReadConstants, item_of
from qbp.circuit.lock import LOCK

__all__ = [
    "PLACES",
    "PRODUCTS",
    "affine_nodes",
    "cast",
    "dependencies",
    "describe",
    "extract",
    "functional",
    "outputs",
    "reads",
    "reads_elements",
    "trace",
]

_aten = torch.ops.aten

# Operations that keep an affine function affine. Each is decided by what it is, never by trying values on it.
_MOVES = {
    operator.getitem,
    *(_aten.alias.default, _aten.clone.default, _aten.lift_fresh_copy.default),
    *(_aten.view.default, _aten._unsafe_view.default, _aten.reshape.default, _aten.flip.default, _aten.roll.default),
    *(_aten.select.int, _aten.slice.Tensor, _aten.unbind.int, _aten.split.Tensor, _aten.split_with_sizes.default),
    *(_aten.squeeze.default, _aten.squeeze.dim, _aten.squeeze.dims, _aten.unsqueeze.default, _aten.expand.default),
    *(_aten.permute.default, _aten.transpose.int, _aten.t.default, _aten.cat.default, _aten.stack.default),
    *(_aten.repeat.default, _aten.slice_scatter.default, _aten.neg.default, _aten.add.Tensor, _aten.sub.Tensor),
    *(_aten.rsub.Scalar, _aten.sum.default, _aten.sum.dim_IntList, _aten.mean.default, _aten.mean.dim),
}


# Matrix products, written out: equal samples must give equal bits, which a product of matrices does not promise under
# vmap, and a product with a constant is seen to be affine.
PRODUCTS: dict[Any, Callable[..., Tensor]] = {
    _aten.dot.default: lambda a, b: (a * b).sum(),
    _aten.mv.default: lambda a, b: (a * b).sum(1),
    _aten.mm.default: lambda a, b: (a.unsqueeze(2) * b).sum(1),
    _aten.bmm.default: lambda a, b: (a.unsqueeze(3) * b.unsqueeze(1)).sum(2),
    _aten.addmv.default: lambda c, a, b, beta=1, alpha=1: c * beta + (a * b).sum(1) * alpha,
    _aten.addmm.default: lambda c, a, b, beta=1, alpha=1: c * beta + (a.unsqueeze(2) * b).sum(1) * alpha,
}


def trace(
    function: Callable[..., Any], example: tuple[Tensor, ...], rules: Mapping[Any, Callable[..., Tensor]] | None = None
) -> GraphModule:
    """A function of tensors as a graph of torch's operations, those of `rules` written out; called once, without
    values but those of what does not depend on its arguments."""
    from torch.fx.experimental.proxy_tensor import make_fx

    with LOCK, ReadConstants():
        table = {**(rules or {}), _aten._local_scalar_dense.default: item_of}
        return make_fx(function, table, tracing_mode="fake", _allow_non_fake_inputs=True)(*example)


def dependencies(graph: GraphModule) -> dict[Node, frozenset[str]]:
    """For each node the names of the arguments that it is a function of."""
    arguments: dict[Node, frozenset[str]] = {}
    for node in graph.graph.nodes:
        own = frozenset({node.name}) if node.op == "placeholder" else frozenset[str]()
        arguments[node] = own.union(*(arguments[before] for before in node.all_input_nodes))
    return arguments


def affine_nodes(graph: GraphModule) -> set[Node]:
    """The nodes that are affine functions of the arguments, constants among them."""
    depends = dependencies(graph)
    affine: set[Node] = set()
    for node in graph.graph.nodes:
        varies = {n for n in node.all_input_nodes if depends[n]}
        if not varies or (varies <= affine and _keeps_affine(node, varies)):
            affine.add(node)
    return affine


def _keeps_affine(node: Node, varies: set[Node]) -> bool:
    """Whether the operation of `node` is affine in those of its arguments that vary."""
    if node.target in _MOVES:
        return True
    if node.target is _aten._to_copy.default:
        return node.meta["val"].dtype.is_floating_point
    if node.target in (_aten.mul.Tensor, _aten.mul.Scalar):
        return len(varies) == 1 and node.args[0] is not node.args[1]
    # Division by a constant, and indexing by constant indices.
    if node.target not in (_aten.div.Tensor, _aten.div.Scalar, _aten.index.Tensor):
        return False
    return varies == {node.args[0]} and node.args[1] is not node.args[0]


def describe(graph: GraphModule) -> str:
    """What a traced function computes, whatever its steps are called: equal for functions that compute the same."""
    numbers = {node: f"%{k}" for k, node in enumerate(graph.graph.nodes)}
    lines = []
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            constant = getattr(graph, node.target)
            lines.append(f"constant {constant.dtype} {constant.tolist()}")
        else:
            target = node.target if node.op == "call_function" else ""
            kwargs = {key: value for key, value in node.kwargs.items() if key != "memory_format"}
            args = torch.fx.node.map_aggregate((node.args, kwargs), lambda a: numbers[a] if isinstance(a, Node) else a)
            lines.append(f"{node.op} {target} {args}")
    return re.sub(r" at 0x[0-9a-f]+", "", "\n".join(lines))


def outputs(graph: GraphModule) -> list[Node]:
    """The nodes that a traced function returns in a list, or stacks into its result."""
    (output,) = (node for node in graph.graph.nodes if node.op == "output")
    result = output.args[0]
    nodes: Any = result.args[0] if isinstance(result, Node) else result
    return list(nodes)


def reads(graph: GraphModule, argument: int) -> bool:
    """Whether a traced function uses one of its two arguments."""
    return bool([node for node in graph.graph.nodes if node.op == "placeholder"][argument].users)


# Operations that take elements out or put them elsewhere, and do nothing else.
PLACES = _MOVES - {
    *(_aten.neg.default, _aten.add.Tensor, _aten.sub.Tensor, _aten.rsub.Scalar, _aten.slice_scatter.default),
    *(_aten.sum.default, _aten.sum.dim_IntList, _aten.mean.default, _aten.mean.dim),
} | {_aten.index.Tensor}


def reads_elements(graph: GraphModule, argument: int, size: int) -> set[int]:
    """Which elements of one of its two arguments a traced function uses, found by following where each goes."""
    depends = dependencies(graph)
    elements: dict[Node, Any] = {}  # for a node the elements' numbers in place of their values, -1 for constants
    used: set[int] = set()
    placeholders = [node for node in graph.graph.nodes if node.op == "placeholder"]
    for node in graph.graph.nodes:
        if node in placeholders:
            elements[node] = torch.arange(size) if node is placeholders[argument] else None
        elif node.op == "get_attr":
            elements[node] = getattr(graph, node.target)
        elif (
            node.op == "call_function"
            and node.target in PLACES
            and all(not depends[n] or elements.get(n) is not None for n in node.all_input_nodes)
        ):
            position = node.args[1] if node.target is _aten.index.Tensor else None

            def numbers(n: Node, position: Any = position) -> Any:
                if depends[n] or (position is not None and n in position):
                    return elements[n]
                return (
                    torch.full(n.meta["val"].shape, -1) if "val" in n.meta else torch.full_like(elements[n], -1).long()
                )

            args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), numbers)
            elements[node] = node.target(*args, **kwargs)
        elif node.op == "output" or depends[node]:
            elements[node] = None
            for before in node.all_input_nodes:
                places = elements.get(before) if depends[before] else None
                for tensor in places if isinstance(places, list | tuple) else [places]:
                    if tensor is not None:
                        used.update(tensor.flatten().tolist())
    return used - {-1}


def extract(graph: GraphModule, nodes: Sequence[Node], stack: bool = True) -> GraphModule | None:
    """The traced function reduced to some of its nodes, stacked into one vector; None where there are none."""
    if not nodes:
        return None
    new = torch.fx.Graph()
    copies: dict[Node, Node] = {}
    for node in graph.graph.nodes:
        if node.op != "output":
            copies[node] = new.node_copy(node, lambda n: copies[n])
    kept = [copies[node] for node in nodes]
    new.output(new.call_function(torch.stack, (kept,)) if stack else kept[0])
    new.eliminate_dead_code()
    return GraphModule(graph, new)


def functional(graph: GraphModule, example: tuple[Tensor, ...]) -> GraphModule:
    """The traced function with assignments (``angles[0] = ...``) and operations in place written as functions.

    What is left are operations that torch can differentiate and vectorise rightly.
    """
    schemas = [getattr(node.target, "_schema", None) for node in graph.graph.nodes]
    if any(schema is not None and schema.is_mutable for schema in schemas):
        pure = torch.func.functionalize(graph)
        graph = trace(pure, example)
    for node in graph.graph.nodes:
        if node.target is _aten.copy.default:  # copy(a, b) is b with the shape and the dtype of a
            (into, source), value = node.args, node.meta["val"]
            with graph.graph.inserting_before(node):
                moved = graph.graph.call_function(_aten._to_copy.default, (source,), {"dtype": value.dtype})
                moved.meta["val"] = source.meta["val"].to(value.dtype)
            node.target, node.args, node.kwargs = _aten.expand.default, (moved, list(value.shape)), {}
        elif node.target is _aten.select_scatter.default:
            # Its gradient under vmap is too large by the batch size in torch 2.13; that of slice_scatter is right.
            into, source, dim, index = node.args
            index %= node.meta["val"].shape[dim]
            with graph.graph.inserting_before(node):
                row = graph.graph.call_function(_aten.unsqueeze.default, (source, dim % node.meta["val"].dim()))
                row.meta["val"] = source.meta["val"].unsqueeze(dim)
            node.target, node.args = _aten.slice_scatter.default, (into, row, dim, index, index + 1)
    return GraphModule(graph, graph.graph)


def cast(graph: GraphModule, dtype: torch.dtype, device: torch.device) -> GraphModule:
    """The traced function for arguments of another dtype or on another device: its constants have to follow."""
    dtypes = {torch.float64: dtype, torch.complex128: dtype.to_complex()}

    def moved(value: Any) -> Any:
        if isinstance(value, torch.device):
            return device
        return dtypes.get(value, value) if isinstance(value, torch.dtype) else value

    new = torch.fx.Graph()
    copies: dict[Node, Node] = {}
    constants: dict[str, Tensor] = {}
    for node in graph.graph.nodes:
        copies[node] = new.node_copy(node, lambda n: copies[n])
        copies[node].kwargs = {name: moved(value) for name, value in copies[node].kwargs.items()}
        if node.op == "get_attr":
            constant = getattr(graph, node.target)
            constants[node.target] = constant.to(device, dtypes.get(constant.dtype, constant.dtype))
    return GraphModule(constants, new)
