"""What is done to a table is fitted on the training part, kept as data, and done to new rows bit by bit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from threadpoolctl import threadpool_limits
from torch.utils.data import DataLoader, TensorDataset

from qbp.data import DATASETS, Dataset, Preprocessing, as_dataset, load
from qbp.data.files import read_inputs
from qbp.errors import ArgumentError, ConfigError
from qbp.storage.container import load_state, save_state


def frame(n: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": rng.integers(18, 80, n),
            "income": rng.normal(3e4, 9e3, n),
            "city": rng.choice(["Berlin", "Köln", "Ulm"], n),
            "sex": rng.choice(["f", "m"], n),
        }
    )


def labels(n: int = 60) -> pd.Series:
    return pd.Series(np.where(np.arange(n) % 3 == 0, "yes", "no"), name="bought")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": "angle"},
        {"scale": None},
        {"features": 3},
        {"features": 2, "scale": "angle"},
    ],
)
def test_rows_as_they_were_become_the_rows_of_the_model(options: dict[str, Any], tmp_path: Path) -> None:
    table, target = frame(), labels()
    train, test = load((table, target), **options)
    kept = train.preprocessing
    assert kept is not None and kept is test.preprocessing and kept.n_features == train.n_features
    save_state(tmp_path / "kept", {"it": kept.to_state()})
    again = Preprocessing.from_state(load_state(tmp_path / "kept")["it"])
    everything = as_dataset((table, target), again)
    rows = [torch.cat([train.x, test.x]), everything.x]
    assert sorted(rows[0].tolist()) == sorted(rows[1].tolist())  # bit by bit; the order is that of the split
    shuffled = table[["sex", "income", "city", "age"]].assign(extra=1.0)
    assert torch.equal(again.transform(shuffled), everything.x)
    assert torch.equal(again.transform(table.to_dict("list")), everything.x)
    assert torch.equal(again.transform(table.to_numpy(dtype=object)), everything.x)
    assert torch.equal(torch.cat([again.transform(table[k : k + 1]) for k in range(60)]), everything.x)


@pytest.mark.parametrize(
    "options", [{"features": 9, "reduce": "pool"}, {"features": 5}, {"features": 4, "scale": "angle"}]
)
def test_images_too(options: dict[str, Any]) -> None:
    train, test = load("digits", **options)
    raw = DATASETS["digits"]().x
    assert train.preprocessing is not None
    one = {tuple(row) for row in train.preprocessing.transform(raw).tolist()}
    assert {tuple(row) for row in [*train.x.tolist(), *test.x.tolist()]} == one
    assert torch.equal(train.preprocessing.transform(raw[7:8]), train.preprocessing.transform(raw)[7:8])


def test_statistics_are_of_the_training_part_alone() -> None:
    table = frame()
    train_rows = load((table.assign(age=np.arange(60.0)), labels()), scale=None)[0].x[:, 0].long().numpy()
    others = np.setdiff1d(np.arange(60), train_rows)
    wild = table.copy()
    wild.loc[others, "income"] = 1e9
    tame, spoilt = (load((each, labels()), features=3)[0].preprocessing for each in (table, wild))
    assert tame is not None and spoilt is not None
    assert torch.equal(tame.transform(table), spoilt.transform(table))


def test_targets_come_back_in_their_units() -> None:
    table = frame()
    values = 1000 + 3.5 * table["income"] + 0.25
    train, test = load((table, values))
    kept = train.preprocessing
    assert kept is not None and abs(float(train.y.mean())) < 1e-5
    assert np.allclose(kept.values(as_dataset((table, values), kept).y.double().numpy()), values, rtol=1e-12)
    several = np.stack([values, -values], axis=1)
    kept = load((table, several))[0].preprocessing
    assert kept is not None and kept.n_outputs == 2
    assert np.allclose(kept.values(as_dataset((table, several), kept).y.double().numpy()), several, rtol=1e-12)
    assert test.y.shape[1] == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"drop": ["age"]}, "lacks age"),
        ({"rename": {"income": "Income"}}, "lacks income; is it `Income`"),
        ({"city": "Paris"}, r"'city' must hold one of Berlin, Köln, Ulm.* row 1 holds 'Paris'"),
        ({"city": "ulm"}, "did you mean `Ulm`"),
        ({"city": None}, "'city' must have a value in each row, but 60 of 60 have none"),
        ({"age": np.nan}, "'age' must have a value in each row"),
        ({"age": "old"}, "'age' must hold numbers or words, but 60 of its 60 values are no numbers"),
        ({"income": np.inf}, "'income' must hold finite numbers"),
    ],
)
def test_what_a_model_has_not_seen_is_named(change: dict[str, Any], said: str) -> None:
    kept = load((frame(), labels()))[0].preprocessing
    table = frame()
    if "drop" in change:
        table = table.drop(columns=change["drop"])
    elif "rename" in change:
        table = table.rename(columns=change["rename"])
    else:
        table = table.assign(**change)
    assert kept is not None
    with pytest.raises(ArgumentError, match=said):
        kept.transform(table)
    with pytest.raises(ArgumentError, match=r"shape \(n, 4\), the columns age, income, city, sex"):
        kept.transform(np.zeros((3, 5)))
    with pytest.raises(ArgumentError, match=r"must hold one of no, yes.*row 2 holds 'Yes'; did you mean `yes`"):
        kept.labels(["yes", "Yes"])


# ---- files -----------------------------------------------------------------------------------------------------------

SHOP = "age;income;city;share;bought\n" + "".join(
    f"{20 + k};{1000 + k},5;{'Ulm' if k % 3 else 'Köln'};{k}%;{'yes' if k % 2 else 'no'}\n" for k in range(20)
)


@pytest.mark.parametrize(
    "text",
    [
        "age;income;city;share\n33;1010,5;Ulm;7%\n",
        "share;city;id;income;age\n7%;Ulm;17;1010,5;33\n",
        "age,income,city,share\n33,1010.5,Ulm,7%\n",
        "\ufeffage\tincome\tcity\tshare\tbought\n33\t1010.5\tUlm\t7%\t?\n",
    ],
)
def test_a_csv_is_read_as_the_one_before(text: str, tmp_path: Path) -> None:
    (tmp_path / "shop.csv").write_text(SHOP)
    (tmp_path / "new.csv").write_text(text)
    kept = load(tmp_path / "shop.csv")[0].preprocessing
    assert kept is not None
    rows = kept.transform(read_inputs(tmp_path / "new.csv", kept.columns))
    assert torch.equal(rows, kept.transform([[33, "1010,5", "Ulm", "7%"]]))
    assert torch.equal(rows, kept.transform({"age": [33], "income": [1010.5], "city": ["Ulm"], "share": ["7%"]}))


def test_commas_are_what_they_were(tmp_path: Path) -> None:
    rows = "".join(f"{k},{k % 10}{k % 7}5;{k % 2}\n" for k in range(1, 30))
    (tmp_path / "decimal.csv").write_text("a;y\n" + "0,5;1\n" + rows)
    (tmp_path / "thousands.csv").write_text("a;y\n" + "1,234.5;1\n" + rows)
    (tmp_path / "new.csv").write_text("a\n1,234\n")  # alone it could be either
    values = []
    for name in ("decimal.csv", "thousands.csv"):
        kept = load(tmp_path / name, scale=None)[0].preprocessing
        assert kept is not None
        values.append(kept.transform(read_inputs(tmp_path / "new.csv", kept.columns)).item())
    assert values == [pytest.approx(1.234), 1234.0]
    (tmp_path / "percent.csv").write_text("a\n12%\n")
    with pytest.raises(ArgumentError, match="'a' must be plain numbers, not in per cent"):
        kept.transform(read_inputs(tmp_path / "percent.csv", kept.columns))


def test_tables_without_names_are_read_by_order(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(20, 3)).round(3)
    target = np.arange(20) % 2
    text = "".join(f"{y},{','.join(map(str, row))}\n" for y, row in zip(target, rows, strict=True))
    (tmp_path / "train.csv").write_text(text)
    kept = load(tmp_path / "train.csv", target=0)[0].preprocessing
    assert kept is not None and [column.name for column in kept.columns] == ["x1", "x2", "x3"]
    expected = kept.transform(rows)
    (tmp_path / "new.csv").write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
    np.save(tmp_path / "new.npy", rows)
    np.savez(tmp_path / "new.npz", x=rows)
    for name in ("new.csv", "train.csv", "new.npy", "new.npz"):
        assert torch.equal(kept.transform(read_inputs(tmp_path / name, kept.columns)), expected), name


def test_damaged_states_are_refused() -> None:
    state = load("wine", features=3)[0].preprocessing.to_state()  # type: ignore[union-attr]
    infinite = {"inputs": [["a", [math.inf], False]]}  # which no integer is
    for change in ({"steps": [{"step": "Path"}]}, {"columns": ["a"]}, {"classes": 3}, {"kind": 1}, infinite):
        with pytest.raises(ConfigError, match="preprocessing of the model is damaged"):
            Preprocessing.from_state({**state, **change})


# ---- as_dataset ------------------------------------------------------------------------------------------------------


def test_every_kind_of_pair_is_the_same_data() -> None:
    x, y = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32), np.arange(30) % 3
    tensors = torch.from_numpy(x), torch.from_numpy(y)
    table = pd.DataFrame(x, columns=["a", "b", "c"])
    loader = DataLoader(TensorDataset(*tensors), batch_size=7, shuffle=True)
    pairs: list[Any] = [
        (x, y),
        tensors,
        (x, y.tolist()),
        (table, pd.Series(y)),
        (table, pd.Series(y).astype("category")),
    ]
    pairs += [TensorDataset(*tensors), loader, list(tensors), (x, y.astype(np.uint8))]
    wanted = Dataset(*tensors)
    assert {as_dataset(pair).hash() for pair in pairs} == {wanted.hash()}
    assert as_dataset((x, y[:, None])).hash() == wanted.hash()
    assert as_dataset((x.astype(np.float64), y)).x.dtype == torch.float64


@pytest.mark.parametrize(
    ("y", "classes", "back"),
    [
        ([3, 7, 3, 5], ("3", "5", "7"), [3, 7, 3, 5]),
        (["b", "a", "b", "c"], ("a", "b", "c"), ["b", "a", "b", "c"]),
        (["2", "10", "2", "2"], ("10", "2"), ["2", "10", "2", "2"]),
        ([True, False, True, True], ("0", "1"), [True, False, True, True]),
    ],
)
def test_labels_come_back_as_they_were(y: list[Any], classes: tuple[str, ...], back: list[Any]) -> None:
    for given in (y, np.array(y), pd.Series(y), np.array(y, dtype=object)):
        data = as_dataset((np.zeros((4, 1)), given))
        kept = data.preprocessing
        assert kept is not None
        assert tuple(kept.names(np.arange(len(classes))).tolist()) == tuple(dict.fromkeys(sorted(back, key=str)))
        assert kept.names(data.y.numpy()).tolist() == back and kept.labels(given).tolist() == data.y.tolist()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("iris", "`data` must be a qbp.data.Dataset, but is a str; or a pair"),
        ((np.zeros(3), np.zeros(3)), r"float64 of shape \(3,\): for one column"),
        ((np.zeros((3, 1)), np.zeros(2)), "one label or target for each of the 3 rows"),
        ((np.zeros((3, 1)), ["a", "a", "a"]), "'y' must have two classes or more, but is 'a' everywhere"),
        ((np.zeros((3, 1)), ["a", None, "b"]), "'y' must have a value in each row, but 1 of 3 have none"),
        ((np.full((3, 1), np.nan), [0, 1, 0]), "`x` must be finite"),
        (([[1.0], [1.0, 2.0]], [0, 1]), "its rows differ in length"),
        ((pd.DataFrame([[1.0, 2.0]], columns=["a", "a"]), [0]), "columns of different names"),
        ((pd.DataFrame({"a": pd.to_timedelta([0, 1], unit="h")}), [0, 1]), "'a' must hold .* but holds a timedelta"),
        ((pd.DataFrame({"a": [0j, 1j]}), [0, 1]), "'a' must hold numbers or words, but holds a complex"),
        ((np.ma.masked_array(np.eye(2), [[0, 0], [1, 0]]), [0, 1]), r"in 1 of 2 one is masked \(row 2 first\)"),
        ((pd.DataFrame({"a": [1.0, 2.0]}), np.ma.masked_array([0, 1], [0, 1])), "in 1 of 2 one is masked"),
        (({"a": np.ma.masked_array([1.0, 2.0], [1, 0])}, [0, 1]), "in 1 of 2 one is masked"),
        ((pd.DataFrame({"a": [1.0, 2.0]}), pd.Series([0, 1], [1, 0])), "in row 1 its index is 1, not 0"),
        ((np.zeros((3, 1)), [0, 1, 0], [1.0, -1.0, 1.0]), "`sample_weight` must be floating point of shape"),
        ((np.zeros((3, 1)), [0, 1, 0], [1.0, 1.0]), "`sample_weight` must be floating point of shape"),
    ],
)
def test_what_is_no_data_is_named(data: Any, said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        as_dataset(data)


def test_rows_of_another_index_belong_together_as_they_stand() -> None:
    x, y = pd.DataFrame({"a": [1.0, 2.0]}, index=[5, 6]), pd.Series([0, 1], index=[0, 1])
    assert as_dataset((x, y)).y.tolist() == [0, 1]
    assert as_dataset((np.ma.masked_array(np.eye(2)), y)).x.tolist() == [[1, 0], [0, 1]]


def test_sparse_matrices_are_refused() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(ArgumentError, match="`x` must be dense"):
        as_dataset((sparse.eye(3).tocsr(), [0, 1, 0]))


def test_components_do_not_depend_on_threads():
    """The processes of a comparison have one thread each, and must find the split that the first one froze."""
    hashes = []
    for n_threads in (1, 2):
        with threadpool_limits(n_threads, "blas"):
            hashes.append(load("mnist", classes=(3, 5), features=127, seed=2)[0].hash())
    assert hashes[0] == hashes[1]
