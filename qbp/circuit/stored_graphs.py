"""Graphs of torch operations as plain data and back: from a closed table, with names made here.

Nothing of a file is source text, and the shapes of a graph are worked out before anything is computed.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from qbp.circuit.stored_values import MOST_NUMBERS, MOST_OPS, as_dict, as_list, as_shape, as_text, check_axes, shown
from qbp.errors import ConfigError

__all__ = ["check_stack", "graph_of", "graph_to_data", "operations", "result_of", "size_of"]

# Operations of torch that compute a tensor of tensors and numbers, draw nothing and change nothing in place.
NAMES = """
abs acos acosh add alias amax amin angle argmax argmin asin asinh atan atan2 atanh bitwise_and bitwise_not bitwise_or
bitwise_xor bmm cat ceil celu clamp clamp_max clamp_min clone complex conj constant_pad_nd copysign cos cosh cumprod
cumsum deg2rad detach diag_embed diagonal digamma div dot elu eq erf erfc erfinv exp exp2 expand expm1 flip floor
floor_divide fmax fmin fmod frac full full_like gather ge gelu gt hardsigmoid hardswish hardtanh heaviside hypot i0
imag index index_put index_select isfinite isinf isnan ldexp le leaky_relu lerp lgamma lift_fresh_copy
linalg_vector_norm log log10 log1p log2 log_sigmoid_forward logaddexp logaddexp2 logical_and logical_not logical_or
logical_xor logit logsumexp lt masked_fill max maximum mean min minimum mish mm mul mv ne neg new_full new_ones
new_zeros norm ones ones_like outer permute polar pow prod rad2deg real reciprocal relu remainder repeat reshape roll
round rsqrt rsub scalar_tensor scatter scatter_add select select_scatter sgn sigmoid sign signbit silu sin sinc sinh
slice slice_scatter softplus split split_with_sizes sqrt square squeeze stack std sub sum t tan tanh threshold
transpose trapezoid tril triu trunc unbind unfold unsqueeze var view view_as_complex view_as_real where xlogy zeros
zeros_like any avg_pool1d clip convolution embedding float_power gcd hardshrink nan_to_num native_layer_norm positive
relu6 selu softshrink sort special_bessel_j0 special_bessel_j1 special_entr special_erfcx special_i0e special_i1
special_i1e topk true_divide _conj_physical _fft_c2c _fft_c2r _fft_r2c _conj _log_softmax _softmax _to_copy
_unsafe_view addcdiv addcmul addmm addmv arange cross
"""

WORDS = frozenset({"none", "tanh", "floor", "trunc", "mean", "sum"})  # what an operation's argument may say
IDLE = frozenset({"memory_format", "layout", "pin_memory", "non_blocking"})  # where numbers stand, not which they are
DTYPES = {str(d): d for d in (torch.float64, torch.float32, torch.int64, torch.int32, torch.bool)}
COMPLEX = {str(d): d for d in (torch.complex128, torch.complex64)}


@cache
def operations() -> dict[str, Callable[..., Any]]:
    """The operations that a graph in a file may have, by name, as in "sin.default"; the table is closed.

    Example:
        >>> operations()["sin.default"]
        <OpOverload(op='aten.sin', overload='default')>
    """
    table: dict[str, Callable[..., Any]] = {"getitem": operator.getitem, "stack": torch.stack}
    for name in NAMES.split():
        packet = getattr(torch.ops.aten, name, None)  # a release of torch may lack one
        for overload in [] if packet is None else packet.overloads():
            operation = getattr(packet, overload)
            gives_tensors = all(str(result.type) in ("Tensor", "List[Tensor]") for result in operation._schema.returns)
            if gives_tensors and not operation._schema.is_mutable:
                table[f"{name}.{overload}"] = operation
    return table


def graph_to_data(graph: GraphModule | None) -> list[Any] | None:
    """A graph as plain data: operations by name, their arguments by the numbers of steps."""
    if graph is None:
        return None
    nodes: list[Any] = []
    numbers = {node: f"n{k}" for k, node in enumerate(graph.graph.nodes)}
    if len(numbers) > MOST_OPS:
        raise ConfigError(f"A file can hold angles made by {MOST_OPS} operations, but these are {len(numbers)}")
    names = {operation: name for name, operation in operations().items()}
    for node, number in numbers.items():
        if node.op == "get_attr":
            nodes.append([number, "constant", *_constant_to_data(getattr(graph, node.target))])
            continue
        target = ""
        if node.op == "call_function":
            if node.target not in names:
                raise ConfigError(f"A model file cannot hold an angle made by '{node.target}'")
            target = names[node.target]
        kwargs = {key: _value_to_data(v, numbers) for key, v in node.kwargs.items() if key not in IDLE}
        nodes.append([number, node.op, target, _value_to_data(node.args, numbers), kwargs])
    return nodes


def _constant_to_data(constant: Tensor) -> tuple[str, list[int], list[Any]]:
    if str(constant.dtype) in COMPLEX:
        return str(constant.dtype), list(constant.shape), torch.view_as_real(constant).flatten().tolist()
    if str(constant.dtype) not in DTYPES:
        raise ConfigError(f"A model file cannot hold a constant of dtype {constant.dtype}")
    return str(constant.dtype), list(constant.shape), constant.flatten().tolist()


def _value_to_data(value: Any, numbers: Mapping[Node, str]) -> Any:
    if isinstance(value, Node):
        return {"node": numbers[value]}
    if isinstance(value, list | tuple):
        return [_value_to_data(item, numbers) for item in value]
    if isinstance(value, torch.dtype) and str(value) in DTYPES | COMPLEX:
        return {"dtype": str(value)}
    if isinstance(value, torch.device):
        return {"device": "cpu"}
    if value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and value in WORDS):
        return value
    raise ConfigError(f"A model file cannot hold an angle made with {value!r}")


def graph_of(data: Any, n_inputs: int, n_weights: int) -> GraphModule:
    """The graph of data, its names made here, with the shape of every value noted as tracing does."""
    graph = Graph()
    nodes: dict[str, Node] = {}
    constants: dict[str, Tensor] = {}
    arguments = iter(("inputs", "weights"))
    entries = as_list(data, "a graph")
    for k, entry in enumerate(entries):
        key, op, target, args, last = as_list(entry, "a step of a graph")
        if as_text(key) in nodes:
            raise ConfigError("The steps of a graph must have different names")
        if op == "constant":
            name = f"constant_{k}"
            constants[name] = _constant(target, args, last)
            nodes[key] = graph.get_attr(name)
        elif op == "placeholder":
            name = next(arguments, "")
            if not name:
                raise ConfigError("A graph in a model file must have two arguments")
            nodes[key] = graph.placeholder(name)
        elif op == "call_function":
            nodes[key] = _call(graph, target, args, last, nodes)
        elif op == "output" and k == len(entries) - 1:
            (result,) = as_list(_value(args, nodes), "an output")
            graph.output(result)
        else:
            raise ConfigError(f"A model file cannot hold {shown(op)} in a graph")
    if next(arguments, None) is not None or not entries or entries[-1][1] != "output":
        raise ConfigError("A graph in a model file must have two arguments and an output")
    module = GraphModule(constants, graph)
    _note_shapes(module, n_inputs, n_weights)
    return module


def _call(graph: Graph, target: Any, args: Any, kwargs: Any, nodes: Mapping[str, Node]) -> Node:
    operation = operations().get(target) if isinstance(target, str) else None
    if operation is None:
        raise ConfigError(f"A model file cannot hold an angle made by {shown(target)}")
    schema: Any = getattr(operation, "_schema", None)
    allowed = {a.name for a in schema.arguments} if schema else {"dim"} if operation is torch.stack else set()
    named = {key: _value(value, nodes) for key, value in as_dict(kwargs, "arguments").items()}
    if not named.keys() <= allowed:
        raise ConfigError(f"A model file cannot hold an argument {shown(min(named.keys() - allowed))} of {target}")
    return graph.call_function(operation, tuple(as_list(_value(args, nodes), "arguments")), named)


def _constant(dtype: Any, shape: Any, values: Any) -> Tensor:
    values, sizes = as_list(values, "a constant"), as_shape(shape)
    if dtype in COMPLEX:
        real = {torch.complex128: torch.float64, torch.complex64: torch.float32}[COMPLEX[dtype]]
        pairs = torch.tensor([_element(v) for v in values], dtype=real)
        return torch.view_as_complex(pairs.reshape(*sizes, 2).contiguous())
    return torch.tensor([_element(v) for v in values], dtype=_dtype(dtype)).reshape(sizes)


def _element(value: Any) -> float:
    if not isinstance(value, bool | int | float):
        raise ConfigError(f"A constant in a model file must be numbers, but has {shown(value)}")
    return value


def _value(value: Any, nodes: Mapping[str, Node]) -> Any:
    if isinstance(value, list):
        check_axes(value)
        return [_value(item, nodes) for item in value]
    if isinstance(value, dict):
        if "node" in value:
            return nodes[value["node"]]
        return torch.device("cpu") if "device" in value else _dtype(value["dtype"])
    if isinstance(value, str) and value not in WORDS:
        raise ConfigError(f"A model file cannot hold an angle made with {shown(value)}")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ConfigError("An integer in a model file must be below 2^63")
    return value


def _dtype(name: Any) -> torch.dtype:
    dtypes = DTYPES | COMPLEX
    if not isinstance(name, str) or name not in dtypes:
        raise ConfigError(f"A dtype in a model file must be one of {', '.join(dtypes)}, but is {shown(name)}")
    return dtypes[name]


def _note_shapes(module: GraphModule, n_inputs: int, n_weights: int) -> None:
    """Work out the shape of every value, without computing any, and refuse those that are too large."""
    sizes = iter((n_inputs, n_weights))
    for node in module.graph.nodes:
        if node.op == "placeholder":
            node.meta["val"] = torch.empty(next(sizes), dtype=torch.float64, device="meta")
        elif node.op == "get_attr":
            node.meta["val"] = getattr(module, node.target).to("meta")
        elif node.op == "call_function":
            args, kwargs = map_arg((node.args, node.kwargs), lambda n: n.meta["val"])
            if isinstance(node.target, torch._ops.OpOverload):
                takes_device = any(a.name == "device" for a in node.target._schema.arguments)
                kwargs = {**kwargs, "device": torch.device("meta")} if takes_device else kwargs
            try:
                node.meta["val"] = node.target(*args, **kwargs)
            except Exception as error:  # whatever torch raises where arguments do not fit
                said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
                raise ConfigError(f"A graph in a model file cannot be computed: {said}") from error
            _check_sizes(node.meta["val"])


def _check_sizes(value: Any) -> None:
    parts: Iterable[Any] = value if isinstance(value, list | tuple) else (value,)
    total = 0
    for part in parts:
        if not isinstance(part, Tensor):
            raise ConfigError("A graph in a model file must compute tensors")
        total += part.numel()
    if total > MOST_NUMBERS:
        raise ConfigError(f"A tensor of a graph in a model file must have at most {MOST_NUMBERS} elements")


def check_stack(graph: GraphModule) -> None:
    """Angles are stacked of single numbers."""
    result = result_of(graph)
    parts = (
        result.args[0] if isinstance(result, Node) and result.target is torch.stack and len(result.args) == 1 else ()
    )
    if not isinstance(parts, Sequence) or not parts or not all(isinstance(part, Node) for part in parts):
        raise ConfigError("A graph of angles in a model file must stack them")
    for part in parts:
        value = part.meta["val"]  # type: ignore[union-attr]
        if not isinstance(value, Tensor) or value.ndim or value.is_complex():
            raise ConfigError("An angle in a model file must be one real number")


def size_of(graph: GraphModule | None) -> int:
    """How many numbers a graph computes for a sample, where the shapes are noted, and how many steps it has."""
    nodes = [] if graph is None else list(graph.graph.nodes)
    parts = [node.meta.get("val") for node in nodes]
    return 16 * len(nodes) + sum(part.numel() for part in parts if isinstance(part, Tensor))


def result_of(graph: GraphModule) -> Any:
    """What a graph returns: nodes."""
    return next(node for node in graph.graph.nodes if node.op == "output").args[0]
