"""One training step of a JAX function ``(one sample, weights) -> (n,)``; shared by the peers that are JAX functions.

The whole step is one compiled function: `jax.jit` of `jax.value_and_grad` of `jax.vmap`. Its arguments are
float32 arrays already on the device, and a step ends when outputs and gradients are ready
(`jax.block_until_ready`); no torch around it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def jax_step(circuit, workload):
    inputs, weights, cotangent = map(jnp.asarray, workload.arrays())
    layer = jax.vmap(circuit, in_axes=(0, None))
    if workload.mode == "forward":
        forward = jax.jit(layer)
        return lambda: (np.asarray(jax.block_until_ready(forward(inputs, weights))), None, None)

    def loss(inputs, weights):
        outputs = layer(inputs, weights)
        return jnp.sum(cotangent * outputs), outputs

    value_and_grad = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))

    def step():
        (_, outputs), gradients = jax.block_until_ready(value_and_grad(inputs, weights))
        return np.asarray(outputs), *map(np.asarray, gradients)

    return step
