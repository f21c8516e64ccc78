"""XOR, the example that the project starts from, with the defaults of `qbp.hybrid` and of the packaged config."""

from __future__ import annotations

import qbp
from qbp.runs import config
from qbp.runs import run as runs


def test_xor_is_solved_from_at_least_19_of_20_seeds():
    solved = 0
    for seed in range(20):
        chosen = config.load("xor", [f"seed={seed}", "twin=false"])
        train, test = runs.load_data(chosen)
        (model,) = runs.build(chosen, train).values()
        qbp.fit(model, train, chosen.train, seed=seed)
        solved += qbp.evaluate(model, test)["accuracy"] == 1
    assert solved >= 19


def test_the_default_hybrid_model_solves_it_too():
    train, test = qbp.data.load("xor")
    solved = 0
    for seed in range(20):
        model = qbp.hybrid(2, 2, seed=seed)
        qbp.fit(model, train, epochs=200, lr=0.05, seed=seed)
        solved += qbp.evaluate(model, test)["accuracy"] == 1
    assert solved >= 19
