"""The dense executor is the truth for others: so it is held to dense matrices, to PennyLane, and to itself."""

from __future__ import annotations

import numpy as np
import pennylane as qml
import pytest
import torch

from qbp.circuit.angles import Angles
from qbp.circuit.program import Clifford, Expval, Program
from qbp.executors import Executor
from qbp.executors.dense import Dense
from qbp.testing import (
    NASTY,
    check_executor,
    random_amplitudes,
    random_angles,
    random_program,
    reference_outputs,
    reference_vjp,
)

dense = Dense()


def test_conforms():
    assert isinstance(dense, Executor)
    check_executor(dense, n_programs=150)


def pennylane(program: Program, full: np.ndarray, amplitudes: np.ndarray | None) -> np.ndarray:
    """Outputs of a program on PennyLane's default.qubit, sample by sample, gate by gate."""

    @qml.qnode(qml.device("default.qubit", wires=program.n_qubits))
    def circuit(angles, start):
        if start is not None:
            qml.StatePrep(start, wires=range(program.n_qubits))
        for op in program.ops:
            if isinstance(op, Clifford):
                kind = op.name.removeprefix("Adjoint(").removesuffix(")")
                gate = getattr(qml, kind)(wires=op.wires)
                if op.name != kind:
                    qml.adjoint(gate)
            else:
                t = op.offset if op.angle is None else op.scale * angles[op.angle] + op.offset
                qml.PauliRot(t, op.pauli, wires=op.wires)
        results = []
        for m in program.measurements:
            if isinstance(m, Expval):
                words = [
                    qml.prod(*(getattr(qml, "Pauli" + letter)(w) for letter, w in zip(word, wires, strict=True)))
                    if word
                    else qml.Identity(0)
                    for _, word, wires in m.terms
                ]
                results.append(qml.expval(qml.dot([c for c, _, _ in m.terms], words)))
            else:
                results.append(qml.probs(wires=m.wires))
        return results

    starts = [None] * len(full) if amplitudes is None else amplitudes
    return np.array([np.hstack(circuit(a, s)) for a, s in zip(full, starts, strict=True)])


@pytest.mark.parametrize("seed", range(12))
def test_agrees_with_pennylane(seed: int):
    rng = np.random.default_rng(seed)
    program = random_program(rng, amplitudes=seed % 3 == 0)
    angles = random_angles(rng, program, 2, n_batched=program.n_angles // 2)
    amplitudes = random_amplitudes(rng, program, 2)
    want = pennylane(program, angles.full().numpy(), None if amplitudes is None else amplitudes.numpy())
    np.testing.assert_allclose(dense(program, angles, amplitudes).values.numpy(), want, atol=1e-10)


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize("real", [True, False])
def test_gradients_by_torch(name: str, real: bool, rng: np.random.Generator):
    program = NASTY[name]
    angles = random_angles(rng, program, 3, n_batched=program.n_angles // 2)
    amplitudes = random_amplitudes(rng, program, 3, dtype=torch.float64 if real else torch.complex128)
    leaves = [t.requires_grad_() for t in (angles.batched, angles.shared, amplitudes) if t is not None]
    outputs = dense(program, angles, amplitudes).values
    if not outputs.requires_grad:
        assert program.n_angles == 0
        return
    grad = torch.randn(outputs.shape, dtype=torch.float64)
    got = torch.autograd.grad((outputs * grad).sum(), leaves, allow_unused=True, materialize_grads=True)
    want = reference_vjp(program, angles, grad, None if amplitudes is None else amplitudes.detach())
    n_batched = angles.batched.shape[1]
    np.testing.assert_allclose(got[0], want.angles[:, :n_batched], atol=1e-10)
    np.testing.assert_allclose(got[1], want.angles[:, n_batched:].sum(0), atol=1e-10)
    if amplitudes is not None:
        np.testing.assert_allclose(got[2], want.amplitudes, atol=1e-10)


@pytest.mark.parametrize("name", ["controlled rotations", "asymmetric", "one angle, unequal scales", "amplitudes"])
def test_second_derivatives(name: str, rng: np.random.Generator):
    program = NASTY[name]
    angles = random_angles(rng, program, 2, n_batched=1)
    amplitudes = random_amplitudes(rng, program, 2)
    inputs = [t.requires_grad_() for t in (angles.batched, angles.shared, amplitudes) if t is not None]
    inputs = [t for t in inputs if t.numel()]

    def run(batched, *rest):
        shared = rest[0] if angles.shared.numel() else angles.shared
        return dense(program, Angles(batched, shared), rest[-1] if amplitudes is not None else None).values

    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


def test_reference_gradients_are_central_differences(rng: np.random.Generator):
    """The reference's own gradients, by a third route."""
    for _ in range(15):
        program = random_program(rng, n_qubits=(1, 3), n_angles=(1, 6))
        full = random_angles(rng, program, 2, n_batched=program.n_angles).batched.numpy()
        grad = rng.normal(size=(2, program.n_outputs))
        want, h = np.zeros_like(full), 1e-5
        for k in range(program.n_angles):
            step = h * np.eye(program.n_angles)[k]
            up, down = reference_outputs(program, full + step), reference_outputs(program, full - step)
            want[:, k] = ((up - down) / (2 * h) * grad).sum(1)
        np.testing.assert_allclose(reference_vjp(program, full, grad).angles, want, atol=1e-7)


def test_state_is_normalised_and_batches_may_be_empty(rng: np.random.Generator):
    for program in NASTY.values():
        if not program.amplitudes:
            angles = random_angles(rng, program, 4, n_batched=program.n_angles)
            norms = dense.state(program, angles).abs().square().sum(1)
            torch.testing.assert_close(norms, torch.ones(4, dtype=torch.float64))
            assert dense(program, Angles(angles.batched[:0], angles.shared)).values.shape == (0, program.n_outputs)
