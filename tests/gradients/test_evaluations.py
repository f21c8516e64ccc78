"""Gradient rules in two steps: what runs when, which angles move together, and the errors of gradients."""

from __future__ import annotations

import copy
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch

import qbp
from qbp.circuit.angles import Angles
from qbp.circuit.program import Clifford, Expval, Program, Rotation
from qbp.errors import GradientError
from qbp.executors import Capabilities, Results, execute
from qbp.executors.dense import Dense
from qbp.gradients.evaluations import Needs
from qbp.gradients.rules import parameter_shift, vjp
from qbp.gradients.shifts import moving_together, shift_terms
from qbp.gradients.stateful import GCANS, GradientPruning, prepare
from qbp.testing import random_angles, random_program


class Torch:
    """An executor of one's own, made of torch's operations."""

    name, capabilities = "mine", Capabilities(differentiable=True)

    def __call__(self, program, angles, amplitudes=None):
        return Dense()(program, angles, amplitudes)


class Device:
    """Counts executions; with `noise` on every distinct row, and a known truncation."""

    name = "device"

    def __init__(self, one_job=True, noise=0.0, truncation=None, seed=0):
        self.calls, self.one_job, self.noise, self.truncation = [], one_job, noise, truncation
        self.generator = torch.Generator().manual_seed(seed)

    @property
    def capabilities(self):
        told = self.truncation is not None
        return Capabilities(exact=False, one_job=self.one_job, standard_errors=self.noise > 0, truncation=told)

    def __call__(self, program, angles, amplitudes=None):
        self.calls.append(angles.n_samples)
        values = Dense()(program, angles, amplitudes).values
        if not self.noise:
            told = None if self.truncation is None else torch.full_like(values, self.truncation)
            return Results(values, truncation=told)
        _, which = torch.unique(angles.full(), dim=0, return_inverse=True)
        errors = self.noise * torch.randn(int(which.max()) + 1, values.shape[1], generator=self.generator)
        return Results(values + errors.to(values)[which], torch.full_like(values, self.noise), sources=which)


def layer_on(device, name="basic_entangler", **options):
    return qbp.QuantumLayer(name, n_qubits=2, n_layers=1, backend=device, seed=0, **options).double()


X = torch.linspace(0.1, 0.9, 8, dtype=torch.float64).reshape(4, 2)


# ---- what runs when --------------------------------------------------------------------------------------------------


def test_shifted_circuits_run_when_a_backward_pass_is_to_come():
    layer = layer_on(device := Device())
    layer.eval()
    outputs = layer(X)
    assert device.calls == [4], "an evaluation outside no_grad"
    outputs.sum().backward()
    assert device.calls == [4, 4 * 4]
    layer.train()
    layer(X).sum().backward()
    assert device.calls[2:] == [4 * 5], "a training step is one job"
    with torch.no_grad():
        layer(X)
    layer.weights.requires_grad_(False)
    layer(X)
    assert device.calls[3:] == [4, 4], "no gradient, no shifts"
    lazy = layer_on(other := Device(one_job=False))
    lazy(X)
    assert other.calls == [4]
    lazy(X).sum().backward()
    assert other.calls == [4, 4, 16]


def test_one_job_and_two_have_one_gradient():
    for name in ("basic_entangler", "strongly_entangling"):
        grads = []
        for device in (Device(), Device(one_job=False)):
            layer, x = layer_on(device, name), X.clone().requires_grad_()
            layer(x).pow(2).sum().backward()
            grads.append(torch.cat([x.grad.flatten(), layer.weights.grad.flatten()]))
        exact, x = layer_on("dense", name), X.clone().requires_grad_()
        exact(x).pow(2).sum().backward()
        want = torch.cat([x.grad.flatten(), exact.weights.grad.flatten()])
        for gradient in grads:
            torch.testing.assert_close(gradient, want, rtol=0, atol=1e-12)


def test_an_executor_of_torch_has_backprop():
    layer, exact = layer_on(Torch()), layer_on("native")
    assert (layer.diff_method, layer.backend) == ("backprop", "mine")
    for each in (layer, exact):
        each(X).pow(2).sum().backward()
    torch.testing.assert_close(layer.weights.grad, exact.weights.grad)
    assert layer_on(Torch(), diff_method="parameter-shift").diff_method == "parameter-shift"
    with pytest.raises(GradientError, match="made of torch's operations"):
        layer_on(Device(), diff_method="backprop")
    copy.deepcopy(layer), pickle.dumps(layer)


def test_an_executor_may_say_no_more_than_whether_it_is_exact():
    class Plain:
        name, exact, shots = "plain", True, None

        def __call__(self, program, angles, amplitudes=None):
            return Dense()(program, angles, amplitudes).values

    layer = layer_on(Plain())
    assert layer.diff_method == "parameter-shift" and layer.last_stds is None
    torch.testing.assert_close(layer(X), layer_on("dense")(X))
    assert isinstance(execute(Plain(), layer.circuit.program, Angles.of(torch.zeros(1, 4))), Results)


# ---- angles that move together ---------------------------------------------------------------------------------------


def rotations(*words):
    ops = [op if isinstance(op, Clifford) else Rotation(op[0], op[1], k) for k, op in enumerate(words)]
    kept = sorted({op.angle for op in ops if isinstance(op, Rotation)})
    ops = [op if isinstance(op, Clifford) else Rotation(op.pauli, op.wires, kept.index(op.angle)) for op in ops]
    return Program(2, tuple(ops), (Expval.word("Z", 0), Expval.word("Y", 1)), len(kept))


CNOT = Clifford("CNOT", (0, 1))
TOGETHER = {
    "RX RX": (rotations(("X", (0,)), ("X", (0,))), 1),
    "RX RY RX": (rotations(("X", (0,)), ("Y", (0,)), ("X", (0,))), 3),
    "RX on other wires": (rotations(("X", (0,)), ("X", (1,))), 2),
    "RX, a rotation of the other wire, RX": (rotations(("X", (0,)), ("Y", (1,)), ("X", (0,))), 2),
    "RZ before and after its control": (rotations(("Z", (0,)), CNOT, ("Z", (0,))), 1),
    "RX before and after its control": (rotations(("X", (0,)), CNOT, ("X", (0,))), 2),
    "RX before, RXX after": (rotations(("X", (0,)), CNOT, ("XX", (0, 1))), 1),
    "RX H RZ": (rotations(("X", (0,)), Clifford("Hadamard", (0,)), ("Z", (0,))), 1),
    "RZZ, RX, RZZ": (rotations(("ZZ", (0, 1)), ("X", (0,)), ("ZZ", (0, 1))), 3),
    "RZZ, RXX, RZZ": (rotations(("ZZ", (0, 1)), ("XX", (0, 1)), ("ZZ", (0, 1))), 2),
    "three of one": (rotations(("Y", (0,)), ("Y", (0,)), ("Y", (0,))), 1),
}


@pytest.mark.parametrize("name", TOGETHER)
def test_angles_that_move_together(name: str):
    program, groups = TOGETHER[name]
    assert len(moving_together(program)) == groups
    assert len(shift_terms(program, (True,) * program.n_angles)) == 2 * groups


def test_circuits_depend_on_groups_by_their_sums_only():
    """Random programs of all gates: turning one angle forth and another of its group back changes nothing."""
    rng, n_pairs = np.random.default_rng(0), 0
    for _ in range(60):
        program = random_program(rng, n_qubits=(1, 3), n_ops=(8, 25), n_angles=(4, 12))
        angles = random_angles(rng, program, 2, n_batched=program.n_angles).batched
        before = Dense()(program, Angles.of(angles)).values
        groups = moving_together(program)
        turned = {op.angle for op in program.ops if isinstance(op, Rotation) and op.angle is not None and op.scale}
        assert sorted(k for group in groups for k, _ in group) == sorted(turned)
        for group in groups:
            for (a, unit), (b, other) in pairwise(group):
                moved = angles.clone()
                moved[:, a] += 0.7 / unit
                moved[:, b] -= 0.7 / other
                torch.testing.assert_close(Dense()(program, Angles.of(moved)).values, before, rtol=0, atol=1e-10)
                n_pairs += 1
    assert n_pairs > 20


def test_some_of_a_group():
    """Only those that are wanted, whichever they are; scales count."""
    ops = (Rotation("X", (0,), 0, 0.5), Rotation("X", (0,), 1, -2.0), Rotation("Y", (0,), 2), Rotation("X", (0,), 3))
    program = Program(1, ops, (Expval.word("Z", 0),), 4)
    full, grad = torch.rand(3, 4, dtype=torch.float64), torch.rand(3, 1, dtype=torch.float64)
    leaf = full.clone().requires_grad_()
    want = torch.autograd.grad(Dense()(program, Angles.of(leaf)).values, leaf, grad)[0]
    run = lambda point: Dense()(program, point.angles)  # noqa: E731
    for wanted, executions in ((0b1111, 6), (0b0011, 2), (0b0010, 2), (0b1001, 4), (0b0001, 2)):
        needs = Needs(tuple(bool(wanted >> k & 1) for k in range(4)))
        assert len(shift_terms(program, needs.angles)) == executions
        gradients = vjp(parameter_shift, run, program, Angles.of(full), None, grad, needs).batched
        torch.testing.assert_close(gradients, want * torch.tensor(needs.angles), rtol=0, atol=1e-12)


def test_the_published_step_takes_136_circuits():
    layer = qbp.QuantumLayer("basic_entangler", n_qubits=4, n_layers=2, backend=(device := Device()), seed=0)
    x = torch.rand(8, 4, requires_grad=True)
    layer(x).sum().backward()
    assert device.calls == [136]
    torch.testing.assert_close(x.grad.sum(0), layer.weights.grad[0])


# ---- errors of gradients ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one_job", [True, False])
@pytest.mark.parametrize("kind", ["equal", "pairs", "distinct"])
def test_error_bars_of_gradients_count_equal_rows(one_job: bool, kind: str):
    x = {"equal": X[[0, 0, 0, 0]], "pairs": X[[0, 1, 0, 1]], "distinct": X}[kind]
    layer = layer_on(Device(one_job, noise=0.05), "strongly_entangling")
    gradients = []
    for _ in range(400):
        layer.zero_grad()
        y = layer(x)
        (y * torch.tensor([1.0, 0.3], dtype=y.dtype)).sum().backward()
        gradients.append(layer.weights.grad.flatten().clone())
    told, spread = layer.last_grad_stds, torch.stack(gradients).std(0)
    assert layer.last_stds.shape == (4, 2)
    live = spread > 1e-12
    torch.testing.assert_close(spread[live], told[live], rtol=0.2, atol=1e-9)


def test_truncation_adds_up_and_no_batch_makes_it_smaller():
    layer = layer_on(Device(truncation=0.01))
    told = []
    for rows in (X, X.repeat(8, 1)):
        layer.zero_grad()
        layer(rows).mean(0).sum().backward()
        told.append(layer.last_grad_truncation)
        assert (layer.last_truncation == 0.01).all() and layer.last_stds is None and layer.last_grad_stds is None
    torch.testing.assert_close(*told)
    torch.testing.assert_close(told[0], torch.full_like(told[0], 2 * 2 * 0.5 * 0.01))  # two shifts, two outputs


# ---- steps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [True, False])
def test_a_layer_used_twice_takes_one_step(optimizer: bool):
    rule, exact = layer_on("dense", diff_method=GradientPruning(accumulate=1, prune=2)), layer_on("dense")
    sgd = torch.optim.SGD(rule.parameters(), lr=0.0)
    if optimizer:
        prepare(rule, sgd)
    zeros = []
    for _ in range(6):
        for layer in (rule, exact):
            layer.zero_grad()
            layer(layer(layer(X))).pow(2).sum().backward()
        assert layer.weights.shape == rule.weights.shape
        kept = rule.weights.grad != 0
        zeros.append(int((~kept).sum()))
        torch.testing.assert_close(rule.weights.grad[kept], exact.weights.grad[kept])
        sgd.step()
    assert zeros == [0, 1, 1, 0, 1, 1]


def test_with_an_optimiser_a_step_is_its_step():
    """Several backward passes, added up, are one."""
    layer = layer_on("dense", diff_method=GradientPruning(accumulate=1, prune=1))
    sgd = torch.optim.SGD(layer.parameters(), lr=0.1)
    prepare(layer, sgd)
    for n_zeros in (0, 1, 0, 1):
        layer.zero_grad()
        for part in X.split(2):
            layer(part).pow(2).sum().backward()
        assert int((layer.weights.grad == 0).sum()) == n_zeros
        sgd.step()
    del sgd
    copied = copy.deepcopy(layer)
    for n_zeros in (0, 1):
        copied.zero_grad()
        copied(X).pow(2).sum().backward()
        assert int((copied.weights.grad == 0).sum()) == n_zeros, "without one, a pass is"


def test_gcans_has_the_learning_rate_of_the_optimiser():
    data = qbp.data.load("xor")[0]
    for rule, wanted in ((GCANS(), 0.5), (GCANS(lr=0.2), 0.2)):
        model = torch.nn.Sequential(qbp.QuantumLayer("xor_2q", diff_method=rule, shots=20, seed=0))
        qbp.fit(model, data, epochs=1, lr=0.5, optimizer="sgd", loss="bce")
        assert model[0].rule.lr == wanted
    assert repr(GCANS()) == "GCANS(None, 16, 8192, 0.9)"
