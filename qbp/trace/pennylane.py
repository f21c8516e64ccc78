"""PennyLane functions, QNodes and templates as circuits."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from qbp.errors import ArgumentError, CircuitError
from qbp.gates import GATES, PENNYLANE
from qbp.program import Expval, Measurement, Probs
from qbp.trace.circuit import Circuit, Recorder, build, sparse_word

__all__ = ["expval", "measurement", "n_inputs_of", "trace_pennylane", "weight_shapes_of"]

_NOTHING = {"Identity", "GlobalPhase", "Barrier", "WireCut", "Snapshot"}


def weight_shapes_of(
    source: Any,
    weight_shapes: Mapping[str, Any] | None = None,
    n_qubits: int | None = None,
    n_layers: int | None = None,
) -> dict[str, tuple[int, ...]]:
    """`weight_shapes` as plain tuples, by PennyLane's rules (an int n is (n,), and 1 is a scalar)."""
    if inspect.isclass(source):
        if not hasattr(source, "shape") or n_qubits is None or n_layers is None:
            raise ArgumentError("A PennyLane template needs `n_qubits` and `n_layers`, and a `shape` of its weights")
        try:
            return {"weights": tuple(source.shape(n_layers=n_layers, n_wires=n_qubits))}
        except TypeError as error:
            raise ArgumentError(
                f"Template {source.__name__} has no shape(n_layers, n_wires): write a function around it"
            ) from error
    shapes = {}
    for name, size in (weight_shapes or {}).items():
        if isinstance(size, int):
            shapes[name] = () if size == 1 else (size,)
        else:
            shapes[name] = tuple(int(s) for s in size)
    return shapes


def n_inputs_of(
    source: Any,
    weight_shapes: Mapping[str, tuple[int, ...]],
    n_qubits: int | None = None,
    n_layers: int | None = None,
    input_arg: str = "inputs",
) -> int:
    """A number of inputs that the function accepts: as many as wires, else the fewest. Calls it with zeros.

    Raises:
        CircuitError: if it accepts none of the sizes tried.
    """
    device = getattr(source, "device", None)
    n_wires = n_qubits or (len(device.wires) if device is not None and device.wires else 0)
    candidates = [n for n in (n_wires, 2**n_wires if n_wires <= 10 else 0) if n]
    weights = {name: torch.zeros(shape) for name, shape in weight_shapes.items()}
    error: Exception | None = None
    for n in dict.fromkeys([*candidates, *range(1, 65), 128, 256, 512, 1024]):
        inputs = torch.full((n,), n**-0.5)  # normalised, for amplitudes
        try:
            _call(_function(source, n_qubits, n_layers), inputs, weights, input_arg)
            return n
        except (IndexError, ValueError, RuntimeError) as caught:
            error = caught
    raise CircuitError(f"The circuit's function accepts no number of inputs that was tried: {error}") from error


def _function(source: Any, n_qubits: int | None, n_layers: int | None) -> Callable[..., Any]:
    """The plain function behind a QNode or a template."""
    if not inspect.isclass(source):
        return getattr(source, "func", source)
    import pennylane as qml

    def function(inputs: Tensor, weights: Tensor) -> Any:
        qml.AngleEmbedding(inputs, wires=range(n_qubits))
        source(weights, wires=range(n_qubits))
        return [qml.expval(qml.Z(w)) for w in range(n_qubits)]

    return function


def _call(
    function: Callable[..., Any], inputs: Tensor, weights: Mapping[str, Tensor], input_arg: str
) -> tuple[Any, Any]:
    """The function's queued tape and its return value, called for one sample, or for a batch of one if it wants a
    batch."""
    import pennylane as qml

    takes_inputs = input_arg in inspect.signature(function).parameters
    shaped = [inputs, inputs[None]] if takes_inputs else [None]
    for attempt, data in enumerate(shaped):
        try:
            with qml.queuing.AnnotatedQueue() as queue:
                result = function(**({input_arg: data} if takes_inputs else {}), **weights)
            return qml.tape.QuantumScript.from_queue(queue), result
        except IndexError:
            if attempt == len(shaped) - 1 or inputs.ndim == 0:
                raise
    raise AssertionError


def trace_pennylane(
    source: Any,
    weight_shapes: Mapping[str, tuple[int, ...]],
    n_inputs: int,
    n_qubits: int | None,
    n_layers: int | None,
    input_arg: str,
) -> Circuit:
    import pennylane as qml
    from torch._subclasses.fake_tensor import FakeTensor

    function = _function(source, n_qubits, n_layers)
    device = getattr(source, "device", None)
    declared = list(device.wires) if device is not None and device.wires else []
    is_abstract = qml.math.is_abstract

    def record(
        recorder: Recorder, inputs: Tensor, weights: dict[str, Tensor]
    ) -> tuple[int, tuple[Measurement, ...], bool]:
        tape, result = _call(function, inputs, weights, input_arg)
        labels = declared or (sorted(tape.wires) if all(isinstance(w, int) for w in tape.wires) else list(tape.wires))
        if not declared and n_qubits:
            labels = list(range(n_qubits))
        unknown = [w for w in tape.wires if w not in labels]
        if unknown:
            raise CircuitError(f"The circuit uses wire {unknown[0]!r}, which its device does not have")
        if not labels:
            raise CircuitError("The circuit has no wires")
        wire_map = {label: w for w, label in enumerate(labels)}
        for op in tape.operations:
            _record_operation(recorder, op, wire_map)
        returned = list(result) if isinstance(result, (list, tuple)) else [result]
        measured = tuple(measurement(m, wire_map, len(labels)) for m in returned)
        is_scalar = not isinstance(result, (list, tuple)) and isinstance(measured[0], Expval)
        return len(labels), measured, is_scalar

    # Tensors without values are "abstract" to PennyLane: it then leaves out the checks that read values.
    def abstract(tensor: Any, like: Any = None) -> bool:
        return isinstance(tensor, FakeTensor) or is_abstract(tensor, like)

    qml.math.is_abstract = abstract
    try:
        return build(record, n_inputs, weight_shapes)
    finally:
        qml.math.is_abstract = is_abstract


def _record_operation(recorder: Recorder, op: Any, wire_map: Mapping[Any, int], inverse: bool = False) -> None:
    import pennylane as qml

    if op.name in _NOTHING:
        return
    wires = tuple(wire_map[w] for w in op.wires)
    if op.name in PENNYLANE:
        recorder.gate(PENNYLANE[op.name], wires, [_scalar(p) for p in op.parameters], inverse)
    elif op.name in ("MultiRZ", "PauliRot"):
        word = op.hyperparameters.get("pauli_word", "Z" * len(wires))
        kept, on = sparse_word(dict(zip(range(len(wires)), word, strict=True)))
        if kept:
            angle = _scalar(op.parameters[0])
            recorder.gate(kept, [wires[w] for w in on], [-angle if inverse else angle])
    elif isinstance(op, qml.StatePrep) and not inverse:
        vector = torch.as_tensor(op.parameters[0])
        recorder.start(
            vector.reshape(-1),
            wires,
            not (op.hyperparameters["normalize"] or op.hyperparameters["pad_with"] is not None),
        )
    elif op.name in ("BasisState", "BasisEmbedding"):
        for wire, bit in zip(wires, torch.as_tensor(op.parameters[0]).reshape(-1), strict=True):
            recorder.gate(GATES["RX"], (wire,), [bit * math.pi])
    elif isinstance(op, qml.ops.op_math.Adjoint):
        _record_operation(recorder, op.base, wire_map, not inverse)
    elif isinstance(op, qml.operation.Channel) or type(op).__name__ in (
        "MidMeasure",
        "MidMeasureMP",
        "Conditional",
    ):
        raise CircuitError(f"{op.name} is not a unitary gate, and cannot be part of a program")
    elif op.has_decomposition:
        with qml.QueuingManager.stop_recording():
            parts = op.decomposition()
        for part in reversed(parts) if inverse else parts:
            _record_operation(recorder, part, wire_map, inverse)
    else:
        raise CircuitError(f"Gate {op.name} is not in qbp's table and has no decomposition")


def _scalar(parameter: Any) -> Any:
    """A gate's parameter as a tensor or number without axes."""
    if isinstance(parameter, Tensor):
        if parameter.numel() != 1:
            raise CircuitError(
                f"A gate's parameter must be one number for each sample, but has shape {tuple(parameter.shape)}: write "
                "the function for one sample (inputs[i]) or with a leading ellipsis (inputs[..., i])"
            )
        return parameter.reshape(())
    return float(parameter)


def measurement(measured: Any, wire_map: Mapping[Any, int], n_qubits: int) -> Measurement:
    kind = type(measured).__name__
    if kind == "ExpectationMP" and measured.obs is not None:
        return expval(measured.obs, wire_map)
    if kind == "ProbabilityMP":
        if (
            measured.obs is not None
            and set(measured.obs.pauli_rep or {})
            and any(set(word.values()) - {"Z"} for word in measured.obs.pauli_rep)
        ):
            raise CircuitError(f"Probabilities can be taken in the Z basis only, not of {measured.obs}")
        wires = measured.wires if len(measured.wires) else range(n_qubits)
        return Probs(tuple(wire_map[w] if len(measured.wires) else w for w in wires))
    raise CircuitError(f"A circuit must return expectation values or probabilities, but returns {measured}")


def expval(observable: Any, wire_map: Mapping[Any, int]) -> Expval:
    import pennylane as qml

    sentence = observable.pauli_rep
    if sentence is None and observable.has_matrix and len(observable.wires) <= 8:
        sentence = qml.pauli_decompose(observable.matrix(), wire_order=observable.wires, pauli=True)
    if sentence is None:
        raise CircuitError(f"Observable {observable} is not a weighted sum of Pauli words")
    terms = []
    for word, coefficient in sentence.items():
        if isinstance(coefficient, Tensor) and coefficient.requires_grad:
            raise CircuitError("The coefficients of an observable must be plain numbers, not trainable")
        value = complex(coefficient)
        if abs(value.imag) > 1e-12:
            raise CircuitError(f"Observable {observable} has the complex coefficient {value}")
        letters, wires = sparse_word({wire_map[w]: letter for w, letter in word.items()})
        terms.append((value.real, letters, wires))
    return Expval(tuple(terms) or ((0.0, "", ()),))
