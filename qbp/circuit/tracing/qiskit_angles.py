"""Angles of Qiskit circuits, arithmetic of parameters, on tensors; each is compared with Qiskit's own binding."""

from __future__ import annotations

import math
import operator
import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from qbp.errors import CircuitError

__all__ = ["QiskitAngles"]


class QiskitAngles:
    """Evaluates the angles of one circuit.

    Qiskit's versions take expressions apart in different ways, and some of them wrongly: readings are tried until one
    agrees with ``ParameterExpression.bind`` at random values.

    Args:
        values: for each of Qiskit's parameters the tensor that it stands for.
    """

    def __init__(self, values: Mapping[Any, Any]):
        self.values = values

    def __call__(self, angle: Any) -> Any:
        """The angle, a number or an expression of Qiskit, as a float or a tensor.

        Raises:
            CircuitError: if no reading of the expression agrees with Qiskit's binding.
        """
        parameters = getattr(angle, "parameters", None)
        if not parameters:
            return _real(angle)
        for parameter in parameters:
            if parameter not in self.values:  # Qiskit loses an assignment when it inverts a controlled gate
                raise CircuitError(
                    f"A gate inside of the circuit has the parameter {parameter.name!r}, the circuit not"
                )
        if angle in self.values:
            return self.values[angle]
        return _reading(angle)(angle, {parameter: self.values[parameter] for parameter in parameters})


def _real(number: Any) -> float:
    value = complex(number)
    if value.imag or not math.isfinite(value.real):
        raise CircuitError(f"An angle must be a finite real number, but is {str(number)[:80]}")
    return value.real


def _reading(expression: Any) -> Callable[..., Any]:
    """The way of reading the expression that agrees with Qiskit's binding wherever that is a real number."""
    points = _points(expression)
    for reading in (_by_replay, _by_sympy):
        if points and all(_agrees(reading, expression, values, value) for values, value in points):
            return reading
    raise CircuitError(
        f"The angle {expression} cannot be taken apart into functions that agree with Qiskit's own binding: "
        "write it in another way"
    )


def _points(expression: Any) -> list[tuple[dict[Any, float], float]]:
    """Random values of the parameters with the value to which Qiskit binds the expression there."""
    draw = random.Random(0)
    points = []
    for low, high in ((-1.0, 1.0), (0.1, 0.9), (-3.0, 3.0), (1.0, 4.0), (-0.9, -0.1)):
        values = {p: draw.uniform(low, high) for p in expression.parameters}
        try:
            value = complex(expression.bind(values))
        except Exception:  # outside of the domain, in the words of whatever library Qiskit calculates with
            continue
        if math.isfinite(value.real) and not value.imag:
            points.append((values, value.real))
    return points


def _agrees(reading: Callable[..., Any], expression: Any, values: Mapping[Any, float], expected: float) -> bool:
    try:
        got = reading(expression, values)
    except (ArithmeticError, ValueError, TypeError, KeyError, NotImplementedError, AttributeError):
        return False
    return isinstance(got, (int, float)) and math.isclose(got, expected, rel_tol=1e-9, abs_tol=1e-12)


_OF_NUMBERS: dict[str, Callable[[float], float]] = {
    **{name: getattr(math, name) for name in ("sin", "cos", "tan", "asin", "acos", "atan", "exp", "log")},
    **{"abs": abs, "sign": lambda value: (value > 0) - (value < 0)},
}


def _apply(name: str, value: Any) -> Any:
    """A function of one argument, of a number or of a tensor."""
    return getattr(torch, name)(value) if isinstance(value, Tensor) else _OF_NUMBERS[name](value)


_SYMPY: dict[str, Callable[..., Any]] = {
    **{name: partial(_apply, name) for name in _OF_NUMBERS},
    **{"Abs": partial(_apply, "abs"), "conjugate": lambda value: value},
}


def _by_sympy(expression: Any, values: Mapping[Any, Any]) -> Any:
    symbolic = expression.sympify()
    if symbolic is NotImplemented:  # Qiskit's answer to 2**x
        raise NotImplementedError
    return _of_sympy(symbolic, {parameter.name: value for parameter, value in values.items()})


def _of_sympy(expression: Any, values: Mapping[str, Any]) -> Any:
    if expression.is_Symbol:
        return values[expression.name]
    if expression.is_number:
        return float(expression)
    parts = [_of_sympy(arg, values) for arg in expression.args]
    kind = type(expression).__name__
    if kind == "Add":
        return sum(parts[1:], start=parts[0])
    if kind == "Mul":
        return math.prod(parts[1:], start=parts[0])
    if kind == "Pow":
        return parts[0] ** parts[1]
    return _SYMPY[kind](*parts)


_STEPS: dict[str, Callable[..., Any]] = {
    **{"ADD": operator.add, "SUB": operator.sub, "MUL": operator.mul, "DIV": operator.truediv, "POW": operator.pow},
    **{name: lambda a, b, of=of: of(b, a) for name, of in (("RSUB", operator.sub), ("RDIV", operator.truediv))},
    "RPOW": lambda a, b: b**a,
    **{name: partial(_apply, f"a{name[3:].lower()}") for name in ("ARCSIN", "ARCCOS", "ARCTAN")},
    **{name.upper(): partial(_apply, name) for name in ("sin", "cos", "tan", "asin", "acos", "atan", "exp", "log")},
    **{"ABS": partial(_apply, "abs"), "SIGN": partial(_apply, "sign"), "CONJ": lambda v: v},
}


def _by_replay(expression: Any, values: Mapping[Any, Any]) -> Any:
    """From the operations that Qiskit writes into its QPY files: None stands for the result of an earlier one."""
    stack: list[Any] = []
    for step in expression._qpy_replay:
        name = str(step.op).rpartition(".")[2]
        binary = name in ("ADD", "SUB", "MUL", "DIV", "POW", "RSUB", "RDIV", "RPOW")
        right = [stack.pop() if step.rhs is None else step.rhs] if binary else []
        left = stack.pop() if step.lhs is None else step.lhs
        operands = [values[v] if hasattr(v, "parameters") and v.parameters else v for v in (left, *right)]
        stack.append(_STEPS[name](*(o if isinstance(o, Tensor) else _real(o) for o in operands)))
    (result,) = stack
    return result
