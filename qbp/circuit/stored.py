"""Circuits as plain data and back, for files from anywhere: nothing of a file is named, imported or run.

Angles that are any function of inputs and weights are graphs of operations. Those of a file are built from the closed
table `OPERATIONS`, with names made here, and their shapes are worked out before anything is computed.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from qbp.circuit.angles import AngleMap, Terms
from qbp.circuit.program import Clifford, Expval, Measurement, Op, Probs, Program, Rotation
from qbp.circuit.tracing import Circuit
from qbp.errors import ConfigError

__all__ = ["from_data", "operations", "size_of", "to_data"]

MOST_QUBITS = 4096
MOST_OPS = 100_000
"""Ops, terms of an observable, and nodes of a graph."""
MOST_NUMBERS = 2**24
"""Elements of a tensor in a graph; inputs of a circuit."""

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
    found: dict[str, Callable[..., Any]] = {"getitem": operator.getitem, "stack": torch.stack}
    for name in NAMES.split():
        packet = getattr(torch.ops.aten, name, None)  # a release of torch may lack one
        for overload in [] if packet is None else packet.overloads():
            operation = getattr(packet, overload)
            gives_tensors = all(str(result.type) in ("Tensor", "List[Tensor]") for result in operation._schema.returns)
            if gives_tensors and not operation._schema.is_mutable:
                found[f"{name}.{overload}"] = operation
    return found


# ---- circuits --------------------------------------------------------------------------------------------------------

_TERMS = ("inputs", "weights", "shared")
_GRAPHS = ("batched_graph", "shared_graph", "amplitudes_graph")


def to_data(circuit: Circuit) -> dict[str, Any]:
    """A circuit as plain data.

    Raises:
        ConfigError: it is too large, or an angle is made of an operation that a file cannot hold.
    """
    program, angle_map = circuit.program, circuit.angle_map
    if len(program.ops) > MOST_OPS:
        raise ConfigError(f"A file can hold a circuit of at most {MOST_OPS} ops, but this one has {len(program.ops)}")
    return {
        "n_qubits": program.n_qubits,
        "ops": [
            [op.pauli, list(op.wires), op.angle, op.scale, op.offset]
            if isinstance(op, Rotation)
            else [op.name, list(op.wires)]
            for op in program.ops
        ],
        "measurements": [
            {"probs": list(m.wires)} if isinstance(m, Probs) else {"terms": [[c, w, list(on)] for c, w, on in m.terms]}
            for m in program.measurements
        ],
        "n_angles": program.n_angles,
        "amplitudes": program.amplitudes,
        "n_inputs": angle_map.n_inputs,
        "n_weights": angle_map.n_weights,
        **{key: _terms_to_data(getattr(angle_map, key)) for key in _TERMS},
        **{key: _graph_to_data(getattr(angle_map, key)) for key in _GRAPHS},
        "weight_shapes": {name: list(shape) for name, shape in circuit.weight_shapes.items()},
        "is_scalar": circuit.is_scalar,
        "normalized": circuit.normalized,
    }


def from_data(data: Any) -> Circuit:
    """The circuit of `to_data`, from data that anybody may have written.

    Raises:
        ConfigError, CircuitError, ArgumentError: the data are no circuit.
    """
    data = _dict(data, "a circuit")
    n_qubits = _whole(data["n_qubits"], "n_qubits", 1, MOST_QUBITS)
    n_angles = _whole(data["n_angles"], "n_angles", 0, MOST_OPS)
    n_inputs = _whole(data["n_inputs"], "n_inputs", 0, MOST_NUMBERS)
    n_weights = _whole(data["n_weights"], "n_weights", 0, MOST_NUMBERS)
    flags = [_flag(data[key], key) for key in ("amplitudes", "is_scalar", "normalized")]
    ops = tuple(_op(item) for item in _list(data["ops"], "ops"))
    measurements = tuple(_measurement(item) for item in _list(data["measurements"], "measurements"))
    program = Program(n_qubits, ops, measurements, n_angles, flags[0])
    sources = (n_inputs, n_weights, n_weights)
    inputs, weights, shared = (_terms(data[key], key, size) for key, size in zip(_TERMS, sources, strict=True))
    if len(inputs) != len(weights):
        raise ConfigError("`inputs` and `weights` of a circuit must tell of the same angles")
    graphs = [None if data[key] is None else _graph(data[key], n_inputs, n_weights) for key in _GRAPHS]
    for graph in graphs[:2]:
        if graph is not None:
            _check_stack(graph)
    _check_amplitudes(graphs[2], program)
    angle_map = AngleMap(n_inputs, n_weights, inputs, weights, shared, *graphs)
    if angle_map.n_batched + angle_map.n_shared != n_angles:
        raise ConfigError(f"`n_angles` of a circuit must be how many angles it makes, but is {n_angles}")
    shapes = {_identifier(name): _shape(shape) for name, shape in _dict(data["weight_shapes"], "weight_shapes").items()}
    if sum(math.prod(shape) for shape in shapes.values()) != n_weights:
        raise ConfigError(f"`weight_shapes` of a circuit must hold n_weights = {n_weights} numbers")
    return Circuit(program, angle_map, shapes, *flags[1:])


def _op(item: Any) -> Op:
    first, wires, *rest = _list(item, "an op")
    name, on = _text(first), tuple(_whole(w, "a wire", 0, MOST_QUBITS) for w in _list(wires, "wires"))
    if not rest:
        return Clifford(name, on)
    angle, scale, offset = rest
    angle = None if angle is None else _whole(angle, "an angle", 0, MOST_OPS)
    return Rotation(name, on, angle, _number(scale, "a scale"), _number(offset, "an offset"))


def _measurement(item: Any) -> Measurement:
    item = _dict(item, "a measurement")
    if "probs" in item:
        return Probs(_wires(item["probs"]))
    terms = [_list(term, "a term") for term in _list(item["terms"], "terms")]
    return Expval(tuple((_number(c, "a coefficient"), _text(word), _wires(on)) for c, word, on in terms))


def _wires(value: Any) -> tuple[int, ...]:
    return tuple(_whole(w, "a wire", 0, MOST_QUBITS) for w in _list(value, "wires"))


def _terms_to_data(terms: Terms) -> list[Any]:
    return [[list(row) for row in terms.index], [list(row) for row in terms.scale], list(terms.offset)]


def _terms(value: Any, name: str, n_source: int) -> Terms:
    index, scale, offset = (_list(part, name) for part in _list(value, name))
    rows = tuple(tuple(_whole(v, name, 0, MOST_NUMBERS) for v in _list(row, name)) for row in index)
    factors = tuple(tuple(_number(v, name) for v in _list(row, name)) for row in scale)
    widths = {len(row) for row in (*rows, *factors)}
    if len(widths) > 1 or 0 in widths or not len(rows) == len(factors) == len(offset):
        raise ConfigError(f"`{name}` of a circuit must have as many indices, scales and offsets")
    for row, by in zip(rows, factors, strict=True):
        if any(v >= n_source and (f or v) for v, f in zip(row, by, strict=True)):
            raise ConfigError(f"`{name}` of a circuit must read one of {n_source} numbers, but reads {row}")
    return Terms(rows, factors, tuple(_number(v, name) for v in offset))


# ---- graphs ----------------------------------------------------------------------------------------------------------


def _graph_to_data(graph: GraphModule | None) -> list[Any] | None:
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


def _graph(data: Any, n_inputs: int, n_weights: int) -> GraphModule:
    """The graph of data, its names made here, with the shape of every value noted as tracing does."""
    graph = Graph()
    nodes: dict[str, Node] = {}
    constants: dict[str, Tensor] = {}
    arguments = iter(("inputs", "weights"))
    entries = _list(data, "a graph")
    for k, entry in enumerate(entries):
        key, op, target, args, last = _list(entry, "a step of a graph")
        if _text(key) in nodes:
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
            (result,) = _list(_value(args, nodes), "an output")
            graph.output(result)
        else:
            raise ConfigError(f"A model file cannot hold {_shown(op)} in a graph")
    if next(arguments, None) is not None or not entries or entries[-1][1] != "output":
        raise ConfigError("A graph in a model file must have two arguments and an output")
    module = GraphModule(constants, graph)
    _note_shapes(module, n_inputs, n_weights)
    return module


def _call(graph: Graph, target: Any, args: Any, kwargs: Any, nodes: Mapping[str, Node]) -> Node:
    operation = operations().get(target) if isinstance(target, str) else None
    if operation is None:
        raise ConfigError(f"A model file cannot hold an angle made by {_shown(target)}")
    schema: Any = getattr(operation, "_schema", None)
    allowed = {a.name for a in schema.arguments} if schema else {"dim"} if operation is torch.stack else set()
    named = {key: _value(value, nodes) for key, value in _dict(kwargs, "arguments").items()}
    if not named.keys() <= allowed:
        raise ConfigError(f"A model file cannot hold an argument {_shown(min(named.keys() - allowed))} of {target}")
    return graph.call_function(operation, tuple(_list(_value(args, nodes), "arguments")), named)


def _constant(dtype: Any, shape: Any, values: Any) -> Tensor:
    values, sizes = _list(values, "a constant"), _shape(shape)
    if dtype in COMPLEX:
        real = {torch.complex128: torch.float64, torch.complex64: torch.float32}[COMPLEX[dtype]]
        pairs = torch.tensor([_element(v) for v in values], dtype=real)
        return torch.view_as_complex(pairs.reshape(*sizes, 2).contiguous())
    return torch.tensor([_element(v) for v in values], dtype=_dtype(dtype)).reshape(sizes)


def _element(value: Any) -> float:
    if not isinstance(value, bool | int | float):
        raise ConfigError(f"A constant in a model file must be numbers, but has {_shown(value)}")
    return value


def _value(value: Any, nodes: Mapping[str, Node]) -> Any:
    if isinstance(value, list):
        return [_value(item, nodes) for item in value]
    if isinstance(value, dict):
        if "node" in value:
            return nodes[value["node"]]
        return torch.device("cpu") if "device" in value else _dtype(value["dtype"])
    if isinstance(value, str) and value not in WORDS:
        raise ConfigError(f"A model file cannot hold an angle made with {_shown(value)}")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ConfigError("An integer in a model file must be below 2^63")
    return value


def _dtype(name: Any) -> torch.dtype:
    known = DTYPES | COMPLEX
    if not isinstance(name, str) or name not in known:
        raise ConfigError(f"A dtype in a model file must be one of {', '.join(known)}, but is {_shown(name)}")
    return known[name]


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


def _check_stack(graph: GraphModule) -> None:
    """Angles are stacked of single numbers."""
    result = _result(graph)
    parts = (
        result.args[0] if isinstance(result, Node) and result.target is torch.stack and len(result.args) == 1 else ()
    )
    if not isinstance(parts, Sequence) or not parts or not all(isinstance(part, Node) for part in parts):
        raise ConfigError("A graph of angles in a model file must stack them")
    for part in parts:
        value = part.meta["val"]  # type: ignore[union-attr]
        if not isinstance(value, Tensor) or value.ndim or value.is_complex():
            raise ConfigError("An angle in a model file must be one real number")


def _check_amplitudes(graph: GraphModule | None, program: Program) -> None:
    if (graph is not None) != program.amplitudes:
        raise ConfigError("A circuit in a model file must tell of its amplitudes if it starts from them")
    if graph is not None:
        result = _result(graph)
        value = result.meta["val"] if isinstance(result, Node) else None
        if not isinstance(value, Tensor) or list(value.shape) != [2 ** min(program.n_qubits, 64)]:
            raise ConfigError(f"A circuit of {program.n_qubits} qubits must start from 2^{program.n_qubits} amplitudes")


def size_of(graph: GraphModule | None) -> int:
    """How many numbers a graph computes for a sample, where the shapes are noted, and how many steps it has."""
    nodes = [] if graph is None else list(graph.graph.nodes)
    parts = [node.meta.get("val") for node in nodes]
    return 16 * len(nodes) + sum(part.numel() for part in parts if isinstance(part, Tensor))


def _result(graph: GraphModule) -> Any:
    return next(node for node in graph.graph.nodes if node.op == "output").args[0]


# ---- values ----------------------------------------------------------------------------------------------------------


def _dict(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"A model file must have names and values as {what}, but has {_shown(value)}")
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise ConfigError(f"A model file must have a list as {what}, but has {_shown(value)}")
    if len(value) > MOST_NUMBERS or (what in ("ops", "terms", "a graph") and len(value) > MOST_OPS):
        raise ConfigError(f"A model file must have at most {MOST_OPS} entries as {what}, but has {len(value)}")
    return value


def _whole(value: Any, what: str, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ConfigError(f"A model file must have an integer of {least} to {most} as {what}, but has {_shown(value)}")
    return value


def _number(value: Any, what: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1e300:
        raise ConfigError(f"A model file must have a finite number as {what}, but has {_shown(value)}")
    return value


def _flag(value: Any, what: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"A model file must have true or false as {what}, but has {_shown(value)}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"A model file must have a name here, but has {_shown(value)}")
    return value


def _identifier(value: Any) -> str:
    if not (isinstance(value, str) and value.isidentifier()) or value.startswith("__"):
        raise ConfigError(f"A weight in a model file must have a name, but has {_shown(value)}")
    return value


def _shape(value: Any) -> tuple[int, ...]:
    sizes = tuple(_whole(size, "a size", 0, MOST_NUMBERS) for size in _list(value, "a shape"))
    if len(sizes) > 64:
        raise ConfigError("A shape in a model file must have at most 64 sizes")
    return sizes


def _shown(value: Any) -> str:
    """A value for an error, short whatever it is."""
    if isinstance(value, dict | list):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**18:
        return "a huge integer"
    return repr(value)[:80]
