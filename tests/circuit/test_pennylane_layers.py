"""Layers as people write them in PennyLane: outputs and gradients are those of the QNode, and all run natively."""

from __future__ import annotations

import math

import numpy as np
import pennylane as qml
import pytest
import torch

from qbp import QuantumLayer
from qbp.errors import CircuitError

N = 4
WIRES = range(N)
OUTSIDE = torch.tensor([0.2, -0.7, 0.4])
UNITARY = torch.linalg.matrix_exp(
    1j * torch.tensor([[0.3, 0.2, 0, 0.5], [0.2, -1, 0.4, 0], [0, 0.4, 0.7, 0.1], [0.5, 0, 0.1, 2]])
)

MATRIX = UNITARY.numpy().astype(complex)


def z_all():
    return [qml.expval(qml.Z(k)) for k in WIRES]


def spread():
    """A state that no symmetry makes special."""
    for k in WIRES:
        qml.U3(0.3 + 0.2 * k, 0.1 * k, 0.5, wires=k)


def look():
    """Gates after which every gate before is seen in Z."""
    for k in WIRES:
        qml.RX(0.4 + 0.3 * k, wires=k)
        qml.CRY(1.1, wires=[k, (k + 1) % N])
    return z_all()


def layer_of(gate, **shapes):
    """A layer around one gate ``gate(inputs, weight)``."""

    def circuit(inputs, w):
        spread()
        qml.RY(inputs[0] * w[0], wires=1)
        gate(inputs, w)
        return look()

    return circuit, {"w": 3} | shapes


def block(weights, wires):
    qml.RY(weights[0], wires[0])
    qml.RY(weights[1], wires[1])
    qml.CNOT(wires)


def turn(k, w):
    qml.RX(w[0] * (k + 1), wires=k)
    return w


def users_gate(name):
    """A gate of the user's own with the name of one of PennyLane's."""

    def compute_decomposition(*params, wires):
        return [qml.RX(params[0] if params else 0.7, wires=wires), qml.Hadamard(wires)]

    own = {"num_wires": 1, "num_params": int(name in ("RX", "BasisState"))}
    return type(name, (qml.operation.Operation,), own | {"compute_decomposition": staticmethod(compute_decomposition)})


USERS = {name: users_gate(name) for name in ("S", "RX", "Barrier", "BasisState")}


def measured(observable):
    def circuit(inputs, w):
        qml.AngleEmbedding(inputs, wires=range(3))
        qml.StronglyEntanglingLayers(w.reshape(1, 1, 3).expand(2, 4, 3), wires=WIRES)
        return observable(inputs, w)

    return circuit, {"w": 3}


H3 = qml.Hamiltonian([0.5, -1.2, 0.3], [qml.Z(0) @ qml.Z(1), qml.X(0), qml.Y(1) @ qml.X(2)])

GATES = {
    "DoubleExcitation": lambda x, w: qml.DoubleExcitation(w[0], wires=WIRES),
    "DoubleExcitationPlus": lambda x, w: qml.DoubleExcitationPlus(w[0], wires=WIRES),
    "DoubleExcitationMinus": lambda x, w: qml.DoubleExcitationMinus(x[0], wires=[2, 0, 1, 3]),
    "adjoint DoubleExcitationPlus": lambda x, w: qml.adjoint(qml.DoubleExcitationPlus(w[0], wires=WIRES)),
    "SingleExcitationPlus": lambda x, w: qml.SingleExcitationPlus(w[0], wires=[2, 0]),
    "SingleExcitationMinus": lambda x, w: qml.SingleExcitationMinus(w[0] * x[0], wires=[2, 0]),
    "ctrl SingleExcitationPlus": lambda x, w: qml.ctrl(qml.SingleExcitationPlus, control=1)(w[0], wires=[2, 0]),
    "OrbitalRotation": lambda x, w: qml.OrbitalRotation(w[0], wires=WIRES),
    "FermionicSWAP": lambda x, w: qml.FermionicSWAP(w[0], wires=[2, 0]),
    "ctrl FermionicSWAP": lambda x, w: qml.ctrl(qml.FermionicSWAP, control=1)(w[0], wires=[2, 0]),
    "PSWAP": lambda x, w: qml.PSWAP(w[0], wires=[2, 0]),
    "CPhaseShift00": lambda x, w: qml.CPhaseShift00(w[0], wires=[2, 0]),
    "CPhaseShift10": lambda x, w: qml.CPhaseShift10(w[0], wires=[2, 0]),
    "PCPhase": lambda x, w: qml.PCPhase(w[0], dim=3, wires=[2, 0]),
    "ctrl PCPhase": lambda x, w: qml.ctrl(qml.PCPhase(w[0], dim=3, wires=[2, 0]), control=1),
    "pow X": lambda x, w: qml.pow(qml.X(1), 0.3),
    "pow H, CNOT, T, SWAP": lambda x, w: [
        qml.pow(qml.Hadamard(0), 0.3),
        qml.pow(qml.CNOT([1, 2]), 0.4),
        qml.pow(qml.T(3), -1.7),
        qml.pow(qml.SWAP([0, 3]), 0.5),
    ],
    "ctrl of pow X": lambda x, w: qml.ctrl(qml.pow(qml.X(1), 0.3), control=[3, 0], control_values=[1, 0]),
    "pow ISWAP, ECR, SISWAP": lambda x, w: [
        qml.pow(qml.ISWAP([0, 2]), 0.3),
        qml.pow(qml.ECR([1, 2]), 3),
        qml.SISWAP([3, 0]),
    ],
    "pow Rot": lambda x, w: [qml.pow(qml.Rot(w[0], x[0], w[1], wires=1), -1), qml.pow(qml.Rot(*w, wires=0), 2)],
    "pow Rot -3 under controls": lambda x, w: qml.ctrl(qml.pow(qml.Rot(*w, wires=0), -3), control=2),
    "pow rotations": lambda x, w: [
        qml.pow(qml.RX(w[0], wires=0), 0.3),
        qml.pow(qml.IsingXY(w[1], wires=[1, 2]), 1.5),
        qml.pow(qml.CRZ(w[2], wires=[1, 0]), -0.5),
        qml.pow(qml.PhaseShift(x[0], wires=3), 2.2),
    ],
    "adjoint of pow": lambda x, w: qml.adjoint(qml.pow(qml.Rot(*w, wires=0), 2)),
    "pow of adjoint": lambda x, w: qml.pow(qml.adjoint(qml.U3(*w, wires=0)), 2),
    "pow of a product": lambda x, w: qml.pow(qml.prod(qml.RX(w[0], 0), qml.CNOT([0, 1])), 2),
    "evolve": lambda x, w: qml.evolve(qml.X(0) @ qml.Y(2) + 0.3 * qml.Z(1), w[0]),
    "evolve of words that do not commute": lambda x, w: qml.evolve(H3, w[0] * x[0]),
    "ctrl of evolve": lambda x, w: qml.ctrl(qml.evolve(0.7 * qml.Z(0) @ qml.X(1) + 0.2 * qml.I(0), w[0]), control=3),
    "ctrl of evolve that does not commute": lambda x, w: qml.ctrl(qml.evolve(H3, w[0]), control=3, control_values=[0]),
    "pow of evolve": lambda x, w: qml.pow(qml.evolve(H3, w[0]), 0.7),
    "adjoint of evolve": lambda x, w: qml.adjoint(qml.evolve(H3, w[0])),
    "evolve with weights inside": lambda x, w: qml.evolve(w[0] * qml.X(0) + w[1] * qml.X(1) @ qml.X(2), 1.5),
    "exp": lambda x, w: qml.exp(qml.X(0) @ qml.Y(1), -0.4j),
    "ctrl of exp": lambda x, w: qml.ctrl(qml.exp(qml.Z(0), -0.4j), control=1),
    "TrotterProduct": lambda x, w: qml.TrotterProduct(H3, time=w[0], n=2, order=2),
    "ApproxTimeEvolution": lambda x, w: qml.ApproxTimeEvolution(H3, w[0], 2),
    "CommutingEvolution": lambda x, w: qml.CommutingEvolution(qml.X(0) @ qml.X(1) + 0.4 * qml.X(2), w[0]),
    "QubitUnitary from outside": lambda x, w: qml.QubitUnitary(UNITARY, wires=[2, 0]),
    "ctrl of QubitUnitary": lambda x, w: qml.ctrl(qml.QubitUnitary(UNITARY, wires=[2, 0]), control=3),
    "ControlledQubitUnitary": lambda x, w: qml.ControlledQubitUnitary(MATRIX, wires=[3, 2, 0], control_values=[0]),
    "adjoint of QubitUnitary": lambda x, w: qml.adjoint(qml.QubitUnitary(UNITARY, wires=[2, 0])),
    "a unitary made inside": lambda x, w: qml.QubitUnitary(torch.tensor([[0.6, 0.8j], [0.8j, 0.6]]), wires=1),
    "DiagonalQubitUnitary": lambda x, w: qml.DiagonalQubitUnitary(np.exp(1j * np.arange(4)), wires=[2, 0]),
    "BlockEncode": lambda x, w: qml.BlockEncode(np.array([[0.1, 0.2], [0.3, 0.4]]), wires=[0, 1]),
    "ctrl of many": lambda x, w: qml.ctrl(lambda: (qml.RX(w[0], 0), qml.S(1), qml.Hadamard(0)), control=[2, 3])(),
    "ctrl SX, S, T": lambda x, w: [qml.ctrl(qml.SX(0), 1), qml.ctrl(qml.S(2), 1), qml.ctrl(qml.adjoint(qml.T(3)), 0)],
    "ctrl U2": lambda x, w: qml.ctrl(qml.U2(w[0], w[1], wires=0), control=[1, 3], control_values=[0, 1]),
    "MultiControlledX": lambda x, w: qml.MultiControlledX(wires=[0, 1, 2, 3], control_values=[1, 0, 1]),
    "PauliRot and MultiRZ": lambda x, w: [qml.PauliRot(w[0], "XIYZ", wires=WIRES), qml.MultiRZ(x[0], wires=[0, 3])],
    "QFT": lambda x, w: (qml.QFT(wires=[1, 0, 3]), qml.adjoint(qml.QFT)(wires=WIRES)),
    "ctrl of QFT": lambda x, w: qml.ctrl(qml.QFT, control=3)(wires=[0, 1, 2]),
    "GroverOperator": lambda x, w: qml.GroverOperator(wires=WIRES),
    "FlipSign": lambda x, w: qml.FlipSign([1, 0, 1], wires=[0, 1, 2]),
    "Permute": lambda x, w: qml.Permute([2, 0, 3, 1], wires=WIRES),
    "ArbitraryUnitary": lambda x, w: qml.ArbitraryUnitary(w, wires=[2]),
    "SpecialUnitary of data": lambda x, w: qml.SpecialUnitary(torch.tensor([0.3, 0.1, -0.7]), wires=1),
    "BasisRotation": lambda x, w: qml.BasisRotation(wires=[0, 1], unitary_matrix=np.array([[0.6, 0.8], [-0.8, 0.6]])),
    "SelectPauliRot": lambda x, w: qml.SelectPauliRot(
        torch.cat([w, w[:1]]), control_wires=[0, 1], target_wire=2, rot_axis="Y"
    ),
    "Select": lambda x, w: qml.Select([qml.X(2), qml.RY(w[0], 3), qml.Z(2), qml.S(3)], control=[0, 1]),
    "Reflection": lambda x, w: qml.Reflection(qml.RY(w[0], 0), 0.7),
    "IntegerComparator": lambda x, w: qml.IntegerComparator(2, geq=True, wires=[0, 1, 2]),
    "change of basis": lambda x, w: qml.change_op_basis(qml.Hadamard(0), qml.RZ(w[0], 0), qml.Hadamard(0)),
    "for loops and conditions on Python's numbers": lambda x, w: [
        (qml.RY(w[k], wires=k) if k % 2 else qml.RZ(x[k] ** 2, wires=k)) for k in range(3)
    ],
    "a loop of PennyLane": lambda x, w: qml.for_loop(0, 3, 1)(turn)(w),
    "cond of a number": lambda x, w: qml.cond(True, qml.RX, qml.RY)(w[0], wires=0),
    "exp of an imaginary weight": lambda x, w: qml.exp(qml.X(0) @ qml.X(1), -1j * w[0] * x[1] / 2),
    "a state prepared in the middle": lambda x, w: qml.StatePrep(np.array([0.5, 0.5j, -0.5, 0.5]), wires=[2, 0]),
    "data embedded in the middle": lambda x, w: qml.AmplitudeEmbedding(x, wires=[2, 0], normalize=True),
    "Qubitization": lambda x, w: qml.Qubitization(qml.dot([0.3, 0.7], [qml.X(2), qml.Z(3)]), control=[0]),
    "a user's S": lambda x, w: (USERS["S"](0), qml.adjoint(USERS["S"](2))),
    "a user's RX": lambda x, w: (USERS["RX"](w[0], 0), qml.ctrl(USERS["RX"](w[1], 1), control=2)),
    "a user's Barrier and BasisState": lambda x, w: (USERS["Barrier"](0), USERS["BasisState"](w[0], 1)),
}

LAYERS = {
    "AngleEmbedding and BasicEntanglerLayers": (
        lambda inputs, w: (qml.AngleEmbedding(inputs, WIRES), qml.BasicEntanglerLayers(w, WIRES), z_all())[-1],
        {"w": (3, N)},
    ),
    "StronglyEntanglingLayers with CZ and ranges": (
        lambda inputs, w: (
            qml.AngleEmbedding(inputs, WIRES, rotation="Y"),
            qml.StronglyEntanglingLayers(w, WIRES, ranges=[2, 1], imprimitive=qml.CZ),
            z_all(),
        )[-1],
        {"w": (2, N, 3)},
    ),
    "data re-uploading": (
        lambda inputs, w: (
            [
                (
                    qml.AngleEmbedding(inputs * scale, WIRES, rotation="Z"),
                    qml.BasicEntanglerLayers(row[None], WIRES, rotation=qml.RY),
                )
                for scale, row in zip(w[2], w[:2], strict=False)
            ],
            z_all(),
        )[-1],
        {"w": (3, N)},
    ),
    "IQPEmbedding": (
        lambda inputs, w: (
            qml.IQPEmbedding(inputs, WIRES, n_repeats=2, pattern=[[0, 2], [1, 3]]),
            qml.RandomLayers(w, WIRES, seed=3),
            z_all(),
        )[-1],
        {"w": (2, 3)},
    ),
    "QAOAEmbedding": (
        lambda inputs, w: (qml.QAOAEmbedding(inputs, w, WIRES, local_field="Z"), z_all())[-1],
        {"w": (2, 2 * N)},
    ),
    "SimplifiedTwoDesign": (
        lambda inputs, a, b: (qml.AngleEmbedding(inputs, WIRES), qml.SimplifiedTwoDesign(a, b, WIRES), z_all())[-1],
        {"a": N, "b": (2, N - 1, 2)},
    ),
    "ParticleConservingU2": (
        lambda inputs, w: (
            qml.AngleEmbedding(inputs, WIRES),
            qml.ParticleConservingU2(w, WIRES),
            z_all(),
        )[-1],
        {"w": (1, 2 * N - 1)},
    ),
    "GateFabric": (
        lambda inputs, w: (
            qml.GateFabric(w, WIRES, init_state=np.array([1, 1, 0, 0]), include_pi=True),
            qml.AngleEmbedding(inputs, WIRES),
            z_all(),
        )[-1],
        {"w": (2, 1, 2)},
    ),
    "AllSinglesDoubles": (
        lambda inputs, w: (
            qml.AllSinglesDoubles(w, WIRES, np.array([1, 1, 0, 0]), singles=[[0, 2], [1, 3]], doubles=[[0, 1, 2, 3]]),
            qml.AngleEmbedding(inputs, WIRES),
            z_all(),
        )[-1],
        {"w": 3},
    ),
    "MPS": (
        lambda inputs, w: (
            qml.AngleEmbedding(inputs, WIRES),
            qml.MPS(WIRES, 2, block, 2, w),
            z_all(),
        )[-1],
        {"w": (3, 2)},
    ),
    "TTN": (
        lambda inputs, w: (
            qml.AngleEmbedding(inputs, WIRES),
            qml.TTN(WIRES, 2, block, 2, w),
            qml.expval(qml.Z(3)),
        )[-1],
        {"w": (3, 2)},
    ),
    "BasisEmbedding of the inputs": (
        lambda inputs, w: (qml.BasisEmbedding(inputs, WIRES), qml.BasicEntanglerLayers(w, WIRES), z_all())[-1],
        {"w": (2, N)},
    ),
    "BasisState of the inputs": (
        lambda inputs, w: (qml.BasisState(inputs, WIRES), qml.BasicEntanglerLayers(w, WIRES), z_all())[-1],
        {"w": (2, N)},
    ),
    "probabilities": (
        lambda inputs, w: (
            qml.AngleEmbedding(inputs, WIRES),
            qml.BasicEntanglerLayers(w, WIRES),
            qml.probs(wires=[2, 0]),
        )[-1],
        {"w": (2, N)},
    ),
    "probabilities and expectation values": (
        lambda inputs, w: (
            qml.AngleEmbedding(inputs, WIRES),
            qml.BasicEntanglerLayers(w, WIRES),
            [qml.probs(wires=1), qml.expval(qml.X(0) @ qml.Y(3))],
        )[-1],
        {"w": (2, N)},
    ),
    "AmplitudeEmbedding": (
        lambda inputs, w: (
            qml.AmplitudeEmbedding(inputs, WIRES, normalize=True, pad_with=0.1),
            qml.BasicEntanglerLayers(w, WIRES),
            z_all(),
        )[-1],
        {"w": (2, N)},
    ),
    "embeddings side by side": (
        lambda inputs, w: (
            qml.StatePrep([0.6, 0.8], wires=[2]),
            qml.AmplitudeEmbedding(inputs, wires=[3, 1], normalize=True),
            qml.AmplitudeEmbedding(inputs[1:3] * w[0], wires=[0], normalize=True),
            look(),
        )[-1],
        {"w": 2},
    ),
    "wires with names": (
        lambda inputs, w: (
            qml.AngleEmbedding(inputs, ["b", "a", 7, "c"]),
            qml.BasicEntanglerLayers(w, ["a", 7, "c", "b"]),
            [qml.expval(qml.Z("a")), qml.expval(qml.X(7) @ qml.Z("b"))],
        )[-1],
        {"w": (2, N)},
    ),
    "a tuple of results": (
        lambda inputs, w: (qml.AngleEmbedding(inputs, WIRES), qml.CRX(w, [0, 1]), tuple(z_all()))[-1],
        {"w": 1},
    ),
    "torch functions of inputs and weights": (
        lambda inputs, w: (
            qml.RX(torch.atan(inputs[0]) * w[0], 0),
            qml.RY(torch.sin(inputs[1]) + inputs[2] * inputs[3], 1),
            qml.CNOT([0, 1]),
            qml.RZ((inputs * w).sum(), 1),
            qml.RX(math.pi * torch.tanh(w[1]), 1),
            [qml.expval(qml.Z(0) @ qml.Z(1))],
        )[-1],
        {"w": N},
    ),
    "broadcast rows": (
        lambda inputs, w: (
            [qml.RY(inputs[..., k], wires=k) for k in WIRES],
            [qml.CRZ(w[k], wires=[k, (k + 1) % N]) for k in WIRES],
            [qml.RX(inputs[..., k] * w[k], wires=k) for k in WIRES],
            z_all(),
        )[-1],
        {"w": N},
    ),
}  # fmt: skip

MEASURED = {
    "coefficients made inside": lambda x, w: qml.expval(
        qml.Hamiltonian(torch.tensor([0.2, -0.7]), [qml.Z(0), qml.X(1)])
    ),
    "coefficients from outside": lambda x, w: qml.expval(qml.dot(OUTSIDE, [qml.Z(0), qml.X(1), qml.Y(2) @ qml.Z(3)])),
    "a coefficient computed from a tensor": lambda x, w: qml.expval(OUTSIDE[1] * 2 * qml.Z(0) @ qml.X(1) + qml.Z(2)),
    "a numpy coefficient": lambda x, w: qml.expval(np.float64(0.3) * qml.Z(0) - qml.X(1) / 2),
    "a sum": lambda x, w: qml.expval(qml.sum(*(qml.Z(k) for k in WIRES))),
    "a product of sums": lambda x, w: qml.expval((qml.X(0) + 0.3 * qml.Z(1)) @ (qml.Z(2) - qml.Y(3))),
    "nested products": lambda x, w: qml.expval(2 * (0.5 * (qml.Z(0) @ qml.Z(1)) - 0.1 * qml.Z(2)) + 0.2 * qml.I(0)),
    "Hermitian": lambda x, w: qml.expval(qml.Hermitian(np.array([[1, 1j], [-1j, 0.3]]), wires=2)),
    "Hermitian of two wires from outside": lambda x, w: qml.expval(
        qml.Hermitian(MATRIX + MATRIX.conj().T, wires=[2, 0])
    ),
    "Projector": lambda x, w: qml.expval(qml.Projector([1, 0], wires=[0, 1])),
    "Hadamard as observable": lambda x, w: qml.expval(qml.Hadamard(1)),
    "probabilities of all": lambda x, w: qml.probs(),
    "probabilities of an operator": lambda x, w: qml.probs(op=qml.Z(1) @ qml.Z(2)),
    "probabilities in the basis of X": lambda x, w: qml.probs(op=qml.X(2)),
    "probabilities in the basis of a word": lambda x, w: [
        qml.probs(op=qml.Y(3) @ qml.I(1) @ qml.X(0)),
        qml.expval(qml.Z(3)),
    ],
    "many words": lambda x, w: [qml.expval(H3), qml.expval(qml.Z(0) @ qml.Y(3)), qml.expval(qml.X(2))],
}  # fmt: skip

# What PennyLane 0.45 itself does not run on default.qubit, or runs wrongly with torch, in other words.
SAID_OTHERWISE = {
    "SelectPauliRot": lambda x, w: [
        qml.ctrl(qml.RY(w[k % 3], wires=2), control=[0, 1], control_values=[k // 2, k % 2]) for k in range(4)
    ],
    "pow Rot": lambda x, w: [
        qml.adjoint(qml.Rot(w[0], x[0], w[1], wires=1)),
        qml.Rot(*w, wires=0),
        qml.Rot(*w, wires=0),
    ],
    "pow Rot -3 under controls": lambda x, w: [
        qml.ctrl(qml.adjoint(qml.Rot(*w, wires=0)), control=2) for _ in range(3)
    ],
    "pow of evolve": lambda x, w: qml.evolve(H3, 0.7 * w[0]),
}

CASES = (
    {name: layer_of(gate) for name, gate in GATES.items()}
    | LAYERS
    | {name: measured(observable) for name, observable in MEASURED.items()}
)


def weights_of(shapes):
    generator = torch.Generator().manual_seed(5)
    sizes = {n: (s,) if isinstance(s, int) and s > 1 else () if s == 1 else s for n, s in shapes.items()}
    return {n: torch.rand(s, generator=generator, dtype=torch.float64) * 3 for n, s in sizes.items()}


def flat(result):
    parts = result if isinstance(result, (list, tuple)) else [result]
    return torch.hstack([p.reshape(-1) for p in parts])


@pytest.mark.parametrize(
    "name", [n if k % 3 == 0 else pytest.param(n, marks=pytest.mark.slow) for k, n in enumerate(CASES)]
)
def test_outputs_and_gradients_are_those_of_the_qnode(name):
    function, shapes = CASES[name]
    wires = ["b", "a", 7, "c"] if "names" in name else N
    device = qml.device("default.qubit", wires=wires)
    qnode = qml.QNode(function, device)
    n_inputs = 3 if name in MEASURED else N
    layer = QuantumLayer(qnode, shapes, n_inputs=n_inputs).double()
    assert (layer.backend, layer.diff_method) == ("native", "adjoint")
    if name in SAID_OTHERWISE:
        qnode = qml.QNode(layer_of(SAID_OTHERWISE[name])[0], device)
    weights = {n: v.requires_grad_() for n, v in weights_of(shapes).items()}
    with torch.no_grad():
        for weight_name, value in weights.items():
            layer.get_parameter(weight_name).copy_(value)
    x = torch.tensor([[0.3, -0.7, 1.2, 0.5], [1.1, 0.2, -0.4, 0.9]], dtype=torch.float64)[:, :n_inputs]
    is_bits = "Basis" in name and "inputs" in name
    x = torch.tensor([[1.0, 0, 1, 1], [0, 1, 0, 0]], dtype=torch.float64) if is_bits else x.requires_grad_()
    got = layer(x)
    want = torch.stack([flat(qnode(inputs=row, **weights)) for row in x])
    torch.testing.assert_close(
        got.reshape(want.shape), want.double(), atol=1e-6, rtol=0
    )  # a float32 matrix is no better
    factors = torch.linspace(0.5, 1.5, want.numel(), dtype=torch.float64).reshape(want.shape)
    wanted = [*weights.values()] + ([] if is_bits else [x])
    if not want.requires_grad:
        return
    expected = torch.autograd.grad((want.double() * factors).sum(), wanted, allow_unused=True)
    own = [layer.get_parameter(n) for n in weights] + ([] if is_bits else [x])
    gradients = torch.autograd.grad((got.reshape(want.shape) * factors).sum(), own, allow_unused=True)
    for a, b in zip(gradients, expected, strict=True):
        a, b = (torch.zeros(()) if v is None else v for v in (a, b))
        torch.testing.assert_close(a, b.expand_as(a) if b.ndim == 0 else b, atol=2e-6, rtol=0, check_dtype=False)


REFUSED = {
    "a complex weight as coefficient": (measured(lambda x, w: qml.expval(w[0] * 1j * qml.Z(0))), "must be real"),
    "weights inside of words that do not commute": (
        layer_of(lambda x, w: qml.evolve(w[0] * qml.X(0) + w[1] * qml.Z(0), 1.5)),
        "do not commute",
    ),
    "a power that depends on data": (layer_of(lambda x, w: qml.pow(qml.Rot(*w, wires=0), 0.4)), "Rot"),
    "a channel whose strength is a weight": (layer_of(lambda x, w: qml.BitFlip(w[0].sigmoid(), wires=0)), "BitFlip"),
    "qutrits": (layer_of(lambda x, w: qml.TRX(w[0], wires=0)), "cannot be traced|TRX"),
    "no unitary": (layer_of(lambda x, w: qml.QubitUnitary(torch.ones(2, 2) / 2, wires=0)), "not unitary"),
    "purity": (measured(lambda x, w: qml.purity(wires=0)), "expectation values, variances or probabilities"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_program_is_refused_by_name(name):
    (function, shapes), message = REFUSED[name]
    with pytest.raises(CircuitError, match=message):
        QuantumLayer(function, shapes, n_inputs=3)


def test_transforms_that_look_at_values():
    """Of a batch row by row, and of angles that might cancel: their circuit is taken, whatever the values."""

    def circuit(inputs, w):
        for k in range(2):
            qml.RY(inputs[..., k], wires=k)
            qml.RX(w[k], wires=k)
            qml.RX(w[2] - w[k], wires=k)
        qml.CNOT([0, 1])
        return qml.expval(qml.Z(1)), qml.expval(qml.Y(0))

    plain = qml.QNode(circuit, qml.device("default.qubit", wires=2))
    weights = torch.tensor([0.3, 0.9, 0.9], dtype=torch.float64)
    x = torch.tensor([[0.3, 0.8], [-1.0, 0.2]], dtype=torch.float64)
    want = torch.stack([torch.stack(plain(inputs=row, w=weights)) for row in x])
    rotations = {
        qml.transforms.broadcast_expand: 6,
        qml.transforms.merge_rotations: 4,
        qml.compile: 4,
        lambda qnode: qml.transforms.broadcast_expand(qml.transforms.merge_rotations(qnode)): 4,
    }
    for transform, n in rotations.items():
        layer = QuantumLayer(transform(plain), {"w": 3}, init_method={"w": weights}, n_inputs=2).double()
        assert layer.backend == "native" and len(layer.circuit.program.ops) == n + 1
        torch.testing.assert_close(layer(x), want)


def test_a_transform_of_ones_own_that_looks_at_values_is_not_guessed():
    @qml.transform
    def without_zeros(tape):
        kept = [op for op in tape.operations if not (op.data and qml.math.allclose(op.data[0], 0.0))]
        return [tape.copy(operations=kept)], lambda results: results[0]

    def circuit(inputs, w):
        qml.RY(inputs[0], wires=0)
        qml.RX(w[0], wires=0)
        return qml.expval(qml.Z(0))

    qnode = without_zeros(qml.QNode(circuit, qml.device("default.qubit", wires=1)))
    assert "qnode" in QuantumLayer(qnode, {"w": 1 + 1}, n_inputs=1).backend
