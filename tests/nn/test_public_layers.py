"""Layers of public repositories, in other words: of classes, models and networks. Outputs and gradients are those of
PennyLane's QNode, row by row and by backpropagation, or of Qiskit's `TorchConnector`."""

from __future__ import annotations

import functools
import math
import types

import numpy as np
import pennylane as qml
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import efficient_su2, real_amplitudes, z_feature_map, zz_feature_map
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.connectors import TorchConnector
from qiskit_machine_learning.neural_networks import EstimatorQNN, SamplerQNN

import qbp
from qbp import QuantumLayer

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pennylane.exceptions.PennyLaneDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*runs by itself"),
]
Z = qml.Z
CASES = {}


def case(shapes, n_inputs, wires, native=True, **options):
    def keep(function):
        CASES[function.__name__] = function, shapes, n_inputs, wires, native, options
        return function

    return keep


def z_all(n):
    return [qml.expval(Z(k)) for k in range(n)]


def chain(n, gate=qml.CNOT, ring=False):
    for k in range(n if ring else n - 1):
        gate(wires=[k, (k + 1) % n])


# ---- what is read out ------------------------------------------------------------------------------------------------


@case({"weights": (2, 3, 3)}, 3, 3, device="lightning.qubit")
def three_letters_of_every_wire(inputs, weights):
    for k in range(3):
        qml.Hadamard(wires=k)
    qml.AngleEmbedding(inputs, wires=range(3))
    qml.StronglyEntanglingLayers(weights, wires=range(3))
    return tuple(qml.expval(letter(k)) for letter in (qml.X, qml.Y, qml.Z) for k in range(3))


@case({"weights": (2, 3), "readout": 3}, 3, 3)
def a_score_with_weights_of_its_own(inputs, weights, readout):
    qml.AngleEmbedding(inputs, wires=range(3), rotation="Y")
    qml.BasicEntanglerLayers(weights, wires=range(3))
    return qml.expval(qml.Hamiltonian(readout, [Z(k) for k in range(3)]))


@case({"weights": (2, 3), "scale": 1}, 3, 3)
def a_policy_with_a_trained_temperature(inputs, weights, scale):
    qml.AngleEmbedding(inputs, wires=range(3))
    qml.BasicEntanglerLayers(weights, wires=range(3))
    return [qml.expval(scale * Z(k)) for k in range(2)]


@case({"weights": (1, 3, 3)}, 3, 3)
def a_mean_and_how_sure_it_is(inputs, weights):
    qml.AngleEmbedding(inputs, wires=range(3))
    qml.StronglyEntanglingLayers(weights, wires=range(3))
    return qml.expval(Z(0)), qml.var(Z(0)), qml.var(Z(0) @ Z(1))


@case({"weights": (1, 2, 3), "j": 1, "h": 2}, 2, 2)
def an_energy_of_trained_couplings(inputs, weights, j, h):
    qml.AngleEmbedding(inputs, wires=range(2))
    qml.StronglyEntanglingLayers(weights, wires=range(2))
    return qml.expval(j * Z(0) @ Z(1) + h[0] * qml.X(0) + h[1] * qml.X(1))


@case({"weights": (1, 2, 3)}, 4, 2)
def an_energy_of_couplings_that_are_data(inputs, weights):
    qml.AngleEmbedding(inputs[:2], wires=range(2))
    qml.StronglyEntanglingLayers(weights, wires=range(2))
    return qml.expval(qml.dot(inputs[2:], [Z(0) @ Z(1), qml.X(0)]))


@case({"weights": (2, 3)}, 3, 3)
def the_variance_of_an_energy(inputs, weights):
    qml.AngleEmbedding(inputs, wires=range(3))
    qml.BasicEntanglerLayers(weights, wires=range(3))
    energy = qml.sum(*(Z(k) @ Z(k + 1) for k in range(2)), *(0.5 * qml.X(k) for k in range(3)))
    return qml.expval(energy), qml.var(energy)


@case({"weights": (2, 3)}, 3, 3)
def pairs_as_features_of_a_reservoir(inputs, weights):
    qml.AngleEmbedding(inputs, wires=range(3))
    qml.BasicEntanglerLayers(weights, wires=range(3))
    pairs = [(a, b) for a in range(3) for b in range(a)]
    return [*z_all(3), *(qml.expval(Z(a) @ Z(b)) for a, b in pairs)]


@case({"weights": (2, 3)}, 3, 3)
def a_projector_for_each_class(inputs, weights):
    qml.AngleEmbedding(inputs, wires=range(3))
    qml.BasicEntanglerLayers(weights, wires=range(3))
    return [qml.expval(qml.Projector(bits, wires=[0, 1])) for bits in ([0, 0], [0, 1], [1, 0])]


# ---- networks --------------------------------------------------------------------------------------------------------


def convolve(a, b, w):
    qml.RZ(-math.pi / 2, wires=b)
    qml.CNOT([b, a])
    qml.RZ(w[0], wires=a)
    qml.RY(w[1], wires=b)
    qml.CNOT([a, b])
    qml.RY(w[2], wires=b)
    qml.CNOT([b, a])
    qml.RZ(math.pi / 2, wires=a)


@case({"weights": 18}, 4, 4)
def convolution_and_pooling_by_slices(inputs, weights):
    for k in range(4):
        qml.Hadamard(k)
        qml.RZ(inputs[..., k], wires=k)
    step = 0
    for a, b in [(0, 1), (2, 3), (1, 3)]:
        convolve(a, b, weights[step : step + 3])
        convolve(b, a, weights[step + 3 : step + 6])
        step += 6
    return qml.probs(wires=3)


@case({"weights": (2, 2)}, 2, 2)
def a_block_by_layer(inputs, weights):
    def block(row):
        for wire, w in enumerate(row):
            qml.RZ(w, wires=wire)
            qml.RX(2 * w, wires=wire)
        chain(2, qml.CZ)

    for wire, value in enumerate(inputs):
        qml.RX(value, wires=wire)
        qml.RY(value, wires=wire)
    qml.layer(block, 2, weights)
    return z_all(2)


@case({"weights": (3, 4)}, 4, 4)
def the_gate_of_a_recurrent_cell(inputs, weights):
    for k, x in enumerate(inputs):
        qml.Hadamard(k)
        qml.RY(torch.arctan(x), wires=k)
        qml.RZ(torch.arctan(x**2), wires=k)
    for row in weights:
        for hop in (1, 2):
            for k in range(4):
                qml.CNOT([k, (k + hop) % 4])
        for k in range(4):
            qml.RY(row[k], wires=k)
    return z_all(4)


@case({"strong": (1, 2, 3), "inits": (1, 2), "update": (1, 3, 3)}, 6, 3)
def messages_along_edges(inputs, strong, inits, update):
    data = inputs.reshape(3, 2)
    for k in range(2):
        qml.RY(data[0, k], wires=k)
        qml.CRX(inits[0, k], wires=[k, 2])
    for row in data[1:]:
        qml.IsingZZ(row[0] * row[1], wires=[0, 1])
    qml.StronglyEntanglingLayers(strong, wires=[0, 2])
    qml.StronglyEntanglingLayers(update, wires=[2, 0, 1])
    return z_all(3)


@case({"node": 2, "edge": 2}, 5, 3)
def a_graph_with_weighted_edges(inputs, node, edge):
    edges = [(0, 1), (1, 2)]
    for layer in range(2):
        for k in range(3):
            qml.RY(inputs[k] * node[layer], wires=k)
        for k, (a, b) in enumerate(edges):
            qml.IsingZZ(edge[layer] * inputs[3 + k], wires=[a, b])
    return [qml.expval(Z(k)) for k in range(3)]


@case({"weights": (4, 3)}, 4, 4)
def patches_of_an_image_through_butterflies(inputs, weights):
    qml.X(0)
    for k in range(3):
        qml.SingleExcitation(inputs[k], wires=[k, k + 1])
    for layer in range(2):
        for k, wires in enumerate([(0, 1), (2, 3), (1, 2)]):
            qml.SingleExcitation(weights[layer, k], wires=wires)
    return qml.probs(wires=range(4))


@case({"weights": (2, 3, 3)}, 8, 3, amplitudes=True)
def a_backbone_that_is_padded(inputs, weights):
    qml.AmplitudeEmbedding(inputs[:5], wires=range(3), normalize=True, pad_with=0.0)
    for row in weights:
        for k in range(3):
            qml.Rot(*row[k], wires=k)
        chain(3, ring=True)
    return z_all(3)


class Encoder:
    """A circuit as a method, with its sizes and its entanglement as attributes."""

    def __init__(self, entanglement):
        self.entanglement, self.n = entanglement, 3

    def circuit(self, inputs, weights):
        qml.AngleEmbedding(inputs, wires=range(self.n))
        for row in weights:
            for k in range(self.n):
                qml.Rot(*row[k], wires=k)
            chain(self.n, ring=self.entanglement.lower() == "circular")
        return z_all(self.n)


CASES["a method with a choice of entanglement"] = Encoder("Circular").circuit, {"weights": (2, 3, 3)}, 3, 3, True, {}


def perceptron(tau, delta, n, inputs, weights):
    data = tau * (inputs - weights[0]) + delta
    for k in range(n):
        qml.Hadamard(k)
    for k in range(n):
        qml.PhaseShift(data[..., k], wires=k)
    for k in range(n):
        qml.Hadamard(k)
        qml.X(k)
    qml.MultiControlledX(wires=range(n + 1))
    return qml.probs(wires=n)


CASES["a partial of three numbers"] = functools.partial(perceptron, 0.7, 0.1, 3), {"weights": (1, 3)}, 3, 4, True, {}


@case({"weights": (1,)}, 3, 3)
def weights_that_are_not_used(inputs, weights):
    x = math.pi * torch.clamp(inputs, min=0, max=1)
    qml.AngleEmbedding(x, wires=range(3), rotation="Y")
    for a, b in [(0, 1), (1, 2), (2, 0)]:
        qml.CRX(math.pi / 3, wires=[a, b])
    return z_all(3)


@case({"weights": (2, 6)}, 3, 3, diff_method="adjoint")
def controlled_rotations_and_then_others(inputs, weights):
    qml.AngleEmbedding(inputs, wires=range(3), rotation="X")
    for row in weights:
        for k in range(3):
            qml.CRZ(row[k], wires=[k, (k + 1) % 3])
        for k in range(3, 6):
            qml.RY(row[k], wires=k % 3)
    return z_all(3)


LEVELS = {"off": 0.0, "on": 0.03}


@case({"weights": (2, 3)}, 3, 3)
def noise_that_is_switched_off(inputs, weights):
    p = LEVELS["off"]
    qml.AngleEmbedding(inputs, wires=range(3))
    for row in weights:
        for k in range(3):
            qml.RY(row[k], wires=k)
            if p > 0:
                qml.DepolarizingChannel(p, wires=k)
        chain(3)
    return z_all(3)


@case({"weights": (2, 2)}, 2, 2, device="default.mixed")
def noise_that_is_switched_on(inputs, weights):
    p = LEVELS["on"]
    qml.AngleEmbedding(inputs, wires=range(2))
    for row in weights:
        for k in range(2):
            qml.RY(row[k], wires=k)
            if p > 0:
                qml.PhaseDamping(p, wires=k)
                qml.BitFlip(p, wires=k)
        chain(2)
    return z_all(2)


@case({"weights": (3, 2, 3)}, 2, 2)
def a_fourier_series_with_growing_frequencies(inputs, weights):
    for level, row in enumerate(weights):
        for k in range(2):
            qml.Rot(*row[k], wires=k)
        chain(2, qml.CZ)
        for k in range(2):
            qml.RZ(3**level * inputs[k], wires=k)
    return qml.expval(Z(0) @ Z(1))


@case({"weights": (2, 2), "scales": (2, 2), "shifts": 2}, 2, 2)
def scales_and_shifts_of_the_data(inputs, weights, scales, shifts):
    for level in range(2):
        for k in range(2):
            qml.RY(torch.tanh(inputs[k] * scales[level, k] + shifts[k]) * math.pi, wires=k)
            qml.RZ(weights[level, k], wires=k)
        chain(2)
    return z_all(2)


@case({"weights": (2, 2, 2)}, 2, 2)
def a_chebyshev_tower(inputs, weights):
    for k in range(2):
        qml.RY(2 * (k + 1) * torch.arccos(0.9 * torch.tanh(inputs[k])), wires=k)
    qml.SimplifiedTwoDesign(weights[0, :, 0], weights[:, :1], wires=range(2))
    return qml.expval(Z(0) + Z(1))


@case({"q": (1, 2, 3), "k": (1, 2, 3), "v": (1, 2, 3)}, 2, 2)
def attention_with_three_sets_of_weights(inputs, q, k, v):
    qml.AngleEmbedding(inputs, wires=range(2))
    for weights in (q, k, v):
        qml.StronglyEntanglingLayers(weights, wires=range(2))
        qml.Barrier(wires=range(2))
    return z_all(2)


@case({"weights": (2, 2)}, 4, 5)
def a_swap_test_of_two_halves(inputs, weights):
    for k in range(2):
        qml.RY(inputs[k], wires=1 + k)
        qml.RY(inputs[2 + k] + weights[0, k], wires=3 + k)
        qml.RZ(weights[1, k], wires=3 + k)
    qml.Hadamard(0)
    for k in range(2):
        qml.CSWAP(wires=[0, 1 + k, 3 + k])
    qml.Hadamard(0)
    return qml.expval(Z(0))


@case({"prototype": 2}, 2, 2)
def the_overlap_with_a_trained_prototype(inputs, prototype):
    qml.IQPEmbedding(inputs, wires=range(2), n_repeats=2)
    qml.adjoint(qml.IQPEmbedding(prototype, wires=range(2), n_repeats=2))
    return qml.expval(qml.Projector([0, 0], wires=range(2)))


@case({"weights": (1, 3)}, 3, 3)
def in_the_fourier_basis(inputs, weights):
    qml.QFT(wires=range(3))
    for k in range(3):
        qml.RZ(inputs[k] * 2**k, wires=k)
    qml.adjoint(qml.QFT)(wires=range(3))
    qml.BasicEntanglerLayers(weights, wires=range(3), rotation=qml.RZ)
    return qml.probs(wires=[0, 1])


HEISENBERG = qml.sum(*(letter(0) @ letter(1) for letter in (qml.X, qml.Y, qml.Z)), 0.3 * Z(0))


@case({"times": 2}, 2, 2)
def evolution_for_a_trained_time(inputs, times):
    qml.AngleEmbedding(inputs, wires=range(2), rotation="Y")
    for t in times:
        qml.ApproxTimeEvolution(qml.Hamiltonian(*HEISENBERG.terms()), t, 1)
        qml.RX(inputs[0], wires=1)
    return z_all(2)


@case({"gammas": 2, "betas": 2}, 3, 3)
def layers_of_costs_that_are_data(inputs, gammas, betas):
    for k in range(3):
        qml.Hadamard(k)
    for gamma, beta in zip(gammas, betas, strict=True):
        for k in range(3):
            qml.MultiRZ(gamma * inputs[k], wires=[k, (k + 1) % 3])
        for k in range(3):
            qml.RX(2 * beta, wires=k)
    return qml.expval(qml.Hamiltonian([1.0, 1.0, 1.0], [Z(k) @ Z((k + 1) % 3) for k in range(3)]))


RANDOM = np.linalg.qr(np.random.default_rng(5).normal(size=(8, 8)) + 1j * np.random.default_rng(6).normal(size=(8, 8)))[
    0
]


@case({"weights": 3}, 3, 3)
def a_reservoir_that_is_a_random_matrix(inputs, weights):
    qml.AngleEmbedding(inputs, wires=range(3), rotation="Y")
    qml.QubitUnitary(RANDOM, wires=range(3))
    for k in range(3):
        qml.RY(weights[k], wires=k)
    return z_all(3)


@case({"weights": (2, 4)}, 4, 4)
def random_layers_of_a_filter(inputs, weights):
    for k in range(4):
        qml.RY(math.pi * inputs[k], wires=k)
    qml.RandomLayers(weights, wires=list(range(4)), seed=11)
    return z_all(4)


CONFIG = types.SimpleNamespace(n_qubits=3, depth=2, encoding="angle", gate="CZ", readout=[0, 2])


@case({"weights": (2, 3)}, 3, 3)
def what_a_config_says(inputs, weights):
    if CONFIG.encoding == "angle":
        qml.AngleEmbedding(inputs, wires=range(CONFIG.n_qubits))
    for level in range(CONFIG.depth):
        for k in range(CONFIG.n_qubits):
            qml.RY(weights[level][k], wires=k)
        chain(CONFIG.n_qubits, getattr(qml, CONFIG.gate))
    return [qml.expval(Z(k)) for k in CONFIG.readout]


@case({"weights": (2, 3)}, 3, ["a", "b", "anc"])
def wires_with_words_for_names(inputs, weights):
    for name, x in zip(["a", "b"], inputs, strict=False):
        qml.RX(x, wires=name)
    for row in weights:
        for name, w in zip(["a", "b", "anc"], row, strict=True):
            qml.RY(w, wires=name)
        qml.Toffoli(wires=["a", "b", "anc"])
    return qml.expval(Z("anc")), qml.probs(wires=["b", "a"])


@case({"weights": (2, 3)}, 3, 3, wrap=lambda node: qml.transforms.merge_rotations(qml.transforms.cancel_inverses(node)))
def gates_that_transforms_merge(inputs, weights):
    for k in range(3):
        qml.Hadamard(k)
        qml.Hadamard(k)
        qml.RX(inputs[k], wires=k)
        qml.RX(weights[0, k], wires=k)
    chain(3)
    for k in range(3):
        qml.RY(weights[1, k], wires=k)
    return z_all(3)


@case({"weights": (2, 3)}, 3, 3, wrap=qml.compile)
def compiled_as_a_whole(inputs, weights):
    qml.AngleEmbedding(inputs, wires=range(3))
    qml.BasicEntanglerLayers(weights, wires=range(3))
    return z_all(3)


@case({"weights": (2, 2, 2)}, 2, 2)
def numbers_put_into_a_buffer(inputs, weights):
    angles = torch.zeros(2, 2, dtype=inputs.dtype)
    angles[0] = inputs * 2
    angles[1, 0] = weights[0, 0, 0] + inputs[1]
    for row in angles:
        for k in range(2):
            qml.RY(row[k], wires=k)
    for level in range(2):
        for k in range(2):
            qml.Rot(weights[level, k, 0], weights[level, k, 1], 0.3, wires=k)
        chain(2)
    return z_all(2)


@case({"weights": 4}, 4, 4)
def a_tree_that_throws_wires_away(inputs, weights):
    qml.AngleEmbedding(inputs, wires=range(4))
    for k, (keep, drop) in enumerate([(0, 1), (2, 3), (0, 2)]):
        outcome = qml.measure(drop)
        qml.cond(outcome, qml.RY)(weights[k], wires=keep)
    qml.RX(weights[3], wires=0)
    return qml.expval(Z(0))


@case({"weights": (1, 2, 3)}, 2, 2, native=False)
def the_purity_of_a_part(inputs, weights):
    qml.AngleEmbedding(inputs, wires=range(2))
    qml.StronglyEntanglingLayers(weights, wires=range(2))
    return qml.purity(wires=[0])


def flat(result):
    parts = result if isinstance(result, list | tuple) else [result]
    return torch.hstack([torch.as_tensor(part).reshape(-1) for part in parts]).double()


@pytest.mark.parametrize(
    "name", [n if k % 3 == 0 else pytest.param(n, marks=pytest.mark.slow) for k, n in enumerate(CASES)]
)
def test_layers(name):
    function, shapes, n_inputs, wires, native, options = CASES[name]
    wrap = options.get("wrap", lambda node: node)
    named = {key: value for key, value in options.items() if key == "diff_method"}
    node = wrap(qml.QNode(function, qml.device(options.get("device", "default.qubit"), wires=wires), **named))
    layer = QuantumLayer(node, shapes, n_inputs=n_inputs, seed=1).double()
    assert native is ("qnode" not in layer.backend), layer.backend
    weights = {key: value.detach().clone().requires_grad_() for key, value in layer.qnode_weights.items()}
    x = torch.linspace(-0.9, 1.1, 3 * n_inputs, dtype=torch.float64).reshape(3, -1).roll(1, 1).requires_grad_()
    kind = "default.mixed" if options.get("device") == "default.mixed" else "default.qubit"
    plain = wrap(qml.QNode(function, qml.device(kind, wires=wires), diff_method="backprop"))
    want = torch.stack([flat(plain(inputs=row, **weights)) for row in x])
    got = layer(x).reshape(want.shape)
    torch.testing.assert_close(got, want, atol=1e-7, rtol=0)
    factors = torch.linspace(0.5, 1.5, want.numel(), dtype=torch.float64).reshape(want.shape)
    expected = torch.autograd.grad((want.square() * factors).sum(), [*weights.values(), x], allow_unused=True)
    own = [*layer.parameters(), x]
    gradients = torch.autograd.grad((got.square() * factors).sum(), own, allow_unused=True)
    for leaf, a, b in zip(own, gradients, expected, strict=True):
        a, b = (torch.zeros_like(leaf) if g is None else g for g in (a, b))
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


# ---- Qiskit ----------------------------------------------------------------------------------------------------------


def composed(feature_map, ansatz):
    circuit = QuantumCircuit(feature_map.num_qubits)
    circuit.compose(feature_map, inplace=True)
    circuit.compose(ansatz, inplace=True)
    return {"circuit": circuit, "input_params": list(feature_map.parameters), "weight_params": list(ansatz.parameters)}


def mera():
    circuit, x, w = QuantumCircuit(4), ParameterVector("x", 4), ParameterVector("w", 10)
    for k in range(4):
        circuit.ry(x[k], k)
    free = iter(w)
    for a, b in [(1, 2), (0, 1), (2, 3), (1, 3)]:
        circuit.ry(next(free), a)
        circuit.ry(next(free), b)
        circuit.cx(a, b)
    circuit.ry(next(free), 3)
    circuit.rx(next(free), 3)
    return {"circuit": circuit, "input_params": list(x), "weight_params": list(w)}


def temporal():
    circuit, x, w = QuantumCircuit(3), ParameterVector("x", 3), ParameterVector("θ", 11)
    for k in range(3):
        circuit.h(k)
        circuit.ry(x[k] * np.pi, k)
    for k in range(3):
        circuit.crz(w[k], k, (k + 1) % 3)
        circuit.u(w[3 + k], w[6 + k], 0.1, k)
    circuit.rzz(w[9], 0, 2)
    circuit.barrier()
    circuit.rxx(w[10] + x[0], 0, 1)
    return {"circuit": circuit, "input_params": list(x), "weight_params": list(w)}


def z_of(n):
    return [SparsePauliOp("I" * k + "Z" + "I" * (n - 1 - k)) for k in range(n)]


NETWORKS = {
    "parities by a sampler": lambda: SamplerQNN(
        **composed(zz_feature_map(2), real_amplitudes(2, reps=1)),
        interpret=lambda k: f"{k:b}".count("1") % 2,
        output_shape=2,
    ),
    "the default observable": lambda: EstimatorQNN(
        **composed(zz_feature_map(3, reps=1), real_amplitudes(3, reps=1, entanglement="full"))
    ),
    "a list of Z": lambda: EstimatorQNN(
        **composed(z_feature_map(3, reps=1), efficient_su2(3, reps=1)), observables=z_of(3)
    ),
    "renormalisation": lambda: EstimatorQNN(**mera(), observables=SparsePauliOp("ZIII")),
    "a block over time": lambda: EstimatorQNN(
        **temporal(),
        observables=[SparsePauliOp(["ZZI", "XIX"], [0.5, -1.5]), *z_of(3)],
        input_gradients=True,
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name):
    network = NETWORKS[name]()
    start = 0.3 * np.arange(network.num_weights)
    own = qbp.TorchConnector(network, initial_weights=start)
    x = torch.linspace(-1, 1, 2 * network.num_inputs).reshape(2, -1)
    assert own.backend == "native"
    theirs = TorchConnector(network, initial_weights=start)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    network.input_gradients = True
    for model, leaf in zip((own, theirs), inputs, strict=True):
        model(leaf).square().sum().backward()
    torch.testing.assert_close(own(x), theirs(x), atol=1e-6, rtol=0)
    torch.testing.assert_close(own.weight.grad, theirs.weight.grad, atol=1e-5, rtol=0)
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, atol=1e-5, rtol=0)


def test_nearly_all_run_natively():
    """Of the situations of this file at least 95 %."""
    by_themselves = [name for name, (*_, native, _) in CASES.items() if not native]
    assert len(by_themselves) / (len(CASES) + len(NETWORKS)) < 0.05
