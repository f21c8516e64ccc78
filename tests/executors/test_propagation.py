"""Words carried back, against the whole state, the exact noise and finite differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from local_circuits import WholeState, chain, local_program

import qbp
from qbp.circuit.angles import Angles
from qbp.circuit.program import Expval, Probs, Program, Rotation
from qbp.errors import ArgumentError
from qbp.executors import backend, propagation
from qbp.executors.native import Native
from qbp.executors.pauli import Pauli
from qbp.executors.propagation import PauliPropagation
from qbp.testing import check_executor, random_angles, random_program
from qbp.testing.noise import with_noise


def has_words(program: Program) -> bool:
    """Whether it starts from |0...0>, and has no probabilities of many wires."""
    measured = program.measurements
    return not program.amplitudes and all(not isinstance(m, Probs) or len(m.wires) <= 6 for m in measured)


def compare(program: Program, rng: np.random.Generator, engine: Native | Pauli, n_samples: int = 3) -> bool:
    """Outputs and gradients of a program against those of another engine; False where it has too many words."""
    n_batched = int(rng.choice([0, program.n_angles, rng.integers(0, program.n_angles + 1)]))
    angles = random_angles(rng, program, n_samples, n_batched=n_batched)
    grad = torch.from_numpy(rng.normal(size=(n_samples, program.n_outputs)))
    words = PauliPropagation(max_words=200_000)
    try:
        got, own = words.forward(program, angles)
    except ArgumentError as error:
        assert "`max_words` must be above" in str(error)
        return False
    want, saved = engine.forward(program, angles)
    size = max([1.0, *(sum(abs(c) for c, _, _ in m.terms) for m in program.measurements if isinstance(m, Expval))])
    torch.testing.assert_close(got.values, want.values, rtol=0, atol=1e-12 * size)
    expected = engine.vjp(program, angles, None, saved, grad)
    gradients = words.vjp(program, angles, None, own, grad)
    torch.testing.assert_close(gradients.batched, expected.batched, rtol=0, atol=1e-11 * size)
    torch.testing.assert_close(gradients.shared, expected.shared, rtol=0, atol=1e-11 * size)
    return True


def of_seed(seed: int) -> bool:
    """A random program of one of three kinds: gates on neighbours up to 14 qubits, any gates up to 16, with noise."""
    rng = np.random.default_rng(seed)
    if seed % 3 == 0:
        return compare(local_program(rng, int(rng.integers(2, 15)), int(rng.integers(1, 5))), rng, WholeState())
    if seed % 3 == 1:
        program = random_program(rng, n_qubits=(2, 16), n_ops=(10, 40))
        return has_words(program) and compare(program, rng, WholeState(), n_samples=18)
    program = with_noise(rng, random_program(rng, n_qubits=(2, 5), n_ops=(5, 20)))
    return has_words(program) and compare(program, rng, Pauli())


def test_conformance():
    check_executor(PauliPropagation(), n_programs=12, accepts=has_words, batch_sizes=(1, 3, 17))


def test_words_equal_the_whole_state():
    assert sum(map(of_seed, range(24))) > 18


@pytest.mark.slow
def test_300_words_equal_the_whole_state():
    assert sum(map(of_seed, range(100, 440))) > 300


def test_values_computed_again(monkeypatch: pytest.MonkeyPatch):
    """Where they are too many to be kept for the way back; and on several threads."""
    monkeypatch.setattr(propagation, "SAVE_LIMIT", 0)
    monkeypatch.setattr(propagation, "THREADS_FROM", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    rng = np.random.default_rng(5)
    assert compare(local_program(rng, 8, 3), rng, WholeState(), n_samples=600)


def test_127_qubits_against_finite_differences():
    layer = chain(127, 2).double()
    layer.set_backend("pauli-propagation")
    assert layer.backend == "pauli-propagation" and layer.diff_method == "adjoint"
    x = torch.rand(2, 127, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(127, dtype=torch.float64)

    def loss() -> torch.Tensor:
        return (layer(x) @ weights).sum()

    loss().backward()
    for tensor, place in ((x, (1, 37)), (x, (0, 0)), (layer.weights, (0, 33, 0)), (layer.weights, (1, 126, 0))):
        losses = []
        with torch.no_grad():
            for step in (1e-5, -1e-5):
                tensor[place] += step
                losses.append(float(loss().detach()))
                tensor[place] -= step
        assert float(tensor.grad[place]) == pytest.approx((losses[0] - losses[1]) / 2e-5, abs=1e-8)


def test_words_and_windows_agree_on_70_qubits():
    """Where data re-enters, and masks take two integers."""
    rng = np.random.default_rng(3)
    program = local_program(rng, 70, 2)
    angles = random_angles(rng, program, 3, n_batched=program.n_angles)
    want = backend("windows")(program, angles).values
    torch.testing.assert_close(PauliPropagation()(program, angles).values, want, rtol=0, atol=1e-12)


def test_data_in_front_is_no_work_of_each_sample():
    """Behind it only the products of the data are left: 3 of a wire."""
    layer = chain(4, 5)
    words = PauliPropagation().words(layer.circuit.program, 4)
    assert len(words.graph.first) <= 3 + 9 + 27 + 81
    assert len(words.shared.first) > 1000


def test_too_many_words_are_refused():
    layer = qbp.QuantumLayer("strongly_entangling", n_qubits=30, n_layers=4, backend=PauliPropagation(max_words=5000))
    with pytest.raises(ArgumentError, match=r"`max_words` must be above 5,000 .* of its .* rotations"):
        layer(torch.zeros(1, 30))


def test_what_it_does_not_take():
    wires = tuple(range(7))
    program = Program(7, (Rotation("X", (0,), 0),), (Probs(wires),), 1)
    angles = Angles.of(torch.zeros(1, 1))
    with pytest.raises(ArgumentError, match=r"probabilities of 7 wires.*at most 6"):
        PauliPropagation()(program, angles)
    with pytest.raises(ArgumentError, match="starts from amplitudes"):
        PauliPropagation()(replace(program, amplitudes=True, measurements=(Probs((0,)),)), angles, torch.ones(1, 128))
    with pytest.raises(ArgumentError, match="`max_words` must be a positive integer"):
        PauliPropagation(max_words=0)
