"""A model layer by layer, as text."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from qbp.circuit.program import Channel
from qbp.errors import ArgumentError, CircuitError
from qbp.nn.layer import QuantumLayer
from qbp.nn.models import n_parameters
from qbp.nn.resources import count, depth
from qbp.nn.seeding import spared

__all__ = ["rows_of_model", "summary"]

COLUMNS = ("layer", "kind", "weights", "what")


def summary(model: nn.Module, x: Tensor | None = None, *, batch_size: int = 1) -> str:
    """Describe a model layer by layer: its weights, and of circuits their qubits and gates.

    Args:
        model: the model; nothing of it is run without `x`.
        x: rows that it takes (B, ...): then also the shape of what each layer gives, and what a training step executes.
        batch_size: rows of that step.

    Returns:
        A table as text, with the number of weights that training changes.

    Raises:
        ArgumentError: it is no model, or does not take the rows.

    Example:
        >>> import qbp
        >>> print(summary(qbp.hybrid(8, 2, n_qubits=2, n_layers=1)))
        layer  kind          weights  what
        0      Linear             18  8 -> 2
        1      BoundedAngle        0  scale=1.5708
        2      QuantumLayer        6  2 -> 2, 2 qubits, 8 rotations, 2 two-qubit gates, depth 6
        3      Linear              6  2 -> 2
        30 weights that are trained
        >>> print(summary(qbp.hybrid(8, 2, n_qubits=2, n_layers=1), torch.zeros(1, 8), batch_size=32))
        layer  kind          output  weights  what
        0      Linear        (B, 2)       18  8 -> 2
        1      BoundedAngle  (B, 2)        0  scale=1.5708
        2      QuantumLayer  (B, 2)        6  2 -> 2, 2 qubits, 8 rotations, 2 two-qubit gates, depth 6
        3      Linear        (B, 2)        6  2 -> 2
        30 weights that are trained
        a step of 32 rows: 544 circuits by the shift rule, 5248 multiply-adds forward
    """
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"Argument `model` must be a torch.nn.Module, but is a {type(model).__name__}")
    rows: list[tuple[str, ...]] = [COLUMNS, *rows_of_model(model)]
    ends = [f"{n_parameters(model)} weights that are trained"]
    if x is not None:
        shapes = {COLUMNS[0]: "output"} | _outputs(model, x)
        rows = [(name, kind, shapes.get(name, "-"), *rest) for name, kind, *rest in rows]
        ends.append(_step(model, x, batch_size))
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    right = len(rows[0]) - 2  # numbers of weights
    lines = [
        "  ".join(
            cell.rjust(w) if k == right else cell.ljust(w) for k, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join([*(line.rstrip() for line in lines), *ends])


def _outputs(model: nn.Module, x: Tensor) -> dict[str, str]:
    """The shape of what each module gives, by its name; B is the number of rows."""
    shapes: dict[str, str] = {}

    def note(name: str, output: Any) -> None:
        if isinstance(output, Tensor):
            sizes = ["B" if k == 0 and n == len(x) else str(n) for k, n in enumerate(output.shape)]
            shapes[name] = f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"

    names = {module: name or "-" for name, module in model.named_modules()}
    handles = [m.register_forward_hook(lambda m, _, output: note(names[m], output)) for m in names]
    modes = {module: module.training for module in names}
    try:
        with torch.no_grad(), spared(model):
            model.eval()(x)
    except Exception as error:  # whatever a model raises
        raise ArgumentError(f"Argument `x` must be rows that the model takes, but it raises: {error}") from error
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training
    return shapes


def _step(model: nn.Module, x: Tensor, batch_size: int) -> str:
    """What a training step executes."""
    try:
        counts = count(model, x, batch_size=batch_size)
    except CircuitError:
        return "a QNode that runs itself has circuits that nobody can count"
    exact = any(m.diff_method in ("adjoint", "backprop") for m in model.modules() if isinstance(m, QuantumLayer))
    by = " by the shift rule" if exact else ""
    multiply_adds = counts.multiply_adds * batch_size
    return f"a step of {batch_size} rows: {counts.circuits} circuits{by}, {multiply_adds} multiply-adds forward"


def rows_of_model(model: nn.Module) -> list[tuple[str, str, str, str]]:
    """Name, kind, number of weights and description of each module that holds no others; a shared one is told once."""
    rows = []
    for name, module in model.named_modules():
        if isinstance(module, QuantumLayer) or not list(module.children()):
            weights = sum(parameter.numel() for parameter in module.parameters())
            rows.append((name or "-", type(module).__name__, str(weights), _what(module)))
    return rows


def _what(module: nn.Module) -> str:
    if isinstance(module, nn.Linear):
        return f"{module.in_features} -> {module.out_features}" + ("" if module.bias is not None else ", no bias")
    if not isinstance(module, QuantumLayer) or module.executor is None:
        return module.extra_repr() if not isinstance(module, QuantumLayer) else "a QNode that runs itself"
    program = module.traced.program
    wide = sum(len(op.wires) > 1 for op in program.ops if not isinstance(op, Channel))
    noise = ", noise" if any(isinstance(op, Channel) for op in program.ops) else ""
    return (
        f"{module.n_inputs} -> {module.n_outputs}, {program.n_qubits} qubits, {program.n_angles} rotations, "
        f"{wide} two-qubit gates, depth {depth(program.ops)}{noise}"
    )
