"""Every rule of `diff_method` against what its paper promises: the mean of many draws, over all components at once."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

import qbp
from qbp.circuit.angles import Angles
from qbp.circuit.program import Clifford, Expval, Program, Rotation
from qbp.executors.dense import Dense
from qbp.executors.sampled import Sampled
from qbp.gradients.autograd import DIFF_METHODS
from qbp.gradients.evaluations import Needs
from qbp.gradients.rules import RULES, finite_diff, parameter_shift, spsa, spsa_step, vjp
from qbp.gradients.stateful import GCANS, STATEFUL, GradientPruning, GuidedSPSA

SHOTS = 40
OPS = (
    *(Rotation(word, wires, k) for k, (word, wires) in enumerate([("Y", (0,)), ("X", (1,)), ("ZY", (0, 1))])),
    Clifford("CNOT", (0, 1)),
    *(Rotation(word, wires, 3 + k) for k, (word, wires) in enumerate([("Z", (1,)), ("X", (0,)), ("XX", (0, 1))])),
)
PROGRAM = Program(2, OPS, (Expval.word("Z", 0), Expval(((3.0, "Z", (0,)), (2.0, "X", (1,))))), 6)
NEEDS = Needs((True,) * 6)


def rows(n):
    """The same sample n times, so that one call of a rule is n draws."""
    full = torch.tensor([[0.4, 1.9, -0.8, 0.3, 1.1, 2.2]], dtype=torch.float64).repeat(n, 1)
    return Angles.of(full), torch.tensor([[0.7, -1.1]], dtype=torch.float64).repeat(n, 1)


def exact(angles, grad):
    full = angles.full().clone().requires_grad_()
    return torch.autograd.grad(Dense()(PROGRAM, Angles.of(full)).values, full, grad)[0]


def p_of(draws, want):
    """Hotelling's test that draws (n, K) have the mean `want`: chi-square over all components that vary."""
    varies = draws.std(0) > 1e-9
    torch.testing.assert_close(draws.mean(0)[~varies], want[~varies], rtol=0, atol=1e-9)
    off = (draws.mean(0) - want)[varies]
    covariance = torch.cov(draws[:, varies].T).reshape(len(off), len(off)) / len(draws)
    return stats.chi2.sf(float(off @ torch.linalg.pinv(covariance, hermitian=True) @ off), len(off))


def sampled(seed, shots=SHOTS):
    executor = Sampled(Dense(), shots, torch.Generator().manual_seed(seed))
    return lambda point: (executor if point.shots is None else executor.with_shots(point.shots))(PROGRAM, point.angles)


def dense(point):
    return Dense()(PROGRAM, point.angles)


def test_there_is_no_other_rule():
    assert {"best", "adjoint", "backprop", *RULES, *STATEFUL} == set(DIFF_METHODS)
    assert set(RULES) == {"parameter-shift", "spsa", "finite-diff"}
    assert set(STATEFUL) == {"gradient-pruning", "guided-spsa", "gcans"}


@pytest.mark.parametrize("method", ["adjoint", "backprop", "parameter-shift", "finite-diff"])
def test_exact_rules_are_exact(method: str):
    """The four have one answer, which second-order central differences of the outputs give too."""
    backend = "native" if method == "adjoint" else "dense"
    layer = qbp.QuantumLayer(
        "strongly_entangling", n_qubits=3, n_layers=2, backend=backend, diff_method=method, seed=0
    ).double()
    x = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3)
    layer(x).pow(2).sum().backward()
    gradient, flat = layer.weights.grad.flatten(), layer.weights.data.view(-1)
    with torch.no_grad():
        for k in range(0, len(flat), 4):
            value, sides = flat[k].item(), []
            for step in (1e-5, -1e-5):
                flat[k] = value + step
                sides.append(float(layer(x).pow(2).sum()))
            flat[k] = value
            assert gradient[k].item() == pytest.approx((sides[0] - sides[1]) / 2e-5, abs=1e-7)


@pytest.mark.parametrize("rule", [parameter_shift, finite_diff])
def test_exact_rules_run_two_executions_an_angle(rule):
    angles, grad = rows(3)
    plan = rule(PROGRAM, NEEDS, angles)
    assert sum(point.angles.n_samples for point in plan.points()) == 3 * 2 * 6
    torch.testing.assert_close(
        plan.combine(map(dense, plan.points()), grad).batched, exact(angles, grad), atol=1e-7, rtol=0
    )


def test_parameter_shift_with_shots_is_unbiased():
    angles, grad = rows(4000)
    draws = vjp(parameter_shift, sampled(1), PROGRAM, angles, None, grad, NEEDS).batched
    assert p_of(draws, exact(*rows(1))[0]) > 0.001
    assert p_of(1.1 * draws, exact(*rows(1))[0]) < 0.001, "ten percent would be seen"


def test_spsa_has_the_mean_that_it_says():
    """The gradient, each Fourier term of which is a little too small: from the expectation over all 64 directions."""
    angles, grad = rows(1)
    step, want = spsa_step(6), exact(angles, grad)[0]
    signs = torch.tensor([[1 - 2 * (i >> k & 1) for k in range(6)] for i in range(64)], dtype=torch.float64)
    sides = [Dense()(PROGRAM, Angles.of(angles.full() + s * step * signs)).values for s in (1, -1)]
    mean = (((sides[0] - sides[1]) * grad).sum(1, keepdim=True) / (2 * step) * signs).mean(0)
    assert float((mean - want).norm() / want.norm()) < 2 * (1 - math.cos(step) ** 5 * math.sin(step) / step) < 0.003
    many, grads = rows(20_000)
    plan = spsa(PROGRAM, NEEDS, many, generator=torch.Generator().manual_seed(2))
    assert sum(point.angles.n_samples for point in plan.points()) == 2 * 20_000
    draws = plan.combine(map(dense, plan.points()), grads).batched
    assert p_of(draws, mean) > 0.001 and p_of(draws + 0.05, mean) < 0.001
    noisy = vjp(spsa, sampled(3), PROGRAM, *rows(4000)[:1], None, rows(4000)[1], NEEDS).batched
    assert p_of(noisy, mean) > 0.001


@pytest.mark.parametrize("n_angles", [1, 12, 192, 3000])
def test_the_bias_of_spsa_does_not_grow_with_the_angles(n_angles: int):
    """Worst case: one Fourier term in which all angles take part, whose derivative's factor is known."""
    step = spsa_step(n_angles)
    assert 0.9987 < math.sin(step) / step * math.cos(step) ** (n_angles - 1) < 1
    step = spsa_step(n_angles, shots=100)
    assert 0.87 < math.sin(step) / step * math.cos(step) ** (n_angles - 1) < 0.96


def test_guided_spsa_is_the_published_estimate():
    """By hand for every draw: exact rows, and SPSA's rows of the Jacobian shortened, before dL/df."""
    rule, n = GuidedSPSA(ratio=0.5, damping=0.8, steps=2), 8
    angles = Angles.of(torch.randn(n, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    grad = torch.randn(n, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    plan = rule.plan(PROGRAM, NEEDS, angles, generator=torch.Generator().manual_seed(5))
    points = list(plan.points())
    k = rule.directions(6)
    assert sum(point.angles.n_samples for point in points) == n // 2 * (2 * 6 + 2 * k)
    got = plan.combine(map(dense, points), grad).batched
    jacobian = torch.stack([exact(angles, torch.eye(2, dtype=torch.float64)[[m]].repeat(n, 1)) for m in range(2)], 1)
    torch.testing.assert_close(got[:4], (grad.unsqueeze(2) * jacobian).sum(1)[:4])
    sizes = 0.8 * jacobian[:4].norm(dim=2).mean(0)  # of each output
    moves = (points[1].angles.full() - angles.full()[4:].repeat_interleave(2 * k, 0)).unflatten(0, (4, 2 * k))
    outputs, step = dense(points[1]).values.unflatten(0, (4, 2 * k)), spsa_step(6)
    for row in range(4):
        guess = torch.zeros(2, 6, dtype=torch.float64)
        for e in range(2 * k):
            guess += outputs[row, e].unsqueeze(1) * moves[row, e] / step / (2 * step * k)
        for m in range(2):
            guess[m] *= min(1.0, float(sizes[m] / guess[m].norm()))
        torch.testing.assert_close(got[4 + row], grad[4 + row] @ guess)


def test_guided_spsa_leaves_small_gradients_small():
    """Samples that the model fits already get no gradient from those that it does not."""
    angles, grad = rows(8)
    grad[4:] *= 1e-6
    plan = GuidedSPSA().plan(PROGRAM, NEEDS, angles, generator=torch.Generator().manual_seed(0))
    gradients = plan.combine(map(dense, plan.points()), grad).batched
    assert gradients[4:].norm() < 1e-5 * gradients[:4].norm()


def test_gradient_pruning_keeps_gradients_as_they_are_and_draws_by_magnitude():
    """Accumulated |g| are the chances; of 6 angles 1 is kept: counts of many windows, chi-square."""
    full, grad = rows(1)
    angles = Angles(full.batched[:, :0], full.batched[0])
    want, rule = exact(full, grad)[0], GradientPruning(ratio=5 / 6, accumulate=1, prune=1)
    generator, counts = torch.Generator().manual_seed(0), torch.zeros(6)
    for _ in range(600):
        for executions in (12, 2):
            plan = rule.plan(PROGRAM, NEEDS, angles, generator=generator)
            assert sum(point.angles.n_samples for point in plan.points()) == executions
            gradients = plan.combine(map(dense, plan.points()), grad).shared
            rule.end_step()
        kept = gradients != 0
        torch.testing.assert_close(gradients[kept], want[kept])
        counts += kept
    chances = want.abs() / want.abs().sum()
    assert stats.chisquare(counts.numpy(), (600 * chances).numpy(), sum_check=False).pvalue > 0.001
    assert stats.chisquare(counts.numpy()).pvalue < 0.001, "uniform draws would be seen"


def test_gcans_is_unbiased_and_knows_its_noise():
    """A weighted sum of words too, whose variance `1 - f^2` would overestimate."""
    angles, grad = rows(3000)
    rule = GCANS(lr=0.1, min_shots=SHOTS, max_shots=SHOTS, mu=0.0)
    plan = rule.plan(PROGRAM, NEEDS, angles)
    assert [point.shots for point in plan.points()] == [SHOTS]
    draws = plan.combine(map(sampled(4), plan.points()), grad).batched
    assert p_of(draws, exact(*rows(1))[0]) > 0.001
    only = rows(3000)[1] * torch.tensor([0.0, 1.0], dtype=torch.float64)  # outputs of one execution go together
    plan = rule.plan(PROGRAM, NEEDS, angles)
    draws = plan.combine(map(sampled(5), plan.points()), only).batched
    rule._clear(6)
    plan = rule.plan(PROGRAM, NEEDS, angles)
    plan.combine(map(sampled(6), plan.points()), only)
    torch.testing.assert_close(rule._variance / 3000, SHOTS * draws.var(0), rtol=0.1, atol=1e-9)
