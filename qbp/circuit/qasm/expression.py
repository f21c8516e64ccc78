"""Arithmetic as data: a gate's parameter as a function of inputs and weights, in OpenQASM 3's notation.

A tiny expression tree, frozen, hashable and picklable. It evaluates on floats, NumPy arrays and torch tensors
by plain recursion, and prints as the OpenQASM 3 text that reads back as the same tree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch

from qbp.errors import ArgumentError

__all__ = ["BINARY", "CONSTANTS", "FUNCTIONS", "PI", "Expression"]

CONSTANTS: dict[str, float] = {"pi": math.pi, "tau": math.tau, "euler": math.e}
"""OpenQASM 3's constants by their name (it also knows them as π, τ, ℇ)."""

# OpenQASM 3's name -> the name in `math`; torch and NumPy both know OpenQASM 3's own.
FUNCTIONS: dict[str, str] = {
    **{name: name for name in ("sin", "cos", "tan", "exp", "log", "sqrt")},
    **{"arcsin": "asin", "arccos": "acos", "arctan": "atan"},
}
"""OpenQASM 3's differentiable functions of one argument. Its `pow` is `**` here."""


def _power(base: Any, exponent: Any) -> Any:
    result = base**exponent
    if isinstance(result, complex):  # Python's answer for floats, where torch and NumPy say nan
        raise ArgumentError(f"{base} ** {exponent} has no real value")
    return result


BINARY: dict[str, tuple[int, Callable[[Any, Any], Any]]] = {
    "+": (1, lambda a, b: a + b),
    "-": (1, lambda a, b: a - b),
    "*": (2, lambda a, b: a * b),
    "/": (2, lambda a, b: a / b),
    "**": (4, _power),
}
"""Operators of two operands: how strongly each binds, and what it does."""

_NEGATION = 3  # binds stronger than a product, weaker than a power: -a ** 2 is -(a ** 2)
_ATOM = 5


@dataclass(frozen=True, repr=False)
class Expression:
    """A node of the tree, built with `of`, `variable`, `PI`, `call` and operators: ``2 * (PI - x) * y``.

    Attributes:
        op: "number", "constant", "variable", "neg", an operator of `BINARY` or a function of `FUNCTIONS`.
        args: the number, the name, or the operands.
    """

    op: str
    args: tuple[Any, ...]

    __array_ufunc__ = None  # so that NumPy's numbers leave `np.float64(2) * x` to this class

    @staticmethod
    def of(value: Expression | float) -> Expression:
        """A number as an expression; an expression as it is."""
        if isinstance(value, Expression):
            return value
        if not isinstance(value, Real) or isinstance(value, bool):
            raise ArgumentError(f"Argument `value` must be an Expression or a real number, but is {value!r}")
        try:
            number = int(value) if isinstance(value, Integral) else float(value)
            finite = math.isfinite(number)
        except OverflowError:
            finite = False
        if not finite:
            raise ArgumentError("a number must be finite and fit into 64 bits")
        return Expression("number", (number,))

    @staticmethod
    def variable(name: str) -> Expression:
        """An input or a weight by its name."""
        return Expression("variable", (name,))

    @staticmethod
    def call(function: str, argument: Expression | float) -> Expression:
        """A function of `FUNCTIONS`, as in ``Expression.call("sin", x)``."""
        if function not in FUNCTIONS:
            raise ArgumentError(f"Argument `function` must be one of {', '.join(FUNCTIONS)}, but is {function!r}")
        return _fold(function, Expression.of(argument))

    def evaluate(self, values: Mapping[str, Any], function: Callable[[str, Any], Any] | None = None) -> Any:
        """The value of the expression.

        Args:
            values: for each variable a float, a NumPy array or a torch tensor.
            function: what is called with the name of a function ("sin") and its argument, where values are others.

        Returns:
            What the arithmetic of `values` gives; a float where there is no variable.

        Example:
            >>> x = Expression.variable("x_0")
            >>> (2 * (1 - x)).evaluate({"x_0": 0.25})
            1.5
        """
        op, args = self.op, self.args
        if op == "number":
            return float(args[0])
        if op == "constant":
            return CONSTANTS[args[0]]
        if op == "variable":
            return values[args[0]]
        first = args[0].evaluate(values, function)
        if op == "neg":
            return -first
        if op in BINARY:
            return BINARY[op][1](first, args[1].evaluate(values, function))
        if function is not None:
            return function(op, first)
        if isinstance(first, torch.Tensor):
            return getattr(torch, op)(first)
        if isinstance(first, (np.ndarray, np.generic)):
            return getattr(np, op)(first)
        return getattr(math, FUNCTIONS[op])(first)

    def variables(self) -> frozenset[str]:
        """The names it depends on."""
        if self.op == "variable":
            return frozenset(self.args)
        return frozenset[str]().union(*(arg.variables() for arg in self.args if isinstance(arg, Expression)))

    def __str__(self) -> str:
        op, args = self.op, self.args
        if op == "number":
            return repr(args[0])
        if op in ("constant", "variable"):
            return args[0]
        if op == "neg":
            return f"-{_within(args[0], _NEGATION + 1)}"
        if op not in BINARY:
            return f"{op}({args[0]})"
        level = BINARY[op][0]
        if op == "**":  # the one that groups to the right; a sign needs no parentheses in an exponent
            return f"{_within(args[0], level + 1)} ** {_within(args[1], _NEGATION)}"
        return f"{_within(args[0], level)} {op} {_within(args[1], level + 1)}"

    def __repr__(self) -> str:
        return f"Expression({str(self)!r})"

    def __neg__(self) -> Expression:
        return _fold("neg", self)

    def __add__(self, other: Expression | float) -> Expression:
        return _binary("+", self, other)

    def __radd__(self, other: float) -> Expression:
        return _binary("+", other, self)

    def __sub__(self, other: Expression | float) -> Expression:
        return _binary("-", self, other)

    def __rsub__(self, other: float) -> Expression:
        return _binary("-", other, self)

    def __mul__(self, other: Expression | float) -> Expression:
        return _binary("*", self, other)

    def __rmul__(self, other: float) -> Expression:
        return _binary("*", other, self)

    def __truediv__(self, other: Expression | float) -> Expression:
        return _binary("/", self, other)

    def __rtruediv__(self, other: float) -> Expression:
        return _binary("/", other, self)

    def __pow__(self, other: Expression | float) -> Expression:
        return _binary("**", self, other)

    def __rpow__(self, other: float) -> Expression:
        return _binary("**", other, self)


PI = Expression("constant", ("pi",))


def _binary(op: str, left: Expression | float, right: Expression | float) -> Expression:
    if not all(isinstance(side, (Expression, Real)) for side in (left, right)):
        return NotImplemented
    return _fold(op, Expression.of(left), Expression.of(right))


def _fold(op: str, *args: Expression) -> Expression:
    """The node, or its value where all operands are numbers (in OpenQASM 3, 1 / 2 of integers would be 0)."""
    if any(arg.op != "number" for arg in args):
        return Expression(op, args)
    numbers = [arg.args[0] for arg in args]
    try:
        if op == "neg":
            return Expression.of(-numbers[0])
        if op == "**":
            return Expression.of(math.pow(*numbers))
        function = BINARY[op][1] if op in BINARY else getattr(math, FUNCTIONS[op])
        return Expression.of(function(*numbers))
    except (ArithmeticError, ValueError) as error:
        raise ArgumentError(f"`{Expression(op, args)}` has no finite real value") from error


def _level(expression: Expression) -> int:
    if expression.op == "neg" or (expression.op == "number" and str(expression).startswith("-")):
        return _NEGATION
    return BINARY[expression.op][0] if expression.op in BINARY else _ATOM


def _within(expression: Expression, level: int) -> str:
    """The text of an operand, in parentheses where it binds less than `level`."""
    return str(expression) if _level(expression) >= level else f"({expression})"
