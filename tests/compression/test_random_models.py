"""Random models with shared modules, skips, two heads, two quantum layers, BatchNorm and Dropout: what pruning promises
to leave as it is stays, and whatever comes out runs and trains."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import qbp
from qbp.comparison.controls import LAYER_CONTROLS, controls_of
from qbp.compression.groups import groups_of
from qbp.compression.scores import SCORES
from qbp.errors import ArgumentError
from qbp.testing import random_model

SEEDS = [pytest.param(seed, marks=[] if seed < 6 else pytest.mark.slow) for seed in range(60)]
X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
DATA = qbp.data.Dataset(X, torch.arange(12) % 2)


def check_runs(model: nn.Module) -> None:
    """In both modes, with gradients for all that trains."""
    assert model.eval()(X).shape == (12, 2)
    model.train()
    nn.functional.cross_entropy(model(X), DATA.y).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def n_ties(model: nn.Module) -> int:
    """How many registered parameters are another module's too."""
    every = [p for m in {id(m): m for m in model.modules()}.values() for p in m._parameters.values() if p is not None]
    return len(every) - len({id(p) for p in every})


@pytest.mark.parametrize("seed", SEEDS)
def test_exact_pruning_changes_no_output(seed: int) -> None:
    model = random_model(seed).double()
    with torch.no_grad():
        before = model(X.double())
        for data in (None, DATA):
            small = qbp.prune(model, data, by="exact")
            assert (small(X.double()) - before).abs().max() < 1e-8
            assert qbp.nn.n_parameters(small) <= qbp.nn.n_parameters(model) and n_ties(small) == n_ties(model)
            assert torch.equal(model(X.double()), before)  # which stays as it is
    check_runs(small.float())


@pytest.mark.parametrize("seed", SEEDS)
def test_pruning_by_every_score_gives_models_that_run(seed: int) -> None:
    model = random_model(seed)
    if not groups_of(model):
        with pytest.raises(ArgumentError, match="tied"):
            qbp.prune(model, DATA)
        return
    for by in SCORES:
        small = qbp.prune(model, DATA, amount=0.4, by=by, finetune={"epochs": 1} if by == "taylor" else None)
        assert qbp.nn.n_parameters(small) < qbp.nn.n_parameters(model) and n_ties(small) == n_ties(model)
        check_runs(small)


@pytest.mark.parametrize("seed", SEEDS)
def test_they_teach_and_learn(seed: int) -> None:
    student = qbp.distill(random_model(seed), random_model(seed + 1), DATA, epochs=1, logit_norm=True)
    check_runs(student)


@pytest.mark.parametrize("seed", SEEDS)
def test_controls_stand_in_every_place(seed: int) -> None:
    model = random_model(seed)
    for name, control in controls_of(model, 4, 2).items():
        check_runs(control)
        if name in LAYER_CONTROLS:
            left = [module for module in control.modules() if isinstance(module, qbp.QuantumLayer)]
            assert bool(left) == (name in ("frozen", "separable")), name
            assert not any(p.requires_grad for m in left for p in m.parameters()) or name != "frozen"


@pytest.mark.parametrize("seed", SEEDS)
def test_saved_models_are_the_same(seed: int, tmp_path: Path) -> None:
    model = random_model(seed)
    file = tmp_path / "model.safetensors"
    for each in (model, qbp.prune(model, DATA, by="exact"), qbp.distill(model, model, DATA, epochs=1, logit_norm=True)):
        qbp.save_model(each, file)
        loaded = qbp.load_model(file)
        assert torch.equal(loaded.eval()(X), each.eval()(X)) and n_ties(loaded) == n_ties(each)
        assert [name for name, _ in loaded.named_parameters()] == [name for name, _ in each.named_parameters()]
        assert loaded.state_dict().keys() == each.state_dict().keys()
        check_runs(loaded)
    small = qbp.prune(loaded.eval(), DATA, by="exact")  # what was read is a model like any other
    assert (small.eval()(X) - loaded(X)).abs().max() < 1e-4
