"""Finite shots: unbiased, with the variance of their number, grouped as hardware groups them, and seeded."""

from __future__ import annotations

import math
from collections import Counter
from functools import reduce

import numpy as np
import pennylane as qml
import pytest
import torch
from scipy import stats

from qbp.circuit.angles import Angles
from qbp.circuit.program import Clifford, Expval, Probs, Program, Rotation
from qbp.errors import ArgumentError
from qbp.executors import backend, sampled
from qbp.executors.dense import Dense
from qbp.executors.native.sampling import draw
from qbp.executors.sampled import Sampled, measurement_groups
from qbp.gradients.rules import Needs, parameter_shift, vjp
from qbp.nn.layer import QuantumLayer
from qbp.testing import check_executor, random_angles, random_program

BELL = (Clifford("Hadamard", (0,)), Clifford("CNOT", (0, 1)))


def nothing(n=1):
    return Angles.of(torch.zeros(n, 0, dtype=torch.float64))


def test_draws_have_the_mean_and_covariance_of_a_multinomial():
    p = torch.tensor([[0.5, 0.2, 0.0, 0.3]], dtype=torch.float64)
    n, shots = 20000, 50
    counts = draw(p.expand(n, 4), shots, seed=1).double()
    assert (counts.sum(1) == shots).all() and (counts[:, 2] == 0).all()
    mean, covariance = shots * p[0], shots * (torch.diag(p[0]) - torch.outer(p[0], p[0]))
    assert ((counts.mean(0) - mean).abs() <= 5 * (covariance.diagonal() / n).sqrt() + 1e-12).all()
    torch.testing.assert_close(torch.cov(counts.T), covariance, rtol=0.05, atol=0.15)


def test_a_single_shot_and_a_certain_outcome():
    p = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0 - 1e-12, 0.0]])
    assert draw(p, 1, seed=3).tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert draw(p, 1000, seed=3).tolist() == [[0, 0, 1000], [1000, 0, 0], [0, 1000, 0]]


def test_rows_differ_and_seeds_repeat():
    p = torch.full((3, 16), 1 / 16)
    a, b = draw(p, 100, seed=5), draw(p, 100, seed=5)
    assert torch.equal(a, b)
    assert not torch.equal(a, draw(p, 100, seed=6)) and not torch.equal(a[0], a[1])
    assert torch.equal(draw(p[:1], 100, seed=5), a[:1]), "a row's draws do not depend on the batch"


def test_words_that_agree_on_their_wires_share_their_shots():
    words = [Expval.word("Z", 0), Expval.word("ZZ", 0, 1), Expval.word("X", 1), Expval.word("Y", 0), Probs((1, 0))]
    groups = measurement_groups(Program(2, BELL, tuple(words), 0))
    assert [sorted(m for m, _, _ in g.words) for g in groups] == [[0, 1], [2, 3]]
    assert [[m for m, _ in g.probs] for g in groups] == [[4], []]


def test_one_group_is_read_from_the_same_shots():
    """In a Bell state each wire is a coin, but the two always agree."""
    program = Program(2, BELL, (Expval.word("Z", 0), Expval.word("Z", 1), Expval.word("ZZ", 0, 1), Probs((0, 1))), 0)
    y = Sampled(Dense(), 100)(program, nothing(50)).values
    assert (y[:, 2] == 1).all() and torch.equal(y[:, 0], y[:, 1])
    assert (y[:, 0].abs() < 0.6).all() and y[:, 0].std() > 0.02
    torch.testing.assert_close(y[:, 3] - y[:, 6], y[:, 0])
    assert (y[:, 4:6] == 0).all()
    xx_yy = Program(2, BELL, (Expval.word("XX", 0, 1), Expval.word("YY", 0, 1)), 0)
    assert Sampled(Dense(), 100)(xx_yy, nothing()).values.tolist() == [[1.0, -1.0]]


def test_wide_groups_are_read_part_by_part(monkeypatch):
    """What shares wires stays together; the parts have the distribution that they have alone."""
    words = (Expval.word("Z", 0), Expval.word("ZZ", 0, 1), Expval.word("X", 3), Probs((2, 4)), Expval.word("Z", 4))
    program = Program(5, (*BELL, Clifford("Hadamard", (2,)), Clifford("CNOT", (2, 4))), words, 0)
    monkeypatch.setattr(sampled, "JOINT", 3)
    measurement_groups.cache_clear()
    (group,) = measurement_groups(program)
    assert [part.wires for part in group.parts] == [(0, 1), (2, 4), (3,)]
    y = Sampled(Dense(), 100)(program, nothing(2000))
    measurement_groups.cache_clear()
    assert (y.values[:, 1] == 1).all() and (y.values[:, 4:6] == 0).all()
    torch.testing.assert_close(y.values[:, 3] - y.values[:, 6], y.values[:, 7])  # the same shots
    assert y.values[:, [0, 2, 7]].std(0).sub(0.1).abs().max() < 0.01
    assert torch.corrcoef(y.values[:, [0, 2, 7]].T).triu(1).abs().max() < 0.1


def test_shots_of_more_wires_than_memory():
    layer, exact = (QuantumLayer("hardware_efficient", n_qubits=60, n_layers=2, seed=0, shots=n) for n in (1000, None))
    x = torch.rand(20, 60)
    with torch.no_grad():
        pulls = (layer(x) - exact(x)) / layer.last_stds
    assert 0.9 < pulls.std() < 1.1 and pulls.mean().abs() < 5 * pulls.numel() ** -0.5
    together = QuantumLayer("hardware_efficient", n_qubits=60, n_layers=1, observables=["Z" * 60], shots=10)
    with pytest.raises(ArgumentError, match="60 qubits take"):
        together(x)


@pytest.mark.parametrize("inner", ["native", "dense"])
def test_means_are_unbiased_with_the_right_spread(inner):
    ops = (Rotation("Y", (0,), 0), Rotation("X", (1,), None, offset=0.7), Rotation("XZ", (1, 0), None, offset=1.1))
    observables = (
        Expval.word("Z", 0),
        Expval.word("Y", 1),
        Expval(((0.5, "ZY", (0, 1)), (2.0, "", ()))),
        Probs((1,)),
    )
    program = Program(2, ops, observables, 1)
    n, shots = 4000, 64
    angles = Angles.of(torch.full((n, 1), 0.9, dtype=torch.float64))
    torch.manual_seed(0)
    y = backend(inner, shots=shots)(program, angles).values
    want = Dense()(program, Angles.of(angles.batched[:1])).values[0]
    variance = torch.stack(
        [1 - want[0] ** 2, 1 - want[1] ** 2, 0.25 - (want[2] - 2) ** 2, want[3] * want[4], want[3] * want[4]]
    )
    sigma = (variance / shots).sqrt()
    assert ((y.mean(0) - want).abs() < 5 * sigma / n**0.5).all()
    torch.testing.assert_close(y.std(0), sigma, rtol=0.06, atol=0)


def test_training_with_shots_uses_the_shift_rule_and_repeats_with_its_seed():
    def run(seed):
        layer = QuantumLayer("strongly_entangling", n_qubits=3, n_layers=1, shots=20, seed=seed)
        assert (layer.backend, layer.diff_method) == ("native", "parameter-shift")
        y = layer(torch.ones(4, 3))
        y.sum().backward()
        return torch.cat([y.detach().flatten(), layer.weights.grad.flatten()])

    assert torch.equal(run(1), run(1)) and not torch.equal(run(1), run(2))


def test_shots_must_be_a_positive_number():
    for shots in (0, -1, 1.5, True):
        with pytest.raises(ArgumentError, match="shots"):
            backend("native", shots=shots)


# ---- the draws ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shots", "p"), [(8, 0.3), (9, 0.7), (40, 0.2), (100, 0.5), (1000, 0.02), (10**6, 0.6)])
def test_two_outcomes_are_binomial(shots, p):
    """Chi-square against the exact distribution, in the regimes of all ways of drawing."""
    rows = torch.tensor([[p, 1 - p]], dtype=torch.float64).expand(100_000, 2)
    counts = draw(rows, shots, seed=11)[:, 0].numpy()
    low, high = stats.binom.ppf([1e-3, 1 - 1e-3], shots, p).astype(int)
    edges = np.unique(np.linspace(low, high + 1, 40).astype(int))
    inside = np.diff(stats.binom.cdf(edges - 1, shots, p))
    want = len(rows) * np.array([stats.binom.cdf(low - 1, shots, p), *inside, stats.binom.sf(edges[-1] - 1, shots, p)])
    got = [np.sum(counts < low), *np.histogram(counts, edges - 0.5)[0], np.sum(counts >= edges[-1])]
    kept = want > 5
    _, p_value = stats.chisquare(np.array(got)[kept], want[kept] * np.sum(np.array(got)[kept]) / want[kept].sum())
    assert p_value > 1e-4


@pytest.mark.parametrize(("n_outcomes", "shots"), [(1024, 300), (1024, 20_000), (5, 1000)])
def test_many_outcomes_have_their_frequencies(n_outcomes, shots):
    p = torch.rand(n_outcomes, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p[::3] = 0
    p /= p.sum()
    counts = draw(p.expand(2000, -1), shots, seed=3)
    assert (counts.sum(1) == shots).all() and not counts[:, ::3].any()
    total = counts.sum(0)[p > 0].numpy()
    assert stats.chisquare(total, 2000 * shots * p[p > 0].numpy()).pvalue > 1e-4
    variance = counts.double().var(0)[p > 0] / (shots * p * (1 - p))[p > 0]
    assert abs(variance.mean() - 1) < 0.02


def test_threads_and_parts_do_not_change_the_draws(monkeypatch):
    p = torch.rand(500, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p /= p.sum(1, keepdim=True)
    one = draw(p, 200, seed=4)
    assert torch.equal(torch.cat([draw(p[:123], 200, seed=4), draw(p[123:], 200, seed=4, first_row=123)]), one)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert torch.equal(draw(p, 200, seed=4), one)
    finally:
        torch.set_num_threads(before)
    program = Program(3, (Rotation("Y", (1,), 0),), (Expval.word("Z", 1), Probs((2, 1)), Expval.word("X", 0)), 1)
    whole = seeded(program, 40)
    monkeypatch.setattr(sampled, "MAX_NUMBERS", 8)
    assert torch.equal(seeded(program, 40), whole)


def seeded(program, shots, n=20):
    angles = Angles.of(torch.linspace(0, 3, n, dtype=torch.float64)[:, None])
    return backend("native", shots=shots, generator=torch.Generator().manual_seed(5))(program, angles).values


def test_what_is_not_a_number_stays_so():
    """And does not hang: a diverged model must be seen as such."""
    program = Program(2, (Rotation("Y", (0,), 0),), (Expval.word("Z", 0), Probs((1, 0))), 1)
    y = backend("native", shots=100)(program, Angles.of(torch.tensor([[0.3], [math.nan], [1.0]]))).values
    assert y[1].isnan().all() and y[[0, 2]].isfinite().all()


# ---- as hardware does it -----------------------------------------------------------------------------------------


class Counting:
    """An executor that notes how many circuits it ran of each program."""

    def __init__(self, executor):
        self.executor, self.name, self.exact, self.shots, self.circuits = executor, "counting", True, None, Counter()

    def __call__(self, program, angles, amplitudes=None):
        self.circuits[program] += angles.n_samples
        return self.executor(program, angles, amplitudes)


def ising(n):
    """A transverse field: two bases, however many wires."""
    terms = [(1.0, "ZZ", (w, (w + 1) % n)) for w in range(n)] + [(0.5, "X", (w,)) for w in range(n)]
    return Program(n, tuple(Rotation("Y", (w,), w) for w in range(n)), (Expval(tuple(terms)),), n)


def test_one_circuit_for_each_sample_and_group():
    counting = Counting(Dense())
    angles = Angles.of(torch.zeros(7, 5, dtype=torch.float64))
    Sampled(counting, 10)(ising(5), angles)
    assert list(counting.circuits.values()) == [7, 7]
    counting.circuits.clear()
    Sampled(counting, 10)(Program(5, ising(5).ops, (Probs((0, 1)), Expval.word("ZZ", 3, 4)), 5), angles)
    assert list(counting.circuits.values()) == [7], "probabilities and words of Z are one circuit"
    counting.circuits.clear()
    identity = Program(5, ising(5).ops, (Expval(((2.0, "", ()),)),), 5)
    assert (Sampled(counting, 10)(identity, angles).values == 2).all() and not counting.circuits


def test_the_shift_rule_runs_two_circuits_for_each_angle_and_group():
    counting = Counting(Dense())
    program, angles = ising(4), Angles.of(torch.rand(3, 4, dtype=torch.float64))
    executor = Sampled(counting, 10)

    def run(point):
        return executor(program, point.angles, point.amplitudes)

    grad = torch.ones(3, 1, dtype=torch.float64)
    vjp(parameter_shift, run, program, angles, None, grad, Needs((True, False, True, True)))
    assert list(counting.circuits.values()) == [3 * 2 * 3] * 2


@pytest.mark.parametrize(("n", "n_words"), [(3, 10), (6, 30), (6, 100), (8, 60)])
def test_as_few_groups_as_pennylane_finds(n, n_words):
    rng = np.random.default_rng(0)
    mine = theirs = 0
    for _ in range(5):
        words = []
        for _ in range(n_words):
            k = int(rng.integers(1, n + 1))
            words.append((1.0, "".join(rng.choice(list("XYZ"), k)), tuple(int(w) for w in rng.permutation(n)[:k])))
        mine += len(measurement_groups(Program(n, (), (Expval(tuple(words)),), 0)))
        observables = [qml.prod(*(getattr(qml, p)(w) for p, w in zip(word, wires))) for _, word, wires in words]  # noqa: B905
        theirs += len(qml.pauli.group_observables(observables, grouping_type="qwc"))
    assert mine <= 1.03 * theirs


# ---- unbiased, with the right variance ---------------------------------------------------------------------------


def exact_statistics(program, angles, shots):
    """Mean and variance of each output from dense matrices: of the sum of a group's words, one matrix O for each group
    and expectation value, the variance of one shot is <O^2> - <O>^2."""
    psi = Dense().state(program, angles)[0].numpy()
    mean = Dense()(program, angles).values[0].numpy()
    variance = np.zeros_like(mean)
    outputs = np.cumsum([0] + [1 if isinstance(m, Expval) else 2 ** len(m.wires) for m in program.measurements])
    for group in measurement_groups(program):
        wires = group.wires
        turned = Dense().state(group.program, angles)[0].numpy()
        for column in {m for m, _, _ in group.words}:
            matrix = np.zeros((len(psi), len(psi)))
            for m, c, at in group.words:
                if m == column:
                    on = [wires[k] for k in at]
                    factors = [np.diag([1, -1]) if w in on else np.eye(2) for w in range(program.n_qubits)]
                    matrix = matrix + c * reduce(np.kron, factors)
            once = (turned.conj() @ matrix @ turned).real
            variance[column] += ((turned.conj() @ matrix @ matrix @ turned).real - once**2) / shots
    for first, measurement in zip(outputs, program.measurements, strict=False):
        if isinstance(measurement, Probs):
            p = mean[first : first + 2 ** len(measurement.wires)]
            variance[first : first + len(p)] = p * (1 - p) / shots
    return mean, variance


@pytest.mark.parametrize("seed", range(12))
def test_outputs_of_random_programs_are_unbiased_with_the_right_variance(seed):
    rng = np.random.default_rng(seed)
    program = random_program(rng, n_qubits=(1, 4), n_ops=(5, 25))
    angles = random_angles(rng, program, 1, n_batched=program.n_angles)
    n, shots = 4000, int(rng.choice([5, 40, 500]))
    mean, variance = exact_statistics(program, angles, shots)
    executor = backend("native", shots=shots, generator=torch.Generator().manual_seed(seed))
    y = executor(program, Angles.of(angles.batched.expand(n, -1))).values.numpy()
    assert (np.abs(y.mean(0) - mean) <= 5 * np.sqrt(variance / n) + 1e-9).all()
    noisy = variance > 1e-9
    spread = np.sqrt((stats.kurtosis(y[:, noisy], axis=0, fisher=False) - 1) / n)  # of the estimated variance, relative
    assert (np.abs(y.var(0)[noisy] / variance[noisy] - 1) <= 5 * spread).all()
    assert (y.var(0)[~noisy] < 1e-9).all()


def test_gradients_by_the_shift_rule_are_unbiased_with_the_right_variance():
    """Each is half the difference of two independent expectation values."""
    ops = (Rotation("Y", (0,), 0), Clifford("CNOT", (0, 1)), Rotation("X", (1,), 1), Rotation("ZY", (0, 1), 2))
    program = Program(
        2,
        ops,
        (
            Expval.word("Z", 0),
            Expval(((0.5, "X", (1,)), (1.5, "ZZ", (0, 1)))),
        ),
        3,
    )
    angles = Angles.of(torch.tensor([[0.4, 1.9, -0.8]], dtype=torch.float64))
    grad = torch.tensor([[0.7, -1.1]], dtype=torch.float64)
    needs, n, shots = Needs((True, True, True)), 4000, 50
    want = (
        vjp(parameter_shift, lambda point: Dense()(program, point.angles), program, angles, None, grad, needs)
        .batched[0]
        .numpy()
    )
    executor = backend("native", shots=shots, generator=torch.Generator().manual_seed(0))
    many = Angles.of(angles.batched.expand(n, -1))
    grads = grad.expand(n, -1)
    gradients = vjp(
        parameter_shift, lambda point: executor(program, point.angles), program, many, None, grads, needs
    ).batched.numpy()
    variance = np.zeros(3)
    for k in range(3):
        for sign in (1, -1):
            shifted = angles.batched.clone()
            shifted[0, k] += sign * math.pi / 2
            variance[k] += loss_variance(program, Angles.of(shifted), grad[0].numpy(), shots) / 4
    assert (np.abs(gradients.mean(0) - want) <= 5 * np.sqrt(variance / n)).all()
    np.testing.assert_allclose(gradients.var(0), variance, rtol=0.12)


def loss_variance(program, angles, grad, shots):
    """Variance of ``sum(grad * outputs)``, whose outputs may be read from the same shots."""
    terms = tuple((c * g, word, w) for g, m in zip(grad, program.measurements, strict=True) for c, word, w in m.terms)
    return exact_statistics(Program(program.n_qubits, program.ops, (Expval(terms),), 3), angles, shots)[1][0]


def test_any_number_of_shots():
    """They cost what the outcomes cost."""
    p = torch.full((4, 16), 1 / 16, dtype=torch.float64)
    assert draw(p, 10**15, seed=0).sum(1).tolist() == [10**15] * 4


def test_conformance():
    check_executor(Sampled(Dense(), 200, torch.Generator().manual_seed(0)), n_programs=15, batch_sizes=(3,))
