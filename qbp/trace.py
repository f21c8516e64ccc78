"""From what a user already has to a `Circuit`: the structure as a program, the angles as a function of inputs and weights.

Sources: a PennyLane function, QNode or template; a Qiskit `QuantumCircuit`; an OpenQASM 3 file; a family of `qbp.ansatz`.
A function is called once, for ONE sample, with tensors that have no values: so what it does must not depend on data.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qbp.angles import AngleMap, trace_angles
from qbp.errors import ArgumentError, CircuitError
from qbp.gates import GATES, PENNYLANE, Gate, qiskit_name
from qbp.program import Expval, Measurement, Op, Probs, Program, Rotation, gate_ops, inverse_ops

__all__ = ["Circuit", "n_inputs_of", "trace", "weight_shapes_of"]


@dataclass(frozen=True)
class Circuit:
    """A program, and where its angles come from.

    Attributes:
        program: the structure.
        angle_map: ``(inputs (B, I), weights (P,)) -> Angles``.
        weight_shapes: the shape of each weight tensor by name; flattened one after the other they are the P weights.
        is_scalar: whether its function returned one bare expectation value, so that a sample's output has no axis.
        normalized: whether the amplitudes it starts from must come normalised.
    """

    program: Program
    angle_map: AngleMap
    weight_shapes: dict[str, tuple[int, ...]]
    is_scalar: bool = False
    normalized: bool = False

    @property
    def n_inputs(self) -> int:
        """I, the number of features of a sample."""
        return self.angle_map.n_inputs

    @property
    def n_qubits(self) -> int:
        return self.program.n_qubits

    def drop_ops(self, drop: Callable[[Op], bool] | Sequence[int]) -> Circuit:
        """The circuit without some ops, and without the angles that only those used."""
        program, kept = self.program.drop_ops(drop)
        return replace(self, program=program, angle_map=self.angle_map.select(kept))


class _Recorder:
    """Collects gates whose parameters are numbers or traced tensors; the ops are made once it is known which is which."""

    def __init__(self) -> None:
        self.entries: list[tuple[Gate | str, tuple[int, ...], int, bool]] = []
        self.values: list[Tensor | float] = []
        self.amplitudes: tuple[Tensor, tuple[int, ...]] | None = None
        self.normalized = False

    def gate(self, gate: Gate | str, wires: Sequence[int], params: Sequence[Any] = (), inverse: bool = False) -> None:
        """A gate of the table, or a rotation about a Pauli word (a string)."""
        self.entries.append((gate, tuple(wires), len(params), inverse))
        self.values += [p if isinstance(p, Tensor) else float(p) for p in params]

    def start(self, vector: Tensor, wires: tuple[int, ...], normalized: bool) -> None:
        touched = {w for _, on, _, _ in self.entries for w in on}
        if self.amplitudes is not None or touched & set(wires):
            raise CircuitError("Amplitudes can be embedded once, before any gate on their wires")
        self.amplitudes, self.normalized = (vector, wires), normalized

    def state(self, n_qubits: int) -> Tensor | None:
        """The amplitudes over all wires, those that embed nothing in |0>."""
        if self.amplitudes is None:
            return None
        vector, wires = self.amplitudes
        source = []
        for i in range(2**n_qubits):
            bits = [i >> (n_qubits - 1 - w) & 1 for w in range(n_qubits)]
            inside = all(bits[w] == 0 for w in range(n_qubits) if w not in wires)
            source.append(int("".join(str(bits[w]) for w in wires), 2) if inside else 2 ** len(wires))
        if source == list(range(2**n_qubits)):
            return vector
        return torch.cat([vector, torch.zeros_like(vector[:1])])[torch.tensor(source)]

    def ops(self, resolved: Sequence[int | float]) -> tuple[Op, ...]:
        rest = iter(resolved)
        ops: list[Op] = []
        for gate, wires, n_params, inverse in self.entries:
            angles = [next(rest) for _ in range(n_params)]
            if isinstance(gate, str):
                (angle,) = angles
                fixed = not isinstance(angle, int)
                new: tuple[Op, ...] = (Rotation(gate, wires, None if fixed else angle, offset=angle if fixed else 0.0),)
            else:
                new = gate_ops(gate, wires, angles)
            ops += inverse_ops(new) if inverse else new
        return tuple(ops)


def _build(
    record: Callable[[_Recorder, Tensor, dict[str, Tensor]], tuple[int, tuple[Measurement, ...], bool]],
    n_inputs: int,
    weight_shapes: Mapping[str, tuple[int, ...]],
) -> Circuit:
    """Trace `record`, which fills a recorder and returns (number of qubits, measurements, whether the output is scalar)."""
    recorder = _Recorder()
    found: list[tuple[int, tuple[Measurement, ...], bool]] = []

    def values(inputs: Tensor, weights: dict[str, Tensor]) -> tuple[list[Tensor | float], Tensor | None]:
        found.append(record(recorder, inputs, weights))
        return recorder.values, recorder.state(found[0][0])

    angle_map, resolved = trace_angles(values, n_inputs, weight_shapes)
    ((n_qubits, measurements, is_scalar),) = found
    program = Program(
        n_qubits,
        recorder.ops(resolved),
        measurements,
        angle_map.n_batched + angle_map.n_shared,
        amplitudes=recorder.amplitudes is not None,
    )
    return Circuit(program, angle_map, dict(weight_shapes), is_scalar, recorder.normalized)


def trace(
    source: Any,
    weight_shapes: Mapping[str, Any] | None = None,
    *,
    n_inputs: int | None = None,
    n_qubits: int | None = None,
    n_layers: int | None = None,
    observables: Any = None,
    input_params: Any = None,
    weight_params: Any = None,
    input_arg: str = "inputs",
) -> Circuit:
    """Make a circuit of what is at hand.

    Args:
        source: a PennyLane QNode or quantum function with an argument `inputs`, written for one sample (``inputs[i]``) or for
            a batch (``inputs[..., i]``); a PennyLane template class with ``shape(n_layers, n_wires)``, put behind an angle
            embedding; a Qiskit `QuantumCircuit`; the name or path of an OpenQASM 3 file of ``circuits/``; the name of a
            family of `qbp.ansatz`; or a `Circuit`.
        weight_shapes: for a PennyLane function the shape of each weight by the name of its argument.
        n_inputs: I, features of a sample. Found out by trying where a PennyLane function allows several.
        n_qubits, n_layers: size of a family or of a template.
        observables: what to measure instead of the source's own: Pauli words such as "ZIX" (letter k is wire k), a
            `qbp.program.Expval` or `Probs`, PennyLane observables, Qiskit `SparsePauliOp`, or a list of these. Default for
            a Qiskit circuit or a template: Z on every wire.
        input_params, weight_params: for a Qiskit circuit which parameters are data and which are weights, in order.
        input_arg: name of the data argument of a PennyLane function.

    Returns:
        The circuit.

    Raises:
        CircuitError: if the circuit cannot be expressed: it depends on data, measures in the middle, holds a channel or a gate
            without decomposition. The message names the culprit.
        ArgumentError: if an argument does not fit the source.
    """
    if isinstance(source, Circuit):
        circuit = source
    elif isinstance(source, (str, Path)) or type(source).__name__ == "Listing":
        circuit = _trace_listing(_listing(source, n_qubits, n_layers))
    elif _is_qiskit(source):
        circuit = _trace_qiskit(source, input_params, weight_params)
    elif callable(source):
        shapes = weight_shapes_of(source, weight_shapes, n_qubits, n_layers)
        if n_inputs is None:
            n_inputs = n_inputs_of(source, shapes, n_qubits, n_layers, input_arg)
        circuit = _trace_pennylane(source, shapes, n_inputs, n_qubits, n_layers, input_arg)
    else:
        raise ArgumentError(
            "Argument `source` must be a PennyLane function or QNode, a Qiskit QuantumCircuit, the name of an OpenQASM 3 "
            f"file or of a circuit family, but is {type(source).__name__}"
        )
    if observables is not None:
        measured = tuple(_observable(o, circuit.n_qubits) for o in _as_list(observables))
        circuit = replace(circuit, program=replace(circuit.program, measurements=measured), is_scalar=False)
    return circuit


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _z_on_every_wire(n_qubits: int) -> tuple[Measurement, ...]:
    return tuple(Expval.word("Z", w) for w in range(n_qubits))


def _observable(observable: Any, n_qubits: int) -> Measurement:
    """One observable of any of the accepted kinds."""
    if isinstance(observable, (Expval, Probs)):
        return observable
    if isinstance(observable, str):
        if len(observable) != n_qubits or set(observable) - set("IXYZ"):
            raise ArgumentError(
                f"A Pauli word in `observables` must have one of I, X, Y, Z for each of {n_qubits} wires, but is {observable!r}"
            )
        return Expval(((1.0, *_word(dict(enumerate(observable)))),))
    if hasattr(observable, "to_sparse_list"):  # Qiskit's SparsePauliOp
        return _qiskit_observable(observable)
    if type(observable).__module__.startswith("qiskit") and hasattr(observable, "to_label"):
        return _observable(observable.to_label()[::-1].lstrip("-i"), n_qubits)
    if hasattr(observable, "pauli_rep"):
        return _expval(observable, {w: w for w in range(n_qubits)})
    if type(observable).__name__ in ("ExpectationMP", "ProbabilityMP"):
        return _measurement(observable, {w: w for w in range(n_qubits)}, n_qubits)
    raise ArgumentError(f"Argument `observables` cannot hold {observable!r}")


def _word(letters: Mapping[int, str]) -> tuple[str, tuple[int, ...]]:
    kept = {w: letter for w, letter in sorted(letters.items()) if letter != "I"}
    return "".join(kept.values()), tuple(kept)


# ---- PennyLane -------------------------------------------------------------------------------------------------------

_NOTHING = {"Identity", "GlobalPhase", "Barrier", "WireCut", "Snapshot"}


def weight_shapes_of(
    source: Any, weight_shapes: Mapping[str, Any] | None = None, n_qubits: int | None = None, n_layers: int | None = None
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


def _call(function: Callable[..., Any], inputs: Tensor, weights: Mapping[str, Tensor], input_arg: str) -> tuple[Any, Any]:
    """The function's queued tape and its return value, called for one sample, or for a batch of one if it wants a batch."""
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


def _trace_pennylane(
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
        recorder: _Recorder, inputs: Tensor, weights: dict[str, Tensor]
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
        measured = tuple(_measurement(m, wire_map, len(labels)) for m in returned)
        is_scalar = not isinstance(result, (list, tuple)) and isinstance(measured[0], Expval)
        return len(labels), measured, is_scalar

    # Tensors without values are "abstract" to PennyLane: it then leaves out the checks that read values.
    def abstract(tensor: Any, like: Any = None) -> bool:
        return isinstance(tensor, FakeTensor) or is_abstract(tensor, like)

    qml.math.is_abstract = abstract
    try:
        return _build(record, n_inputs, weight_shapes)
    finally:
        qml.math.is_abstract = is_abstract


def _record_operation(recorder: _Recorder, op: Any, wire_map: Mapping[Any, int], inverse: bool = False) -> None:
    import pennylane as qml

    if op.name in _NOTHING:
        return
    wires = tuple(wire_map[w] for w in op.wires)
    if op.name in PENNYLANE:
        recorder.gate(PENNYLANE[op.name], wires, [_scalar(p) for p in op.parameters], inverse)
    elif op.name in ("MultiRZ", "PauliRot"):
        word = op.hyperparameters.get("pauli_word", "Z" * len(wires))
        kept, on = _word(dict(zip(range(len(wires)), word, strict=True)))
        if kept:
            angle = _scalar(op.parameters[0])
            recorder.gate(kept, [wires[w] for w in on], [-angle if inverse else angle])
    elif isinstance(op, qml.StatePrep) and not inverse:
        vector = torch.as_tensor(op.parameters[0])
        recorder.start(vector.reshape(-1), wires, not (op.hyperparameters["normalize"] or op.hyperparameters["pad_with"] is not None))
    elif op.name in ("BasisState", "BasisEmbedding"):
        for wire, bit in zip(wires, torch.as_tensor(op.parameters[0]).reshape(-1), strict=True):
            recorder.gate(GATES["RX"], (wire,), [bit * math.pi])
    elif isinstance(op, qml.ops.op_math.Adjoint):
        _record_operation(recorder, op.base, wire_map, not inverse)
    elif isinstance(op, qml.operation.Channel) or type(op).__name__ in ("MidMeasure", "MidMeasureMP", "Conditional"):
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
                f"A gate's parameter must be one number for each sample, but has shape {tuple(parameter.shape)}: write the "
                "function for one sample (inputs[i]) or with a leading ellipsis (inputs[..., i])"
            )
        return parameter.reshape(())
    return float(parameter)


def _measurement(measured: Any, wire_map: Mapping[Any, int], n_qubits: int) -> Measurement:
    kind = type(measured).__name__
    if kind == "ExpectationMP" and measured.obs is not None:
        return _expval(measured.obs, wire_map)
    if kind == "ProbabilityMP":
        if measured.obs is not None and set(measured.obs.pauli_rep or {}) and any(
            set(word.values()) - {"Z"} for word in measured.obs.pauli_rep
        ):
            raise CircuitError(f"Probabilities can be taken in the Z basis only, not of {measured.obs}")
        wires = measured.wires if len(measured.wires) else range(n_qubits)
        return Probs(tuple(wire_map[w] if len(measured.wires) else w for w in wires))
    raise CircuitError(f"A circuit must return expectation values or probabilities, but returns {measured}")


def _expval(observable: Any, wire_map: Mapping[Any, int]) -> Expval:
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
        letters, wires = _word({wire_map[w]: letter for w, letter in word.items()})
        terms.append((value.real, letters, wires))
    return Expval(tuple(terms) or ((0.0, "", ()),))


# ---- Qiskit ----------------------------------------------------------------------------------------------------------


def _is_qiskit(source: Any) -> bool:
    return any(c.__module__.startswith("qiskit.") and c.__name__ == "QuantumCircuit" for c in type(source).__mro__)


_QISKIT: dict[str, Gate] = {qiskit_name(row): row for row in GATES.values() if qiskit_name(row)}
_QISKIT |= {"u1": GATES["PhaseShift"], "cu1": GATES["ControlledPhaseShift"], "u3": GATES["U3"], "cnot": GATES["CNOT"]}


def _qiskit_observable(operator: Any) -> Expval:
    terms = []
    for letters, qubits, coefficient in operator.to_sparse_list():
        if abs(complex(coefficient).imag) > 1e-12:
            raise CircuitError(f"An observable must have real coefficients, but has {coefficient}")
        terms.append((float(complex(coefficient).real), *_word(dict(zip(qubits, letters, strict=True)))))
    return Expval(tuple(terms))


def _trace_qiskit(circuit: Any, input_params: Any, weight_params: Any) -> Circuit:
    circuit = circuit.remove_final_measurements(inplace=False)
    inputs = [] if input_params is None else list(input_params)
    weights = [] if weight_params is None else list(weight_params)
    both = set(inputs) & set(weights)
    missing = [p for p in circuit.parameters if p not in set(inputs) | set(weights)]
    if both or missing:
        culprit = sorted(map(str, both or missing))
        raise ArgumentError(
            f"Every parameter of the circuit must be in `input_params` or in `weight_params`, and in one only: {culprit}"
        )

    def record(recorder: _Recorder, x: Tensor, w: dict[str, Tensor]) -> tuple[int, tuple[Measurement, ...], bool]:
        values = dict(zip([p.name for p in inputs], x, strict=True))
        values |= dict(zip([p.name for p in weights], w["weight"] if weights else (), strict=True))
        _record_qiskit(recorder, circuit, tuple(range(circuit.num_qubits)), values)
        return circuit.num_qubits, _z_on_every_wire(circuit.num_qubits), False

    return _build(record, len(inputs), {"weight": (len(weights),)} if weights else {})


def _record_qiskit(recorder: _Recorder, circuit: Any, wires: tuple[int, ...], values: Mapping[str, Tensor]) -> None:
    for instruction in circuit.data:
        operation = instruction.operation
        on = tuple(wires[circuit.find_bit(q).index] for q in instruction.qubits)
        plain = getattr(operation, "ctrl_state", None) in (None, 2 ** getattr(operation, "num_ctrl_qubits", 0) - 1)
        if operation.name in ("barrier", "global_phase", "delay"):
            continue
        if operation.name in _QISKIT and plain:
            recorder.gate(_QISKIT[operation.name], on, [_qiskit_value(p, values) for p in operation.params])
        elif operation.name in ("measure", "reset") or hasattr(operation, "blocks") or operation.definition is None:
            raise CircuitError(f"Qiskit's {operation.name!r} is not a unitary gate with a definition")
        else:
            _record_qiskit(recorder, operation.definition, on, values)


def _qiskit_value(parameter: Any, values: Mapping[str, Tensor]) -> Any:
    if not hasattr(parameter, "parameters") or not parameter.parameters:
        return float(parameter)
    return _evaluate(parameter.sympify(), values)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(torch, name) for name in ("sin", "cos", "tan", "asin", "acos", "atan", "exp", "log", "sign")},
    **{"Abs": torch.abs, "conjugate": lambda value: value},
}


def _evaluate(expression: Any, values: Mapping[str, Tensor]) -> Any:
    """A sympy expression on tensors."""
    if expression.is_Symbol:
        return values[expression.name]
    if expression.is_number:
        return float(expression)
    parts = [_evaluate(arg, values) for arg in expression.args]
    kind = type(expression).__name__
    if kind == "Add":
        return sum(parts[1:], start=parts[0])
    if kind == "Mul":
        return math.prod(parts[1:], start=parts[0])
    if kind == "Pow":
        return parts[0] ** parts[1]
    if kind in _FUNCTIONS:
        return _FUNCTIONS[kind](*parts)
    raise CircuitError(f"Function {kind} in the angle {expression} is not known to qbp")


# ---- OpenQASM files and families -------------------------------------------------------------------------------------


def _listing(source: Any, n_qubits: int | None, n_layers: int | None) -> Any:
    from qbp import ansatz, qasm

    if not isinstance(source, (str, Path)):
        return source
    if str(source) in ansatz.ANSATZE:
        if n_qubits is None or n_layers is None:
            raise ArgumentError(f"Circuit family {source!r} needs `n_qubits` and `n_layers`")
        return ansatz.ANSATZE[str(source)](n_qubits, n_layers)
    if str(source).endswith(".qasm") or str(source) in qasm.available():
        return qasm.load(qasm.find(source))
    raise ArgumentError(
        f"Argument `source` must be the path of a .qasm file, a file of circuits/ ({', '.join(qasm.available())}) or a "
        f"family ({', '.join(ansatz.ANSATZE)}), but is {str(source)!r}"
    )


def _trace_listing(listing: Any) -> Circuit:
    def record(recorder: _Recorder, x: Tensor, w: dict[str, Tensor]) -> tuple[int, tuple[Measurement, ...], bool]:
        flat = w["weights"].reshape(-1) if listing.weights else ()
        values = dict(zip(listing.inputs, x, strict=True)) | dict(zip(listing.weights, flat, strict=True))
        for call in listing.calls:
            recorder.gate(GATES[call.name], call.wires, [p.evaluate(values) for p in call.params])
        return listing.n_qubits, listing.measurements, False

    shape = tuple(listing.weight_shape or (len(listing.weights),))
    return _build(record, len(listing.inputs), {"weights": shape} if listing.weights else {})
