"""Circuits as they stand in public code, bug reports and forum threads, in other words: outputs and gradients are those
of PennyLane's own QNode, row by row, and all but those that say so run natively."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pennylane as qml
import pytest
import torch

from qbp import QuantumLayer

Z = qml.Z
N = 4


def z_all(n=N):
    return [qml.expval(Z(k)) for k in range(n)]


def ring(n=N, gate=qml.CNOT):
    for k in range(n):
        gate(wires=[k, (k + 1) % n])


class Case:
    """A function, the shapes of its weights, its number of inputs, and what is special."""

    def __init__(self, function, shapes, n_inputs=N, wires=N, **special):
        self.function, self.shapes, self.n_inputs, self.wires = function, shapes, n_inputs, wires
        self.device = special.pop("device", "default.qubit")
        self.native = special.pop("native", True)
        self.rows = special.pop("rows", None)
        self.diff_method = special.pop("diff_method", "best")
        self.batched = special.pop("batched", False)
        assert not special


CASES: dict[str, Case] = {}


def case(name, shapes, n_inputs=N, wires=N, **special):
    def keep(function):
        CASES[name] = Case(function, shapes, n_inputs, wires, **special)
        return function

    return keep


# ---- classifiers -----------------------------------------------------------------------------------------------------


@case("rows of weights that are never read", {"weights": (3, 4)})
def _(inputs, weights):
    for level in range(2):
        for k in range(4):
            qml.RX(inputs[k], wires=k) if level == 0 else qml.RZ(weights[level, k], wires=k)
    for k in (2, 1, 0):
        qml.CRX(weights[2, k], wires=[k + 1, k])
    return z_all()


@case("a loop over the inputs", {"weights": 2}, 2, 2)
def _(inputs, weights):
    for k in range(len(inputs)):
        qml.Hadamard(k)
        qml.RZ(2.0 * inputs[k], wires=k)
    qml.CNOT(wires=[0, 1])
    qml.RY(weights[0], wires=0)
    qml.RY(weights[1], wires=1)
    return [qml.expval(Z(wires=0)), qml.expval(Z(wires=1))]


@case("dressed circuit with flat weights", {"q_weights_flat": 12})
def _(inputs, q_weights_flat):
    rows = q_weights_flat.reshape(3, N)
    for k in range(N):
        qml.Hadamard(wires=k)
    for k, angle in enumerate(inputs):
        qml.RY(angle, wires=k)
    for row in rows:
        for start in (0, 1):
            for k in range(start, N - 1, 2):
                qml.CNOT(wires=[k, k + 1])
        for k, weight in enumerate(row):
            qml.RY(weight, wires=k)
    return tuple(qml.expval(Z(k)) for k in range(N))


@case("the decorator's tutorial circuit with a tuple", {"weights": (3, 2, 3)}, 2, 2)
def _(inputs, weights):
    qml.AngleEmbedding(inputs, wires=range(2))
    qml.StronglyEntanglingLayers(weights, wires=range(2))
    return qml.expval(Z(0)), qml.expval(Z(1))


@case("single qubit, three angles at once", {"w": (4, 3)}, 3, 1)
def _(inputs, w):
    for row in w:
        qml.Rot(*inputs, wires=0)
        qml.Rot(*row, wires=0)
    return qml.expval(qml.Projector([0], wires=0))


@case("weights times inputs plus bias", {"params": (3, 2, 3), "bias": (3, 3)}, 3, 1)
def _(inputs, params, bias):
    for row, b in zip(params, bias, strict=True):
        angles = row[0] * inputs + b
        qml.Rot(angles[0], angles[1], angles[2], wires=0)
        qml.Rot(*row[1], wires=0)
    return qml.expval(Z(0))


@case("more inputs than wires, in pairs of rotations", {"weights": (2, 4)}, 8)
def _(inputs, weights):
    for k in range(N):
        qml.RY(math.pi * inputs[2 * k], wires=k)
        qml.RZ(math.pi * inputs[2 * k + 1], wires=k)
    qml.BasicEntanglerLayers(weights, wires=range(N), rotation=qml.RY)
    return z_all()


@case("inputs in chunks of the number of wires", {"weights": (3, 4)}, 12)
def _(inputs, weights):
    for chunk, row in zip(torch.split(inputs, N), weights, strict=True):
        qml.AngleEmbedding(chunk, wires=range(N), rotation="Y")
        qml.BasicEntanglerLayers(row.unsqueeze(0), wires=range(N))
    return [qml.expval(Z(k)) for k in (0, 2)]


@case("binary classifier of the parity", {"w": (2, 4, 3)})
def _(inputs, w):
    qml.AngleEmbedding(inputs * np.pi, wires=range(N), rotation="Y")
    qml.StronglyEntanglingLayers(weights=w, wires=range(N))
    return qml.expval(qml.prod(*(Z(k) for k in range(N))))


@case("probabilities of two of four wires as class scores", {"w": (2, 4, 3)})
def _(inputs, w):
    qml.AngleEmbedding(features=inputs, wires=list(range(N)), rotation="Z")
    qml.StronglyEntanglingLayers(w, wires=list(range(N)), imprimitive=qml.CZ)
    return qml.probs(wires=[0, 1])


@case("a sum of Paulis as a score", {"w": (1, 4)})
def _(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(N))
    qml.BasicEntanglerLayers(w, wires=range(N))
    return qml.expval(qml.Hamiltonian([0.25] * N, [Z(k) for k in range(N)]))


@case("X, Y and Z of every wire", {"w": (1, 4)})
def _(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(N))
    qml.BasicEntanglerLayers(w, wires=range(N))
    return [qml.expval(op(k)) for k in range(N) for op in (qml.X, qml.Y, qml.Z)]


@case("correlations of all pairs", {"w": (2, 4)})
def _(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(N))
    qml.BasicEntanglerLayers(w, wires=range(N))
    return [qml.expval(Z(a) @ Z(b)) for a in range(N) for b in range(a + 1, N)]


# ---- amplitudes ------------------------------------------------------------------------------------------------------


@case("ten features padded to sixteen amplitudes", {"weights": (1, 4)}, 10)
def _(inputs, weights):
    qml.AmplitudeEmbedding(inputs, wires=range(N), pad_with=0.0, normalize=True)
    qml.BasicEntanglerLayers(weights, wires=range(N))
    return z_all()


@case("a gate before the state is prepared", {"weights": 1}, 8)
def _(inputs, weights):
    qml.RY(phi=weights, wires=0)
    qml.StatePrep(inputs / torch.linalg.norm(inputs), wires=[1, 2, 3])
    qml.CNOT([1, 0])
    return qml.expval(Z(wires=0))


@case("two images side by side and a swap test", {"w": 4}, 8, 5)
def _(inputs, w):
    qml.AmplitudeEmbedding(inputs[:4], wires=[1, 2], normalize=True)
    qml.AmplitudeEmbedding(inputs[4:], wires=[3, 4], normalize=True)
    for k in range(4):
        qml.RY(w[k], wires=k + 1)
    qml.Hadamard(0)
    qml.CSWAP([0, 1, 3])
    qml.CSWAP([0, 2, 4])
    qml.Hadamard(0)
    return qml.expval(Z(0))


@case("autoencoder: trash qubits against a reference", {"w": (2, 3)}, 8, 5)
def _(inputs, w):
    qml.AmplitudeEmbedding(inputs, wires=[0, 1, 2], normalize=True)
    qml.BasicEntanglerLayers(w, wires=[0, 1, 2], rotation=qml.RY)
    qml.Hadamard(4)
    qml.CSWAP(wires=[4, 2, 3])
    qml.Hadamard(4)
    return qml.probs(wires=4)


@case("state preparation of constants, data by angles", {"w": (1, 4)})
def _(inputs, w):
    qml.StatePrep(np.ones(16) / 4, wires=range(N))
    qml.AngleEmbedding(inputs, wires=range(N), rotation="Z")
    qml.BasicEntanglerLayers(w, wires=range(N))
    return z_all()


@case("bits of the inputs", {"w": (2, 4)}, rows=[[1, 0, 1, 1], [0, 1, 0, 0]])
def _(inputs, w):
    qml.BasisEmbedding(features=inputs, wires=range(N))
    qml.BasicEntanglerLayers(w, wires=range(N))
    return z_all()


# ---- convolution, pooling, trees -------------------------------------------------------------------------------------


@case("quanvolution of a patch, nothing to train", {}, 4)
def _(inputs):
    for k in range(N):
        qml.RY(np.pi * inputs[k], wires=k)
    qml.RandomLayers(torch.linspace(0.1, 2, 5).reshape(1, 5), wires=list(range(N)), seed=11)
    return z_all()


class Pool:
    """A layer as an object that counts off its weights."""

    def __init__(self, wires, first):
        self.wires, self.first = wires, first

    def __call__(self, w):
        for kept, dropped in zip(self.wires[::2], self.wires[1::2], strict=True):
            qml.CRZ(w[self.first], wires=[dropped, kept])
            qml.PauliX(dropped)
            qml.CRX(w[self.first + 1], wires=[dropped, kept])
        return self.wires[::2]


@case("QCNN of objects with offsets into the weights", {"w": 10})
def _(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(N))
    for a, b in ((0, 1), (2, 3), (1, 2)):
        qml.U3(*w[:3], wires=a)
        qml.IsingXX(w[3], wires=[a, b])
        qml.IsingZZ(w[4], wires=[a, b])
    left = Pool(list(range(N)), 5)(w)
    (last,) = Pool(left, 7)(w)
    qml.Rot(*w[-3:], wires=last)
    return qml.expval(Z(last))


@case("tree tensor network of a template", {"w": (3, 2)})
def _(inputs, w):
    def block(weights, wires):
        qml.RY(weights[0], wires=wires[0])
        qml.RY(weights[1], wires=wires[1])
        qml.CZ(wires=wires)

    qml.AngleEmbedding(inputs, wires=range(N))
    qml.TTN(wires=range(N), n_block_wires=2, block=block, n_params_block=2, template_weights=w)
    return qml.expval(Z(N - 1))


@case("two-qubit unitary of fifteen angles, shared by all pairs", {"w": 15})
def _(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(N), rotation="Y")
    for a, b in ((0, 1), (2, 3), (1, 2)):
        qml.ArbitraryUnitary(w, wires=[a, b])
    return [qml.expval(Z(1)), qml.expval(Z(2))]


# ---- recurrence, attention, graphs -----------------------------------------------------------------------------------


@case("QLSTM gate on wires with names", {"weights": (2, 4)}, wires=[f"wire_forget_{k}" for k in range(N)])
def _(inputs, weights):
    wires = [f"wire_forget_{k}" for k in range(N)]
    qml.AngleEmbedding(torch.arctan(inputs), wires=wires, rotation="Y")
    qml.AngleEmbedding(torch.arctan(inputs**2), wires=wires, rotation="Z")
    qml.BasicEntanglerLayers(weights, wires=wires)
    return [qml.expval(Z(wire)) for wire in wires]


@case("QLSTM entangling with strides", {"weights": (1, 3, 4)})
def _(inputs, weights):
    for k in range(N):
        qml.Hadamard(k)
        qml.RY(torch.arctan(inputs[k]), wires=k)
        qml.RZ(torch.arctan(inputs[k] * inputs[k]), wires=k)
    for level in weights:
        for stride in range(1, 3):
            for k in range(N):
                qml.CNOT(wires=[k, (k + stride) % N])
        for k in range(N):
            qml.RX(level[0][k], wires=k)
            qml.RY(level[1][k], wires=k)
            qml.RZ(level[2][k], wires=k)
    return z_all()


@case("attention head with a Fourier transform", {"theta": 4})
def _(inputs, theta):
    for k in range(N):
        qml.RY(inputs[k], wires=k)
    qml.QFT(wires=range(N))
    for k in range(N):
        qml.RZ(theta[k], wires=k)
    qml.adjoint(qml.QFT)(wires=range(N))
    return z_all()


@case("query and key in one circuit", {"q": (2, 2), "k": (2, 2)}, 4)
def _(inputs, q, k):
    query, key = inputs[:2], inputs[2:]
    qml.AngleEmbedding(query, wires=[0, 1])
    qml.BasicEntanglerLayers(q, wires=[0, 1])
    qml.AngleEmbedding(key, wires=[2, 3])
    qml.BasicEntanglerLayers(k, wires=[2, 3])
    ring(N, qml.CZ)
    return qml.expval(Z(0) @ Z(1)), qml.expval(Z(2) @ Z(3))


EDGES = [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)]


@case("graph circuit: edges share a weight", {"gamma": (2,), "beta": (2, 4)})
def _(inputs, gamma, beta):
    qml.broadcast(qml.Hadamard, wires=range(N), pattern="single") if hasattr(qml, "broadcast") else [
        qml.Hadamard(k) for k in range(N)
    ]
    for level in range(2):
        for a, b in EDGES:
            qml.CNOT(wires=[a, b])
            qml.RZ(gamma[level] * inputs[a] * inputs[b], wires=b)
            qml.CNOT(wires=[a, b])
        for k in range(N):
            qml.RX(beta[level, k], wires=k)
    return [qml.expval(Z(a) @ Z(b)) for a, b in EDGES]


EDGE_INDEX = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
MASK, SCALES = torch.tensor([True, False, True, True]), torch.linspace(0.1, 1, 4)


@case("edges, masks and scales as tensors", {"w": 4})
def _(inputs, w):
    for k in range(N):
        if MASK[k]:
            qml.RY(float(SCALES[k]) * inputs[k], wires=k)
    for a, b in EDGE_INDEX.T:
        qml.CRZ(w[a] * SCALES[b].item(), wires=[int(a), int(b)])
    qml.RX(np.cos(SCALES[1].numpy()) * w[int(torch.argmax(SCALES))], wires=0)
    qml.RY(torch.as_tensor([SCALES[0], 0.2])[0], wires=1)
    return [
        qml.expval(qml.Hamiltonian([SCALES[0], SCALES[2]], [qml.Z(0), qml.X(1)])),
        qml.expval(qml.Hamiltonian(SCALES.numpy()[:2], [qml.Y(2), qml.Z(3)])),
        qml.expval(sum(c * qml.Z(k) for k, c in enumerate(SCALES.tolist()))),
    ]


@case("graph recurrent step by product formula", {"w": 2})
def _(inputs, w):
    hamiltonian = qml.Hamiltonian(
        [1.0] * 5 + [0.5] * 4, [*(Z(a) @ Z(b) for a, b in EDGES), *(qml.X(k) for k in range(N))]
    )
    qml.AngleEmbedding(inputs, wires=range(N))
    qml.ApproxTimeEvolution(hamiltonian, w[0], 2)
    qml.RY(w[1], wires=0)
    return qml.expval(hamiltonian)


@case("QAOA layers of a cost Hamiltonian", {"params": (2, 2)})
def _(inputs, params):
    from pennylane import qaoa

    cost = qml.Hamiltonian([1.0] * 4, [Z(k) @ Z((k + 1) % N) for k in range(N)])
    qml.AngleEmbedding(inputs, wires=range(N), rotation="Y")
    qml.layer(lambda g, a: (qaoa.cost_layer(g, cost), qaoa.mixer_layer(a, qaoa.x_mixer(range(N)))), 2, *params)
    return qml.expval(cost)


# ---- generators, kernels, reinforcement learning ---------------------------------------------------------------------


@case("patch generator: probabilities with an ancilla", {"weights": 10}, 5, 5, diff_method="parameter-shift")
def _(inputs, weights):
    rows = weights.reshape(2, 5)
    for k in range(5):
        qml.RY(inputs[k], wires=k)
    for row in rows:
        for k in range(5):
            qml.RY(row[k], wires=k)
        for k in range(4):
            qml.CZ(wires=[k, k + 1])
    return qml.probs(wires=list(range(5)))


@case("kernel: overlap of two halves of the input", {"w": (2, 3)}, 6, 3)
def _(inputs, w):
    def feature_map(x):
        for row in w:
            for k in range(3):
                qml.Hadamard(k)
                qml.RZ(x[k], wires=k)
                qml.RY(row[k], wires=k)
            ring(3, partial(qml.CRZ, 0.7))

    feature_map(inputs[:3])
    qml.adjoint(feature_map)(inputs[3:])
    return qml.expval(qml.Projector([0, 0, 0], wires=range(3)))


@case("kernel by the projector onto zero of probs", {"scale": 3}, 6, 3)
def _(inputs, scale):
    qml.IQPEmbedding(inputs[:3] * scale, wires=range(3), n_repeats=2)
    qml.adjoint(qml.IQPEmbedding(inputs[3:] * scale, wires=range(3), n_repeats=2))
    return qml.probs(wires=range(3))


@case("ZZ feature map by hand", {"w": (1, 3, 3)}, 3, 3)
def _(inputs, w):
    for _ in range(2):
        for k in range(3):
            qml.Hadamard(wires=k)
            qml.RZ(2 * inputs[k], wires=k)
        for a in range(3):
            for b in range(a + 1, 3):
                qml.CRZ(2 * (np.pi - inputs[a]) * (np.pi - inputs[b]), wires=[a, b])
    qml.StronglyEntanglingLayers(w, wires=range(3))
    return z_all(3)


@case("CartPole: scaled inputs and two products", {"scaling": (2, 4), "y": (2, 4), "z": (2, 4)})
def _(inputs, scaling, y, z):
    for level in range(2):
        for k in range(N):
            qml.RX(torch.atan(inputs[k] * scaling[level, k]), wires=k)
        for k in range(N):
            qml.RY(y[level, k], wires=k)
            qml.RZ(z[level, k], wires=k)
        ring(N, qml.CZ)
    return [qml.expval(Z(0) @ Z(1)), qml.expval(Z(2) @ Z(3))]


def embedding_of(name):
    return {"angle": lambda x, wires: qml.AngleEmbedding(x, wires=wires), "iqp": qml.IQPEmbedding}[name]


@case("an embedding chosen by name", {"weights": (2, 4)})
def _(inputs, weights):
    embedding_of("iqp")(inputs, wires=range(N))
    qml.BasicEntanglerLayers(weights, wires=range(N))
    return z_all()


# ---- ways to write a circuit -----------------------------------------------------------------------------------------


@case("written for a batch, inputs[:, k]", {"w": (2, 4)}, batched=True)
def _(inputs, w):
    for k in range(N):
        qml.RX(inputs[:, k], wires=k)
    qml.BasicEntanglerLayers(w, wires=range(N))
    return z_all()


@case("written for a batch, transposed", {"w": 4}, batched=True)
def _(inputs, w):
    for k, column in enumerate(inputs.mT):
        qml.RY(column * w[k], wires=k)
    ring()
    return z_all()


@case("written for both, inputs[..., k]", {"w": 4})
def _(inputs, w):
    for k in range(N):
        qml.RY(inputs[..., k] * w[k], wires=k)
    ring()
    return z_all()


@case("batches of amplitudes by embedding", {"w": (1, 2)}, 4, 2)
def _(inputs, w):
    qml.AmplitudeEmbedding(inputs, wires=range(2), normalize=True)
    qml.BasicEntanglerLayers(w, wires=range(2))
    return qml.probs(wires=[1, 0])


@case("four groups of weights of different shapes", {"w_0": (2, 3), "w_1": (1, 3), "w_2": 3, "w_3": 1})
def _(inputs, w_0, w_1, w_2, w_3):
    qml.AngleEmbedding(inputs, wires=range(N))
    for rows, k in ((w_0, 0), (w_1, 1)):
        for row in rows:
            qml.ctrl(qml.Rot, control=N - 1)(*row, wires=k)
    qml.Rot(*w_2, wires=2)
    qml.RY(w_3, wires=3)
    return qml.probs(wires=range(2))


@case("keyword arguments that nobody gives", {"w": 4})
def _(inputs, w, **options):
    qml.AngleEmbedding(inputs, wires=range(N), rotation=options.get("rotation", "Y"))
    for k in range(N):
        qml.RX(w[k], wires=k)
    return z_all()


@case("weights before inputs", {"weights": (1, 4)})
def _(weights, inputs):
    qml.AngleEmbedding(inputs, wires=range(N))
    qml.BasicEntanglerLayers(weights, wires=range(N))
    return z_all()


@case("torch functions everywhere", {"w": (4, 2)})
def _(inputs, w):
    angles = torch.sigmoid(inputs @ w) * 2 * torch.pi
    hidden = torch.nn.functional.softplus(torch.cat([angles, torch.tanh(inputs[:2])]))
    for k, angle in enumerate(hidden):
        qml.RY(angle, wires=k)
    ring()
    qml.RX(torch.einsum("i,ij->", inputs, w), wires=0)
    qml.RZ(torch.linalg.norm(inputs), wires=1)
    qml.RX(torch.where(w[0, 0] > 0, w[0, 0], -w[0, 0]), wires=1)
    return z_all()


@case("arccos and arcsin encodings", {"w": 2}, 2, 2, rows=[[0.3, -0.7], [0.1, 0.2]])
def _(inputs, w):
    for k in range(2):
        qml.RY(torch.asin(inputs[k]), wires=k)
        qml.RZ(torch.acos(inputs[k] ** 2), wires=k)
        qml.RX(w[k], wires=k)
    qml.CNOT([0, 1])
    return z_all(2)


@case("exponential frequencies", {"w": (3, 4)}, 1, 4)
def _(inputs, w):
    for level, row in enumerate(w):
        for k in range(N):
            qml.RZ(3 ** (k + N * level % 3) * inputs[0], wires=k)
            qml.RY(row[k], wires=k)
        ring()
    return qml.expval(Z(0))


@case("Chebyshev tower", {"w": (2, 4)}, 1, 4, rows=[[0.4], [-0.3]])
def _(inputs, w):
    for k in range(N):
        qml.RY(2 * (k + 1) * torch.acos(inputs[0]), wires=k)
    qml.BasicEntanglerLayers(w, wires=range(N))
    return qml.expval(sum(Z(k) for k in range(1, N)) + Z(0))


@case("PennyLane's own loops and conditions", {"w": (2, 4)})
def _(inputs, w):
    @qml.for_loop(0, N)
    def rotate(k):
        qml.RX(inputs[k], wires=k)
        qml.RY(w[0, k], wires=k)

    rotate()
    for k in range(N):
        qml.cond(k % 2 == 0, qml.RZ, qml.RY)(w[1, k], wires=k)
    ring()
    return z_all()


@case("an entangler pattern of its own", {"w": (2, 4)})
def _(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(N))
    for row in w:
        for k in range(N):
            qml.RY(row[k], wires=k)
        for k in range(0, N - 1, 2):
            qml.CNOT(wires=[k, k + 1])
        for k in range(N - 1, 0, -2):
            qml.CZ(wires=(k, k - 1))
        qml.Barrier(wires=range(N))
    return z_all()


@case("multi-controlled rotations", {"w": 4})
def _(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(N), rotation="Y")
    qml.ctrl(qml.RX, control=[0, 1, 2], control_values=[1, 0, 1])(w[0], wires=3)
    qml.MultiControlledX(wires=[0, 1, 3, 2])
    qml.ctrl(qml.PhaseShift(w[1], wires=2), control=3)
    qml.CRot(*w[1:], wires=[0, 2])
    return z_all()


@case("quantum perceptron with Toffolis", {"w": 3}, 3, 5)
def _(inputs, w):
    for k in range(3):
        qml.RY(inputs[k] * w[k], wires=k)
    qml.Toffoli([0, 1, 3])
    qml.Toffoli([2, 3, 4])
    qml.Toffoli([0, 1, 3])
    return qml.expval(Z(4))


@case("unitary of fixed numbers between layers", {"w": (2, 2)}, 2, 2)
def _(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(2))
    for row in w:
        qml.QubitUnitary(np.array([[1, 1], [1, -1]]) / np.sqrt(2), wires=0)
        qml.BasicEntanglerLayers(row[None], wires=range(2))
    return z_all(2)


@case("excitations of a chemist's ansatz", {"singles": 2, "doubles": 1})
def _(inputs, singles, doubles):
    qml.BasisState(np.array([1, 1, 0, 0]), wires=range(N))
    qml.DoubleExcitation(doubles, wires=range(N))
    qml.SingleExcitation(singles[0] * inputs[0], wires=[0, 2])
    qml.SingleExcitation(singles[1] * inputs[1], wires=[1, 3])
    return [qml.expval(Z(k)) for k in range(N)]


@case("Hermitian of the label", {"w": (2, 3, 3)}, 3, 3)
def _(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(3))
    qml.StronglyEntanglingLayers(w, wires=range(3))
    return [qml.expval(qml.Hermitian(np.array([[1, 0], [0, 0]]), wires=[k])) for k in range(3)]


@case("displacement of wires out of order", {"w": (2, 3)}, 3, [3, 1, 0, 2])
def _(inputs, w):
    qml.AngleEmbedding(inputs, wires=[2, 0, 3])
    qml.BasicEntanglerLayers(w, wires=[3, 2, 0])
    return qml.probs(wires=[0, 3]), qml.expval(Z(2))


@case("lightning with adjoint", {"w": (2, 4, 3)}, device="lightning.qubit", diff_method="adjoint")
def _(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(N))
    qml.StronglyEntanglingLayers(w, wires=range(N))
    return z_all()


@case("lightning and amplitudes in batches", {"w": (1, 2)}, 4, 2, device="lightning.qubit")
def _(inputs, w):
    qml.AmplitudeEmbedding(inputs, wires=range(2), normalize=True)
    qml.BasicEntanglerLayers(w, wires=range(2))
    return z_all(2)


@case("parameter-shift with rows", {"w": (2, 4)}, diff_method="parameter-shift")
def _(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(N))
    qml.BasicEntanglerLayers(w, wires=range(N))
    return z_all()


@case("a mixed device without noise", {"w": (1, 3)}, 3, 3, device="default.mixed")
def _(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(3))
    qml.BasicEntanglerLayers(w, wires=range(3))
    return z_all(3)


@case("depolarized after every layer", {"w": (2, 3)}, 3, 3, device="default.mixed", native=None)
def _(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(3))
    for row in w:
        qml.BasicEntanglerLayers(row[None], wires=range(3))
        for k in range(3):
            qml.DepolarizingChannel(0.05, wires=k)
    return z_all(3)


@case("reuploading with a trainable frequency", {"frequency": 3, "w": (3, 2, 3)}, 2, 2)
def _(inputs, frequency, w):
    for level in range(3):
        qml.AngleEmbedding(frequency[level] * inputs, wires=range(2), rotation="X")
        qml.StronglyEntanglingLayers(w[level][None], wires=range(2))
    return qml.expval(Z(0) @ Z(1))


@case("metric learning embedding", {"w": (2, 4)}, 2, 2)
def _(inputs, w):
    qml.QAOAEmbedding(features=inputs, weights=torch.cat([w[:, :3]]), wires=range(2))
    return [qml.expval(qml.X(0)), qml.expval(qml.Y(1))]


@case("differential equation: features of one number", {"w": (3, 3)}, 1, 3)
def _(inputs, w):
    for row in w:
        for k in range(3):
            qml.RX(inputs * (k + 1), wires=k)
        qml.BasicEntanglerLayers(row[None], wires=range(3))
    return qml.expval(qml.sum(*(Z(k) for k in range(3))))


@case("random circuit, depth by a seed", {"w": 6}, 3, 3)
def _(inputs, w):
    choice = np.random.default_rng(42).integers(0, 3, size=6)
    qml.AngleEmbedding(inputs, wires=range(3))
    for k, which in enumerate(choice):
        (qml.RX, qml.RY, qml.RZ)[which](w[k], wires=k % 3)
    ring(3)
    return z_all(3)


@case("fixed random generator at the start of every call", {"w": 3}, 3, 3, native=False)
def _(inputs, w):
    generator = torch.Generator().manual_seed(3)
    offsets = torch.rand(3, generator=generator)
    for k in range(3):
        qml.RY(inputs[k] + offsets[k], wires=k)
        qml.RX(w[k], wires=k)
    ring(3)
    return z_all(3)


@case("variance of the first wire", {"w": (1, 3)}, 3, 3)
def _(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(3))
    qml.BasicEntanglerLayers(w, wires=range(3))
    return qml.var(Z(0))


@case("pooling by measuring in the middle", {"w": 4}, 3, 3)
def _(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(3))
    ring(3)
    outcome = qml.measure(0)
    qml.cond(outcome, qml.RY)(w[0], wires=1)
    qml.RX(w[1], wires=2)
    return qml.expval(Z(1)), qml.expval(Z(2))


@case("postselected outcome", {"w": 2}, 1, 3, native=False)
def _(inputs, w):
    qml.RY(inputs[0], wires=0)
    qml.RX(w[0], wires=1)
    qml.CNOT([0, 1])
    qml.measure(0, postselect=1)
    qml.RY(w[1], wires=1)
    return qml.expval(Z(1))


@case("reset, reused and fed back", {"w": 2}, 2, 3)
def _(inputs, w):
    qml.RY(inputs[0], wires=0)
    qml.CNOT([0, 1])
    qml.cond(qml.measure(0, reset=True), qml.RX, qml.RZ)(w[0], 1)
    qml.RY(inputs[1], wires=0)
    qml.CRX(w[1], wires=[0, 1])
    return qml.expval(Z(1))


@case("coefficients that are trained", {"w": (1, 2), "c": 2}, 2, 2)
def _(inputs, w, c):
    qml.AngleEmbedding(inputs, wires=range(2))
    qml.BasicEntanglerLayers(w, wires=range(2))
    return qml.expval(qml.dot([c[0], c[1]], [Z(0), qml.X(1)]))


@case("damped by a feature", {"w": 2}, 2, 1, device="default.mixed", native=False)
def _(inputs, w):
    qml.RY(inputs[0], wires=0)
    qml.RX(w[0], wires=0)
    qml.AmplitudeDamping(torch.sigmoid(inputs[1]), wires=0)
    return qml.expval(Z(0))


@case("a tree and a chain of one block", {"tree": (3, 2), "chain": (3, 2)})
def _(inputs, tree, chain):
    def block(weights, wires):
        qml.RY(weights[0], wires=wires[0])
        qml.RX(weights[1], wires=wires[1])
        qml.CNOT(wires)

    qml.AngleEmbedding(inputs, wires=range(N))
    qml.TTN(range(N), 2, block, 2, tree)
    qml.MPS(range(N), 2, block, 2, chain)
    return qml.probs(wires=3)


@case("templates under control", {"w": (1, 2)}, 2, 3)
def _(inputs, w):
    qml.Hadamard(2)
    qml.ctrl(qml.AngleEmbedding, control=2)(inputs, wires=range(2))
    qml.ctrl(qml.BasicEntanglerLayers, control=2)(w, wires=range(2))
    qml.Hadamard(2)
    return qml.expval(Z(2))


@case("rows of a view with chunks of the weights", {"w": (3, 2, 3)}, 6, 2)
def _(inputs, w):
    for row, part in zip(inputs.view(3, 2), torch.chunk(w, 3), strict=True):
        qml.AngleEmbedding(row, wires=range(2))
        qml.StronglyEntanglingLayers(part, wires=range(2), imprimitive=qml.CZ)
    return z_all(2)


# ---- models of public repositories, in other words -------------------------------------------------------------------


@case("scaled to its own range inside of the circuit", {"weights": 6}, 6, 3)
def _(inputs, weights):
    x = torch.pi * (inputs - inputs.min()) / (inputs.max() - inputs.min() + 1e-8)
    for k in range(3):
        qml.RY(x[..., k], wires=k)
        qml.RX(weights[k], wires=k)
    qml.CNOT([0, 1])
    qml.CZ([1, 2])
    for k in range(3):
        qml.RZ(x[..., k + 3], wires=k)
        qml.RX(weights[k + 3], wires=k)
    return z_all(3)


@case("a unary loader of arccos", {"w": (1, 2)}, 3, 3, rows=[[0.3, 0.2, 0.4], [0.1, 0.5, 0.2]])
def _(inputs, w):
    qml.X(0)
    rest = 1.0
    for k in range(2):
        angle = torch.arccos(inputs[..., k] / rest)
        rest = rest * torch.sin(angle)
        qml.SingleExcitation(2 * angle, wires=[k, k + 1])
    for k in range(2):
        qml.SingleExcitation(w[0, k], wires=[k, k + 1])
    return qml.probs(wires=range(3))


@case("an index that is left over from a loop", {"weights": (3, 2, 2)}, 2, 2)
def _(inputs, weights):
    repeats, n, _ = weights.shape
    for i in range(repeats - 1):
        for k in range(n):
            qml.PauliRot(weights[i, k, 0], "Y", wires=k)
            qml.PauliRot(weights[i, k, 1], "X", wires=k)
        ring(n)
        for k in range(n):
            qml.PauliRot(inputs[k], "X", wires=k)
    for k in range(n):
        qml.PauliRot(weights[i, k, 0], "Y", wires=k)
    return z_all(n)


@case("a switch that chooses one of two embeddings", {"switch": (1,), "blocks": (2, 1, 2, 3)}, 4, 3, batched=True)
def _(inputs, switch, blocks):
    qml.Hadamard(2)
    qml.ctrl(qml.AngleEmbedding, 2, control_values=0)(inputs[:, :2], wires=[0, 1], rotation="Y")
    qml.ctrl(qml.AngleEmbedding, 2, control_values=1)(inputs[:, 2:], wires=[0, 1], rotation="Y")
    for block in blocks:
        qml.StronglyEntanglingLayers(block, wires=range(2))
    qml.RY(switch[0], wires=2)
    qml.Hadamard(2)
    return z_all(3)


@case("rows of a reshaped batch, slices of the weights", {"w": (3, 3), "scales": (2, 3)}, 3, 3, batched=True)
def _(inputs, w, scales):
    x = qml.math.reshape(inputs, (-1, 3))
    for level in range(3):
        if level < 2:
            for k in range(3):
                qml.RY(x[:, k] * 3.141592653589793 * scales[level, k], wires=k)
        qml.BasicEntanglerLayers(w[level : level + 1], wires=range(3))
    return z_all(3)


@case("an image loaded pixel by pixel under controls", {"w": (1, 3)}, 4, 3)
def _(inputs, w):
    qml.Hadamard(0)
    qml.Hadamard(1)
    for pixel in range(4):
        bits = [int(letter) for letter in format(pixel, "02b")]
        qml.ctrl(qml.RY(inputs[pixel], wires=2), [0, 1], control_values=bits)
    qml.BasicEntanglerLayers(w, wires=range(3))
    return z_all(3)


@case("a convolution of the inputs in torch", {"kernel": 4}, 9)
def _(inputs, kernel):
    angles = torch.nn.functional.conv2d(inputs.reshape(1, 1, 3, 3), kernel.reshape(1, 1, 2, 2)).flatten()
    for k in range(N):
        qml.RY(angles[k], wires=k)
    ring()
    return z_all()


@case("layer norm, softmax and GELU of torch", {"w": 3}, 3, 3)
def _(inputs, w):
    x = torch.nn.functional.layer_norm(inputs, (3,))
    shares, gates = torch.softmax(w, 0), torch.nn.functional.gelu(w)
    for k in range(3):
        qml.RY(x[k] * shares[k], wires=k)
        qml.RZ(gates[k], wires=k)
    qml.CNOT([0, 1])
    qml.CNOT([1, 2])
    return z_all(3)


@case("where, remainder and signs", {"w": 2}, 2, 2)
def _(inputs, w):
    x, rest = torch.where(inputs > 0, inputs, -2 * inputs), torch.remainder(inputs, 0.7)
    for k in range(2):
        qml.RY(x[k] * w[k], wires=k)
        qml.RX(rest[k], wires=k)
    qml.CZ([0, 1])
    return [qml.expval(qml.X(k)) for k in range(2)]


@case("teleported", {"w": 2}, 1, 3)
def _(inputs, w):
    qml.RY(inputs[0], wires=0)
    qml.RZ(w[0], wires=0)
    qml.Hadamard(1)
    qml.CNOT([1, 2])
    qml.CNOT([0, 1])
    qml.Hadamard(0)
    first, second = qml.measure(0), qml.measure(1)
    qml.cond(second, qml.X)(2)
    qml.cond(first, qml.Z)(2)
    qml.RX(w[1], wires=2)
    return qml.expval(Z(2)), qml.expval(qml.Y(2))


@case("two measurements and an else", {"w": 2}, 3, 3)
def _(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(3))
    first, second = qml.measure(0), qml.measure(1)
    qml.cond(first & second, qml.RX, qml.RY)(w[0], wires=2)
    qml.cond(~first, qml.RZ)(w[1], wires=2)
    qml.RX(0.3, wires=2)
    return qml.expval(Z(2))


@case("phase estimation of a trained phase", {"w": (1,)}, 1, 3)
def _(inputs, w):
    qml.RX(inputs[0], wires=0)
    qml.QuantumPhaseEstimation(qml.PhaseShift(w[0], wires=0), estimation_wires=[1, 2])
    return qml.probs(wires=[1, 2])


@case("selected gates and a controlled sequence", {"w": 4}, 2, 3)
def _(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(2))
    qml.Select([qml.RX(w[0], 2), qml.RY(w[1], 2), qml.RZ(w[2], 2), qml.X(2)], control=[0, 1])
    qml.ControlledSequence(qml.RX(w[3], wires=2), control=[0, 1])
    return z_all(3)


@case("oracle, diffusion and a comparator", {"w": (1, 3)}, 3, 3)
def _(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(3))
    qml.FlipSign([1, 0, 1], wires=range(3))
    qml.GroverOperator(wires=range(3))
    qml.IntegerComparator(2, geq=True, wires=[0, 1, 2])
    qml.BasicEntanglerLayers(w, wires=range(3))
    return z_all(3)


@case("arbitrary states and unitaries", {"state": 6, "unitary": 15}, 2, 2)
def _(inputs, state, unitary):
    qml.ArbitraryStatePreparation(state, wires=[0, 1])
    qml.AngleEmbedding(inputs, wires=range(2))
    qml.ArbitraryUnitary(unitary, wires=[0, 1])
    return z_all(2)


HOPPING = qml.jordan_wigner(qml.fermi.from_string("0+ 1-") + qml.fermi.from_string("1+ 0-"))


@case("a fermionic hopping term", {"w": (1, 2, 3)}, 2, 2)
def _(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(2))
    qml.StronglyEntanglingLayers(w, wires=range(2))
    return qml.expval(HOPPING)


def values_of(shapes):
    generator = torch.Generator().manual_seed(7)
    sizes = {n: (s,) if isinstance(s, int) and s > 1 else () if s == 1 else s for n, s in shapes.items()}
    return {n: torch.rand(s, generator=generator, dtype=torch.float64) * 3 for n, s in sizes.items()}


def flat(result):
    parts = result if isinstance(result, (list, tuple)) else [result]
    return torch.hstack([torch.as_tensor(p).reshape(-1) for p in parts])


@pytest.mark.parametrize(
    "name", [n if k % 3 == 0 else pytest.param(n, marks=pytest.mark.slow) for k, n in enumerate(CASES)]
)
@pytest.mark.filterwarnings("ignore:.*runs by itself")
def test_circuits(name):
    this = CASES[name]
    qnode = qml.QNode(this.function, qml.device(this.device, wires=this.wires), diff_method=this.diff_method)
    layer = QuantumLayer(qnode, this.shapes, n_inputs=this.n_inputs).double()
    weights = {n: v.requires_grad_() for n, v in values_of(this.shapes).items()}
    with torch.no_grad():
        for weight_name, value in weights.items():
            layer.get_parameter(weight_name).copy_(value)
    numbers = torch.linspace(-0.9, 1.1, 3 * this.n_inputs, dtype=torch.float64).reshape(3, -1).roll(1, 1)
    x = numbers if this.rows is None else torch.tensor(this.rows, dtype=torch.float64)
    is_bits = "bits" in name
    x = x if is_bits else x.requires_grad_()
    assert this.native is None or ("qnode" not in layer.backend) == this.native
    plain = qml.QNode(this.function, qml.device(this.device, wires=this.wires))
    rows = [plain(inputs=row[None] if this.batched else row, **weights) for row in x]
    want = torch.stack([flat(row) for row in rows]).real.double()
    got = layer(x).reshape(want.shape)
    torch.testing.assert_close(got, want, atol=1e-7, rtol=0)
    factors = torch.linspace(0.5, 1.5, want.numel(), dtype=torch.float64).reshape(want.shape)
    expected = torch.autograd.grad((want * factors).sum(), [*weights.values()] + [x] * (not is_bits), allow_unused=True)
    own = [layer.get_parameter(n) for n in weights] + [x] * (not is_bits)
    gradients = torch.autograd.grad((got * factors).sum(), own, allow_unused=True)
    for leaf, a, b in zip(own, gradients, expected, strict=True):
        a, b = (torch.zeros_like(leaf) if v is None else v for v in (a, b))
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
