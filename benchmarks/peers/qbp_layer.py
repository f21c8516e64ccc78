"""qbp as a user has it: a QuantumLayer in torch, float32, everything at its default."""

import pennylane as qml
from torch_step import torch_step

import qbp


def version():
    return f"qbp {qbp.__version__}"


def build(workload):
    n = workload.n_qubits

    def circuit(inputs, weights):
        if workload.blocks:
            for block in range(workload.blocks):
                qml.AngleEmbedding(inputs, wires=range(n))
                qml.StronglyEntanglingLayers(weights[block : block + 1], wires=range(n))
        else:
            qml.AngleEmbedding(inputs, wires=range(n))
            qml.StronglyEntanglingLayers(weights, wires=range(n))
        return [qml.expval(qml.Z(w)) for w in range(n)]

    rule = "parameter-shift" if workload.mode == "shift" else "best"
    layer = qbp.QuantumLayer(circuit, {"weights": (workload.n_layers, n, 3)}, n_inputs=n, diff_method=rule)
    return torch_step(layer, layer.weights, workload)
