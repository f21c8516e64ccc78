"""What a model costs: the one counter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qbp.circuit.angles import Angles
from qbp.circuit.program import Channel, Program, Rotation
from qbp.errors import ArgumentError, CircuitError
from qbp.executors import Capabilities
from qbp.gradients.rules import RULES
from qbp.nn.classical import ClassicalTwin
from qbp.nn.copying import copied
from qbp.nn.flow import guessed_rows, tensors_in
from qbp.nn.layer import QuantumLayer
from qbp.nn.models import n_parameters
from qbp.nn.seeding import spared

__all__ = ["Resources", "count", "depth", "resources", "shape_of", "simulabilities", "size"]


@dataclass(frozen=True)
class Resources:
    """What a model is made of, and what it takes.

    Attributes:
        parameters: that training changes.
        rotations: that an input or a weight turns, in all circuits.
        one_qubit_gates, two_qubit_gates: ops of the circuits on one wire, and on more, as an executor gets them; what a
            device makes of them is counted by `qbp.compression.device_cost.gate_counts`.
        depth: longest chains of gates, one circuit after the other.
        circuits: parameter sets that a training step executes, by each layer's own gradient rule; by the shift rule
            where that is the simulator's.
        multiply_adds: of one row forward. A rotation of N qubits costs 4 * 2^N of them, an output 2 * 2^N (the two
            halves of a Pauli word); Clifford gates cost the native engine none. With noise there are 4^N numbers: a
            rotation costs one for each, a channel one for each of its entries and each word of the other wires. Wide
            circuits cost what the way does that the native engine goes: so much for each window, or two for each value
            of a word.
    """

    parameters: int
    rotations: int
    one_qubit_gates: int
    two_qubit_gates: int
    depth: int
    circuits: int
    multiply_adds: int


def count(model: nn.Module, x: Tensor | None = None, *, batch_size: int = 1) -> Resources:
    """Count what a model costs, by running it with an executor that only counts what it is asked for.

    What a layer's inputs are worth in circuits is so decided by autograd: by whether something in front of the layer
    trains, wherever it stands and however often it is called.

    Args:
        model: (B, ...) -> one tensor or several.
        x: rows that it takes (B, ...), of which the first is used; found by trying where None.
        batch_size: rows of a step.

    Raises:
        ArgumentError: no rows are given, and none are found that the model takes.

    Example:
        >>> import qbp
        >>> count(qbp.hybrid(8, 2, n_qubits=4, n_layers=2), batch_size=32).circuits
        1824
    """
    rows = guessed_rows(model) if x is None else x
    if rows is None or not len(rows):
        raise ArgumentError("Argument `x` must be rows that the model takes: none are found by trying")
    counted, counter = _counted(model)
    apiece = all(layer.diff_method in RULES for layer in _layers(counted))  # each row costs as much as any other
    batch = rows[:1] if apiece else rows[:1].repeat(batch_size, *[1] * (rows.ndim - 1))
    with spared(counted), torch.enable_grad():
        outputs = [t for t in tensors_in(counted(batch)) if t.requires_grad]
        if outputs:
            sum(t.real.sum() for t in outputs).backward()  # type: ignore[union-attr]
        circuits = counter.sets * (batch_size if apiece else 1)
        multiply_adds = _multiply_adds(counted, counter, rows[:1])
    programs = [layer.traced.program for layer in _layers(model)]
    sizes = [len(op.wires) for program in programs for op in program.ops if not isinstance(op, Channel)]
    return Resources(
        parameters=n_parameters(model),
        rotations=sum(program.n_angles for program in programs),
        one_qubit_gates=sizes.count(1),
        two_qubit_gates=len(sizes) - sizes.count(1),
        depth=sum(depth(program.ops) for program in programs),
        circuits=circuits,
        multiply_adds=multiply_adds,
    )


def resources(model: nn.Module, n_inputs: int, batch_size: int = 1) -> dict[str, int]:
    """Count what a model of so many inputs costs; the columns of a comparison. See `count`.

    Args:
        model: (B, n_inputs) -> (B, n_outputs).
        n_inputs: columns of the input.
        batch_size: rows of a step.

    Returns:
        `n_parameters`, `n_gates`, `two_qubit_gates`, `circuits_per_step` and `multiply_adds`.

    Example:
        >>> from qbp.nn.models import hybrid, mlp
        >>> resources(mlp(8, 4, 2), 8)["multiply_adds"]
        40
        >>> resources(hybrid(8, 2, n_qubits=4, n_layers=2), 8, batch_size=32)["two_qubit_gates"]
        8
    """
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    x = like.new_full((1, n_inputs), max(1, n_inputs) ** -0.5)  # of norm 1, as amplitudes must be
    counts = count(model, x, batch_size=batch_size)
    return {
        "n_parameters": counts.parameters,
        "n_gates": counts.one_qubit_gates + counts.two_qubit_gates,
        "two_qubit_gates": counts.two_qubit_gates,
        "circuits_per_step": counts.circuits,
        "multiply_adds": counts.multiply_adds,
    }


def size(model: nn.Module, x: Tensor | None = None) -> dict[str, int]:
    """What a model costs, as the stages of a run tell it. See `count`.

    Returns:
        `parameters`, `rotations`, `two_qubit_gates`, and `circuits` of a training step for each sample.

    Example:
        >>> import qbp
        >>> size(qbp.hybrid(8, 2, n_qubits=4, n_layers=2))
        {'parameters': 70, 'rotations': 28, 'two_qubit_gates': 8, 'circuits': 57}
    """
    counts = count(model, x)
    return {key: getattr(counts, key) for key in ("parameters", "rotations", "two_qubit_gates", "circuits")}


def simulabilities(model: nn.Module, limit: int = 100_000) -> list[dict[str, Any]]:
    """What each of a model's circuits takes on this computer and on a device, as plain data; measured, in seconds.

    Circuits of which it cannot be told, such as those that start from amplitudes, are left out.

    Args:
        model: holds quantum layers, or none.
        limit: Pauli words of an output up to which they are counted.

    Example:
        >>> import qbp
        >>> len(simulabilities(qbp.hybrid(4, 2, n_qubits=2, n_layers=1)))
        1
    """
    reports = []
    for layer in _layers(model):
        try:
            reports.append(layer.simulability(limit).to_json())
        except (ArgumentError, CircuitError):
            continue
    return reports


def shape_of(layer: QuantumLayer) -> tuple[int, int]:
    """Columns (I, M) of what a quantum layer takes and gives."""
    return layer.traced.n_inputs, layer.traced.n_outputs


class _Counter:
    """An executor that counts what it is asked for, and answers with zeros."""

    name, capabilities = "counter", Capabilities(channels=True)

    def __init__(self) -> None:
        self.sets = self.multiply_adds = 0
        self.simulates = False

    def __call__(self, program: Program, angles: Angles, amplitudes: Tensor | None = None) -> Tensor:
        rows = Angles.of(angles).batched
        self.sets += len(rows)
        if self.simulates:
            self.multiply_adds += len(rows) * _simulated(program, rows.shape[1])
        return rows.new_zeros(len(rows), program.n_outputs)


def _layers(model: nn.Module) -> list[QuantumLayer]:
    return [module for module in model.modules() if isinstance(module, QuantumLayer)]


def _counted(model: nn.Module) -> tuple[nn.Module, _Counter]:
    """A copy in evaluation whose circuits are counted rather than run; the model's own executors are not copied."""
    counted = copied(model, {id(layer.executor): layer.executor for layer in _layers(model)}).eval()
    counter: Any = _Counter()
    for layer in _layers(counted):
        layer.traced  # noqa: B018  a QNode that runs itself has none to count
        if layer.diff_method not in RULES and layer.diff_method not in ("gradient-pruning", "guided-spsa"):
            layer._diff_method, layer._rule = "parameter-shift", None
        layer._executor = counter
    return counted, counter


def _multiply_adds(counted: nn.Module, counter: _Counter, row: Tensor) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    counter.simulates = True
    with FlopCounterMode(display=False) as flops:  # which counts matrix products only
        counted(row)
    words = sum(2 * module.n_words for module in counted.modules() if isinstance(module, ClassicalTwin))
    return flops.get_total_flops() // 2 + counter.multiply_adds + words * len(row)


def _simulated(program: Program, n_batched: int) -> int:
    from qbp.executors.native.ways import way_of
    from qbp.executors.native.windows import windows_of
    from qbp.executors.propagation import PauliPropagation

    way = way_of(program)
    if way == "pauli-propagation":
        words = PauliPropagation(max_words=None).words(program, n_batched)
        return 2 * words.n_words + len(words.linear.at)
    if way == "windows":
        return sum(len(shape.outputs) * _of_state(shape.program) for shape in windows_of(program, 0).shapes)
    return _of_state(program)


def _of_state(program: Program) -> int:
    rotations = sum(isinstance(op, Rotation) for op in program.ops)
    if not program.is_noisy:
        return 2**program.n_qubits * (4 * rotations + 2 * program.n_outputs)
    entries = (
        len(op.transfer) * 4 ** (program.n_qubits - len(op.wires)) for op in program.ops if isinstance(op, Channel)
    )
    return 4**program.n_qubits * rotations + sum(entries) + program.n_outputs


def depth(ops: Sequence[Any]) -> int:
    """The longest chain of ops that share wires; an angle's rotations are one gate."""
    ends: dict[int, int] = {}
    last: Any = None
    for op in ops:
        if isinstance(op, Channel):
            continue
        same = (
            isinstance(op, Rotation) and isinstance(last, Rotation) and op.angle is not None and op.angle == last.angle
        )
        level = max((ends.get(w, 0) for w in op.wires), default=0) + (0 if same else 1)
        ends.update(dict.fromkeys(op.wires, level))
        last = op
    return max(ends.values(), default=0)
