"""Noise as data: Kraus operators, readout errors, files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import qbp
from qbp.circuit.channels import Channel
from qbp.circuit.program import Expval, Probs, Program
from qbp.circuit.readout import confused, confusion, read
from qbp.circuit.stored import from_data, to_data
from qbp.compression.simplify import reduced
from qbp.errors import CircuitError, ConfigError
from qbp.testing.noise import NOISY, random_channel


@pytest.mark.parametrize("n_wires", [1, 2])
def test_kraus_operators_make_the_channel(n_wires: int):
    rng = np.random.default_rng(n_wires)
    for _ in range(10):
        channel = random_channel(rng, tuple(range(n_wires)))
        kraus, size = channel.kraus(), 2**n_wires
        assert np.allclose(sum(k.conj().T @ k for k in kraus), np.eye(size))
        rho = rng.normal(size=(size, size)) + 1j * rng.normal(size=(size, size))
        words = [np.eye(2), np.array([[0, 1], [1, 0]]), np.array([[0, -1j], [1j, 0]]), np.diag([1, -1])]
        words = words if n_wires == 1 else [np.kron(a, b) for a in words for b in words]
        coefficients = channel.matrix() @ [np.trace(word @ rho) for word in words]
        after = sum(c * word for c, word in zip(coefficients, words, strict=True)) / size
        assert np.allclose(sum(k @ rho @ k.conj().T for k in kraus), after)


def test_what_is_no_channel_has_no_kraus_operators():
    transpose = Channel.of_matrix("transpose", (0,), np.diag([1.0, 1, -1, 1]))
    with pytest.raises(CircuitError, match="eigenvalue"):
        transpose.kraus()


def test_readout_errors():
    program = Program(2, (), (Expval.word("ZX", 0, 1), Probs((1, 0))), 0, readout=((1, 0.1, 0.3),))
    assert dict(((w, on), c) for c, w, on in read(program)[0].terms) == pytest.approx(
        {("ZX", (0, 1)): 0.6, ("Z", (0,)): 0.2}
    )
    p = np.random.default_rng(0).dirichlet(np.ones(4), 3)
    outputs = np.hstack([np.zeros((3, 1)), p])
    assert np.allclose(confused(program, outputs)[:, 1:], p @ confusion(program, (1, 0)).T)
    assert np.allclose(confusion(program, (1,)), [[0.9, 0.3], [0.1, 0.7]])
    with pytest.raises(CircuitError, match="probabilities"):
        replace(program, readout=((0, 1.2, 0.0),))
    with pytest.raises(CircuitError, match="different and below 2"):
        replace(program, readout=((2, 0.1, 0.0),))


def noisy_circuit():
    circuit = qbp.trace("basic_entangler", n_qubits=3, n_layers=1)
    ops = list(circuit.program.ops)
    ops[2:2] = [random_channel(np.random.default_rng(0), (2, 0)), random_channel(np.random.default_rng(1), (1,))]
    return replace(circuit, program=replace(circuit.program, ops=tuple(ops), readout=((0, 0.1, 0.2),)))


def test_noise_is_stored():
    circuit = noisy_circuit()
    data = to_data(circuit)
    assert from_data(data).program == circuit.program
    for item, wrong in (
        ("wires", [0, 0]),
        ("wires", [7, 1]),
        ("transfer", [[0, 0, 0.5]]),
        ("transfer", [[99, 0, 1.0]]),
    ):
        spoilt = [op | {item: wrong} if isinstance(op, dict) else op for op in data["ops"]]
        with pytest.raises((ConfigError, CircuitError, ValueError)):
            from_data(data | {"ops": spoilt})
    del data["readout"]  # as files were written before
    assert from_data(data).program == replace(circuit.program, readout=())


def test_nothing_is_commuted_through_noise():
    circuit = noisy_circuit()
    assert reduced(circuit).program == circuit.program


def test_noisy_programs_are_hashable():
    assert len({*NOISY.values()}) == len(NOISY)
