"""PennyLane functions, QNodes and templates as circuits."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qbp.circuit.lock import LOCK, random_states
from qbp.circuit.program import Measurement
from qbp.circuit.tracing.circuit import Circuit, Recorder, build
from qbp.circuit.tracing.pennylane_channels import readout_of
from qbp.circuit.tracing.pennylane_gates import NOT_SCALAR, record_operation
from qbp.circuit.tracing.pennylane_measurements import before, outputs_of
from qbp.circuit.tracing.pennylane_tapes import called, plain_function, tape_of
from qbp.errors import ArgumentError, CircuitError, QbpError, UnsteadyError

__all__ = ["n_inputs_of", "takes_batch", "trace_pennylane", "weight_shapes_of"]

_SIZES = (*range(1, 65), *(n * n for n in range(9, 33)), *(2**n for n in range(7, 13)), 3072)
"""Numbers of inputs to try: all small ones, square images, amplitudes."""


def weight_shapes_of(
    source: Any,
    weight_shapes: Mapping[str, Any] | None = None,
    n_qubits: int | None = None,
    n_layers: int | None = None,
) -> dict[str, tuple[int, ...]]:
    """`weight_shapes` as plain tuples, by PennyLane's rules (an int n is (n,), and 1 is a scalar)."""
    template: Any = source
    if inspect.isclass(source):
        if not hasattr(source, "shape") or n_qubits is None or n_layers is None:
            raise ArgumentError("A PennyLane template needs `n_qubits` and `n_layers`, and a `shape` of its weights")
        try:
            return {"weights": tuple(template.shape(n_layers=n_layers, n_wires=n_qubits))}
        except TypeError as error:
            raise ArgumentError(
                f"Template {source.__name__} has no shape(n_layers, n_wires): write a function around it"
            ) from error
    shapes = {}
    for name, size in (weight_shapes or {}).items():
        if isinstance(size, Iterable):
            shapes[name] = tuple(int(s) for s in size)
        else:
            shapes[name] = () if size == 1 else (int(size),)
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
    function = _function(source, n_qubits, n_layers)
    first: ArgumentError | None = None
    for n in dict.fromkeys([*candidates, *_SIZES]):
        try:
            takes_batch(function, n, weight_shapes, input_arg)
            return n
        except ArgumentError as caught:
            if isinstance(caught.__cause__, (NameError, AttributeError)):  # no number of inputs mends that
                raise
            first = first or caught
    raise ArgumentError(
        "The circuit's function takes none of the numbers of inputs that were tried: mend the function or the "
        f"`weight_shapes`, or give `n_inputs`. The first try: {first}"
    ) from first


def _function(source: Any, n_qubits: int | None, n_layers: int | None) -> Callable[..., Any]:
    """The function behind a QNode or a template; a QNode with transforms as it is."""
    if not inspect.isclass(source):
        return plain_function(source)
    import pennylane as qml

    template: Any = source
    wires = range(n_qubits or 0)

    def function(inputs: Tensor, weights: Tensor) -> Any:
        qml.AngleEmbedding(inputs, wires=wires)
        template(weights, wires=wires)
        return [qml.expval(qml.Z(w)) for w in wires]

    return function


def _tape_of_numbers(
    function: Callable[..., Any],
    n_inputs: int,
    weight_shapes: Mapping[str, tuple[int, ...]],
    batched: bool,
    input_arg: str,
) -> Any:
    """The tape of a function called with numbers: normalised ones, for amplitudes, or else one of zeros and ones, for
    basis states. What the first call raises is raised if both fail."""
    first: Exception | None = None
    for inputs in (torch.full((n_inputs,), max(1, n_inputs) ** -0.5), torch.eye(1, n_inputs)[0]):
        weights = {name: torch.zeros(shape) for name, shape in weight_shapes.items()}
        try:
            return called(function, inputs[None] if batched else inputs, weights, input_arg).tape
        except Exception as error:  # whatever the user's code raises
            first = first or error
    assert first is not None
    raise first


def _check_steady(
    function: Callable[..., Any],
    n_inputs: int,
    weight_shapes: Mapping[str, tuple[int, ...]],
    input_arg: str,
    batched: bool,
) -> None:
    """Raise `CircuitError` where the function is another at each call."""
    before, tapes = random_states(), []
    for _ in range(2):
        tape = _tape_of_numbers(function, n_inputs, weight_shapes, batched, input_arg)
        gates = [(type(op), _same(op), repr([_number(d) for d in op.data])) for op in tape.operations]
        tapes.append((gates, [(type(m), str(m.obs), _same(m)) for m in tape.measurements]))
    if random_states() != before:
        raise UnsteadyError("The circuit's function draws random numbers: a trace would keep those of one call")
    if tapes[0] != tapes[1]:
        raise UnsteadyError("The circuit's function is another each time that it is called")


def _number(datum: Any) -> Any:
    return (datum.detach().numpy() if isinstance(datum, Tensor) else np.asarray(datum)).tolist()


def _same(thing: Any) -> Any:
    """The wires of an operation or measurement; of what was measured in the middle in any order, which PennyLane takes
    from random names."""
    return thing.wires if getattr(thing, "mv", None) is None else frozenset(thing.wires)


def takes_batch(
    function: Callable[..., Any], n_inputs: int, weight_shapes: Mapping[str, tuple[int, ...]], input_arg: str
) -> bool:
    """Whether the function wants a batch rather than one sample, found by calling it with numbers.

    Raises:
        ArgumentError: if it takes neither.
    """
    single: Exception | None = None
    for batched in (False, True):
        try:
            tape = _tape_of_numbers(function, n_inputs, weight_shapes, batched, input_arg)
            if tape.batch_size not in (None, 1):
                raise ArgumentError(NOT_SCALAR.format(f"{tape.batch_size} numbers"))
            return batched
        except CircuitError:  # of what its transforms do
            raise
        except Exception as error:  # whatever the user's code raises
            if batched:
                told = error if single is None or isinstance(single, IndexError) else single
                raise ArgumentError(
                    f"The circuit's function does not take {n_inputs} inputs: {type(told).__name__}: {told}"
                ) from told
            single = error
    raise AssertionError


def trace_pennylane(
    source: Any,
    weight_shapes: Mapping[str, tuple[int, ...]],
    n_inputs: int,
    n_qubits: int | None,
    n_layers: int | None,
    input_arg: str,
) -> Circuit:
    """The circuit of a PennyLane function, QNode or template; see `qbp.trace`."""
    import pennylane as qml

    function = _function(source, n_qubits, n_layers)
    device = getattr(source, "device", None)
    declared = list(device.wires) if device is not None and device.wires else []
    batched = takes_batch(function, n_inputs, weight_shapes, input_arg)
    _check_steady(function, n_inputs, weight_shapes, input_arg, batched)

    has_bits = False

    def record(
        recorder: Recorder, inputs: Tensor, weights: dict[str, Tensor]
    ) -> tuple[int, tuple[Measurement, ...], bool]:
        nonlocal has_bits
        tape, returned, is_bare, added, ends = tape_of(
            function, inputs[None] if batched else inputs, weights, input_arg
        )
        labels = declared or (list(range(n_qubits)) if n_qubits else _labels(tape))
        labels = labels + [w for w in added if w not in labels]
        unknown = [w for w in tape.wires if w not in labels]
        if unknown:
            raise ArgumentError(f"The circuit uses wire {unknown[0]!r}, but its wires are {labels}")
        if not labels:
            raise ArgumentError("The circuit has no wires")
        wire_map = {label: w for w, label in enumerate(labels)}
        for op in tape.operations:
            record_operation(recorder, op, wire_map)
        if any(isinstance(m, list | tuple) for m in returned):
            raise ArgumentError(
                "The circuit's function must return its measurements in one flat list, but returns lists in a list: "
                "PennyLane's TorchLayer takes no others, and `.reshape` gives the outputs any shape"
            )
        if not returned or not all(isinstance(m, qml.measurements.MeasurementProcess) for m in returned):
            raise ArgumentError(
                f"The circuit's function must return a measurement or a list of them, but returns {returned}"
            )
        outputs = outputs_of(returned, wire_map, len(labels))
        measured, recorder.terms = tuple(outputs.plain), ()
        if not outputs.is_plain:
            measured, recorder.terms = outputs.finish()
            recorder.coefficients = outputs.coefficients
        if any(ends):
            if len(measured) != len(ends) or not outputs.is_plain:
                raise CircuitError("The noise of a measurement alone goes together with expectation values only")
            measured = tuple(before(m, end, wire_map) for m, end in zip(measured, ends, strict=True))
        has_bits = recorder.has_bits
        recorder.readout = readout_of(source, returned, wire_map)
        if any(ends) and recorder.readout:
            raise CircuitError(
                "The noise of a measurement alone does not go together with readout errors of the device"
            )
        if recorder.readout and outputs.has_variances:
            raise CircuitError("Variances do not go together with readout errors of the device, in PennyLane neither")
        return len(labels), measured, is_bare and outputs.n_outputs == 1

    try:
        with _tensors_without_values():
            circuit = build(record, n_inputs, weight_shapes)
        bits = _inputs_that_are_bits(function, n_inputs, weight_shapes, batched, input_arg) if has_bits else ()
        return replace(circuit, bits=bits)
    except QbpError:
        raise
    except Exception as error:  # the user's code, or PennyLane's, that fails without values
        raise CircuitError(
            "The circuit cannot be traced: its function, or a gate's decomposition, needs the values of inputs or "
            f"weights (through NumPy instead of torch, for example): {type(error).__name__}: {error}"
        ) from error


def _inputs_that_are_bits(
    function: Callable[..., Any],
    n_inputs: int,
    weight_shapes: Mapping[str, tuple[int, ...]],
    batched: bool,
    input_arg: str,
) -> tuple[int, ...]:
    """The inputs for which PennyLane takes 0 and 1 only, found by calling the function with a half for each."""
    weights = {name: torch.zeros(shape) for name, shape in weight_shapes.items()}
    bits = []
    for k in range(n_inputs):
        inputs = torch.eye(1, n_inputs)[0]
        inputs[k] = 0.5
        try:
            tape_of(function, inputs[None] if batched else inputs, weights, input_arg)
        except ValueError as error:
            if "0s and 1s" in str(error):
                bits.append(k)
    return tuple(bits)


@contextmanager
def _tensors_without_values() -> Iterator[None]:
    """Tensors without values are "abstract" to PennyLane: it then leaves out the checks that read values."""
    import pennylane as qml
    from torch._subclasses.fake_tensor import FakeTensor

    with LOCK:
        is_abstract = qml.math.is_abstract
        qml.math.is_abstract = lambda tensor, like=None: isinstance(tensor, FakeTensor) or is_abstract(tensor, like)
        try:
            yield
        finally:
            qml.math.is_abstract = is_abstract


def _labels(tape: Any) -> list[Any]:
    """The wires in PennyLane's own order for devices without wires: 0, 1, ... or else in order of appearance."""
    used = list(dict.fromkeys(w for op in tape.operations for w in op.wires))
    rest = [w for w in tape.wires if w not in used]
    n = len(used)
    if set(used) == set(range(n)) and set(rest) == set(range(n, n + len(rest))):
        return sorted(tape.wires)
    return used + rest
