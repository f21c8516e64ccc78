"""Circuits as plain data and back, for files from anywhere: nothing of a file is named, imported or run."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor
from torch.fx import GraphModule, Node

from qbp.circuit.angles import AngleMap, Terms
from qbp.circuit.combination import Combination, Entry
from qbp.circuit.program import Channel, Clifford, Expval, Measurement, Op, Probs, Program, Rotation
from qbp.circuit.stored_graphs import check_stack, graph_of, graph_to_data, result_of
from qbp.circuit.stored_values import (
    MOST_NUMBERS,
    MOST_OPS,
    as_dict,
    as_flag,
    as_identifier,
    as_list,
    as_number,
    as_shape,
    as_text,
    as_whole,
)
from qbp.circuit.tracing import Circuit
from qbp.errors import ConfigError

__all__ = ["channel_of", "channel_to_data", "from_data", "to_data"]

MOST_QUBITS = 4096
WIDEST_CHANNEL = 4  # wires: a map of 256 words

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
        "ops": [_op_to_data(op) for op in program.ops],
        "readout": [list(errors) for errors in program.readout],
        "measurements": [
            {"probs": list(m.wires)} if isinstance(m, Probs) else {"terms": [[c, w, list(on)] for c, w, on in m.terms]}
            for m in program.measurements
        ],
        "n_angles": program.n_angles,
        "amplitudes": program.amplitudes,
        "n_inputs": angle_map.n_inputs,
        "n_weights": angle_map.n_weights,
        **_map_to_data(angle_map),
        "weight_shapes": {name: list(shape) for name, shape in circuit.weight_shapes.items()},
        "is_scalar": circuit.is_scalar,
        "normalized": circuit.normalized,
        "bits": list(circuit.bits),
    } | _combination_to_data(circuit.combination)


def from_data(data: Any) -> Circuit:
    """The circuit of `to_data`, from data that anybody may have written.

    Raises:
        ConfigError, CircuitError, ArgumentError: the data are no circuit.
    """
    data = as_dict(data, "a circuit")
    n_qubits = as_whole(data["n_qubits"], "n_qubits", 1, MOST_QUBITS)
    n_angles = as_whole(data["n_angles"], "n_angles", 0, MOST_OPS)
    n_inputs = as_whole(data["n_inputs"], "n_inputs", 0, MOST_NUMBERS)
    n_weights = as_whole(data["n_weights"], "n_weights", 0, MOST_NUMBERS)
    flags = [as_flag(data[key], key) for key in ("amplitudes", "is_scalar", "normalized")]
    ops = tuple(_op(item) for item in as_list(data["ops"], "ops"))
    measurements = tuple(_measurement(item) for item in as_list(data["measurements"], "measurements"))
    readout = tuple(_readout(item) for item in as_list(data.get("readout", []), "readout"))  # older files have none
    program = Program(n_qubits, ops, measurements, n_angles, flags[0], readout)
    angle_map = _map(data, n_inputs, n_weights)
    _check_amplitudes(angle_map.amplitudes_graph, program)
    if angle_map.n_batched + angle_map.n_shared != n_angles:
        raise ConfigError(f"`n_angles` of a circuit must be how many angles it makes, but is {n_angles}")
    shapes = {
        as_identifier(name): as_shape(shape) for name, shape in as_dict(data["weight_shapes"], "weight_shapes").items()
    }
    if sum(math.prod(shape) for shape in shapes.values()) != n_weights:
        raise ConfigError(f"`weight_shapes` of a circuit must hold n_weights = {n_weights} numbers")
    bits = tuple(as_whole(k, "bits", 0, n_inputs - 1) for k in as_list(data.get("bits", []), "bits"))
    combination = _combination(data.get("combination"), program.n_outputs, n_inputs, n_weights)
    return Circuit(
        program, angle_map, shapes, is_scalar=flags[1], normalized=flags[2], bits=bits, combination=combination
    )


def _map_to_data(angle_map: AngleMap) -> dict[str, Any]:
    terms = {key: _terms_to_data(getattr(angle_map, key)) for key in _TERMS}
    return terms | {key: graph_to_data(getattr(angle_map, key)) for key in _GRAPHS}


def _map(data: dict[str, Any], n_inputs: int, n_weights: int) -> AngleMap:
    sources = (n_inputs, n_weights, n_weights)
    inputs, weights, shared = (_terms(data[key], key, size) for key, size in zip(_TERMS, sources, strict=True))
    if len(inputs) != len(weights):
        raise ConfigError("`inputs` and `weights` of a circuit must tell of the same angles")
    graphs = [None if data[key] is None else graph_of(data[key], n_inputs, n_weights) for key in _GRAPHS]
    for graph in graphs[:2]:
        if graph is not None:
            check_stack(graph)
    return AngleMap(n_inputs, n_weights, inputs, weights, shared, *graphs)


def _combination_to_data(combination: Combination | None) -> dict[str, Any]:
    if combination is None:
        return {}
    entries = [list(entry) for entry in combination.entries]
    return {"combination": {"entries": entries, **_map_to_data(combination.coefficients)}}


def _combination(data: Any, n_values: int, n_inputs: int, n_weights: int) -> Combination | None:
    if data is None:
        return None
    data = as_dict(data, "a combination")
    coefficients = _map(data, n_inputs, n_weights)
    if coefficients.amplitudes_graph is not None:
        raise ConfigError("The coefficients of observables in a model file have no amplitudes")
    n_coefficients = coefficients.n_batched + coefficients.n_shared
    entries = []
    for item in as_list(data["entries"], "entries"):
        output, squared, value, number, coefficient = as_list(item, "an entry")
        if (number is None) == (coefficient is None):
            raise ConfigError("An entry in a model file must have a number or a coefficient")
        entries.append(
            Entry(
                as_whole(output, "an output", 0, MOST_OPS),
                as_flag(squared, "squared"),
                None if value is None else as_whole(value, "a value", 0, n_values - 1),
                None if number is None else as_number(number, "a number"),
                None if coefficient is None else as_whole(coefficient, "a coefficient", 0, n_coefficients - 1),
            )
        )
    outputs = {entry.output for entry in entries}
    if not outputs or outputs != set(range(len(outputs))):
        raise ConfigError("The entries in a model file must be of outputs 0, 1, ..., each with one or more")
    return Combination(len(outputs), tuple(entries), coefficients)


def _op_to_data(op: Op) -> Any:
    if isinstance(op, Rotation):
        return [op.pauli, list(op.wires), op.angle, op.scale, op.offset]
    if isinstance(op, Clifford):
        return [op.name, list(op.wires)]
    return channel_to_data(op)


def channel_to_data(op: Channel) -> dict[str, Any]:
    """A channel as plain data."""
    if len(op.wires) > WIDEST_CHANNEL:
        raise ConfigError(f"A file can hold channels on at most {WIDEST_CHANNEL} wires, but {op.name} has {op.wires}")
    return {"channel": op.name, "wires": list(op.wires), "transfer": [list(entry) for entry in op.transfer]}


def _op(item: Any) -> Op:
    if isinstance(item, dict):
        return channel_of(as_dict(item, "a channel"))
    first, wires, *rest = as_list(item, "an op")
    name, on = as_text(first), tuple(as_whole(w, "a wire", 0, MOST_QUBITS) for w in as_list(wires, "wires"))
    if not rest:
        return Clifford(name, on)
    angle, scale, offset = rest
    angle = None if angle is None else as_whole(angle, "an angle", 0, MOST_OPS)
    return Rotation(name, on, angle, as_number(scale, "a scale"), as_number(offset, "an offset"))


def channel_of(item: dict[str, Any]) -> Channel:
    """The channel of `channel_to_data`, from data that anybody may have written."""
    wires = _wires(item["wires"])
    if not 1 <= len(wires) <= WIDEST_CHANNEL:
        raise ConfigError(f"A channel in a model file must have 1 to {WIDEST_CHANNEL} wires, but has {len(wires)}")
    size = 4 ** len(wires)
    matrix = np.zeros((size, size))
    for entry in as_list(item["transfer"], "a channel"):
        row, column, value = as_list(entry, "an entry of a channel")
        matrix[as_whole(row, "a word", 0, size - 1), as_whole(column, "a word", 0, size - 1)] = as_number(
            value, "a channel"
        )
    return Channel.of_matrix(as_text(item["channel"]), wires, matrix)


def _readout(item: Any) -> tuple[int, float, float]:
    wire, ones, zeros = as_list(item, "readout errors")
    return as_whole(wire, "a wire", 0, MOST_QUBITS), as_number(ones, "a probability"), as_number(zeros, "a probability")


def _measurement(item: Any) -> Measurement:
    item = as_dict(item, "a measurement")
    if "probs" in item:
        return Probs(_wires(item["probs"]))
    terms = [as_list(term, "a term") for term in as_list(item["terms"], "terms")]
    return Expval(tuple((as_number(c, "a coefficient"), as_text(word), _wires(on)) for c, word, on in terms))


def _wires(value: Any) -> tuple[int, ...]:
    return tuple(as_whole(w, "a wire", 0, MOST_QUBITS) for w in as_list(value, "wires"))


def _terms_to_data(terms: Terms) -> list[Any]:
    return [[list(row) for row in terms.index], [list(row) for row in terms.scale], list(terms.offset)]


def _terms(value: Any, name: str, n_source: int) -> Terms:
    index, scale, offset = (as_list(part, name) for part in as_list(value, name))
    rows = tuple(tuple(as_whole(v, name, 0, MOST_NUMBERS) for v in as_list(row, name)) for row in index)
    factors = tuple(tuple(as_number(v, name) for v in as_list(row, name)) for row in scale)
    widths = {len(row) for row in (*rows, *factors)}
    if len(widths) > 1 or 0 in widths or not len(rows) == len(factors) == len(offset):
        raise ConfigError(f"`{name}` of a circuit must have as many indices, scales and offsets")
    for row, by in zip(rows, factors, strict=True):
        if any(v >= n_source and (f or v) for v, f in zip(row, by, strict=True)):
            raise ConfigError(f"`{name}` of a circuit must read one of {n_source} numbers, but reads {row}")
    return Terms(rows, factors, tuple(as_number(v, name) for v in offset))


def _check_amplitudes(graph: GraphModule | None, program: Program) -> None:
    if (graph is not None) != program.amplitudes:
        raise ConfigError("A circuit in a model file must tell of its amplitudes if it starts from them")
    if graph is not None:
        result = result_of(graph)
        value = result.meta["val"] if isinstance(result, Node) else None
        if not isinstance(value, Tensor) or list(value.shape) != [2 ** min(program.n_qubits, 64)]:
            raise ConfigError(f"A circuit of {program.n_qubits} qubits must start from 2^{program.n_qubits} amplitudes")
