"""DeepQuantum's QubitCircuit: inputs by `encode=True` (its own vmap over the batch), `reupload=True`, complex64.

One U3 for each Rot (equal up to a global phase) is faster than its layers of RZ, RY and RZ. Its weights are one scalar
tensor for each angle, so their gradients are stacked at the end of the step.
"""

import deepquantum as dq
import torch


def version():
    return f"deepquantum {dq.__version__}"


def build(workload):
    if workload.mode == "shift":
        raise NotImplementedError("it has no parameter-shift rule")
    n = workload.n_qubits
    circuit = dq.QubitCircuit(n, reupload=True)
    for layer, r in enumerate(workload.ranges()):
        if layer == 0 or workload.blocks:
            circuit.rxlayer(encode=True)
        circuit.u3layer()
        circuit.cnot_ring(step=r)
    for q in range(n):
        circuit.observable(q)

    x, weights, cotangent = map(torch.from_numpy, workload.arrays())
    angles = list(circuit.parameters())
    with torch.no_grad():
        for angle, value in zip(angles, weights[..., [1, 2, 0]].flatten(), strict=True):  # theta, omega, phi
            angle.copy_(value)

    if workload.mode == "forward":

        def forward():
            with torch.no_grad():
                circuit(x)
                return circuit.expectation().numpy(), None, None

        return forward
    x.requires_grad_()

    def step():
        x.grad = None
        circuit.zero_grad()
        circuit(x)
        outputs = circuit.expectation()
        outputs.backward(cotangent)
        gradients = torch.stack([angle.grad for angle in angles]).reshape(weights.shape)[..., [2, 0, 1]]
        return outputs.detach().numpy(), x.grad.numpy(), gradients.numpy()

    return step
