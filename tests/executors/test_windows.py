"""Windows: the parts of wide circuits that outputs see, against the whole state and against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from local_circuits import WholeState, chain, local_program

import qbp
from qbp.circuit.angles import Angles
from qbp.errors import ArgumentError
from qbp.executors.native.ways import way_of
from qbp.executors.native.windows import Windows, windows_of
from qbp.testing import check_executor


def compare(seed: int) -> None:
    """Outputs and gradients of a random local program against those of the whole state."""
    rng = np.random.default_rng(seed)
    program = local_program(rng, int(rng.integers(2, 15)), int(rng.integers(1, 5)))
    n_samples, n_batched = int(rng.integers(1, 12)), int(rng.integers(0, program.n_angles + 1))
    angles = Angles(
        torch.from_numpy(rng.normal(size=(n_samples, n_batched))),
        torch.from_numpy(rng.normal(size=program.n_angles - n_batched)),
    )
    grad = torch.from_numpy(rng.normal(size=(n_samples, program.n_outputs)))
    engines = WholeState(), Windows(WholeState())
    (want, saved), (got, parts) = (engine.forward(program, angles) for engine in engines)
    torch.testing.assert_close(got.values, want.values, rtol=0, atol=1e-12)
    torch.testing.assert_close(engines[1](program, angles).values, want.values, rtol=0, atol=1e-12)
    expected = engines[0].vjp(program, angles, None, saved, grad)
    gradients = engines[1].vjp(program, angles, None, parts, grad)
    torch.testing.assert_close(gradients.batched, expected.batched, rtol=0, atol=1e-11)
    torch.testing.assert_close(gradients.shared, expected.shared, rtol=0, atol=1e-11)


def test_conformance():
    check_executor(Windows(WholeState()), n_programs=20)


@pytest.mark.parametrize("seed", range(20))
def test_windows_equal_the_whole_state(seed: int):
    compare(seed)


@pytest.mark.slow
def test_300_windows_equal_the_whole_state():
    for seed in range(100, 400):
        compare(seed)


def test_a_chain_sees_neighbours_only():
    program = chain(40, 2).circuit.program
    windowed = windows_of(program, 40)
    assert windowed.n_windows == 40
    assert windowed.n_qubits == 5
    assert [len(shape.outputs) for shape in windowed.shapes] == [1, 1, 36, 1, 1]


def test_a_wide_layer_trains():
    """Sixty qubits, against finite differences."""
    layer = chain(60, 2).double()
    layer.set_backend("windows")
    x = torch.rand(2, 60, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(60, dtype=torch.float64)

    def loss() -> torch.Tensor:
        return (layer(x) @ weights).sum()

    loss().backward()
    for tensor, place in ((x, (1, 37)), (x, (0, 0)), (layer.weights, (0, 33, 0)), (layer.weights, (1, 59, 0))):
        values = []
        with torch.no_grad():
            for step in (1e-5, -1e-5):
                tensor[place] += step
                values.append(float(loss()))
                tensor[place] -= step
        assert float(tensor.grad[place]) == pytest.approx((values[0] - values[1]) / 2e-5, abs=1e-8)


def test_the_rule():
    assert chain(16, 2).backend == "windows"  # they take less than words take to compile
    assert chain(60, 3).backend == "pauli-propagation"  # few words
    assert way_of(chain(30, 7).circuit.program) == "windows"  # few qubits, which become many words
    assert chain(6, 2).backend == "native"  # narrow
    ring = qbp.QuantumLayer("strongly_entangling", n_qubits=14, n_layers=4)
    assert ring.backend == "native"  # every output sees everything


def test_what_no_way_can_do_says_so():
    layer = qbp.QuantumLayer("strongly_entangling", n_qubits=45, n_layers=4)
    with pytest.raises(ArgumentError, match="45 qubits and a batch of 1"):
        layer(torch.zeros(1, layer.n_inputs))
