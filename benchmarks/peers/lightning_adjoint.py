"""PennyLane's TorchLayer on lightning.qubit, adjoint gradients, in single precision.

It has no batch: one circuit after another. `device_vjp` takes one backward pass a sample instead of one for each
output, but builds a Hamiltonian in Python for it: 5 times faster at 16 qubits, half as fast at 8. So it is on where
it pays. `batch_obs` (threads over the outputs) gains nothing without it and does nothing with it.
"""

import default_qubit_backprop
import numpy as np
import pennylane as qml
from default_qubit_backprop import version  # noqa: F401


def build(workload):
    n = workload.n_qubits
    device = qml.device("lightning.qubit", wires=n, c_dtype=np.complex64)
    return default_qubit_backprop.build(workload, device, diff_method="adjoint", device_vjp=n >= 12)
