"""Conditions of Qiskit's `IfElseOp`: the bits that they ask for, and whether they hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from qbp.errors import CircuitError

__all__ = ["bits_of", "holds"]

_OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "BIT_AND": lambda a, b: a & b,
    "BIT_OR": lambda a, b: a | b,
    "BIT_XOR": lambda a, b: a ^ b,
    "LOGIC_AND": lambda a, b: bool(a) and bool(b),
    "LOGIC_OR": lambda a, b: bool(a) or bool(b),
    "EQUAL": lambda a, b: a == b,
    "NOT_EQUAL": lambda a, b: a != b,
    "LESS": lambda a, b: a < b,
    "LESS_EQUAL": lambda a, b: a <= b,
    "GREATER": lambda a, b: a > b,
    "GREATER_EQUAL": lambda a, b: a >= b,
}


def bits_of(condition: Any) -> list[Any]:
    """The classical bits that a condition asks for, each once.

    Raises:
        CircuitError: if it asks for something else.
    """
    from qiskit.circuit import ClassicalRegister, Clbit
    from qiskit.circuit.classical import expr

    targets = [condition[0]] if isinstance(condition, tuple) else [v.var for v in expr.iter_vars(condition)]
    if not all(isinstance(target, Clbit | ClassicalRegister) for target in targets):
        raise CircuitError("Qiskit's 'if_else' has a condition on variables, not on measured bits")
    return list(dict.fromkeys(bit for t in targets for bit in ([t] if isinstance(t, Clbit) else t)))


def holds(condition: Any, values: Mapping[Any, int]) -> bool:
    """Whether it holds, with the values of its bits."""
    if isinstance(condition, tuple):
        return _value_of(condition[0], values) == int(condition[1])
    return bool(_value(condition, values))


def _value_of(target: Any, values: Mapping[Any, int]) -> int:
    """Of a bit or a register, whose first bit is the least significant."""
    if target in values:
        return values[target]
    return sum(values[bit] << k for k, bit in enumerate(target))


def _value(node: Any, values: Mapping[Any, int]) -> int:
    kind, op = type(node).__name__, getattr(getattr(node, "op", None), "name", "")
    if kind == "Var":
        return _value_of(node.var, values)
    if kind == "Value":
        return int(node.value)
    if kind == "Cast" and type(node.type).__name__ in ("Bool", "Uint"):
        value = _value(node.operand, values)
        return int(bool(value)) if type(node.type).__name__ == "Bool" else value
    if kind == "Unary" and op == "LOGIC_NOT":
        return int(not _value(node.operand, values))
    if kind == "Unary" and op == "BIT_NOT":
        width = getattr(node.type, "width", 1)
        return ~_value(node.operand, values) & (1 << width) - 1
    if kind == "Binary" and op in _OPERATIONS:
        return int(_OPERATIONS[op](_value(node.left, values), _value(node.right, values)))
    raise CircuitError(f"Qiskit's 'if_else' has a condition with {op or kind}, which is not supported")
