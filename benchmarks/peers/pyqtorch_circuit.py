"""pyqtorch: one batched run, then each observable on its state, gradients by torch (DiffMode.AD), complex64.

One U for each Rot is faster than RZ, RY and RZ. Its adjoint method repeats the circuit for each observable (8 to 20
times slower here) and leaves gradients of weights that the batch shares unsummed, as GPSR does: for the
parameter-shift workload the weights are therefore expanded to the batch.
"""

import pyqtorch as pyq
import torch
from torch_step import torch_step


def version():
    from importlib.metadata import version as installed

    return f"pyqtorch {installed('pyqtorch')}"


def build(workload):
    n, shift = workload.n_qubits, workload.mode == "shift"
    gates, names = [], []
    for layer, r in enumerate(workload.ranges()):
        if layer == 0 or workload.blocks:
            gates += [pyq.RX(q, f"x{q}") for q in range(n)]
        for q in range(n):
            phi, theta, omega = angles = [f"w{layer}_{q}_{k}" for k in range(3)]
            names += angles
            gates += [pyq.RZ(q, phi), pyq.RY(q, theta), pyq.RZ(q, omega)] if shift else [pyq.U(q, *angles)]
        gates += [pyq.CNOT(q, (q + r) % n) for q in range(n)]
    circuit = pyq.QuantumCircuit(n, gates).to(dtype=torch.complex64)
    observables = [pyq.Observable(pyq.Z(q)).to(dtype=torch.complex64) for q in range(n)]
    weights = torch.nn.Parameter(torch.zeros(workload.n_layers, n, 3))

    def layer(inputs):
        values = {f"x{q}": column for q, column in enumerate(inputs.unbind(1))}
        flat = weights.flatten()
        if shift:
            flat = flat[:, None].expand(-1, len(inputs))
            values |= zip(names, flat.unbind(), strict=True)
            outputs = [
                pyq.expectation(circuit, values=values, observable=o, diff_mode=pyq.DiffMode.GPSR) for o in observables
            ]
        else:
            values |= zip(names, flat.unbind(), strict=True)
            state = pyq.run(circuit, values=values)
            outputs = [o.expectation(state) for o in observables]
        return torch.stack(outputs, 1)

    return torch_step(layer, weights, workload)
