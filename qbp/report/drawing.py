"""A layer's circuit as text, or as a picture: names of inputs and weights where they turn something."""

from __future__ import annotations

from typing import Any

from torch import nn

from qbp.circuit.formulas import formulas
from qbp.circuit.program import Measurement, Probs
from qbp.circuit.qasm.listing import format_observables
from qbp.circuit.qasm.text_drawing import drawn, labels, shortened
from qbp.circuit.recognition import GateCall, gate_calls
from qbp.circuit.tracing import Circuit
from qbp.errors import ArgumentError, CircuitError, check_choice
from qbp.nn.layer import QuantumLayer
from qbp.nn.translation.qasm_text import value_of
from qbp.nn.translation.words import names

__all__ = ["draw"]

Labels = dict[int, str]
"""What stands on each wire of a gate."""


def draw(layer: Any, output: str = "text", *, max_length: int = 100) -> Any:
    """Draw the circuit of a layer: x_0, ... are inputs, w_0, ... weights, all of them flattened one after the other.

    A parameter that is a long formula is abbreviated to what it depends on.

    Args:
        layer: a `QuantumLayer`, a `Circuit`, or a model with one quantum layer.
        output: "text", or "mpl" for a figure of matplotlib.
        max_length: characters of a line of text.

    Returns:
        The text, or the figure.

    Raises:
        ArgumentError: there is no such circuit, or no one circuit.
        CircuitError: a QNode runs itself.

    Example:
        >>> import qbp
        >>> print(draw(qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1)))
        q0: ─RX(x_0)─RX(w_0)─╭●─┤ <Z>
        q1: ─RX(x_1)─RX(w_1)─╰X─┤ <Z>
    """
    check_choice("output", output, ("text", "mpl"))
    circuit = _circuit_of(layer)
    gates, ends, legend = _gates(circuit), *_ends(circuit)
    if output == "mpl":
        from qbp.report.plots.wires import figure

        return figure(circuit.n_qubits, gates, ends, legend)
    return "\n".join([drawn(circuit.n_qubits, gates, max_length, ends), *legend])


def _circuit_of(layer: Any) -> Circuit:
    if isinstance(layer, Circuit):
        return layer
    layers = [m for m in layer.modules() if isinstance(m, QuantumLayer)] if isinstance(layer, nn.Module) else []
    if len(layers) != 1:
        held = f"holds {len(layers)} of them" if isinstance(layer, nn.Module) else f"is a {type(layer).__name__}"
        raise ArgumentError(f"Argument `layer` must be a quantum layer, or a model with one, but {held}")
    return layers[0].traced


def _gates(circuit: Circuit) -> list[Labels]:
    """What stands on the wires of each gate."""
    x, w = names(circuit)
    order = [str(name) for name in (*x, *w)]
    try:
        angles = formulas(circuit.angle_map, x, w)
    except CircuitError:  # some function that has no short name
        angles = []
    n_batched = circuit.angle_map.n_batched

    def texts(call: GateCall) -> list[str]:
        if angles:
            return [shortened(value_of(turn, angles), order) for turn in call.params]
        told = (None if turn.angle is None else "x" if turn.angle < n_batched else "w" for turn in call.params)
        return [f"f({t})" if t else f"{turn.offset:.4g}" for t, turn in zip(told, call.params, strict=True)]

    start = [dict.fromkeys(range(circuit.n_qubits), "|x⟩")] if circuit.program.amplitudes else []
    calls = gate_calls(circuit.program.ops)
    return start + [labels(f"R{call.word}" if call.word else call.name, call.wires, texts(call)) for call in calls]


def _ends(circuit: Circuit) -> tuple[list[Labels], list[str]]:
    """What is measured, on its wires; and what sums of words are."""
    ends: list[Labels] = []
    legend: list[str] = []
    for measurement in circuit.program.measurements:
        wires, text = _measured(measurement)
        if not text:
            text = f"<H{len(legend)}>"
            legend.append(f"H{len(legend)} = {format_observables((measurement,))}")
        ends.append(dict.fromkeys(wires, text))
    return ends, legend


def _measured(measurement: Measurement) -> tuple[tuple[int, ...], str]:
    """The wires of a measurement, and what it is called there; "" for a sum of words."""
    if isinstance(measurement, Probs):
        return measurement.wires, "Probs"
    (coefficient, word, wires), *more = measurement.terms
    if more or coefficient != 1:
        return tuple(sorted({wire for _, _, on in measurement.terms for wire in on})) or (0,), ""
    return wires or (0,), f"<{'@'.join(word) or 'I'}>"
