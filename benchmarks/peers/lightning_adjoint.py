"""PennyLane's TorchLayer on lightning.qubit with adjoint gradients, in single precision as its documentation offers."""

import default_qubit_backprop
from default_qubit_backprop import version  # noqa: F401


def build(workload):
    return default_qubit_backprop.build(workload, device="lightning.qubit", diff_method="adjoint")
