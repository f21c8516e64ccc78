"""What a model costs: the one counter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from qbp.circuit.program import Clifford, Op, Program, Rotation
from qbp.gradients.rules import Needs, shift_terms
from qbp.nn.flow import replaced
from qbp.nn.layer import QuantumLayer
from qbp.nn.models import n_parameters

__all__ = ["depth", "is_fed", "resources", "shape_of", "size"]


def shape_of(layer: QuantumLayer) -> tuple[int, int]:
    """Columns (I, M) of what a quantum layer takes and gives."""
    return layer.circuit.n_inputs, layer.circuit.program.n_outputs


def resources(model: nn.Module, n_inputs: int, batch_size: int = 1) -> dict[str, int]:
    """Count what a model is made of, and what a training step takes.

    A rotation of N qubits costs 4 * 2^N real multiply-adds, a measured Pauli word 2 * 2^N (two halves of it); Clifford
    gates cost the native engine none. A rotation about a word of k letters is 2 (k - 1) two-qubit gates on a device.

    Args:
        model: (B, n_inputs) -> (B, n_outputs).
        n_inputs: columns of the input.
        batch_size: rows of a step.

    Returns:
        `n_parameters` that training changes, `n_gates`, `two_qubit_gates`, `circuits_per_step` by the parameter-shift
        rule, and `multiply_adds` for one row forward.

    Example:
        >>> from qbp.nn.models import hybrid, mlp
        >>> resources(mlp(8, 4, 2), 8)["multiply_adds"]
        40
        >>> resources(hybrid(8, 2, n_qubits=4, n_layers=2), 8, batch_size=32)["two_qubit_gates"]
        8
    """
    from torch.utils.flop_counter import FlopCounterMode

    first = next((p for p in model.parameters()), torch.empty(0))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        replaced(model, _Skipped).eval()(torch.zeros(1, n_inputs, dtype=first.dtype, device=first.device))
    counts = dict.fromkeys(("n_gates", "two_qubit_gates", "circuits_per_step"), 0)
    multiply_adds = counter.get_total_flops() // 2
    is_first = model
    while isinstance(is_first, nn.Sequential) and len(is_first):
        is_first = is_first[0]
    for layer in (module for module in model.modules() if isinstance(module, QuantumLayer)):
        program = layer.circuit.program
        trains = any(p.requires_grad for p in layer.parameters())
        needs = layer.circuit.angle_map.needs(layer is not is_first, trains)
        shifted = len(shift_terms(program, Needs(needs)))
        counts["n_gates"] += len(program.ops)
        counts["two_qubit_gates"] += sum(map(_two_qubit_gates, program.ops))
        counts["circuits_per_step"] += batch_size * (1 + shifted)
        multiply_adds += _simulated(program)
    return {"n_parameters": n_parameters(model), **counts, "multiply_adds": multiply_adds}


class _Skipped(nn.Module):
    """A quantum layer that costs nothing."""

    def __init__(self, layer: QuantumLayer) -> None:
        super().__init__()
        self.n_outputs = shape_of(layer)[1]

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x), self.n_outputs)


def _two_qubit_gates(op: Op) -> int:
    wires = len(op.wires)
    return int(wires > 1) if isinstance(op, Clifford) else 2 * max(0, wires - 1)


def _simulated(program: Program) -> int:
    rotations = sum(not isinstance(op, Clifford) for op in program.ops)
    return 2**program.n_qubits * (4 * rotations + 2 * program.n_outputs)


def is_fed(model: nn.Module, layer: QuantumLayer) -> bool:
    """Whether anything before the layer trains, so that its inputs want a gradient."""
    for module in model.modules():
        if module is layer:
            return False
        if any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
            return True
    return False


def depth(ops: Sequence[Any]) -> int:
    """The longest chain of ops that share wires; an angle's rotations are one gate."""
    ends: dict[int, int] = {}
    last: Any = None
    for op in ops:
        same = (
            isinstance(op, Rotation) and isinstance(last, Rotation) and op.angle is not None and op.angle == last.angle
        )
        level = max((ends.get(w, 0) for w in op.wires), default=0) + (0 if same else 1)
        ends.update(dict.fromkeys(op.wires, level))
        last = op
    return max(ends.values(), default=0)


def size(model: nn.Module) -> dict[str, int]:
    """What a model costs.

    Returns:
        `parameters`; and of its quantum layers together `rotations` (that are trained or fed), `two_qubit_gates` as
        they are written, and `circuits`: parameter sets that a training step by the shift rule executes for each
        sample, where something in front of the layers trains too.

    Example:
        >>> import qbp
        >>> size(qbp.hybrid(8, 2, n_qubits=4, n_layers=2))
        {'parameters': 70, 'rotations': 28, 'two_qubit_gates': 8, 'circuits': 57}
    """
    programs = [layer.circuit.program for layer in model.modules() if isinstance(layer, QuantumLayer)]
    shifts = [shift_terms(program, Needs((True,) * program.n_angles)) for program in programs]
    return {
        "parameters": n_parameters(model),
        "rotations": sum(program.n_angles for program in programs),
        "two_qubit_gates": sum(len(op.wires) > 1 for program in programs for op in program.ops),
        "circuits": sum(1 + len(terms) for terms in shifts),
    }
