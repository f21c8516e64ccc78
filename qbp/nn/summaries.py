"""A model layer by layer, as text."""

from __future__ import annotations

from torch import nn

from qbp.circuit.program import Channel
from qbp.errors import ArgumentError
from qbp.nn.layer import QuantumLayer
from qbp.nn.models import n_parameters
from qbp.nn.resources import depth

__all__ = ["rows_of_model", "summary"]

COLUMNS = ("layer", "kind", "weights", "what")


def summary(model: nn.Module) -> str:
    """Describe a model layer by layer: its weights, and of circuits their qubits and gates.

    Args:
        model: the model; nothing of it is run.

    Returns:
        A table as text, with the number of weights that training changes.

    Raises:
        ArgumentError: it is no model.

    Example:
        >>> import qbp
        >>> print(summary(qbp.hybrid(8, 2, n_qubits=2, n_layers=1)))
        layer  kind          weights  what
        0      Linear             18  8 -> 2
        1      BoundedAngle        0  scale=1.5708
        2      QuantumLayer        6  2 -> 2, 2 qubits, 8 rotations, 2 two-qubit gates, depth 6
        3      Linear              6  2 -> 2
        30 weights that are trained
    """
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"Argument `model` must be a torch.nn.Module, but is a {type(model).__name__}")
    rows = [COLUMNS, *rows_of_model(model)]
    widths = [max(len(row[k]) for row in rows) for k in range(len(COLUMNS))]
    lines = [f"{a.ljust(widths[0])}  {b.ljust(widths[1])}  {c.rjust(widths[2])}  {d}".rstrip() for a, b, c, d in rows]
    return "\n".join([*lines, f"{n_parameters(model)} weights that are trained"])


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
    program = module.circuit.program
    wide = sum(len(op.wires) > 1 for op in program.ops if not isinstance(op, Channel))
    noise = ", noise" if any(isinstance(op, Channel) for op in program.ops) else ""
    return (
        f"{module.n_inputs} -> {module.n_outputs}, {program.n_qubits} qubits, {program.n_angles} rotations, "
        f"{wide} two-qubit gates, depth {depth(program.ops)}{noise}"
    )
