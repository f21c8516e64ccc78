"""A layer as OpenQASM 3, in the subset that qbp reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from qbp.circuit.formulas import formulas
from qbp.circuit.gates import GATES
from qbp.circuit.program import Channel
from qbp.circuit.qasm import Call, Listing, dumps, loads
from qbp.circuit.qasm.expression import Expression
from qbp.circuit.qasm.writer import in_pi, rotation
from qbp.circuit.readout import read
from qbp.circuit.recognition import GateCall, Turn, gate_calls
from qbp.circuit.tracing import Circuit
from qbp.errors import CircuitError
from qbp.nn.translation.words import flat_weights, names, refuse_amplitudes

__all__ = ["listing_of", "qasm_text", "value_of"]


def qasm_text(layer: Any, circuit: Circuit, bound: bool) -> str:
    """The text of a layer's circuit, which has been read back once."""
    program = circuit.program
    for what, there in (
        ("channels", any(isinstance(op, Channel) for op in program.ops)),
        ("readout errors of probabilities", bool(program.readout) and not _is_read(circuit)),
    ):
        if there:
            raise CircuitError(f"This circuit has {what}, which OpenQASM 3 cannot say")
    refuse_amplitudes(circuit, "OpenQASM 3")
    text = dumps(listing_of(circuit, flat_weights(layer) if bound else None))
    loads(text, "the layer's OpenQASM")
    return text


def _is_read(circuit: Circuit) -> bool:
    """Whether all readout errors are in its expectation values."""
    misread = {wire for wire, _, _ in circuit.program.readout}
    return not any(hasattr(m, "wires") and misread & {*m.wires} for m in circuit.program.measurements)


def listing_of(circuit: Circuit, weights: list[float] | None = None) -> Listing:
    """The circuit's gates with formulas as parameters; of these weights, or of weights by name."""
    x, w = names(circuit)
    own = w if weights is None else [Expression.of(value) for value in weights]
    angles = formulas(circuit.angle_map, x, own)
    calls = [part for call in gate_calls(circuit.program.ops) for part in _calls(call, angles)]
    shapes = list(circuit.weight_shapes.values())
    shape = shapes[0] if weights is None and len(shapes) == 1 and len(shapes[0]) > 1 else ()
    return Listing(
        circuit.n_qubits,
        tuple(str(name) for name in x),
        tuple(str(name) for name in w) if weights is None else (),
        tuple(calls),
        read(circuit.program),
        weight_shape=shape,
    )


def _calls(call: GateCall, angles: list[Expression]) -> Iterator[Call]:
    params = tuple(value_of(turn, angles) for turn in call.params)
    if call.name in GATES and call.name != "RZX":
        yield Call(call.name, call.wires, params)
    else:
        yield from rotation(call.word or "ZX", call.wires, params[0])


def value_of(turn: Turn, angles: list[Expression]) -> Expression:
    """A gate's parameter as a formula."""
    if turn.angle is None:
        return in_pi(turn.offset)
    value = angles[turn.angle]
    if turn.scale != 1:
        value = -value if turn.scale == -1 else in_pi(turn.scale) * value
    return value + in_pi(turn.offset) if turn.offset else value
