"""Training does not pile anything up, and its Python work does not grow with the batch."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest
import torch

import qbp


def train_step(model, x):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def step():
        optimizer.zero_grad(set_to_none=True)
        model(x).pow(2).sum().backward()
        optimizer.step()

    return step


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize("diff_method", ["adjoint", pytest.param("parameter-shift", marks=pytest.mark.slow), "spsa"])
def test_two_thousand_steps_keep_the_memory_they_have(diff_method):
    step = train_step(qbp.hybrid(8, 2, n_qubits=4, n_layers=2, diff_method=diff_method), torch.randn(32, 8))
    for _ in range(200):
        step()
    gc.collect()
    before = resident_mb()
    for _ in range(2000):
        step()
    gc.collect()
    assert resident_mb() - before < 5


def test_python_work_does_not_depend_on_the_batch():
    def calls(batch):
        step = train_step(qbp.hybrid(8, 2, n_qubits=4, n_layers=2), torch.randn(batch, 8))
        step()
        count = 0

        def profile(frame, event, argument):
            nonlocal count
            count += event in ("call", "c_call")

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        sys.setprofile(profile)
        try:
            step()
        finally:
            sys.setprofile(None)
            torch.set_num_threads(threads)
        return count

    assert abs(calls(1) - calls(300)) <= 5
