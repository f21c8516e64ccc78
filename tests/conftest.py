"""What all tests share: seeds, one thread, pictures without a screen."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported

import numpy as np
import pytest
import torch
from filelock import FileLock

if TYPE_CHECKING:
    from ibm_server import IBMServer

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The native engine's kernels, compiled before any test: on a new machine that takes a while and says so.

    By one process of a parallel run; the others wait and find them on disk.
    """
    import qbp

    with FileLock(tmp_path_factory.getbasetemp().parent / "compiled.lock"):
        for dtype in (torch.float32, torch.float64):
            for n_qubits in (1, 10):  # lanes that are samples, and that are amplitudes
                layer = qbp.QuantumLayer("basic_entangler", n_qubits=n_qubits, n_layers=1)
                layer(torch.zeros(1, n_qubits, dtype=dtype)).sum().backward()


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random state of torch and of NumPy."""
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded source of randomness, a new one for each test."""
    return np.random.default_rng(0)


@pytest.fixture
def ibm(server: IBMServer) -> Iterator[IBMServer]:
    """The module's own `server`, as if it had just been started."""
    server.reset()
    yield server
    server.reset()
