"""Gradient rules against torch's own differentiation through the dense executor, and counted in circuits."""

from __future__ import annotations

import math

import pennylane as qml
import pytest
import torch

from qbp.circuit.angles import Angles
from qbp.circuit.gates import GATES
from qbp.circuit.program import Expval, Probs, Program, Rotation, gate_ops
from qbp.errors import GradientError
from qbp.executors.dense import Dense
from qbp.gradients.rules import RULES, Needs, finite_diff, frequencies, parameter_shift, shift_rule, spsa, vjp

PARAMETRISED = [gate for gate in GATES.values() if gate.n_params]


def program_of(gate) -> Program:
    """A circuit in which every parameter of the gate matters."""
    n = gate.n_wires
    ops = [op for w in range(n) for op in gate_ops(GATES["Rot"], (w,), [0.3 + w, 0.9 - w, 0.4])]
    ops += gate_ops(gate, tuple(range(n)), list(range(gate.n_params)))
    ops += [op for w in range(n) for op in gate_ops(GATES["Rot"], (w,), [1.1, 0.7 + w, 0.2])]
    words = [Expval.word(p, w) for w in range(n) for p in "XYZ"]
    return Program(n, tuple(ops), (*words, Probs(tuple(reversed(range(n))))), gate.n_params)


class Spy:
    """Counts what an executor is asked to do."""

    name, exact, shots = "spy", True, None

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, program, angles, amplitudes=None):
        self.calls.append(angles.n_samples)
        return Dense()(program, angles, amplitudes)


def run_of(program, executor=None):
    executor = executor or Dense()
    return lambda point: executor(program, point.angles, point.amplitudes)


def autograd(program, full, grad, amplitudes=None):
    full = full.clone().requires_grad_()
    wanted = [full]
    if amplitudes is not None:
        amplitudes = amplitudes.clone().requires_grad_()
        wanted.append(amplitudes)
    outputs = Dense()(program, Angles.of(full), amplitudes).values
    return torch.autograd.grad(outputs, wanted, grad)


@pytest.mark.parametrize("gate", PARAMETRISED, ids=lambda gate: gate.name)
def test_the_shift_rule_of_every_gate_is_exact_and_no_dearer_than_pennylanes(gate):
    program = program_of(gate)
    full = torch.randn(3, gate.n_params, dtype=torch.float64)
    grad = torch.randn(3, program.n_outputs, dtype=torch.float64)
    spy = Spy()
    needs = Needs((True,) * gate.n_params)
    g = vjp(parameter_shift, run_of(program, spy), program, Angles.of(full), None, grad, needs)
    torch.testing.assert_close(g.batched, autograd(program, full, grad)[0], rtol=0, atol=1e-12)
    assert len(spy.calls) == 1, "one call for the whole batch and all shifts"

    operation = getattr(qml, gate.name, None)
    if operation is not None:
        op = operation(*[0.1] * gate.n_params, wires=range(gate.n_wires))
        try:
            theirs = sum(2 * len(f) for f in op.parameter_frequencies)
        except qml.exceptions.ParameterFrequenciesUndefinedError:
            return
        assert spy.calls[0] <= 3 * theirs


def test_frequencies_of_sums_of_rotations():
    z, x = (lambda s: Rotation("Z", (0,), 0, s)), (lambda s: Rotation("X", (1,), 0, s))
    assert frequencies((z(1.0),)) == (1.0,)
    assert frequencies((z(-2.5),)) == (2.5,)
    assert frequencies((z(1.0), x(1.0))) == (1.0, 2.0)
    assert frequencies((z(0.5), x(0.2))) == pytest.approx((0.2, 0.3, 0.5, 0.7))
    words = tuple(Rotation(w, (0, 1), 0, s) for w, s in (("XX", 1.0), ("YY", 1.0), ("ZZ", 1.0)))
    assert frequencies(words) == (2.0,), "XX YY ZZ = -1 leaves the eigenvalues 1/2 and -3/2"
    with pytest.raises(GradientError, match="do not commute"):
        frequencies((z(1.0), Rotation("X", (0,), 0)))


def test_a_rule_for_uneven_frequencies_differentiates_them():
    rotations = (Rotation("Z", (0,), 0, 0.5), Rotation("X", (1,), 0, 0.2))
    for w in (0.2, 0.3, 0.5, 0.7):
        for phase in (0.1, 1.3):
            slope = sum(c * math.sin(w * (0.4 + s) + phase) for c, s in shift_rule(rotations))
            assert slope == pytest.approx(w * math.cos(w * 0.4 + phase), abs=1e-9)


def test_angles_that_nobody_wants_cost_nothing():
    program = program_of(GATES["Rot"])
    spy = Spy()
    full, grad = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, program.n_outputs, dtype=torch.float64)
    angles = Angles(full[:, :2], full[0, 2:])
    g = vjp(parameter_shift, run_of(program, spy), program, angles, None, grad, Needs((False, False, True)))
    assert spy.calls == [5 * 2]
    assert g.batched is None and g.shared.shape == (1,)
    vjp(parameter_shift, run_of(program, spy), program, angles, None, grad, Needs((False,) * 3))
    assert spy.calls == [5 * 2]


def test_shared_angles_get_the_sum_over_the_batch():
    program = program_of(GATES["Rot"])
    full, grad = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, program.n_outputs, dtype=torch.float64)
    full[:, 2] = full[0, 2]
    angles = Angles(full[:, :2], full[0, 2:])
    g = vjp(parameter_shift, run_of(program), program, angles, None, grad, Needs((True,) * 3))
    want = autograd(program, full, grad)[0]
    torch.testing.assert_close(g.batched, want[:, :2])
    torch.testing.assert_close(g.shared, want[:, 2:].sum(0))


@pytest.mark.parametrize("kind", [torch.float64, torch.complex128])
def test_amplitudes_get_exact_gradients_by_shifts(kind):
    base = program_of(GATES["IsingXY"])
    program = Program(base.n_qubits, base.ops, base.measurements, base.n_angles, amplitudes=True)
    full, grad = torch.randn(3, 1, dtype=torch.float64), torch.randn(3, program.n_outputs, dtype=torch.float64)
    amplitudes = torch.randn(3, 4, dtype=kind)
    needs = Needs((True,), amplitudes=True)
    g = vjp(parameter_shift, run_of(program), program, Angles.of(full), amplitudes, grad, needs)
    want_angles, want_amplitudes = autograd(program, full, grad, amplitudes)
    torch.testing.assert_close(g.batched, want_angles)
    torch.testing.assert_close(g.amplitudes, want_amplitudes)
    for rule in (spsa, finite_diff):
        with pytest.raises(GradientError, match="amplitudes"):
            vjp(rule, run_of(program), program, Angles.of(full), amplitudes, grad, needs)


def test_large_batches_are_run_in_parts_with_the_same_bits(monkeypatch):
    program = program_of(GATES["Rot"])
    full, grad = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, program.n_outputs, dtype=torch.float64)
    needs = Needs((True,) * 3)
    whole = vjp(parameter_shift, run_of(program), program, Angles.of(full), None, grad, needs)
    monkeypatch.setattr("qbp.gradients.evaluations.MAX_ELEMENTS", 4 * 3 * 2)
    spy = Spy()
    parts = vjp(parameter_shift, run_of(program, spy), program, Angles.of(full), None, grad, needs)
    assert spy.calls == [8, 8, 8]
    assert torch.equal(whole.batched, parts.batched)


def test_finite_differences_are_central_and_in_double():
    program = program_of(GATES["CRot"])
    full, grad = torch.randn(3, 3), torch.randn(3, program.n_outputs)
    needs = Needs((True,) * 3)
    g = vjp(finite_diff, run_of(program), program, Angles.of(full), None, grad, needs)
    assert g.batched.dtype == torch.float32
    want = autograd(program, full.double(), grad.double())[0]
    torch.testing.assert_close(g.batched.double(), want, rtol=0, atol=1e-6)


def test_spsa_is_unbiased_costs_two_circuits_a_sample_and_is_seeded():
    program = program_of(GATES["Rot"])
    full, grad = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, program.n_outputs, dtype=torch.float64)
    needs = Needs((True, False, True))
    spy = Spy()
    g = vjp(spsa, run_of(program, spy), program, Angles.of(full), None, grad, needs)
    assert spy.calls == [4]
    assert (g.batched[:, 1] == 0).all() and (g.batched[:, 0] != 0).all()

    n = 4000
    generator = torch.Generator().manual_seed(1)
    many = Angles.of(full.repeat(n, 1))
    draws = vjp(spsa, run_of(program), program, many, None, grad.repeat(n, 1), needs, generator=generator)
    draws = draws.batched.reshape(n, 2, 3)
    error = draws.std(0) / n**0.5
    want = autograd(program, full, grad)[0]
    assert ((draws.mean(0) - want)[:, [0, 2]].abs() < 5 * error[:, [0, 2]] + 0.003 * want[:, [0, 2]].abs()).all()

    again = [
        vjp(
            spsa,
            run_of(program),
            program,
            Angles.of(full),
            None,
            grad,
            needs,
            generator=torch.Generator().manual_seed(7),
        )
        for _ in range(2)
    ]
    assert torch.equal(again[0].batched, again[1].batched)


def test_the_rules_are_those_that_run_on_any_executor():
    assert set(RULES) == {"parameter-shift", "spsa", "finite-diff"}
