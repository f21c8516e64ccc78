"""OpenQASM files, and circuits as listings: what has a name or a path."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from qbp.circuit.couplings import size_of
from qbp.circuit.gates import GATES
from qbp.circuit.program import Measurement
from qbp.circuit.tracing.circuit import Circuit, Recorder, build
from qbp.circuit.tracing.qiskit import InstructionError, trace_qiskit
from qbp.errors import ArgumentError, CircuitError, MissingPackageError, did_you_mean

__all__ = ["trace_qasm"]


def trace_qasm(
    source: Any,
    n_qubits: int | None,
    n_layers: int | None,
    coupling_map: Any = None,
    input_params: Any = None,
    weight_params: Any = None,
) -> Circuit:
    """The circuit of a listing, of a family, or of an OpenQASM file, by name or path; see `qbp.trace`.

    A file that is not in qbp's own subset is read by Qiskit. Without `input_params` and `weight_params`, parameters
    whose names start with x are data, all others weights, both in the order of their numbers.
    """
    from qbp.circuit import ansatz, qasm

    if not isinstance(source, (str, Path)):
        return _trace_listing(source, input_params, weight_params)
    if str(source) in ansatz.ANSATZE:
        coupled = {}
        if coupling_map is not None:
            coupled = {"coupling_map": coupling_map}
            n_qubits = size_of(coupling_map) if n_qubits is None else n_qubits
        if n_qubits is None or n_layers is None:
            raise ArgumentError(f"Circuit family {source!r} needs `n_qubits` and `n_layers`")
        return _trace_listing(ansatz.ANSATZE[str(source)](n_qubits, n_layers, **coupled), input_params, weight_params)
    if not str(source).endswith(".qasm") and str(source) not in qasm.available():
        raise ArgumentError(
            f"Argument `source` must be the path of a .qasm file, a file of circuits/ ({', '.join(qasm.available())}) "
            f"or a family ({', '.join(ansatz.ANSATZE)}), but is {str(source)!r}"
            f"{did_you_mean(str(source), [*ansatz.ANSATZE, *qasm.available()])}"
        )
    file = qasm.find(source)
    text = qasm.text_of(file)
    return _trace_text(text, str(file), input_params, weight_params)


def _trace_text(text: str, filename: str, input_params: Any, weight_params: Any) -> Circuit:
    from qbp.circuit import qasm
    from qbp.circuit.qasm import qiskit_reader

    own: CircuitError | None = None
    if not qiskit_reader.is_version_2(text):
        try:
            listing = qasm.loads(text, filename)
            _check_qubits(listing.n_qubits, filename)
            return _trace_listing(listing, input_params, weight_params)
        except CircuitError as error:
            own = error
    try:
        circuit = qiskit_reader.read(text, filename)
    except MissingPackageError as error:
        raise MissingPackageError(f"{own}. {error}") from error
    except CircuitError as error:
        raise CircuitError(f"{own}; nor does Qiskit read it: {error}" if own else str(error)) from error
    _check_qubits(circuit.num_qubits, filename)
    inputs, weights = _split(circuit, input_params, weight_params)
    try:
        return trace_qiskit(circuit, inputs, weights)
    except InstructionError as error:
        place = qiskit_reader.place_of(text, error.index, len(circuit.data))
        raise CircuitError(f"{filename}{place}: {error}") from error


def _check_qubits(n_qubits: int, filename: str) -> None:
    if not n_qubits:
        raise CircuitError(f"{filename}: the file declares no qubits")


def _split(circuit: Any, input_params: Any, weight_params: Any) -> tuple[list[Any], list[Any]]:
    """A Qiskit circuit's parameters as data and weights, by the names given or by their own."""
    from qbp.circuit.qasm import in_order_of_numbers

    parameters = {p.name: p for p in circuit.parameters}
    if input_params is None and weight_params is None:
        names = in_order_of_numbers(parameters)
        data = [name for name in names if name.lstrip("_").startswith("x")]
        return [parameters[n] for n in data], [parameters[n] for n in names if n not in data]
    given = _names(input_params), _names(weight_params)
    unknown = [name for names in given for name in names if name not in parameters]
    if unknown:
        raise ArgumentError(
            f"Arguments `input_params` and `weight_params` name {unknown[0]!r}, but the file's parameters are "
            f"{', '.join(parameters) or 'none'}"
        )
    return [parameters[n] for n in given[0]], [parameters[n] for n in given[1]]


def _names(params: Iterable[Any] | None) -> list[str]:
    return [] if params is None else [str(getattr(p, "name", p)) for p in params]


def _trace_listing(listing: Any, input_params: Any, weight_params: Any) -> Circuit:
    names = {"input_params": (_names(input_params), "inputs"), "weight_params": (_names(weight_params), "weights")}
    for argument, given in (("input_params", input_params), ("weight_params", weight_params)):
        order, field = names[argument]
        if given is None:
            continue
        if sorted(order) != sorted(getattr(listing, field)):
            raise ArgumentError(
                f"Argument `{argument}` must name {', '.join(getattr(listing, field)) or 'nothing'}, each once, "
                f"but is {', '.join(order) or 'empty'}"
            )
        listing = replace(listing, **{field: tuple(order)})

    def record(recorder: Recorder, x: Tensor, w: dict[str, Tensor]) -> tuple[int, tuple[Measurement, ...], bool]:
        flat = w["weights"].reshape(-1) if listing.weights else ()
        values = dict(zip(listing.inputs, x, strict=True)) | dict(zip(listing.weights, flat, strict=True))
        for call in listing.calls:
            recorder.gate(GATES[call.name], call.wires, [p.evaluate(values) for p in call.params])
        return listing.n_qubits, listing.measurements, False

    shape = tuple(listing.weight_shape or (len(listing.weights),))
    return build(record, len(listing.inputs), {"weights": shape} if listing.weights else {})
