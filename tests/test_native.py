"""The native executor against `Dense` and autograd through it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qbp.angles import Angles
from qbp.executors.dense import Dense
from qbp.executors.native import Native
from qbp.testing import random_angles, random_program


def truth(program, angles, amplitudes, grad):
    """Outputs and gradients of batched angles, shared angles and amplitudes, in float64 through autograd."""
    leaves = [angles.batched.double(), angles.shared.double()]
    if amplitudes is not None:
        leaves.append(amplitudes.to(torch.complex128 if amplitudes.is_complex() else torch.float64))
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    outputs = Dense()(program, Angles(*leaves[:2]), *leaves[2:])
    anchor = sum((leaf.real if leaf.is_complex() else leaf).sum() for leaf in leaves)  # some programs use none
    return outputs.detach(), torch.autograd.grad((outputs * grad).sum() + 0 * anchor, leaves)


def assert_equals_dense(program, angles, amplitudes=None, tol=1e-12):
    generator = torch.Generator().manual_seed(1)
    grad = torch.randn(angles.n_samples, program.n_outputs, generator=generator, dtype=angles.batched.dtype)
    outputs, gradients = truth(program, angles, amplitudes, grad)
    native = Native()
    got, saved = native.forward(program, angles, amplitudes)
    result = native.vjp(program, angles, amplitudes, saved, grad)
    pairs = [(got, outputs), (result.batched, gradients[0]), (result.shared, gradients[1])]
    if amplitudes is not None:
        pairs.append((result.amplitudes, gradients[2]))
        assert result.amplitudes.dtype == amplitudes.dtype
    for mine, true in pairs:
        assert mine.shape == true.shape
        scale = max(1.0, float(true.abs().max()) if true.numel() else 1.0)
        torch.testing.assert_close(mine.to(true.dtype), true, rtol=0, atol=tol * scale)
    assert got.dtype == result.batched.dtype == result.shared.dtype == angles.batched.dtype
    assert torch.equal(native(program, angles, amplitudes), got)


@pytest.mark.parametrize(("dtype", "tol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("seed", range(4))
def test_random_programs(seed, dtype, tol):
    rng = np.random.default_rng(seed)
    for _ in range(40):
        with_amplitudes = bool(rng.random() < 0.3)
        program = random_program(rng, n_qubits=(1, 7), n_ops=(0, 30), amplitudes=with_amplitudes)
        batch = int(rng.integers(1, 36))
        angles = random_angles(
            rng, program, batch, n_batched=int(rng.integers(0, program.n_angles + 1)), dtype=dtype
        )
        amplitudes = None
        if with_amplitudes:
            amplitudes = torch.tensor(rng.normal(size=(batch, 2**program.n_qubits)), dtype=dtype)
            if rng.random() < 0.5:
                amplitudes = torch.complex(amplitudes, amplitudes.flip(0))
        assert_equals_dense(program, angles, amplitudes, tol)
