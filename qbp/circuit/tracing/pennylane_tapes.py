"""The gates of a call of a PennyLane function or QNode: of a QNode with transforms those that its device would get."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from operator import is_
from typing import Any, NamedTuple

from torch import Tensor

from qbp.circuit.lock import LOCK
from qbp.errors import CircuitError

__all__ = [
    "Called",
    "Taped",
    "called",
    "is_qnode",
    "is_transformed",
    "noisy_function",
    "original_device",
    "parts_of_transforms",
    "plain_function",
    "tape_of",
]

DEVICE_API = "pennylane.devices.device_api"
MEASURED_IN_THE_MIDDLE = ("MidMeasure", "MidMeasureMP", "Conditional")


class Called(NamedTuple):
    """What a call queued.

    Attributes:
        queued: PennyLane's tape.
        tape: what a QNode's transforms make of it; two calls give the same.
        returned: the measurements that the function returned; after transforms those of the tape.
        is_scalar: whether the function returned one bare measurement.
        ends: for each measurement the noise that only it sees, as a noise model of measurements makes it.
    """

    queued: Any
    tape: Any
    returned: list[Any]
    is_scalar: bool
    ends: tuple[tuple[Any, ...], ...]


class Taped(NamedTuple):
    """What a call queued, with what it measures in the middle put off to the end.

    Attributes:
        tape: PennyLane's tape.
        measured: its measurements, in order.
        is_scalar: as of `Called`.
        added: wires that took over what was measured in the middle.
        ends: as of `Called`.
    """

    tape: Any
    measured: list[Any]
    is_scalar: bool
    added: tuple[Any, ...]
    ends: tuple[tuple[Any, ...], ...] = ()


def is_qnode(source: Any) -> bool:
    """Whether it is a QNode; a `functools.partial` has a `func`, too."""
    return hasattr(type(source), "compile_pipeline")


def original_device(device: Any) -> tuple[Any, bool]:
    """The device behind those that a transform of a device made, and whether there were any."""
    transformed = False
    while type(device).__module__ == DEVICE_API and hasattr(device, "original_device"):
        device, transformed = device.original_device, True
    return device, transformed


def is_transformed(source: Any) -> bool:
    """Whether a QNode, or its device, has transforms."""
    return is_qnode(source) and bool(len(source.compile_pipeline) or original_device(source.device)[1])


def plain_function(source: Any) -> Callable[..., Any]:
    """What has to be called: a QNode with its transforms, else the function."""
    return source if is_transformed(source) or not is_qnode(source) else source.func


def parts_of_transforms(source: Any) -> list[Any]:
    """What the transforms of a QNode and of its device are made of: functions and values that may change."""
    if not is_qnode(source):
        return []
    parts: list[Any] = []
    for bound in source.compile_pipeline:
        parts += [bound.tape_transform, *bound.args, *bound.kwargs.values()]
    device = source.device
    while original_device(device)[1]:
        parts += [device.transform.tape_transform, *device.targs, *device.tkwargs.values()]
        device = device.original_device
    for model in [part for part in parts if hasattr(part, "model_map")]:  # a noise model: conditions and noises
        parts += [*model.model_map.items(), *model.meas_map.items(), model.metadata]
    return parts


def noisy_function(function: Any, noise: Any) -> Any:
    """A function or QNode whose gates are followed by the noise of PennyLane's noise model."""
    import pennylane as qml

    return qml.add_noise(function, noise)


def called(function: Callable[..., Any], inputs: Tensor, weights: Mapping[str, Tensor], input_arg: str) -> Called:
    """Call a function, or a QNode with its transforms.

    Raises:
        CircuitError: if transforms make something else of the circuit than one other circuit.
    """
    import pennylane as qml

    takes_inputs = input_arg in inspect.signature(function).parameters
    arguments = {**({input_arg: inputs} if takes_inputs else {}), **weights}
    qnode: Any = function if is_qnode(function) else None
    with LOCK:
        with qml.queuing.AnnotatedQueue() as queue:
            result = (function if qnode is None else qnode.func)(**arguments)
        tape = queued = qml.tape.QuantumScript.from_queue(queue)
        returned = list(result) if isinstance(result, (list, tuple)) else [result]
        ends: tuple[tuple[Any, ...], ...] = ()
        if qnode is not None:
            tape, ends = _parted(tape, qnode.compile_pipeline)
            device, transformed = original_device(qnode.device)
            if transformed and any(ends):
                raise CircuitError(_SEVERAL)
            if transformed:
                tape = _through(tape, qnode.device.preprocess_transforms(_config_of(qnode, device, tape)))
            returned = list(tape.measurements)
    return Called(queued, tape, returned, not isinstance(result, (list, tuple)), ends)


def _config_of(qnode: Any, device: Any, tape: Any) -> Any:
    """What a QNode asks its device for.

    Raises:
        CircuitError: where gates are taken apart for gradients before the device's transforms see them: which gates,
            goes by the tensors that want a gradient.
    """
    import pennylane as qml

    config = qml.devices.ExecutionConfig(interface=qnode.interface, gradient_method=qnode.diff_method)
    try:
        supported = qnode.diff_method is None or device.supports_derivatives(config, tape)
        config = device.setup_execution_config(config, tape)
    except Exception as error:  # whatever a device makes of tensors without values
        raise CircuitError(f"The QNode's device cannot be asked what it runs: {str(error)[:200]}") from error
    if not supported or config.gradient_method not in (None, "backprop"):
        raise CircuitError("The QNode's device has transforms, and gates are taken apart for gradients before them")
    return config


def tape_of(function: Callable[..., Any], inputs: Tensor, weights: Mapping[str, Tensor], input_arg: str) -> Taped:
    """The tape of a call, as of `called`, without measurements in the middle.

    Raises:
        CircuitError: as of `called`, and where such measurements cannot be put off.
    """
    import pennylane as qml

    queued, tape, returned, is_scalar, ends = called(function, inputs, weights, input_arg)
    if any(ends) and any(type(op).__name__ in MEASURED_IN_THE_MIDDLE for op in tape.operations):
        raise CircuitError(_SEVERAL)
    if any(type(op).__name__ in MEASURED_IN_THE_MIDDLE for op in tape.operations):
        with LOCK:
            tape = _through(tape, qml.transforms.core.CompilePipeline(_deferred()))
        returned = list(tape.measurements)
    added: tuple[Any, ...] = ()
    if any(type(op).__name__ in MEASURED_IN_THE_MIDDLE for op in queued.operations):
        added = tuple(w for w in tape.wires if w not in queued.wires)
        if any(not m.wires for m in returned):
            raise CircuitError("A circuit that measures in the middle must name the wires that it measures at the end")
    return Taped(tape, returned, is_scalar, added, ends)


def _deferred() -> Any:
    """What puts measurements in the middle off to the end: gates that they condition become controlled gates."""
    import pennylane as qml

    return qml.transforms.core.BoundTransform(qml.defer_measurements, kwargs={"allow_postselect": False})


def _through(tape: Any, pipeline: Any) -> Any:
    """The one tape that transforms make of a tape, if their results are then what the circuit returns."""
    pipeline = _for_one_row(pipeline)
    if pipeline.is_informative or pipeline.has_final_transform:
        raise CircuitError("The QNode's transforms make something else of the circuit than another circuit")
    marks = tuple(object() for _ in tape.measurements)
    try:
        with _nothing_close(pipeline):
            tapes, post = pipeline((tape,))
        (got,) = post((marks if len(marks) > 1 else marks[0],))
        unchanged = got is marks[0] if len(marks) == 1 else len(got) == len(marks) and all(map(is_, got, marks))
        same = len(tapes) == 1 and len(tapes[0].measurements) == len(marks) and unchanged
    except Exception as error:  # whatever a transform makes of tensors without values, and of what are no results
        raise CircuitError(
            f"The QNode's transforms cannot be traced: {type(error).__name__}: {str(error)[:300]}"
        ) from error
    if not same:
        raise CircuitError(_SEVERAL)
    return tapes[0]


def _for_one_row(pipeline: Any) -> Any:
    """The transforms without those that run a batch row by row: what is traced is one row."""
    import pennylane as qml

    expand = qml.transforms.broadcast_expand.tape_transform
    kept = [bound for bound in pipeline if bound.tape_transform is not expand]
    return pipeline if len(kept) == len(pipeline) else qml.transforms.core.CompilePipeline(*kept)


@contextmanager
def _nothing_close(pipeline: Any) -> Iterator[None]:
    """PennyLane's own transforms take what has no value for a number like any other: they leave the gates in that a
    special value would let them drop."""
    import pennylane as qml
    from torch._subclasses.fake_tensor import FakeTensor

    allclose = qml.math.allclose

    def unless_unknown(a: Any, b: Any, *args: Any, **options: Any) -> bool:
        unknown = isinstance(a, FakeTensor) or isinstance(b, FakeTensor)
        return not unknown and bool(allclose(a, b, *args, **options))

    if all(bound.tape_transform.__module__.partition(".")[0] == "pennylane" for bound in pipeline):
        qml.math.allclose = unless_unknown
    try:
        yield
    finally:
        qml.math.allclose = allclose


_SEVERAL = "The QNode's transforms make more of the circuit than one other circuit with its results"


def _parted(tape: Any, pipeline: Any) -> tuple[Any, tuple[tuple[Any, ...], ...]]:
    """The one tape of `_through`; or, where measurements have noise of their own, the tape without that, and that."""
    try:
        return _through(tape, pipeline), ()
    except CircuitError as error:
        if str(error) != _SEVERAL:
            raise
    tapes, post = pipeline((tape,))
    marks = [[object() for _ in each.measurements] for each in tapes]
    order: list[tuple[int, int]] = []
    try:
        (got,) = post(tuple(tuple(m) if len(m) > 1 else m[0] for m in marks))
        for mark in got if isinstance(got, tuple | list) else (got,):
            order += [(i, k) for i, own in enumerate(marks) for k, each in enumerate(own) if each is mark]
    except Exception as error:  # whatever the transform makes of what are no results
        raise CircuitError(_SEVERAL) from error
    if sorted(order) != [(i, k) for i, own in enumerate(marks) for k in range(len(own))]:
        raise CircuitError(_SEVERAL)
    operations = [each.operations for each in tapes]
    common = 0
    while all(len(ops) > common and ops[common] is operations[0][common] for ops in operations):
        common += 1
    measured = [tapes[i].measurements[k] for i, k in order]
    ends = tuple(tuple(operations[i][common:]) for i, _ in order)
    return tape.copy(operations=operations[0][:common], measurements=measured), ends
