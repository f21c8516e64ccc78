"""`qbp.draw`: every gate, wire and measurement of a circuit is in its text and in its figure."""

from __future__ import annotations

import pennylane as qml
import pytest
import torch
from torch import nn

import qbp
from qbp.errors import ArgumentError


def circuit(inputs, w):
    qml.AmplitudeEmbedding(inputs, wires=range(3))
    qml.CRX(torch.erf(w), wires=[0, 2])  # no formula has this
    qml.Toffoli([0, 1, 2])
    qml.DepolarizingChannel(0.1, wires=1)
    qml.PauliRot(w, "XYZ", wires=[0, 1, 2])
    return qml.expval(qml.Z(0) @ qml.X(2)), qml.expval(2 * qml.Z(0) + qml.Y(1)), qml.probs(wires=[0, 1])


TEXT = """
q0: ─╭|x⟩─╭●────────╭●─────────────────────╭RXYZ───────┤ ╭<Z@X> ╭<H0> ╭Probs
q1: ─├|x⟩─│─────────├●─DepolarizingChannel─├RXYZ───────┤ │      ╰<H0> ╰Probs
q2: ─╰|x⟩─╰RX(f(w))─╰X─────────────────────╰RXYZ(f(w))─┤ ╰<Z@X>
H0 = 2.0*Z0 + Y1
"""


def test_all_kinds_of_parts():
    layer = qbp.QuantumLayer(circuit, {"w": ()}, n_inputs=8)
    assert qbp.draw(layer) == TEXT.strip() == qbp.draw(nn.Sequential(nn.Linear(2, 8), layer))


@pytest.mark.parametrize("name", sorted(qbp.circuit.ansatz.ANSATZE))
def test_families(name):
    layer = qbp.QuantumLayer(name, n_qubits=4 if name != "xor" else 2, n_layers=2 if name != "xor" else 1)
    text = qbp.draw(layer, max_length=60)
    assert max(map(len, text.splitlines())) < 110 and text.count("<") >= layer.n_outputs
    told = {part for k in range(layer.n_inputs) if (part := f"x_{k}") in text}
    assert len(told) == layer.n_inputs and f"w_{layer.circuit.angle_map.n_weights - 1}" in text
    assert qbp.draw(layer.circuit) == qbp.draw(layer)


def test_figures(tmp_path):
    figure = qbp.draw(qbp.QuantumLayer(circuit, {"w": ()}, n_inputs=8), "mpl")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert {"q0", "q1", "q2", "<Z@X>", "<H0>", "Probs", "X", "|x⟩", "H0 = 2.0*Z0 + Y1"} <= {*texts}
    figure.savefig(tmp_path / "circuit.png")
    assert (tmp_path / "circuit.png").stat().st_size > 2000
    figure = qbp.draw(qbp.QuantumLayer("strongly_entangling", n_qubits=2, n_layers=9), "mpl")
    assert [text.get_text() for text in figure.axes[0].texts].count("q0") > 1  # in several rows


@pytest.mark.parametrize("thing", [nn.Linear(2, 2), nn.Sequential(), "xor", None])
def test_what_is_no_circuit(thing):
    with pytest.raises(ArgumentError, match="Argument `layer` must be a quantum layer"):
        qbp.draw(thing)
    with pytest.raises(ArgumentError, match="Argument `output`"):
        qbp.draw(thing, "svg")
