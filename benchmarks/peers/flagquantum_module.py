"""flagquantum's `Module` (its fast path: compiled builder, native CPU kernels), the batch as `bsz`, complex64.

Its adjoint method is for a batch of one and one Hamiltonian, so gradients are torch's through the fused kernels.
"""

import flagquantum as fq
import torch
from torch_step import torch_step


def version():
    return f"flagquantum {fq.__version__}"


def build(workload):
    if workload.mode == "shift":
        raise NotImplementedError("its parameter-shift rule takes one scalar loss of one circuit, not a batch")
    n = workload.n_qubits

    def circuit(weights, inputs):
        c = fq.Circuit(n, bsz=workload.batch, dtype=torch.complex64)
        for layer, r in enumerate(workload.ranges()):
            if layer == 0 or workload.blocks:
                for q in range(n):
                    c.rx(q, theta=inputs[:, q])
            for q in range(n):
                phi, theta, omega = weights[layer, q]
                c.rz(q, theta=phi).ry(q, theta=theta).rz(q, theta=omega)
            for q in range(n):
                c.cx(q, (q + r) % n)
        return c

    policy = fq.RuntimePolicy(observable_qubits=tuple(range(n)))
    module = fq.Module(circuit, (workload.n_layers, n, 3), policy=policy)
    return torch_step(module, module.parameters_tensor, workload)
