"""PennyLane's TorchLayer on default.qubit: one broadcast execution, gradients by torch (its default, and fastest here).

The device computes in complex128 whatever the dtype of the inputs; it has no option for single precision.
The parameter-shift rule with a broadcast input that wants a gradient is not implemented (NotImplementedError), so
that workload goes sample by sample through `broadcast_expand`, as its error message advises.
"""

import pennylane as qml
from torch_step import torch_step


def version():
    return f"pennylane {qml.__version__}"


def build(workload, device=None, **options):
    """`device` and `options` (of the QNode) default to default.qubit and backprop."""
    n = workload.n_qubits
    shift = workload.mode == "shift"
    options = {"diff_method": "parameter-shift"} if shift else options or {"diff_method": "backprop"}

    @qml.qnode(device or qml.device("default.qubit", wires=n), **options)
    def circuit(inputs, weights):
        if workload.blocks:
            for block in range(workload.blocks):
                qml.AngleEmbedding(inputs, wires=range(n))
                qml.StronglyEntanglingLayers(weights[block : block + 1], wires=range(n))
        else:
            qml.AngleEmbedding(inputs, wires=range(n))
            qml.StronglyEntanglingLayers(weights, wires=range(n))
        return [qml.expval(qml.Z(w)) for w in range(n)]

    if shift:
        circuit = qml.transforms.broadcast_expand(circuit)
    layer = qml.qnn.TorchLayer(circuit, {"weights": (workload.n_layers, n, 3)})
    return torch_step(layer, layer.weights, workload)
