"""TensorCircuit-NG on JAX: jit and vmap over the batch, complex64.

Its guide says to try representations: the state layer by layer, one U gate for each Rot, and the marginals of
`probability` are 2 (8 qubits) to 14 times (10 qubits) faster than one network with `expectation_ps` for each wire.
"""

import jax
import jax.numpy as jnp
import numpy as np
import tensorcircuit as tc
from jax_step import jax_step

tc.set_backend("jax")
tc.set_dtype("complex64")


def version():
    return f"tensorcircuit-ng {tc.__version__}, jax {jax.__version__}"


def build(workload):
    if workload.mode == "shift":
        raise NotImplementedError("its parameter-shift rule is not part of a layer: it takes scalar functions")
    n = workload.n_qubits
    bits = np.arange(2**n)[:, None] >> np.arange(n)[::-1] & 1
    signs = jnp.asarray(1 - 2 * bits, jnp.float32)

    def circuit(inputs, weights):
        state = None
        for layer, r in enumerate(workload.ranges()):
            c = tc.Circuit(n, inputs=state)
            if layer == 0 or workload.blocks:
                for q in range(n):
                    c.rx(q, theta=inputs[q])
            for q in range(n):
                c.u(q, lbd=weights[layer, q, 0], theta=weights[layer, q, 1], phi=weights[layer, q, 2])
            for q in range(n):
                c.cnot(q, (q + r) % n)
            state = c.state()
        return tc.Circuit(n, inputs=state).probability() @ signs

    return jax_step(circuit, workload)
