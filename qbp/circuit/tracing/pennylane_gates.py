"""PennyLane's operations as rotations and Clifford gates: by the gate table, by their decompositions, as exponentials,
or as constant matrices."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qbp.circuit.constants import constant_of, values_at
from qbp.circuit.gates import GATES, PENNYLANE, Step
from qbp.circuit.tracing.circuit import Recorder, sparse_word
from qbp.circuit.tracing.controlled import controlled, exact_steps
from qbp.circuit.tracing.exponentials import Term, record_exponential
from qbp.circuit.tracing.pennylane_channels import record_channel
from qbp.circuit.tracing.qiskit_gates import MAX_MATRIX_WIRES, record_unitary
from qbp.errors import ArgumentError, CircuitError

__all__ = ["NOT_SCALAR", "matrix_sentence", "record_operation", "sentence"]

_NOTHING = {"Identity", "GlobalPhase", "Barrier", "WireCut", "Snapshot"}

NOT_SCALAR = (
    "A gate's parameter must be one number for each sample, but has {}: write the function for one sample (inputs[i]) "
    "or with a leading ellipsis (inputs[..., i])"
)


def record_operation(recorder: Recorder, op: Any, wire_map: Mapping[Any, int], inverse: bool = False) -> None:
    """Record an operation, or what undoes it.

    Raises:
        CircuitError: naming the operation, if it is not unitary or cannot be taken apart.
    """
    import pennylane as qml

    name = _name(op)
    if name in _NOTHING:
        return
    wires = tuple(wire_map[w] for w in op.wires)
    if name in PENNYLANE:
        recorder.gate(PENNYLANE[name], wires, [_scalar(p) for p in op.parameters], inverse)
    elif name in ("MultiRZ", "PauliRot"):
        word = op.hyperparameters.get("pauli_word", "Z" * len(wires))
        kept, on = sparse_word(dict(zip(range(len(wires)), word, strict=True)))
        if kept:
            angle = _scalar(op.parameters[0])
            recorder.gate(kept, [wires[w] for w in on], [-angle if inverse else angle])
    elif isinstance(op, qml.StatePrep) and not inverse and recorder.is_untouched(wires):
        vector = torch.as_tensor(op.parameters[0])
        padded = op.hyperparameters["pad_with"] is not None
        recorder.start(vector.reshape(-1), wires, not (op.hyperparameters["normalize"] or padded))
    elif name in ("BasisState", "BasisEmbedding"):
        bits = torch.as_tensor(op.parameters[0]).reshape(-1)
        recorder.has_bits |= constant_of(bits) is None
        exact = bits if bits.is_floating_point() else bits.double()  # pi in float32 is too short
        for wire, bit in zip(wires, exact, strict=True):
            recorder.gate(GATES["RX"], (wire,), [bit * math.pi])
    elif isinstance(op, qml.ops.op_math.Adjoint):
        record_operation(recorder, op.base, wire_map, not inverse)
    elif isinstance(op, qml.ops.op_math.Controlled) and _is_general(op):
        controls = dict(zip(op.control_wires, map(bool, op.control_values), strict=True))
        _record_controlled(recorder, op.base, controls, wire_map, inverse)
    elif isinstance(op, qml.ops.op_math.Exp):
        _record_exponential(recorder, op, {}, wire_map, inverse)
    elif isinstance(op, qml.operation.Channel) and not inverse:
        record_channel(recorder, op, _constants(op), wires)
    elif isinstance(op, qml.operation.Channel) or type(op).__name__ in ("MidMeasure", "MidMeasureMP", "Conditional"):
        raise CircuitError(f"{op.name} is not a unitary gate, and cannot be part of a program")
    else:
        parts = _parts(op)
        if parts is None:
            _record_otherwise(recorder, op, {}, wire_map, inverse)
        else:
            for part in reversed(parts) if inverse else parts:
                record_operation(recorder, part, wire_map, inverse)


def _name(op: Any) -> str:
    """PennyLane's name of its own operation, "" for one of a user's, which may be called RX too."""
    own = type(op).__module__.partition(".")[0] == "pennylane"
    return op.name if own and (not hasattr(op, "base") or _name(op.base)) else ""


def _is_general(op: Any) -> bool:
    """Whether a controlled operation is none that PennyLane takes apart into gates by itself: it has parameters, or a
    base whose phase matters."""
    return bool(op.parameters) or type(op.base).__name__ in ("PowOperation", "PowOpObs", "Pow", "Exp", "Evolution")


def _parts(op: Any) -> list[Any] | None:
    """What an operation decomposes into; None where it has no decomposition, or none but a matrix on few wires."""
    import pennylane as qml

    if isinstance(op, qml.ops.op_math.Pow):
        return _power(op)
    if _name(op) in ("QubitUnitary", "DiagonalQubitUnitary") and len(op.wires) <= MAX_MATRIX_WIRES and _constants(op):
        return None
    if not op.has_decomposition:
        return None
    with qml.QueuingManager.stop_recording():
        return list(op.decomposition())


def _power(op: Any) -> list[Any] | None:
    """The operations of a power, None where only its matrix is left."""
    import pennylane as qml

    if isinstance(op.z, Tensor) or (_constants(op) is not None and len(op.wires) <= MAX_MATRIX_WIRES):
        return None
    with qml.QueuingManager.stop_recording():
        try:
            powers = op.base.pow(op.z)
            return list(powers) if isinstance(powers, (list, tuple)) else [powers]
        except qml.operation.PowUndefinedError:
            if op.z != int(op.z):
                return None
            base = op.base if op.z > 0 else qml.adjoint(op.base)
            return [base] * abs(int(op.z))


def _record_controlled(
    recorder: Recorder, op: Any, controls: dict[Any, bool], wire_map: Mapping[Any, int], inverse: bool
) -> None:
    """`op` under controls, its global phase included."""
    import pennylane as qml

    if isinstance(op, qml.ops.op_math.Adjoint):
        return _record_controlled(recorder, op.base, controls, wire_map, not inverse)
    if isinstance(op, qml.ops.op_math.Controlled):
        more = dict(zip(op.control_wires, map(bool, op.control_values), strict=True))
        return _record_controlled(recorder, op.base, controls | more, wire_map, inverse)
    if isinstance(op, qml.ops.op_math.Exp):
        return _record_exponential(recorder, op, controls, wire_map, inverse)
    if not op.parameters and not isinstance(op, qml.ops.op_math.Pow):
        gate = qml.ctrl(op, list(controls), list(controls.values()))
        return record_operation(recorder, gate, wire_map, inverse)
    name = _name(op)
    steps = exact_steps(name)
    if name in ("MultiRZ", "PauliRot"):
        word = op.hyperparameters.get("pauli_word", "Z" * len(op.wires))
        steps = (Step(*sparse_word(dict(enumerate(word))), param=0),)
    if steps is not None:
        wires = [] if name == "GlobalPhase" else list(op.wires)
        gate = controlled(steps, len(wires), list(controls.values()))
        on = [wire_map[w] for w in (*controls, *wires)]
        return recorder.gate(gate, on, [_scalar(p) for p in op.parameters], inverse)
    parts = _parts(op)
    if parts is None:
        return _record_otherwise(recorder, op, controls, wire_map, inverse)
    for part in reversed(parts) if inverse else parts:
        _record_controlled(recorder, part, controls, wire_map, inverse)


def _record_otherwise(
    recorder: Recorder, op: Any, controls: Mapping[Any, bool], wire_map: Mapping[Any, int], inverse: bool
) -> None:
    """What has no decomposition: a constant matrix, or ``exp(i t G)`` of its generator G."""
    import pennylane as qml

    values = _constants(op)
    if values is not None and op.has_matrix and len(op.wires) + len(controls) <= MAX_MATRIX_WIRES:
        matrix = _matrix(op, values)
        if controls:
            with qml.QueuingManager.stop_recording():
                gate = qml.ControlledQubitUnitary(
                    matrix, [*controls, *op.wires], control_values=[*controls.values()], unitary_check=False
                )
                matrix = np.asarray(qml.matrix(gate, wire_order=[*controls, *op.wires]))
        matrix = matrix.conj().T if inverse else matrix
        return record_unitary(recorder, matrix, [wire_map[w] for w in (*controls, *op.wires)], f"PennyLane's {op.name}")
    if len(op.parameters) == 1 and op.has_generator and len(op.wires) <= MAX_MATRIX_WIRES:
        with qml.QueuingManager.stop_recording():
            generator = op.generator()
            words = sentence(generator) if generator.has_matrix else None
            if words is None:
                dense = generator.sparse_matrix(wire_order=op.wires).toarray()
                words = qml.pauli_decompose(dense, wire_order=op.wires, pauli=True)
        time = _scalar(op.parameters[0])
        return _record_words(recorder, op, words, time if inverse else -time, controls, wire_map)
    raise CircuitError(
        f"PennyLane's {op.name} is not in qbp's table, and has neither a decomposition nor constant parameters on at "
        f"most {MAX_MATRIX_WIRES} wires"
    )


def _record_exponential(
    recorder: Recorder, op: Any, controls: Mapping[Any, bool], wire_map: Mapping[Any, int], inverse: bool
) -> None:
    """``exp(-i t G)``."""
    import pennylane as qml

    words = sentence(op.base)
    if words is None and op.base.has_matrix and len(op.base.wires) <= MAX_MATRIX_WIRES:
        words = matrix_sentence(op.base)
    if words is None:
        raise CircuitError(f"{op} is the exponential of what is no weighted sum of Pauli words")
    if isinstance(op, qml.ops.op_math.Evolution):
        time = _scalar(op.param)
    elif isinstance(op.coeff, Tensor) and op.coeff.is_complex() and (not any(words) or _is_imaginary(op.coeff)):
        time = -_scalar(op.coeff).imag
    elif isinstance(op.coeff, Tensor) or complex(op.coeff).real:
        raise CircuitError(f"{op} is not known to be unitary: write qml.evolve(operator, t) for exp(-i t operator)")
    else:
        time = -complex(op.coeff).imag
    _record_words(recorder, op, words, -time if inverse else time, controls, wire_map)


def _is_imaginary(tensor: Tensor) -> bool:
    """Whether a traced tensor has no real part, whatever the inputs and weights."""
    return all(not values_at(tensor, seed).real.any() for seed in range(3))


def _record_words(
    recorder: Recorder,
    op: Any,
    words: Mapping[Any, Any],
    time: Any,
    controls: Mapping[Any, bool],
    wire_map: Mapping[Any, int],
) -> None:
    terms: list[Term] = []
    for word, coefficient in words.items():
        letters, on = sparse_word({wire_map[w]: letter for w, letter in word.items()})
        number = constant_of(coefficient) if isinstance(coefficient, Tensor) else coefficient
        terms.append((letters, on, coefficient.real if number is None else complex(number).real))
    record_exponential(recorder, terms, time, {wire_map[w]: v for w, v in controls.items()}, f"PennyLane's {op.name}")


def sentence(observable: Any) -> dict[Any, Any] | None:
    """An operator as Pauli words with their coefficients, which may be traced tensors; None where it is none."""
    import pennylane as qml

    op_math = qml.ops.op_math
    if isinstance(observable, op_math.LinearCombination | op_math.Sum):
        coefficients, operators = (
            observable.terms()
            if isinstance(observable, op_math.LinearCombination)
            else ([1.0] * len(observable), observable.operands)
        )
        return _sum([(c, sentence(o)) for c, o in zip(coefficients, operators, strict=True)])
    if isinstance(observable, op_math.SProd):
        return _sum([(observable.scalar, sentence(observable.base))])
    rep = observable.pauli_rep
    return None if rep is None else dict(rep)


def _sum(parts: list[tuple[Any, dict[Any, Any] | None]]) -> dict[Any, Any] | None:
    words: dict[Any, Any] = {}
    for factor, part in parts:
        if part is None:
            return None
        for word, coefficient in part.items():
            value = factor * coefficient
            words[word] = words[word] + value if word in words else value
    return words


def matrix_sentence(operator: Any) -> dict[Any, Any]:
    """A constant operator as Pauli words, by its matrix."""
    import pennylane as qml

    values = _constants(operator)
    if values is None:
        raise CircuitError(f"The matrix of {operator.name} depends on inputs or weights: write it as Pauli words")
    matrix = _matrix(operator, values)
    return dict(qml.pauli_decompose(matrix, wire_order=operator.wires, pauli=True))


def _constants(op: Any) -> list[Any] | None:
    """The values of an operation's parameters, None if one of them depends on inputs or weights."""
    from torch.utils._python_dispatch import _disable_current_modes

    values = [constant_of(p) if isinstance(p, Tensor) else p for p in op.data]
    if any(value is None for value in values):
        return None
    with _disable_current_modes():
        return [value.numpy() if isinstance(value, Tensor) else value for value in values]


def _matrix(op: Any, values: list[Any]) -> np.ndarray:
    """The matrix of an operation with these values as its parameters."""
    import pennylane as qml
    from torch.utils._python_dispatch import _disable_current_modes

    with qml.QueuingManager.stop_recording(), _disable_current_modes():
        constant = qml.ops.functions.bind_new_parameters(op, values) if values else op
        return np.asarray(qml.matrix(constant, wire_order=op.wires), dtype=complex)


def _scalar(parameter: Any) -> Any:
    """A gate's parameter as a tensor or number without axes."""
    if isinstance(parameter, Tensor):
        if parameter.numel() != 1:
            raise ArgumentError(NOT_SCALAR.format(f"shape {tuple(parameter.shape)}"))
        return parameter.reshape(())
    return float(parameter)
