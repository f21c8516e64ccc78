"""Finite shots: unbiased, with the variance of their number, grouped as hardware groups them, and seeded."""

from __future__ import annotations

import pytest
import torch

from qbp.angles import Angles
from qbp.errors import ArgumentError
from qbp.executors import backend
from qbp.executors.dense import Dense
from qbp.executors.native.shots import draw
from qbp.executors.sampled import Sampled, measurement_groups
from qbp.layer import QuantumLayer
from qbp.program import Clifford, Expval, Probs, Program, Rotation

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
    assert [[m for m, _, _ in g.words] for g in groups] == [[0, 1], [2, 3]]
    assert [[m for m, _ in g.probs] for g in groups] == [[4], []]


def test_one_group_is_read_from_the_same_shots():
    """In a Bell state each wire is a coin, but the two always agree."""
    program = Program(2, BELL, (Expval.word("Z", 0), Expval.word("Z", 1), Expval.word("ZZ", 0, 1), Probs((0, 1))), 0)
    y = Sampled(Dense(), 100)(program, nothing(50))
    assert (y[:, 2] == 1).all() and torch.equal(y[:, 0], y[:, 1])
    assert (y[:, 0].abs() < 0.6).all() and y[:, 0].std() > 0.02
    torch.testing.assert_close(y[:, 3] - y[:, 6], y[:, 0])
    assert (y[:, 4:6] == 0).all()
    xx_yy = Program(2, BELL, (Expval.word("XX", 0, 1), Expval.word("YY", 0, 1)), 0)
    assert Sampled(Dense(), 100)(xx_yy, nothing()).tolist() == [[1.0, -1.0]]


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
    y = backend(inner, shots=shots)(program, angles)
    want = Dense()(program, Angles.of(angles.batched[:1]))[0]
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
