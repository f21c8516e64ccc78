"""Qiskit Machine Learning: TorchConnector of an EstimatorQNN with its exact QMLEstimator, complex128.

Of its exact gradients the linear combination of unitaries is the fastest (7 beside 12 s a step at 4 qubits, and
14 s with Aer's estimator); the parameter-shift workload uses its default, ParamShiftEstimatorGradient. One
statevector is computed for each sample, output and angle.
"""

from importlib.metadata import version as installed

from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.connectors import TorchConnector
from qiskit_machine_learning.gradients import LinCombEstimatorGradient, ParamShiftEstimatorGradient
from qiskit_machine_learning.neural_networks import EstimatorQNN
from qiskit_machine_learning.primitives import QMLEstimator
from torch_step import torch_step


def version():
    return f"qiskit-machine-learning {installed('qiskit-machine-learning')}, qiskit {installed('qiskit')}"


def build(workload):
    n = workload.n_qubits
    x, w = ParameterVector("x", n), ParameterVector("w", 3 * n * workload.n_layers)
    angles = iter(w)
    circuit = QuantumCircuit(n)
    for layer, r in enumerate(workload.ranges()):
        if layer == 0 or workload.blocks:
            for q in range(n):
                circuit.rx(x[q], q)
        for q in range(n):
            circuit.rz(next(angles), q)
            circuit.ry(next(angles), q)
            circuit.rz(next(angles), q)
        for q in range(n):
            circuit.cx(q, (q + r) % n)
    estimator = QMLEstimator(default_precision=0.0)
    gradient = ParamShiftEstimatorGradient if workload.mode == "shift" else LinCombEstimatorGradient
    network = EstimatorQNN(
        circuit=circuit,
        estimator=estimator,
        observables=[SparsePauliOp.from_sparse_list([("Z", [q], 1.0)], n) for q in range(n)],
        input_params=list(x),
        weight_params=list(w),
        gradient=gradient(estimator),
        input_gradients=True,
        default_precision=0.0,
    )
    layer = TorchConnector(network)
    return torch_step(layer, layer.weight, workload)
