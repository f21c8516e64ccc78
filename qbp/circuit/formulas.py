"""A circuit's angles as formulas of its inputs and weights, for languages that know arithmetic and no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from qbp.circuit import fx_graphs as graphs
from qbp.circuit.angles import AngleMap, Terms
from qbp.circuit.qasm.expression import Expression
from qbp.circuit.qasm.writer import in_pi
from qbp.errors import ArgumentError, CircuitError

__all__ = ["formulas"]

_aten = torch.ops.aten


def formulas(angle_map: AngleMap, inputs: Sequence[Expression], weights: Sequence[Expression]) -> list[Expression]:
    """Each angle of a circuit, in radians.

    Args:
        angle_map: of the circuit.
        inputs: what stands for the I inputs.
        weights: what stands for the P weights: names, or numbers.

    Raises:
        CircuitError: an angle is computed by a function that OpenQASM 3 does not have.

    Example:
        >>> from qbp.circuit.tracing import trace
        >>> circuit = trace("zz_map", n_qubits=2, n_layers=1)
        >>> x = [Expression.variable("x_0"), Expression.variable("x_1")]
        >>> str(formulas(circuit.angle_map, x, [Expression.variable(f"w_{k}") for k in range(8)])[0])
        '2.0 * x_0'
    """
    batched = [
        _sum([*_terms(angle_map.inputs, k, inputs), *_terms(angle_map.weights, k, weights)], angle_map.inputs.offset[k])
        for k in range(len(angle_map.inputs))
    ]
    batched += _of_graph(angle_map.batched_graph, inputs, weights)
    shared = [
        _sum(_terms(angle_map.shared, k, weights), angle_map.shared.offset[k]) for k in range(len(angle_map.shared))
    ]
    return [*batched, *shared, *_of_graph(angle_map.shared_graph, inputs, weights)]


def _terms(terms: Terms, k: int, source: Sequence[Expression]) -> list[Expression]:
    pairs = zip(terms.index[k], terms.scale[k], strict=True) if len(terms) else ()
    return [_scaled(source[i], scale) for i, scale in pairs if scale]


def _scaled(term: Expression, scale: float) -> Expression:
    return term if scale == 1 else -term if scale == -1 else in_pi(scale) * term


def _sum(terms: Sequence[Expression], offset: float) -> Expression:
    total = terms[0] if terms else Expression.of(0.0)
    for term in terms[1:]:
        total = total + term
    return total if not offset else total + in_pi(offset) if terms else in_pi(offset)


# ---- graphs ----------------------------------------------------------------------------------------------------------


class _Symbols(NamedTuple):
    """A tensor of expressions: their places in a list, as integers of its shape."""

    places: Tensor


def _call(name: str) -> Callable[[Expression], Expression]:
    return lambda x: Expression.call(name, x)


_ONE: dict[Any, Callable[[Expression], Expression]] = {
    **{getattr(_aten, name).default: _call(name) for name in ("sin", "cos", "tan", "exp", "log", "sqrt")},
    **{getattr(_aten, f"a{name}").default: _call(f"arc{name}") for name in ("sin", "cos", "tan")},
    _aten.neg.default: lambda x: -x,
    _aten.reciprocal.default: lambda x: 1 / x,
    _aten.rsqrt.default: lambda x: 1 / Expression.call("sqrt", x),
    _aten.square.default: lambda x: x * x,
    _aten.sigmoid.default: lambda x: 1 / (1 + Expression.call("exp", -x)),
    _aten.tanh.default: lambda x: 1 - 2 / (1 + Expression.call("exp", 2 * x)),
    _aten.deg2rad.default: lambda x: x * in_pi(torch.pi) / 180,
    _aten._to_copy.default: lambda x: x,
}
"""Functions of one number."""


def _added(a: Expression, b: Expression, alpha: float = 1) -> Expression:
    return a + _scaled(b, alpha)


_TWO: dict[Any, Callable[..., Expression]] = {
    **dict.fromkeys((_aten.add.Tensor, _aten.add.Scalar), _added),
    **dict.fromkeys((_aten.sub.Tensor, _aten.sub.Scalar), lambda a, b, alpha=1: a - _scaled(b, alpha)),
    **dict.fromkeys((_aten.rsub.Scalar, _aten.rsub.Tensor), lambda a, b, alpha=1: b - _scaled(a, alpha)),
    **dict.fromkeys((_aten.mul.Tensor, _aten.mul.Scalar), lambda a, b: a * b),
    **dict.fromkeys((_aten.div.Tensor, _aten.div.Scalar), lambda a, b: a / b),
    **dict.fromkeys((_aten.pow.Tensor_Scalar, _aten.pow.Tensor_Tensor, _aten.pow.Scalar), lambda a, b: a**b),
}
"""Functions of two numbers."""

_SUMS = (_aten.sum.default, _aten.sum.dim_IntList, _aten.mean.default, _aten.mean.dim)


def _of_graph(
    graph: GraphModule | None, inputs: Sequence[Expression], weights: Sequence[Expression]
) -> list[Expression]:
    """The results of a traced function of one sample."""
    if graph is None:
        return []
    reader = _Reader(graph, [*inputs, *weights])
    symbols = [_Symbols(torch.arange(len(inputs))), _Symbols(torch.arange(len(weights)) + len(inputs))]
    return [reader.expression(node) for node in reader.run(symbols)]


class _Reader:
    """Runs a graph on expressions: what only moves elements runs as it is, on their places in a list."""

    def __init__(self, graph: GraphModule, expressions: list[Expression]):
        self.graph, self.expressions = graph, expressions
        self.values: dict[Node, Any] = {}

    def run(self, arguments: Sequence[_Symbols]) -> list[Node]:
        """Find the value of each node; returns those of the results."""
        given = iter(arguments)
        results = graphs.outputs(self.graph)
        for node in self.graph.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = next(given)
            elif node.op == "get_attr":
                self.values[node] = getattr(self.graph, node.target)
            elif node.op == "call_function" and node.target is not torch.stack:
                self.values[node] = self.call(node)
        return results

    def expression(self, node: Node) -> Expression:
        """The value of a node that is one number."""
        value = self.values[node]
        return self.expressions[int(value.places)] if isinstance(value, _Symbols) else in_pi(float(value))

    def call(self, node: Node) -> Any:
        args, kwargs = cast(Any, torch.fx.node.map_arg((node.args, node.kwargs), lambda n: self.values[n]))
        target: Any = node.target
        parts = torch.utils._pytree.tree_leaves((args, kwargs), is_leaf=lambda part: isinstance(part, _Symbols))
        if not any(isinstance(part, _Symbols) for part in parts):
            return target(*args, **kwargs)
        try:
            if target in _ONE:
                return self.each(_ONE[target], args[:1])
            if target in _TWO:
                return self.each(_TWO[target], args[:2], **kwargs)
            if target in _SUMS:
                return self.total(target, *args, **kwargs)
            if target in graphs.PLACES:
                return self.moved(target, args, kwargs)
        except ArgumentError as error:
            raise CircuitError(f"An angle cannot be written down: {error}") from error
        raise CircuitError(
            f"An angle is computed by torch's {getattr(target, '__name__', target)!r}, which other packages' "
            "circuits cannot say: use sin, cos, tan, their inverses, exp, log, sqrt, powers and arithmetic"
        )

    def symbols(self, value: Any) -> _Symbols:
        """A number, or a tensor of numbers, as expressions."""
        if isinstance(value, _Symbols):
            return value
        tensor = torch.as_tensor(value, dtype=torch.float64)
        start = len(self.expressions)
        self.expressions += [in_pi(number) for number in tensor.reshape(-1).tolist()]
        return _Symbols(torch.arange(start, len(self.expressions)).reshape(tensor.shape))

    def each(self, function: Callable[..., Expression], operands: Sequence[Any], **options: Any) -> _Symbols:
        """A function of numbers for each element."""
        parts = torch.broadcast_tensors(*(self.symbols(operand).places for operand in operands))
        columns = zip(*(part.reshape(-1).tolist() for part in parts), strict=True)
        start = len(self.expressions)
        self.expressions += [function(*(self.expressions[k] for k in row), **options) for row in columns]
        return _Symbols(torch.arange(start, len(self.expressions)).reshape(parts[0].shape))

    def total(self, target: Any, source: _Symbols, dim: Any = None, keepdim: bool = False, **_: Any) -> _Symbols:
        """Sums, or means, along some axes."""
        places = source.places
        axes = range(places.ndim) if dim is None or dim == [] else [d % places.ndim for d in torch.Size([*dim])]
        rest = [d for d in range(places.ndim) if d not in set(axes)]
        rows = places.permute(*rest, *axes).reshape(*(places.shape[d] for d in rest), -1)
        start, flat = len(self.expressions), rows.reshape(-1, rows.shape[-1])
        sums = [_sum([self.expressions[k] for k in row], 0.0) for row in flat.tolist()]
        mean = target in (_aten.mean.default, _aten.mean.dim)
        self.expressions += [total / rows.shape[-1] for total in sums] if mean else sums
        shape = [1 if d in set(axes) else n for d, n in enumerate(places.shape)] if keepdim else rows.shape[:-1]
        return _Symbols(torch.arange(start, len(self.expressions)).reshape(tuple(shape)))

    def moved(self, target: Any, args: Any, kwargs: Any) -> Any:
        """What takes elements out, or puts them elsewhere."""
        indices = args[1] if target is _aten.index.Tensor else None

        def places(value: Any) -> Any:
            if isinstance(value, Tensor):
                return self.symbols(value).places
            return value.places if isinstance(value, _Symbols) else value

        def is_one(value: Any) -> bool:
            return isinstance(value, _Symbols)

        own = torch.utils._pytree.tree_map(places, (args[:1], kwargs) if indices else (args, kwargs), is_leaf=is_one)
        moved = target(*own[0], indices) if indices else target(*own[0], **own[1])
        return [_Symbols(part) for part in moved] if isinstance(moved, list | tuple) else _Symbols(moved)
