"""PennyLane's measurements as those of qbp, and what outputs are made of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from qbp.circuit.constants import constant_of
from qbp.circuit.program import Channel, Expval, Measurement, Probs
from qbp.circuit.tracing.circuit import Recorder, sparse_word
from qbp.circuit.tracing.combining import Combining, Term
from qbp.circuit.tracing.pennylane_channels import before_channel
from qbp.circuit.tracing.pennylane_gates import matrix_sentence, record_operation, sentence
from qbp.circuit.tracing.qiskit_gates import MAX_MATRIX_WIRES
from qbp.errors import CircuitError

__all__ = ["before", "expval", "measurements_of", "outputs_of"]


def outputs_of(returned: Sequence[Any], wire_map: Mapping[Any, int], n_qubits: int) -> Combining:
    """What a circuit returns: measurements, and what is made of measurements."""
    outputs = Combining(n_qubits)
    for measured in returned:
        kind, terms = type(measured).__name__, []
        if measured.obs is not None and kind in ("ExpectationMP", "VarianceMP"):
            terms = terms_of(measured.obs, wire_map)
        elif measured.mv is not None and kind == "VarianceMP":
            terms = [
                *_of_outcomes(np.asarray(measured.eigvals(), dtype=float), [wire_map[w] for w in measured.wires]).terms
            ]
        if kind == "VarianceMP" and terms:
            outputs.variance(terms)
        elif any(isinstance(coefficient, Tensor) for coefficient, _, _ in terms):
            outputs.mean(terms)
        else:
            for each in [_expval(terms)] if terms else measurements_of(measured, wire_map, n_qubits):
                outputs.keep(each)
    return outputs


def measurements_of(measured: Any, wire_map: Mapping[Any, int], n_qubits: int) -> tuple[Measurement, ...]:
    """A PennyLane measurement as one of qbp; probabilities in the basis of a Pauli word as one for each of them."""
    words = dict(getattr(measured.obs, "pauli_rep", None) or {})
    letters = [next(iter(words)).get(wire, "Z") for wire in measured.wires] if len(words) == 1 else []
    if type(measured).__name__ != "ProbabilityMP" or set(letters) <= {"Z"} or len(letters) > MAX_MATRIX_WIRES:
        return (measurement(measured, wire_map, n_qubits),)
    n, wires = len(letters), [wire_map[w] for w in measured.wires]
    subsets = [[k for k in range(n) if subset >> k & 1] for subset in range(2**n)]
    return tuple(
        Expval(
            tuple(
                (
                    (-1.0) ** sum(outcome >> (n - 1 - k) & 1 for k in on) / 2**n,
                    *sparse_word({wires[k]: letters[k] for k in on}),
                )
                for on in subsets
            )
        )
        for outcome in range(2**n)
    )


def measurement(measured: Any, wire_map: Mapping[Any, int], n_qubits: int) -> Measurement:
    """A PennyLane measurement as one of qbp."""
    kind = type(measured).__name__
    if kind == "ExpectationMP" and measured.obs is not None:
        return expval(measured.obs, wire_map)
    if kind == "ExpectationMP" and measured.mv is not None:  # of what was measured before
        return _of_outcomes(np.asarray(measured.eigvals(), dtype=float), [wire_map[w] for w in measured.wires])
    if kind == "ProbabilityMP":
        words = {} if measured.obs is None else measured.obs.pauli_rep
        if words is None or any(set(word.values()) - {"Z"} for word in words):
            raise CircuitError(f"Probabilities can be taken in the Z basis only, not of {measured.obs}")
        wires = measured.wires if len(measured.wires) else range(n_qubits)
        return Probs(tuple(wire_map[w] if len(measured.wires) else w for w in wires))
    raise CircuitError(f"A circuit must return expectation values, variances or probabilities, but returns {measured}")


def before(measured: Measurement, end: Iterable[Any], wire_map: Mapping[Any, int]) -> Measurement:
    """What a measurement sees before the noise that ends its circuit: each word the sum that noise makes of it."""
    recorder = Recorder()
    for op in end:
        record_operation(recorder, op, wire_map)
    for entry in reversed(recorder.entries):
        channel = entry[0]
        if not isinstance(channel, Channel) or (
            isinstance(measured, Probs) and not set(channel.wires).isdisjoint(measured.wires)
        ):
            raise CircuitError("The noise of a measurement alone must be channels, before expectation values")
        if isinstance(measured, Expval):
            measured = before_channel(measured, channel)
    return measured


def _of_outcomes(values: np.ndarray, wires: list[int]) -> Expval:
    """The mean of a number (2^k,) for each outcome of some wires, the first most significant: a sum of Z-words."""
    words = np.arange(len(values))
    signs = 1.0 - 2.0 * (np.bitwise_count(words[:, None] & words) & 1)
    terms = []
    for word, coefficient in enumerate((signs @ values / len(values)).tolist()):
        on = tuple(w for k, w in enumerate(wires) if word >> (len(wires) - 1 - k) & 1)
        if coefficient or not on:
            terms.append((coefficient, "Z" * len(on), on))
    return Expval(tuple(terms))


def expval(observable: Any, wire_map: Mapping[Any, int]) -> Expval:
    """The expectation value of a PennyLane observable with constant coefficients, as a weighted sum of Pauli words."""
    terms = terms_of(observable, wire_map)
    if any(isinstance(coefficient, Tensor) for coefficient, _, _ in terms):
        raise CircuitError("The coefficients of an observable must be numbers here, not weights or inputs")
    return _expval(terms)


def _expval(terms: Sequence[Term]) -> Expval:
    return Expval(tuple((float(c), word, on) for c, word, on in terms) or ((0.0, "", ()),))


def terms_of(observable: Any, wire_map: Mapping[Any, int]) -> list[Term]:
    """A PennyLane observable as a weighted sum of Pauli words, whose coefficients may be traced."""
    words = sentence(observable)
    if words is None and observable.has_matrix and len(observable.wires) <= 8:
        words = matrix_sentence(observable)
    if words is None:
        raise CircuitError(f"Observable {observable} is not a weighted sum of Pauli words")
    terms: list[Term] = []
    for word, coefficient in words.items():
        terms.append((_coefficient(coefficient), *sparse_word({wire_map[w]: letter for w, letter in word.items()})))
    return terms


def _coefficient(coefficient: Any) -> Tensor | float:
    """A number where it is constant."""
    number = constant_of(coefficient) if isinstance(coefficient, Tensor) else coefficient
    if isinstance(coefficient, Tensor) and coefficient.numel() != 1:
        raise CircuitError(f"A coefficient of an observable must be one number, but has shape {coefficient.shape}")
    if isinstance(coefficient, Tensor) and coefficient.requires_grad:
        raise CircuitError(
            "A coefficient of an observable is trained, but is no argument of the function: make it one, with a shape "
            "in `weight_shapes`"
        )
    if number is None and coefficient.is_complex():
        raise CircuitError("A coefficient of an observable that is a function of weights or inputs must be real")
    if number is None:
        return coefficient.reshape(()).double()
    value = complex(number)
    if abs(value.imag) > 1e-12:
        raise CircuitError(f"An observable has the complex coefficient {value}")
    return value.real
