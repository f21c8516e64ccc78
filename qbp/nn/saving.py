"""Models as files: structure, circuits and weights in one safetensors file. Loading runs no code of the file.

A pruned or distilled model has no function and no config to build it from: its circuit is kept as data, ops and angles.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.fx import Graph, GraphModule, Node

from qbp.circuit.angles import AngleMap, Terms
from qbp.circuit.program import Clifford, Expval, Op, Probs, Program, Rotation
from qbp.circuit.tracing import Circuit
from qbp.errors import ConfigError
from qbp.executors import capabilities_of
from qbp.nn.layer import QuantumLayer
from qbp.nn.models import BoundedAngle
from qbp.storage.container import load_state, save_state

__all__ = ["MODULES", "load_model", "save_model"]

VERSION = 1

# Modules that a file may hold, by name, with the arguments that make another one like it.
MODULES: dict[str, tuple[Callable[..., nn.Module], tuple[str, ...]]] = {
    "Linear": (nn.Linear, ("in_features", "out_features", "bias")),
    "Flatten": (nn.Flatten, ("start_dim", "end_dim")),
    "Dropout": (nn.Dropout, ("p",)),
    "LeakyReLU": (nn.LeakyReLU, ("negative_slope",)),
    "ELU": (nn.ELU, ("alpha",)),
    "GELU": (nn.GELU, ("approximate",)),
    "Softmax": (nn.Softmax, ("dim",)),
    "LogSoftmax": (nn.LogSoftmax, ("dim",)),
    "BatchNorm1d": (nn.BatchNorm1d, ("num_features", "eps", "momentum", "affine", "track_running_stats")),
    "BoundedAngle": (BoundedAngle, ("scale",)),
    **{kind.__name__: (kind, ()) for kind in (nn.Tanh, nn.ReLU, nn.Sigmoid, nn.SiLU, nn.Identity)},
}


def save_model(model: nn.Module, path: str | Path) -> None:
    """Write a model of `Sequential`s, quantum layers and the modules of `MODULES` to one file, atomically.

    Of a quantum layer the circuit, the weights, the names of backend and gradient rule and the shots are kept.

    Args:
        model: the model.
        path: where to, as in "small.safetensors".

    Raises:
        ConfigError: the model holds another kind of module, or a QNode that runs itself.

    Example:
        >>> import tempfile, qbp
        >>> model, path = qbp.hybrid(8, 2, seed=0), Path(tempfile.mkdtemp()) / "model.safetensors"
        >>> save_model(model, path)
        >>> torch.equal(load_model(path)(torch.ones(1, 8)), model(torch.ones(1, 8)))
        True
    """
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    state = {"format": "model", "version": VERSION, "frozen": frozen}
    save_state(path, state | {"model": _to_data(model, "model"), "weights": dict(model.state_dict())})


def load_model(path: str | Path, *, backend: Any = None) -> nn.Module:
    """Read what `save_model` wrote.

    Args:
        path: the file.
        backend: where the circuits run, instead of where they ran when the model was saved.

    Returns:
        The model, in training mode, on the CPU.

    Raises:
        ConfigError: the file is missing, damaged or not a model.
        ArgumentError: the backend is unknown.
    """
    state = load_state(path)
    if state.get("format") != "model" or state.get("version") != VERSION:
        raise ConfigError(f"{path} is not a model of qbp.save_model of version {VERSION}")
    try:
        model = _from_data(state["model"], backend)
        model.load_state_dict(state["weights"], assign=True)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in state["frozen"])
    except (KeyError, IndexError, TypeError, AttributeError, RuntimeError) as error:
        raise ConfigError(f"The model in {path} is damaged: {error}") from error
    return model


def _to_data(module: nn.Module, name: str) -> dict[str, Any]:
    kind = type(module).__name__
    if type(module) is nn.Sequential:
        return {"kind": kind, "modules": {key: _to_data(child, key) for key, child in module.named_children()}}
    if isinstance(module, QuantumLayer) and module.executor is not None:
        shots = capabilities_of(module.executor).shots
        about = {"backend": module.backend, "diff_method": module.diff_method, "shots": shots}
        return {"kind": kind, "circuit": circuit_to_data(module.circuit), **about}
    if kind not in MODULES or type(module) is not MODULES[kind][0]:
        known = ", ".join(["Sequential", "QuantumLayer", *MODULES])
        raise ConfigError(f"A model file can hold {known}, but {name} is a {kind}")
    values = {key: getattr(module, key) for key in MODULES[kind][1]}
    if "bias" in values:
        values["bias"] = values["bias"] is not None
    return {"kind": kind, "arguments": values}


def _from_data(data: Mapping[str, Any], backend: Any) -> nn.Module:
    if data["kind"] == "Sequential":
        made = nn.Sequential()
        for key, child in data["modules"].items():
            made.add_module(key, _from_data(child, backend))
        return made
    if data["kind"] == "QuantumLayer":
        where = {"backend": data["backend"], "diff_method": data["diff_method"], "shots": data["shots"]}
        if backend is not None:
            where = {"backend": backend}
        return QuantumLayer(circuit_from_data(data["circuit"]), **where)
    if data["kind"] not in MODULES:
        raise ConfigError(f"A model file can hold {', '.join(MODULES)}, but names {data['kind']!r}")
    return MODULES[data["kind"]][0](**data["arguments"])


# ---- circuits --------------------------------------------------------------------------------------------------------


def circuit_to_data(circuit: Circuit) -> dict[str, Any]:
    """A circuit as plain data.

    Raises:
        ConfigError: an angle is made of an operation that a file cannot hold.
    """
    program, angle_map = circuit.program, circuit.angle_map
    return {
        "n_qubits": program.n_qubits,
        "ops": [
            [op.pauli, list(op.wires), op.angle, op.scale, op.offset]
            if isinstance(op, Rotation)
            else [op.name, list(op.wires)]
            for op in program.ops
        ],
        "measurements": [
            {"probs": list(m.wires)} if isinstance(m, Probs) else {"terms": [list(map(_plain, t)) for t in m.terms]}
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


def circuit_from_data(data: Mapping[str, Any]) -> Circuit:
    """The circuit of `circuit_to_data`.

    Raises:
        CircuitError, ConfigError: the data are no circuit.
    """
    ops: list[Op] = []
    for first, wires, *rest in data["ops"]:
        ops.append(Rotation(first, tuple(wires), *rest) if rest else Clifford(first, tuple(wires)))
    measurements = tuple(
        Probs(tuple(m["probs"])) if "probs" in m else Expval(tuple((c, word, tuple(on)) for c, word, on in m["terms"]))
        for m in data["measurements"]
    )
    program = Program(data["n_qubits"], tuple(ops), measurements, data["n_angles"], data["amplitudes"])
    terms = [Terms(*(tuple(map(_tuple, part)) for part in data[key])) for key in _TERMS]
    made = [None if data[key] is None else _graph_from_data(data[key]) for key in _GRAPHS]
    inputs, weights, shared = terms
    angle_map = AngleMap(data["n_inputs"], data["n_weights"], inputs, weights, shared, *made)
    shapes = {name: tuple(shape) for name, shape in data["weight_shapes"].items()}
    return Circuit(program, angle_map, shapes, data["is_scalar"], data["normalized"])


_TERMS = ("inputs", "weights", "shared")
_GRAPHS = ("batched_graph", "shared_graph", "amplitudes_graph")


def _terms_to_data(terms: Terms) -> list[Any]:
    return [[list(row) for row in terms.index], [list(row) for row in terms.scale], list(terms.offset)]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


# ---- angles that are any function of inputs and weights --------------------------------------------------------------

_FUNCTIONS: dict[str, Callable[..., Any]] = {"getitem": operator.getitem, "stack": torch.stack}


def _operation(name: str) -> Callable[..., Any]:
    """The operation of that name: one of torch's that compute a tensor of tensors and numbers, and nothing else."""
    if name in _FUNCTIONS:
        return _FUNCTIONS[name]
    found: Any = torch.ops.aten
    for part in name.split("."):
        found = getattr(found, part, None)
    computes = isinstance(found, torch._ops.OpOverload) and not found._schema.is_mutable
    if not computes or not (found in _MAKES or {torch.Tag.core, torch.Tag.pointwise} & set(found.tags)):
        raise ConfigError(f"A model file cannot hold an angle made by {name!r}")
    return found


_aten = torch.ops.aten
_MAKES = {
    *(_aten.lift_fresh_copy.default, _aten.alias.default, _aten.unbind.int, _aten.split.Tensor, _aten.stack.default),
    *(_aten.split_with_sizes.default, _aten.t.default, _aten.transpose.int, _aten._unsafe_view.default),
    *(_aten.linalg_vector_norm.default, _aten.expand.default, _aten._to_copy.default, _aten.reshape.default),
    *(_aten.roll.default, _aten.flip.default, _aten.prod.default, _aten.prod.dim_int, _aten.sum.default),
}


def _graph_to_data(graph: GraphModule | None) -> list[Any] | None:
    if graph is None:
        return None
    nodes = []
    for node in graph.graph.nodes:
        target: Any = node.target
        if node.op == "get_attr":
            constant = getattr(graph, target)
            nodes.append([node.name, "constant", str(constant.dtype), list(constant.shape), _numbers(constant)])
            continue
        if node.op == "call_function":
            name = next((key for key, function in _FUNCTIONS.items() if function is target), str(target))
            target = name.removeprefix("aten.")
            _operation(target)
        kwargs = {key: _value_to_data(value) for key, value in node.kwargs.items()}
        nodes.append([node.name, node.op, target, _value_to_data(node.args), kwargs])
    return nodes


def _graph_from_data(data: list[Any]) -> GraphModule:
    graph = Graph()
    made: dict[str, Node] = {}
    constants: dict[str, torch.Tensor] = {}
    for name, op, target, args, last in data:
        if op == "constant":
            constants[name] = torch.tensor(last, dtype=_DTYPES[target]).reshape(args)
            made[name] = graph.create_node("get_attr", name, name=name)
            continue
        values, named = _value_from_data(args, made), {key: _value_from_data(v, made) for key, v in last.items()}
        if op == "call_function":
            made[name] = graph.create_node(op, _operation(target), tuple(values), named, name=name)
        elif op in ("placeholder", "output"):
            made[name] = graph.create_node(op, target, tuple(values), named, name=name)
        else:
            raise ConfigError(f"A model file cannot hold a {op!r}")
    return GraphModule(constants, graph)


_DTYPES = {
    str(d): d for d in (torch.float64, torch.float32, torch.int64, torch.bool, torch.complex128, torch.complex64)
}


def _numbers(tensor: torch.Tensor) -> Any:
    if str(tensor.dtype) not in _DTYPES or tensor.is_complex():
        raise ConfigError(f"A model file cannot hold a constant of dtype {tensor.dtype}")
    return tensor.flatten().tolist()


def _value_to_data(value: Any) -> Any:
    if isinstance(value, Node):
        return {"node": value.name}
    if isinstance(value, list | tuple):
        return [_value_to_data(item) for item in value]
    if isinstance(value, torch.dtype):
        return {"dtype": str(value)}
    if isinstance(value, torch.device):
        return {"device": "cpu"}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError(f"A model file cannot hold an angle made with {value!r}")


def _value_from_data(value: Any, made: Mapping[str, Node]) -> Any:
    if isinstance(value, list):
        return [_value_from_data(item, made) for item in value]
    if isinstance(value, dict):
        if "node" in value:
            return made[value["node"]]
        return torch.device("cpu") if "device" in value else _DTYPES[value["dtype"]]
    return value
