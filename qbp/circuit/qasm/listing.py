"""A circuit as data: gates whose parameters are expressions of named inputs and weights, and measurements.

What an OpenQASM 3 file holds (`qbp.circuit.qasm.writer`) and what a circuit family returns (`qbp.circuit.ansatz`):
frozen, hashable, picklable.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from qbp.circuit.gates import GATES
from qbp.circuit.program import Expval, Measurement, Probs, Program
from qbp.circuit.qasm.expression import Expression
from qbp.errors import CircuitError

__all__ = ["Call", "Listing", "format_observables", "in_order_of_numbers", "parse_observables"]


@dataclass(frozen=True)
class Call:
    """A gate by its name in `qbp.circuit.gates.GATES`, its wires, and its parameters in radians (numbers will do)."""

    name: str
    wires: tuple[int, ...]
    params: tuple[Expression, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "wires", tuple(self.wires))
        object.__setattr__(self, "params", tuple(Expression.of(p) for p in self.params))


@dataclass(frozen=True)
class Listing:
    """What a file holds: a circuit whose parameters are expressions of named inputs and weights.

    Attributes:
        n_qubits: N.
        inputs: names of the data, in the order of a sample's features; each starts with x.
        weights: names of the weights, in the order of the flattened weight tensor; each starts with w.
        calls: the gates in order of time.
        measurements: what is measured.
        title, reference: one line each.
        weight_shape: shape of the weight tensor; (P,) by default.
    """

    n_qubits: int
    inputs: tuple[str, ...]
    weights: tuple[str, ...]
    calls: tuple[Call, ...]
    measurements: tuple[Measurement, ...]
    title: str = ""
    reference: str = ""
    weight_shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for field in ("inputs", "weights", "calls", "measurements", "weight_shape"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        for field in ("title", "reference"):
            object.__setattr__(self, field, " ".join(getattr(self, field).split()))
        object.__setattr__(self, "weight_shape", self.weight_shape or (len(self.weights),))
        if math.prod(self.weight_shape) != len(self.weights) or any(size < 0 for size in self.weight_shape):
            raise CircuitError(f"the weight shape {self.weight_shape} must hold {len(self.weights)} weights")
        for letter, names in (("x", self.inputs), ("w", self.weights)):
            for name in names:
                if not is_data_name(name) or name[0] != letter:
                    raise CircuitError(f"name {name!r} must be an OpenQASM 3 identifier like {letter}_0")
        names = self.inputs + self.weights
        if len(set(names)) != len(names):
            raise CircuitError("The names of inputs and weights must be different")
        Program(self.n_qubits, (), self.measurements, 0)  # checks the number of wires and the measurements
        if any(isinstance(m, Expval) and not m.terms for m in self.measurements):
            raise CircuitError("An observable must have at least one term")
        variables = set(names)
        for call in self.calls:
            check_call(call, self.n_qubits)
            used = {name for param in call.params for name in param.variables()}
            if not used.issubset(variables):
                unknown = ", ".join(sorted(used - variables))
                raise CircuitError(f"gate {call.name} uses {unknown}: neither an input nor a weight")


def check_call(call: Call, n_qubits: int) -> None:
    """Raise `CircuitError` unless the gate is known and has its number of parameters and of distinct wires."""
    if call.name not in GATES:
        raise CircuitError(f"Gate {call.name!r} must be one of {', '.join(GATES)}")
    gate = GATES[call.name]
    if (len(call.params), len(call.wires)) != (gate.n_params, gate.n_wires):
        raise CircuitError(
            f"gate {gate.name} takes {gate.n_params} parameters and {gate.n_wires} qubits, "
            f"but has {len(call.params)} and {len(call.wires)}"
        )
    if len(set(call.wires)) != len(call.wires) or not all(0 <= w < n_qubits for w in call.wires):
        raise CircuitError(
            f"the qubits of gate {gate.name} must be different and below {n_qubits}, but are {call.wires}"
        )


def is_data_name(name: str) -> bool:
    """Whether a name is an OpenQASM 3 identifier for data (x...) or a weight (w...) with no other meaning."""
    letters = {"Lu", "Ll", "Lt", "Lm", "Lo", "Nl"}
    fits = all(c == "_" or c in "0123456789" or unicodedata.category(c) in letters for c in name)
    return fits and name[:1] in ("x", "w") and name not in ("x", "while")


def in_order_of_numbers(names: Iterable[str]) -> list[str]:
    """Names in the order of the numbers that they end with: x_2 before x_10.

    Names without a number, and those of another stem, keep the place where their stem comes first.

    Example:
        >>> in_order_of_numbers(["x_0", "x_1", "x_10", "x_2", "w_1", "w_0"])
        ['x_0', 'x_1', 'x_2', 'x_10', 'w_0', 'w_1']
    """
    stems: dict[str, int] = {}
    keys = {}
    for name in names:
        match = re.fullmatch(r"(.*?)([0-9]*)[\]_]*", name)
        stem, number = (match[1], match[2]) if match else (name, "")
        keys[name] = stems.setdefault(stem, len(stems)), int(number[:18] or -1)
    return sorted(keys, key=keys.__getitem__)


# ---- observables -----------------------------------------------------------------------------------

_FACTOR = re.compile(r"(?P<number>([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?)|(?P<letter>[IXYZ])(?P<wire>[0-9]{0,9})")
_PROBS = re.compile(r"probs\(([0-9]{1,9}(?:,[0-9]{1,9})*)\)")


def format_observables(measurements: tuple[Measurement, ...]) -> str:
    """The text that `parse_observables` reads."""
    return ", ".join(map(_format, measurements))


def _format(measurement: Measurement) -> str:
    if isinstance(measurement, Probs):
        return f"probs({', '.join(map(str, measurement.wires))})"
    text = ""
    for coefficient, word, wires in measurement.terms:
        factors = [f"{letter}{wire}" for letter, wire in zip(word, wires, strict=True)] or ["I"]
        factors = ([] if abs(coefficient) == 1 else [repr(float(abs(coefficient)))]) + factors
        sign = "-" if coefficient < 0 else "+"
        text += (f" {sign} " if text else sign.replace("+", "")) + "*".join(factors)
    return text


def parse_observables(text: str) -> tuple[Measurement, ...]:
    """Measurements from text, separated by commas: Pauli words, weighted sums of them, probabilities.

    Args:
        text: such as ``"Z0, X1*X2, 0.5*Z0 - 2*Y1*Z2 + I, probs(0, 1)"``: X1 is Pauli X on wire 1, I the
            identity, ``probs`` the probabilities of wires.

    Raises:
        CircuitError: naming the part that is neither.

    Example:
        >>> parse_observables("Z0*X2, probs(1)")
        (Expval(terms=((1.0, 'ZX', (0, 2)),)), Probs(wires=(1,)))
    """
    measurements: list[Measurement] = []
    for part in re.split(r",(?![^(]*\))", "".join(text.split())):
        probs = _PROBS.fullmatch(part)
        measurements.append(Probs(tuple(map(int, probs[1].split(",")))) if probs else Expval(_terms(part)))
    return tuple(measurements)


def _terms(text: str) -> tuple[tuple[float, str, tuple[int, ...]], ...]:
    terms = []
    # A sign ends a term, unless it belongs to an exponent.
    for term in re.split(r"(?<=[^-+eE*])(?=[-+])", text):
        coefficient, word, wires = -1.0 if term.startswith("-") else 1.0, "", []
        has_letter = False
        for factor in term.removeprefix(term[0] if term[:1] in ("+", "-") else "").split("*"):
            match = _FACTOR.fullmatch(factor)
            if match is None or (match["letter"] and match["letter"] != "I" and not match["wire"]):
                raise CircuitError(f"observable {text!r} must be like Z0, 0.5*Z0*X1 - Y2 or probs(0, 1)")
            if match["number"]:
                coefficient *= float(match["number"])
                continue
            has_letter = True
            if match["letter"] != "I":
                word += match["letter"]
                wires.append(int(match["wire"]))
        if not has_letter or not math.isfinite(coefficient):
            raise CircuitError(f"term {term!r} of an observable must name Pauli letters, as in 0.5*Z0, or I")
        terms.append((coefficient, word, tuple(wires)))
    return tuple(terms)
