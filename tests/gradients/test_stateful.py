"""Gradient rules with a memory: counted in executed circuits and shots, seeded, resumed, right where they are exact."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

import qbp
from qbp.circuit.angles import Angles
from qbp.circuit.program import Expval, Program, Rotation
from qbp.data import Dataset
from qbp.errors import ArgumentError, GradientError
from qbp.executors import Capabilities, Results
from qbp.executors.native import Native
from qbp.executors.sampled import Sampled
from qbp.gradients import stateful as onchip
from qbp.gradients.evaluations import Point
from qbp.gradients.rules import Needs, parameter_shift, vjp
from qbp.gradients.stateful import GCANS, STATEFUL, GradientPruning, GuidedSPSA

OBSERVABLES = ("YI", "XY")  # of Z on every wire, the last rotations about Z would have no gradient


class Spy:
    """Counts the parameter sets that are executed, and with how many shots."""

    name, one_job = "spy", False

    def __init__(self, shots: int | None = None) -> None:
        self.shots, self.calls = shots, []
        self.inside = Native() if shots is None else Sampled(Native(), shots)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(self.shots is None, self.shots, one_job=self.one_job, with_shots=True)

    def with_shots(self, shots: int) -> Spy:
        other = Spy(shots)
        other.calls = self.calls
        return other

    def __call__(self, program, angles, amplitudes=None):
        self.calls.append((angles.n_samples, self.shots))
        return self.inside(program, angles, amplitudes)

    def take(self) -> list[tuple[int, int | None]]:
        calls, self.calls[:] = list(self.calls), []
        return calls


def layer_of(rule, shots=None, seed=0, n_layers=2):
    spy = Spy(shots)
    layer = qbp.QuantumLayer(
        "strongly_entangling", n_qubits=2, n_layers=n_layers, backend=spy, diff_method=rule, seed=seed,
        observables=OBSERVABLES,
    )  # fmt: skip
    return layer, spy


def step(rule, run, *arguments):
    """The gradients of one step of a rule."""
    *given, generator = arguments if isinstance(arguments[-1], torch.Generator) else (*arguments, None)
    gradients = vjp(rule.plan, run, *given, generator=generator)
    rule.end_step()
    return gradients


def problem(n_layers=2, batch=5):
    """A circuit, its angles, a gradient, and the exact answer for each sample."""
    torch.manual_seed(1)
    layer = qbp.QuantumLayer(
        "strongly_entangling", n_qubits=2, n_layers=n_layers, seed=0, observables=OBSERVABLES
    ).double()
    circuit = layer.circuit
    x = torch.randn(batch, 2, dtype=torch.float64)
    angles = circuit.angle_map(x, layer.weights.detach().flatten())
    grad = torch.randn(batch, 2, dtype=torch.float64)
    needs = Needs((False,) * 2 + (True,) * (6 * n_layers))
    run = lambda point: Native()(circuit.program, point.angles, point.amplitudes)  # noqa: E731
    exact = torch.cat(
        [
            vjp(
                parameter_shift, run, circuit.program, Angles.of(angles.full()[b : b + 1]), None, grad[b : b + 1], needs
            ).batched
            for b in range(batch)
        ]
    )
    return run, circuit.program, angles, grad, needs, exact[:, 2:]


# ---- gradient pruning ------------------------------------------------------------------------------------------------


def test_pruned_angles_are_not_executed():
    layer, spy = layer_of(GradientPruning(ratio=0.5, accumulate=2, prune=3))
    exact, _ = layer_of("parameter-shift")
    x = torch.randn(7, 2)
    executed, zeros, shifts = [], [], []
    for _ in range(10):
        layer.zero_grad(), exact.zero_grad()
        layer(x).pow(2).sum().backward()
        exact(x).pow(2).sum().backward()
        executed.append(sum(n for n, _ in spy.take()))
        mine, theirs = layer.weights.grad.flatten(), exact.weights.grad.flatten()
        zeros.append(int((mine == 0).sum()))
        torch.testing.assert_close(mine[mine != 0], theirs[mine != 0], rtol=0, atol=1e-6)
        kept = mine != 0
        shifts.append(int(kept.sum()) - int(kept[5] and kept[6]))  # these two always move together
    assert executed == [7 * (1 + 2 * n) for n in shifts]
    assert [shifts[k] for k in (0, 1, 5, 6)] == 4 * [11] and max(shifts[2:5] + shifts[7:]) <= 6
    assert zeros == 2 * [0, 0, 6, 6, 6]


def test_the_published_circuits_of_a_training():
    """arXiv 2202.13239: 36 parameters, 500 images in batches of 25, 15 epochs, one step in three with all gradients."""
    steps, batch, weights, count = 15 * 20, 25, 36, 0
    ops = tuple(Rotation("XY"[k // 4 % 2], (k % 4,), k) for k in range(weights))  # no two of them move together
    program = Program(4, ops, tuple(Expval.word("Z", w) for w in range(4)), weights)
    needs = Needs((True,) * weights)

    def run(point):
        nonlocal count
        count += point.angles.n_samples
        return Results(torch.ones(point.angles.n_samples, 4))

    rule, angles = GradientPruning(), Angles(torch.zeros(batch, 0), torch.zeros(weights))
    for _ in range(steps):
        count += batch  # the forward pass
        step(rule, run, program, angles, None, torch.ones(batch, 4), needs)
    assert count == 367_500
    assert steps * batch * (1 + 2 * weights) == 547_500


def test_draws_follow_what_was_accumulated_in_the_window():
    """The released code forgets the magnitudes before it draws, so that its draws are uniform."""
    run, program, angles, grad, needs, exact = problem()
    chances = exact.sum(0).abs() / exact.sum(0).abs().sum()
    rule, generator = GradientPruning(ratio=11 / 12, accumulate=1, prune=1), torch.Generator().manual_seed(0)
    n, counts = 1500, torch.zeros(12)
    for _ in range(n):
        step(rule, run, program, angles, None, grad, needs, generator)
        g = step(rule, run, program, angles, None, grad, needs, generator)
        counts += g.shared != 0
    expected = n * chances
    assert ((counts - expected).abs() < 5 * expected.sqrt() + 3).all(), (counts, expected)
    assert (expected.max() - n / 12) > 5 * math.sqrt(n / 12), "uniform draws would be noticed"


def test_magnitudes_add_up_over_the_window_and_start_again():
    run, program, angles, grad, needs, exact = problem()
    rule = GradientPruning(accumulate=3, prune=2)
    for nth in range(1, 4):
        step(rule, run, program, angles, None, nth * grad, needs)
        torch.testing.assert_close(rule.magnitudes, exact.sum(0).abs() * nth * (nth + 1) / 2)
        assert not rule.skips
    step(rule, run, program, angles, None, grad, needs)
    assert rule.skips and rule.magnitudes.sum() > 0
    step(rule, run, program, angles, None, grad, needs)
    assert rule.skips and rule.magnitudes.sum() == 0


def test_controls_of_gradient_pruning():
    run, program, angles, grad, needs, exact = problem()
    top, generator = GradientPruning(by="top"), torch.Generator().manual_seed(0)
    largest = set(exact.sum(0).abs().argsort(descending=True)[:6].tolist())
    for _ in range(2):
        rule_steps = [step(top, run, program, angles, None, grad, needs) for _ in range(3)]
        assert all(set(g.shared.nonzero().flatten().tolist()) == largest for g in rule_steps[1:])
    random, counts = GradientPruning(by="random", prune=600), torch.zeros(12)
    for _ in range(601):
        counts += step(random, run, program, angles, None, grad, needs, generator).shared != 0
    assert ((counts - 301).abs() < 5 * math.sqrt(150)).all()


def test_angles_of_the_inputs_keep_their_gradient():
    layer, exact = layer_of(GradientPruning())[0], layer_of("parameter-shift")[0]
    x = torch.randn(3, 2, requires_grad=True)
    (wanted,) = torch.autograd.grad(exact(x).sum(), x)
    for _ in range(3):
        (g,) = torch.autograd.grad(layer(x).sum(), (x,))
        torch.testing.assert_close(g, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["gradient-pruning", "guided-spsa"])
def test_one_job_a_step_takes_the_same_steps(name: str) -> None:
    """An executor that wants all executions of a step in one call gets what others get in several."""
    model, other = (layer_of(name)[0] for _ in range(2))
    other.executor.one_job = True
    x = torch.randn(4, 2)
    for step in range(1, 5):
        other.executor.take()
        for layer in (model, other):
            layer.zero_grad()
            layer(x)  # the backward pass of this one never comes
            layer(x).pow(2).sum().backward()
        assert len(other.executor.take()) == 2
        assert other.rule.step == model.rule.step == (step % 3 if name == "gradient-pruning" else step)
        if name == "gradient-pruning":
            torch.testing.assert_close(other.rule.magnitudes, model.rule.magnitudes, rtol=1e-4, atol=1e-5)
        assert int((other.weights.grad == 0).sum()) == int((model.weights.grad == 0).sum())


def test_every_angle_without_a_gradient_is_no_reason_to_stop():
    run, program, angles, _, needs, _ = problem()
    rule = GradientPruning()
    for _ in range(3):
        g = step(rule, run, program, angles, None, torch.zeros(5, 2, dtype=torch.float64), needs)
    assert torch.equal(g.shared, torch.zeros(12))


@pytest.mark.parametrize("name", ["adam", "momentum", "adagrad"])
@pytest.mark.parametrize("mask", [True, False])
def test_momentum_leaves_pruned_weights_alone(name: str, mask: bool) -> None:
    layer, _ = layer_of(GradientPruning(mask=mask))
    optimizer = qbp.training.options.OPTIMIZERS[name](layer.parameters(), lr=0.1)
    onchip.prepare(layer, optimizer)
    x, moved = torch.randn(5, 2), []
    for _ in range(6):
        before = [layer.weights.detach().clone()]
        before += [t.clone() for t in optimizer.state.get(layer.weights, {}).values() if t.shape == layer.weights.shape]
        optimizer.zero_grad()
        layer(x).pow(2).sum().backward()
        optimizer.step()
        after = [layer.weights.detach()]
        after += [t for t in optimizer.state[layer.weights].values() if t.shape == layer.weights.shape]
        pruned = layer.weights.grad == 0
        moved.append([bool((a != b)[pruned].any()) for a, b in zip(after, before, strict=False)])
        assert (after[0] != before[0])[~pruned].all()
    assert int(pruned.sum()) == 6
    assert any(map(any, moved)) == (not mask and name != "adagrad"), "momentum moves weights without a gradient"


def test_fit_masks_too() -> None:
    model, data = nn.Sequential(layer_of(GradientPruning())[0]), Dataset(torch.randn(12, 2), torch.arange(12) % 2)
    weights = []
    qbp.fit(
        model,
        data,
        epochs=3,
        batch_size=12,
        lr=0.1,
        progress=lambda _: weights.append(model[0].weights.detach().clone()),
    )
    assert int((weights[1] == weights[0]).sum()) == 6 and int((weights[2] == weights[1]).sum()) == 6


# ---- Guided-SPSA -----------------------------------------------------------------------------------------------------


def test_guided_spsa_is_exact_for_its_part_and_no_larger_for_the_rest():
    run, program, angles, grad, needs, exact = problem(batch=6)
    rows = Angles.of(angles.full())
    rule, generator = GuidedSPSA(ratio=0.5, damping=0.7), torch.Generator().manual_seed(0)
    g = step(rule, run, program, rows, None, grad, needs, generator).batched[:, 2:]
    torch.testing.assert_close(g[:3], exact[:3], rtol=0, atol=1e-12)
    units = [torch.eye(2, dtype=torch.float64)[[m]].repeat(6, 1) for m in range(2)]
    sizes = torch.stack(
        [vjp(parameter_shift, run, program, rows, None, unit, needs).batched[:3].norm(dim=1).mean() for unit in units]
    )
    assert (g[3:].norm(dim=1) <= 0.7 * (grad[3:].abs() @ sizes) * (1 + 1e-9)).all()
    rule = GuidedSPSA(ratio=0.5, damping=1e6)  # nothing is shortened
    mean = torch.stack(
        [step(rule, run, program, rows, None, grad, needs, generator).batched[3:, 2:] for _ in range(300)]
    ).mean(0)
    assert (torch.cosine_similarity(mean, exact[3:]) > 0.97).all()
    shared = step(rule, run, program, angles, None, grad, needs, torch.Generator().manual_seed(3)).shared
    again = step(rule, run, program, rows, None, grad, needs, torch.Generator().manual_seed(3)).batched[:, 2:].sum(0)
    torch.testing.assert_close(shared, again)


def test_guided_spsa_with_all_samples_exact_is_the_shift_rule():
    run, program, angles, grad, needs, exact = problem()
    g = step(GuidedSPSA(ratio=1.0), run, program, angles, None, grad, needs)
    torch.testing.assert_close(g.shared, exact.sum(0), rtol=0, atol=1e-12)


def test_guided_spsa_counted():
    """tau B shift rules and (1 - tau) B times k directions, k from 0.1 P to P: 1.55 P B beside 2 P B on average."""
    layer, spy = layer_of(GuidedSPSA(steps=11), n_layers=5)
    executed = []
    for _ in range(11):
        layer(torch.randn(8, 2)).sum().backward()
        executed.append(sum(n for n, _ in spy.take()) - 8)
    p = 30  # in 26 groups that move together
    assert executed == [4 * 2 * 26 + 4 * 2 * round(p * (0.1 + 0.9 * t / 10)) for t in range(11)]
    assert (sum(executed) + 11 * 4 * 2 * 4) / (11 * 8 * 2 * p) == pytest.approx(0.775, abs=0.002)


def test_fit_says_how_many_steps_there_are():
    model, data = nn.Sequential(layer_of("guided-spsa")[0]), Dataset(torch.randn(12, 2), torch.arange(12) % 2)
    qbp.fit(model, data, epochs=4, batch_size=5)
    assert model[0].rule.step == model[0].rule.horizon == 12
    assert model[0].rule.directions(12) == 12
    qbp.fit(model, data, epochs=1, batch_size=5)
    assert model[0].rule.step == model[0].rule.horizon == 3


# ---- gCANS -----------------------------------------------------------------------------------------------------------


def test_gcans_has_the_variance_that_is_measured():
    """One output, so that no correlations are left out: many gradients with shots against the predicted variance."""
    program = qbp.trace("strongly_entangling", n_qubits=2, n_layers=1, observables="ZI").program
    full = torch.randn(3, program.n_angles, dtype=torch.float64)
    angles, grad = Angles(full[:, :0], full[0]), torch.randn(1, 1, dtype=torch.float64)
    angles = Angles(full[:1, :0], full[0])
    needs = Needs((True,) * program.n_angles)
    sampled = Sampled(Native(), 50, torch.Generator().manual_seed(0))

    def run(point):
        return sampled(program, point.angles)

    draws = torch.stack([vjp(parameter_shift, run, program, angles, None, grad, needs).shared for _ in range(3000)])
    rule = GCANS(mu=0.0)
    step(rule, lambda point: Native()(program, point.angles), program, angles, None, grad, needs)
    torch.testing.assert_close(50 * draws.var(0), rule.variance, rtol=0.15, atol=1e-9)


def test_gcans_allots_by_its_rule():
    run, program, angles, grad, needs, exact = problem(batch=1)
    rule = GCANS(lr=0.63, min_shots=2, max_shots=10**6, mu=0.9)
    asked = []

    def spied(point):
        asked.append((point.angles.n_samples, point.shots))
        return run(point)

    g = step(rule, spied, program, angles, None, grad, needs)
    torch.testing.assert_close(g.shared, exact.sum(0), rtol=0, atol=1e-12)
    assert asked == [(22, 2)]
    # by hand: variances at shifted angles, one output after the other
    variance = torch.zeros(12, dtype=torch.float64)
    for k in range(12):
        for shift in (math.pi / 2, -math.pi / 2):
            at = angles.full().clone()
            at[:, 2 + k] += shift
            f = run(Point(Angles.of(at))).values
            variance[k] += 0.25 * (grad**2 * (1 - f**2)).sum()
    pace = min(1.0, 0.63 * float(grad.abs().sum()))
    sigma, norm = variance.sqrt(), exact.sum(0).square().sum()
    ideal = 2 * pace * sigma * sigma.sum() / ((2 - pace) * norm)
    want = (2 ** ideal.clamp_min(2).log2().ceil()).long()
    assert torch.equal(rule.shots[2:], want) and len(want.unique()) > 1
    asked.clear()
    step(rule, spied, program, angles, None, grad, needs)
    want = torch.cat([want[:5], want[5:7].amax(0, keepdim=True), want[7:]])  # 5 and 6 always move together
    assert sorted(asked) == sorted((2 * int((want == s).sum()), s) for s in want.unique().tolist())


def test_gcans_takes_more_shots_when_the_gradient_is_small_and_never_too_many():
    run, program, angles, grad, needs, _ = problem()
    few, many, capped = GCANS(mu=0.0), GCANS(mu=0.0), GCANS(mu=0.0, max_shots=100)
    step(few, run, program, angles, None, grad, needs)
    cancels = torch.cat([grad, -grad + 1e-3])
    twice = Angles(angles.batched.repeat(2, 1), angles.shared)
    for rule in (many, capped):
        step(rule, run, program, twice, None, cancels, needs)
    assert many.shots[2:].sum() > 4 * few.shots[2:].sum()
    assert capped.shots.max() == 100


def test_gcans_of_a_layer_spends_shots_by_angle():
    layer, spy = layer_of(GCANS(lr=1.0, min_shots=2), shots=64)
    for _ in range(4):
        layer(torch.randn(5, 2)).pow(2).mean().backward()
    calls = spy.take()
    assert calls[0] == (5, 64), "the forward pass has the layer's shots"
    assert {shots for _, shots in calls} - {64, 2}
    assert sum(n for n, _ in calls) == 4 * 5 * (1 + 22)


# ---- names, copies, checkpoints --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STATEFUL)
def test_by_name_and_as_an_object(name: str) -> None:
    options = {"n_qubits": 2, "n_layers": 1, "shots": 20, "seed": 0}
    layer = qbp.QuantumLayer("strongly_entangling", diff_method=name, **options)
    assert layer.diff_method == layer.rule.name == name
    rule = STATEFUL[name]()
    one, two = (qbp.QuantumLayer("strongly_entangling", diff_method=rule, **options) for _ in range(2))
    one(torch.zeros(2, 2)).sum().backward()
    assert one.rule.step == 1 and two.rule.step == rule.step == 0
    assert layer.describe() == two.describe()
    assert qbp.QuantumLayer("strongly_entangling", diff_method="spsa", **options).rule is None
    assert name in qbp.gradients.autograd.DIFF_METHODS


def test_settings_are_part_of_what_a_layer_is() -> None:
    rules = [GradientPruning(), GradientPruning(0.3), GuidedSPSA(), GuidedSPSA(0.3), GuidedSPSA(steps=3)]
    said = [layer_of(rule)[0].describe() for rule in rules]
    assert len(set(said)) == len(said)


class Stop(Exception):
    pass


def stop_at(epoch: int):
    def progress(row: dict) -> None:
        if row["epoch"] == epoch:
            raise Stop

    return progress


@pytest.mark.parametrize("layer_seed", [None, 4])
@pytest.mark.parametrize("name", STATEFUL)
def test_a_killed_run_resumes_bit_equal(name: str, layer_seed: int | None, tmp_path: Path) -> None:
    def model() -> nn.Module:
        torch.manual_seed(0)
        return qbp.hybrid(3, 2, n_qubits=2, n_layers=1, diff_method=name, seed=layer_seed, shots=30)

    data = Dataset(torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2)
    options = {"epochs": 4, "lr": 0.05, "batch_size": 16, "seed": 1}  # 3 steps an epoch: kill within a window
    straight, resumed, other = model(), model(), model()
    qbp.fit(straight, data, **options)
    with pytest.raises(Stop):
        qbp.fit(model(), data, **options, run_dir=tmp_path, progress=stop_at(1))
    qbp.fit(resumed, data, **options, run_dir=tmp_path, resume=True)
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    qbp.fit(other, data, **options | {"epochs": 4, "seed": 2})
    assert not torch.equal(straight[2].weights, other[2].weights)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GradientPruning(1.0), "`ratio` must be at least 0 and below 1, but is 1.0"),
        (lambda: GradientPruning(prune=0), "`prune` must be a positive integer, but is 0"),
        (lambda: GradientPruning(by="size"), "`by` must be one of 'magnitude', 'random', 'top'"),
        (lambda: GuidedSPSA(0.0), "`ratio` must be above 0"),
        (lambda: GuidedSPSA(damping=math.nan), "`damping` must be positive"),
        (lambda: GCANS(min_shots=10, max_shots=5), "`min_shots` <= `max_shots`"),
        (lambda: layer_of(max), "must be a name or a rule of qbp.gradients.stateful .*, but is <built-in"),
        (lambda: layer_of("guided_spsa"), "`diff_method` must be one of .*'guided-spsa'"),
    ],
)
def test_what_does_not_fit_is_refused(make, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make()


def test_what_cannot_be_given_is_refused() -> None:
    with pytest.raises(GradientError, match="'gcans' allots shots: give `shots`"):
        qbp.QuantumLayer("strongly_entangling", n_qubits=2, n_layers=1, diff_method="gcans")
    layer = layer_of("gradient-pruning")[0]
    with pytest.raises(GradientError, match="'gradient-pruning' remembers steps: it has no second derivatives"):
        torch.autograd.grad(layer(torch.zeros(1, 2)).sum(), layer.weights, create_graph=True)
