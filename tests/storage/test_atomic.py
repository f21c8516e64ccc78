"""Data of the user's own: every kind of file gives the same rows, and what is wrong in one is told."""

from __future__ import annotations

import numpy as np
import pytest

from qbp.data import load
from qbp.data.files import read, read_table
from qbp.errors import ArgumentError

ROWS = [("a", 1.5, "yes"), ("b", 2.0, "no"), ("c", -1.0, "yes"), ("a", 0.25, "no")] * 6


def test_csv_with_words():
    raw = read_table({"kind": [r[0] for r in ROWS], "size": [r[1] for r in ROWS], "answer": [r[2] for r in ROWS]})
    assert raw.feature_names == ("kind=a", "kind=b", "kind=c", "size") and raw.classes == ("no", "yes")
    assert raw.x[:2].tolist() == [[1, 0, 0, 1.5], [0, 1, 0, 2.0]] and raw.y[:3].tolist() == [1, 0, 1]


@pytest.fixture
def files(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)).round(3), np.arange(40) % 2
    table = np.column_stack([x, y])
    np.save(tmp_path / "t.npy", table)
    np.savez(tmp_path / "t.npz", x=x, y=y)
    np.savetxt(tmp_path / "bare.csv", table, delimiter=",")
    lines = ["u;v;w;label", *(";".join(map(str, row)) for row in table.tolist())]
    (tmp_path / "named.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    columns = {name: table[:, k].tolist() for k, name in enumerate(("u", "v", "w"))} | {"label": y.tolist()}
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    return tmp_path, x, y


@pytest.mark.parametrize("name", ["t.npy", "t.npz", "bare.csv", "named.csv", "t.parquet"])
def test_every_kind_of_file(files, name):
    folder, x, y = files
    raw = read(folder / name)
    assert np.array_equal(raw.x, x) and np.array_equal(raw.y, y) and raw.classes == ("0", "1")
    train, test = load(str(folder / name), test_size=0.5, seed=1)
    assert train.x.shape == (20, 3) and train.name == name.split(".")[0] and abs(float(train.x.mean())) < 1e-6
    assert test.recipe is not None and load(**test.recipe)[1].hash() == test.hash()


def test_target_and_regression(files):
    folder, x, _ = files
    for target in ("u", 0, -4):
        raw = read(folder / "named.csv", target)
        assert raw.classes == () and np.array_equal(raw.y[:, 0], x[:, 0]) and raw.feature_names == ("v", "w", "label")


def test_arrays_and_bunches():
    from sklearn.datasets import load_iris

    mine, _ = load(load_iris(), seed=2)
    ours, _ = load("iris", seed=2)
    assert mine.hash() == ours.hash() and mine.classes == ours.classes == ("setosa", "versicolor", "virginica")
    train, _ = load((np.eye(10), np.arange(10) % 2), test_size=0.2)
    assert train.n_classes == 2 and train.name == "data"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n,3\n", "Column 'a' must have a value in each row, but 1 of 2"),
        ("a,b\n1,2\n3\n", "row 2 has 1 columns"),
        ("a\n1\n", "two columns"),
        ("", "empty"),
    ],
)
def test_bad_tables(tmp_path, text, said):
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(ArgumentError, match=said):
        load(tmp_path / "bad.csv")


def test_refused(tmp_path, files):
    with pytest.raises(ArgumentError, match=r"there is no nowhere\.csv"):
        load("nowhere.csv")
    with pytest.raises(ArgumentError, match="one of u, v, w, label"):
        load(files[0] / "named.csv", target="z")
    with pytest.raises(ArgumentError, match="target"):
        load("iris", target="z")
    with pytest.raises(ArgumentError, match="at most 50"):
        read_table({"id": [f"row {k}" for k in range(60)], "y": [0.0, 1.0] * 30})
