"""Exact pruning: the same function to 1e-10, with what a circuit does not need gone."""

from __future__ import annotations

import copy
import math

import pennylane as qml
import pytest
import torch
from torch import nn

import qbp
from qbp.circuit.angles import Angles
from qbp.compression.pruning import prune
from qbp.compression.rank import live_parameters
from qbp.compression.simplify import reduced, simplify_layer
from qbp.executors.dense import Dense

GENERATOR = torch.Generator().manual_seed(0)


def n_entanglers(layer: qbp.QuantumLayer) -> int:
    return sum(len(op.wires) > 1 for op in layer.circuit.program.ops)


def difference(a: nn.Module, b: nn.Module, n_inputs: int, count: int = 200) -> float:
    x = torch.randn(count, n_inputs, dtype=torch.float64, generator=GENERATOR) * 2
    return (a(x) - b(x)).abs().max().item()


class Counting(Dense):
    """The dense executor, which counts the parameter sets that it runs."""

    name = "counting"
    sets = 0

    def __call__(self, program, angles, amplitudes=None):
        Counting.sets += Angles.of(angles).n_samples
        return super().__call__(program, angles, amplitudes)


# ---- published circuits ----------------------------------------------------------------------------------------------


def barren_0(inputs, weights):
    """The circuit of on-chip training (arXiv 2202.13239): 4 x 4 pixels, sqrt(H), and three blocks of RX, RY, RZ, CZ."""
    for k, gate in enumerate([qml.RY, qml.RZ, qml.RX, qml.RY]):
        for wire in range(4):
            gate(inputs[4 * k + wire], wires=wire)
    for wire in range(4):  # sqrt(H) is half a turn, halved, about (X + Z) / sqrt(2)
        qml.RY(-math.pi / 4, wires=wire)
        qml.RZ(math.pi / 2, wires=wire)
        qml.RY(math.pi / 4, wires=wire)
    for block in range(3):
        for k, gate in enumerate([qml.RX, qml.RY, qml.RZ]):
            for wire in range(4):
                gate(weights[block, k, wire], wires=wire)
        for wire in range(3):
            qml.CZ([wire, wire + 1])
    return [qml.expval(qml.Z(wire)) for wire in range(4)]


def test_sqrt_of_hadamard():
    half = torch.tensor(qml.matrix(qml.prod(qml.RY(math.pi / 4, 0), qml.RZ(math.pi / 2, 0), qml.RY(-math.pi / 4, 0))))
    assert torch.allclose(half @ half, -1j * torch.tensor(qml.matrix(qml.H(0)), dtype=torch.complex128), atol=1e-12)


@pytest.mark.parametrize("seed", range(2))
def test_the_circuit_of_on_chip_training_comes_down_from_36_to_24(seed):
    layer = qbp.QuantumLayer(
        barren_0,
        {"weights": (3, 3, 4)},
        n_inputs=16,
        seed=seed,
        backend=Counting(),
        diff_method="parameter-shift",
    ).double()
    small = prune(layer, by="exact")
    assert small.weights.shape == (24,) and live_parameters(layer) == 24
    assert difference(layer, small, 16) < 1e-10
    assert (n_entanglers(layer), n_entanglers(small)) == (9, 6)
    words = [op.pauli for op in small.circuit.program.ops if not hasattr(op, "name") and op.angle is not None]
    assert len(words) == 16 + 24  # no rotation is left that is merely fixed
    for model, sets in ((layer, 73), (small, 49)):
        Counting.sets = 0
        model(torch.ones(1, 16, dtype=torch.float64)).sum().backward()
        assert Counting.sets == sets


def test_strongly_entangling_layers_from_36_to_28():
    layer = qbp.QuantumLayer("strongly_entangling", n_qubits=4, n_layers=3, seed=0).double()
    small = prune(layer, by="exact")
    assert small.weights.shape == (28,) and live_parameters(layer) == live_parameters(small) == 28
    assert difference(layer, small, 4) < 1e-10
    assert (n_entanglers(layer), n_entanglers(small)) == (12, 8)
    angles = [op for op in small.circuit.program.ops if not hasattr(op, "name")]
    assert len(angles) == 4 + 28 and all(op.angle is not None for op in angles)


@pytest.mark.parametrize(("family", "live"), [("basic_entangler", 12), ("real_amplitudes", 16)])
def test_what_is_all_live_stays(family, live):
    layer = qbp.QuantumLayer(family, n_qubits=4, n_layers=3, seed=0).double()
    small = prune(layer, by="exact")
    assert small.weights.numel() == layer.weights.numel() == live_parameters(layer) == live
    assert difference(layer, small, 4) < 1e-10


@pytest.mark.parametrize("family", ["hardware_efficient", "zz_map", "reuploading", "qcnn", "iqp", "tree_tensor"])
def test_families_compute_the_same(family):
    layer = qbp.QuantumLayer(
        family, n_qubits=4 if family in ("qcnn", "tree_tensor") else 3, n_layers=2, seed=0
    ).double()
    small = prune(layer, by="exact")
    assert difference(layer, small, layer.n_inputs or 4) < 1e-10
    assert small.circuit.program.n_angles <= layer.circuit.program.n_angles


GATES = [qml.RX, qml.RY, qml.RZ, qml.H, qml.S, qml.X, qml.SX, qml.CNOT, qml.CZ, qml.CY, qml.SWAP, qml.ECR, qml.T]
GATES += [qml.CRX, qml.CRZ, qml.IsingXX, qml.IsingZZ, qml.ControlledPhaseShift, qml.SingleExcitation]


@pytest.mark.parametrize("seed", range(15))
def test_random_circuits_compute_the_same(seed):
    """Redundant by chance: few wires, many Clifford gates, any words and probabilities measured, amplitudes or |0>."""
    rng = torch.Generator().manual_seed(seed)

    def draw(n):
        return int(torch.randint(n, (), generator=rng))

    calls = [(GATES[draw(len(GATES))], torch.randperm(3, generator=rng).tolist(), draw(4)) for _ in range(24)]
    words = [qml.pauli.string_to_pauli_word(w) for w in ("XYZ", "ZIZ", "IXI")]
    chosen = [words[draw(3)] if draw(2) else qml.Z(draw(3)) for _ in range(2)]

    def circuit(inputs, weights):
        if seed % 5 == 0:
            qml.AmplitudeEmbedding(inputs, wires=range(3), normalize=True)
        w = 0
        for gate, wires, kind in calls:
            on = wires[: gate.num_wires or 1]
            if gate.num_params == 0:
                gate(wires=on)
            else:
                gate([inputs[w % 8], weights[w], 2 * weights[w] + 0.3, weights[0]][kind], wires=on)
                w += 1
        measured = [qml.expval(o) for o in chosen]
        return [*measured, qml.probs(wires=[2, 0])] if seed % 3 == 0 else measured

    layer = qbp.QuantumLayer(circuit, {"weights": (24,)}, n_inputs=8, seed=seed).double()
    small = copy.deepcopy(layer)
    simplify_layer(small)
    assert difference(layer, small, 8) < 1e-10
    assert small.circuit.angle_map.n_weights <= max(live_parameters(layer), live_parameters(small))
    assert n_entanglers(small) <= n_entanglers(layer)
    assert reduced(small.circuit).program == small.circuit.program


# ---- one reason at a time --------------------------------------------------------------------------------------------


def simplified(function, n_weights=2, n_inputs=2, **options) -> qbp.QuantumLayer:
    layer = qbp.QuantumLayer(
        function, {"weights": (n_weights,)} if n_weights else {}, n_inputs=n_inputs, seed=3
    ).double()
    small = copy.deepcopy(layer)
    simplify_layer(small, **options)
    assert difference(layer, small, n_inputs) < 1e-10
    return small


def counts(layer: qbp.QuantumLayer) -> dict[str, int]:
    return layer.circuit.program.counts()


def test_a_rotation_about_the_state_or_the_measurement_goes():
    def circuit(inputs, weights):
        qml.RZ(weights[0], wires=0)
        qml.H(1)
        qml.RX(inputs[1], wires=1)
        qml.RX(inputs[0], wires=0)
        qml.CRZ(weights[1], wires=[0, 1])
        return qml.expval(qml.Z(0)), qml.probs(wires=[0])

    assert counts(simplified(circuit)) == {"RX": 1}


def test_what_is_seen_in_another_basis_stays():
    def circuit(inputs, weights):
        qml.RX(inputs[0], wires=0)
        qml.RZ(weights[0], wires=0)
        qml.CZ([0, 1])
        qml.RZ(inputs[1], wires=1)
        qml.RX(weights[1], wires=1)
        return qml.expval(qml.X(0)), qml.expval(qml.Y(1))

    assert counts(simplified(circuit))["RZ"] == 1  # wire 1 starts as |0>: CZ and its RZ do nothing


def test_neighbours_merge_through_commuting_gates():
    def circuit(inputs, weights):
        qml.RY(inputs[0], wires=0)
        qml.RY(inputs[1], wires=1)
        qml.RX(weights[0], wires=1)
        qml.CNOT([0, 1])
        qml.RX(inputs[1], wires=1)
        qml.CNOT([0, 1])
        qml.RX(weights[1], wires=1)
        return qml.expval(qml.Z(1)), qml.expval(qml.X(0))

    small = simplified(circuit)
    assert counts(small) == {"RY": 2, "RX": 1} and small.weights.shape == (1,)


def test_gates_at_the_end_go_into_the_words():
    def circuit(inputs, weights):
        qml.AngleEmbedding(inputs, wires=range(2))
        qml.RY(weights[0], wires=0)
        qml.CNOT([0, 1])
        qml.CZ([0, 1])
        return qml.expval(qml.Z(0)), qml.expval(0.5 * qml.Z(1) + 2 * qml.Z(0) @ qml.Z(1))

    small = simplified(circuit, 1)
    assert not n_entanglers(small)
    assert {word for m in small.circuit.program.measurements for _, word, _ in m.terms} == {"Z", "ZZ"}


def test_gates_at_the_end_stay_where_measuring_would_take_more_circuits():
    def circuit(inputs):
        qml.AngleEmbedding(inputs, wires=range(2))
        qml.CNOT([0, 1])
        qml.H(0)
        return qml.expval(qml.Z(0)), qml.expval(qml.Z(1)), qml.probs(wires=[0, 1])

    assert n_entanglers(simplified(circuit, 0)) == 1


def test_controls_in_a_known_state():
    def circuit(inputs, weights):
        qml.RX(inputs[0], wires=1)
        qml.CNOT([0, 1])
        qml.X(0)
        qml.CY([0, 1])
        qml.H(0)
        qml.RX(weights[0], wires=0)
        qml.CNOT([1, 0])
        return [qml.expval(qml.Z(0)), qml.expval(qml.Z(1))]

    small = simplified(circuit, 1)
    assert not n_entanglers(small)


def test_pairs_cancel():
    def circuit(inputs, weights):
        qml.AngleEmbedding(inputs, wires=range(2))
        qml.CZ([0, 1])
        qml.RZ(weights[0], wires=0)
        qml.CZ([1, 0])
        qml.RX(weights[1], wires=0)
        return qml.expval(qml.Z(0)), qml.expval(qml.X(1))

    assert not n_entanglers(simplified(circuit))


def test_amplitudes_are_no_known_state():
    def circuit(inputs, weights):
        qml.AmplitudeEmbedding(inputs, wires=range(2), normalize=True)
        qml.RZ(weights[0], wires=0)
        qml.CNOT([0, 1])
        qml.RX(weights[1], wires=1)
        return qml.expval(qml.X(0)), qml.expval(qml.Y(1))

    assert n_entanglers(simplified(circuit, n_inputs=4)) == 1


def test_rotations_at_quarter_turns_are_clifford_gates():
    def circuit(inputs, weights):
        qml.RX(inputs[0], wires=0)
        qml.RX(weights[0], wires=1)
        qml.CNOT([1, 0])
        qml.RY(weights[1], wires=0)
        return qml.expval(qml.Z(0)), qml.expval(qml.Z(1))

    layer = qbp.QuantumLayer(circuit, {"weights": (2,)}, n_inputs=1).double()
    with torch.no_grad():
        layer.weights.copy_(torch.tensor([math.pi, 0.7], dtype=torch.float64))
    small = copy.deepcopy(layer)
    simplify_layer(small)
    assert n_entanglers(small) == 1  # the weight could change
    simplify_layer(small, fix_quarters=True)
    assert n_entanglers(small) == 0 and small.weights.shape == (1,)
    assert difference(layer, small, 1) < 1e-10


def test_single_precision_stays():
    model = qbp.hybrid(8, 2, n_layers=3, seed=0)
    small = prune(model, by="exact")
    assert small[2].weights.dtype == torch.float32 and small[2].weights.numel() == 28
    x = torch.randn(50, 8, generator=GENERATOR)
    assert (model(x) - small(x)).abs().max() < 1e-5


def test_dead_neurons_go():
    model = qbp.mlp(4, 6, 5, 3, seed=0).double()
    with torch.no_grad():
        model[0].weight[2], model[0].bias[2] = 0, 0
        model[4].weight[:, 1] = 0
        model[2].weight[1:, 3] = 0  # read by a neuron that nothing reads, and by the first
        model[2].weight[0, 3] = 0
    small = prune(model, by="exact")
    assert [layer.out_features for layer in (small[0], small[2], small[4])] == [4, 4, 3]
    assert difference(model, small, 4) < 1e-12


def test_a_neuron_whose_angle_nothing_sees_goes():
    def circuit(inputs, weights):
        qml.AngleEmbedding(inputs, wires=range(3))
        qml.RY(weights[0], wires=0)
        qml.CNOT([1, 2])
        return qml.expval(qml.Z(0)), qml.expval(qml.Z(1))

    layer = qbp.QuantumLayer(circuit, {"weights": (1,)}, n_inputs=3, seed=0)
    model = nn.Sequential(nn.Linear(5, 3), nn.Tanh(), layer, nn.Linear(2, 2)).double()
    small = prune(model, by="exact")
    assert small[0].out_features == small[2].n_inputs == 2 and difference(model, small, 5) < 1e-12


def test_constant_outputs_have_no_live_weights():
    """Outputs that are 0 or 1/2 whatever comes in: what their Jacobian holds is rounding."""

    def zero(inputs, weights):
        qml.RX(weights[0] * inputs[0], 0)
        qml.RY(-math.pi / 2, 0)
        qml.CNOT([0, 1])
        qml.RY(weights[1], 1)
        qml.CNOT([0, 1])
        return [qml.expval(qml.Z(0))]

    def half(inputs, weights):
        qml.RX(weights[0] * inputs[0], 1)
        qml.RY(-math.pi / 2, 1)
        qml.RX(0.5 * weights[1], 0)
        qml.CY([1, 0])
        qml.RZ(weights[2], 1)
        return qml.probs(wires=[0])

    def faint(inputs, weights):
        qml.RX(1e-4 * weights[0] + inputs[0], 0)
        qml.RY(weights[1], 0)
        return [qml.expval(1e-3 * qml.Z(0))]

    for function, shape, live in ((zero, 2, 0), (half, 3, 0), (faint, 2, 2)):
        layer = qbp.QuantumLayer(function, {"weights": (shape,)}, n_inputs=1, seed=0).double()
        assert live_parameters(layer) == live
        small = qbp.prune(layer, by="exact")
        assert sum(p.numel() for p in small.parameters()) == live
        x = torch.randn(9, 1, dtype=torch.float64)
        assert (small(x) - layer(x)).abs().max() < 1e-12
