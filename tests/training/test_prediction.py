"""From data to answers: what a model says of new rows is what was evaluated, whatever the rows are given as."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import qbp
from qbp.errors import ArgumentError, ConfigError
from qbp.runs import config as configs
from qbp.runs import run as runs


def table(n: int = 80) -> tuple[pd.DataFrame, pd.Series]:
    rng = np.random.default_rng(1)
    x = pd.DataFrame({"size": rng.normal(5, 2, n), "hue": rng.choice(["red", "blue", "lime"], n), "n": range(n)})
    return x, pd.Series(np.where(x["size"] + (x["hue"] == "red") > 5.3, "ripe", "raw"), name="state")


def test_a_table_is_learnt_and_asked_about() -> None:
    x, y = table()
    train, test = qbp.data.load((x, y), seed=3)
    model = qbp.hybrid(train.n_features, 2, n_qubits=3, n_layers=1, seed=0)
    qbp.fit(model, train, epochs=25, lr=0.05)
    predictions = qbp.predict(model, x)
    assert predictions.dtype.kind == "U" and (predictions == y).mean() > 0.9
    assert qbp.evaluate(model, (x, y))["accuracy"] == (predictions == y).mean()
    rows = qbp.predict(model, x.sample(frac=1, random_state=0)[["n", "hue", "size"]], probabilities=True)
    assert rows.shape == (80, 2) and rows.sum(1) == pytest.approx(1)
    assert (qbp.predict(model, test) == np.array(test.classes)[test.y.numpy()]).mean() == qbp.evaluate(model, test)[
        "accuracy"
    ]
    single = np.concatenate([qbp.predict(model, x[k : k + 1], probabilities=True) for k in range(5)])
    assert np.allclose(single, qbp.predict(model, x, probabilities=True)[:5], atol=1e-6)


def test_arrays_tensors_and_loaders_train_alike() -> None:
    x, y = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32), np.arange(64) % 2 * 5
    x += y[:, None]
    tensors = TensorDataset(torch.from_numpy(x), torch.from_numpy(y // 5))
    weights = []
    for data in ((x, y), tensors, (pd.DataFrame(x), pd.Series(y)), DataLoader(tensors, batch_size=16)):
        model = qbp.mlp(3, 4, 2, seed=0)
        history = qbp.fit(model, data, epochs=3, batch_size=16, shuffle=False)
        weights.append(torch.cat([p.detach().reshape(-1) for p in model.parameters()]))
        assert history.model is model
        labels = y // 5 if isinstance(data, TensorDataset | DataLoader) else y
        assert (qbp.predict(model, x) == labels).mean() == qbp.evaluate(model, (x, labels))["accuracy"]
    assert all(torch.equal(each, weights[0]) for each in weights[1:])


def test_a_loader_keeps_its_own_order_and_weights(tmp_path: Path) -> None:
    x, y = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2

    def loader(seed: int = 0) -> DataLoader[Any]:
        own = torch.Generator().manual_seed(seed)
        return DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True, drop_last=True, generator=own)

    sizes: list[int] = []
    model = qbp.mlp(3, 4, 2, seed=0)
    model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    straight = qbp.fit(model, loader(), epochs=4, run_dir=tmp_path / "straight")
    assert sizes == [16, 16] * 4
    assert straight.rows[0]["loss"] != straight.rows[1]["loss"]
    qbp.fit(qbp.mlp(3, 4, 2, seed=0), loader(), epochs=2, run_dir=tmp_path / "stopped")
    again = qbp.fit(qbp.mlp(3, 4, 2, seed=1), loader(7), epochs=4, run_dir=tmp_path / "stopped", resume=True)
    assert [r["loss"] for r in again.rows] == [r["loss"] for r in straight.rows]
    with pytest.raises(ArgumentError, match="`validation` must be data, not a share, where `train` is a DataLoader"):
        qbp.fit(model, loader(), epochs=1, validation=0.2)
    assert "val_loss" in qbp.fit(model, loader(), epochs=1, validation=(x, y)).last


def test_regressions_answer_in_their_units() -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (90, 2))
    y = 500 + 40 * x[:, 0] - 10 * x[:, 1]
    train, _ = qbp.data.load((x, y))
    model = qbp.mlp(2, 1, seed=0)
    qbp.fit(model, train, epochs=200, lr=0.05)
    assert np.abs(qbp.predict(model, x) - y).max() < 1
    assert qbp.predict(model, x).shape == (90,) and qbp.evaluate(model, (x, y))["r2"] > 0.99
    with pytest.raises(ArgumentError, match="`probabilities` must be False for a regression"):
        qbp.predict(model, x, probabilities=True)
    plain = qbp.mlp(2, 2, seed=0)
    qbp.fit(plain, (x, np.stack([x[:, 0], x @ [1.0, 2.0]], 1)), epochs=2)
    assert qbp.predict(plain, x).shape == (90, 2)


def test_one_logit_is_two_classes() -> None:
    x, y = table()
    model = nn.Sequential(qbp.mlp(5, 4, 1, seed=0))
    qbp.fit(model, qbp.data.load((x, y))[0], epochs=10, lr=0.05)
    shares = qbp.predict(model, x, probabilities=True)
    assert shares.shape == (80, 2) and ((shares[:, 1] > 0.5) == (qbp.predict(model, x) == "ripe")).all()


def test_images_are_arrays_of_more_axes() -> None:
    x = torch.rand(24, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    y = ["dark" if each.mean() < 0.5 else "bright" for each in x]
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2))
    qbp.fit(model, (x, y), epochs=2, validation=0.25)
    assert set(qbp.predict(model, x)) <= {"dark", "bright"} and qbp.evaluate(model, (x, y))["confusion"]


def test_training_goes_on_with_the_same_classes() -> None:
    x, y = table()
    model = qbp.mlp(5, 4, 2, seed=0)
    qbp.fit(model, qbp.data.load((x, y))[0], epochs=2)
    kept = qbp.data.preprocessing_of(model)
    qbp.fit(model, (x[:10].assign(n=5), ["ripe"] * 10), epochs=1)  # one class alone: it keeps its number
    assert qbp.data.preprocessing_of(model) is kept
    data = qbp.data.Dataset(torch.zeros(4, 5), torch.tensor([0, 1, 0, 1]))
    qbp.fit(model, data, epochs=1)
    assert qbp.data.preprocessing_of(model) is kept


def test_models_keep_it(tmp_path: Path) -> None:
    x, y = table()
    model = qbp.hybrid(5, 2, n_qubits=2, n_layers=1, seed=0)
    qbp.fit(model, qbp.data.load((x, y), features=None)[0], epochs=2)
    qbp.save_model(model, tmp_path / "model.safetensors")
    wanted = qbp.predict(model, x, probabilities=True)
    student = qbp.distill(model, qbp.mlp(5, 2, seed=0), qbp.data.load((x, y))[0], epochs=1, temperature=1.0)
    kept = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), qbp.load_model(tmp_path / "model.safetensors")]
    for each in (*kept, tmp_path / "model.safetensors"):
        assert np.array_equal(qbp.predict(each, x, probabilities=True), wanted)
    for each in (student, qbp.prune(model, by="exact"), qbp.on_backend(model, "dense")):
        assert set(qbp.predict(each, x)) <= {"ripe", "raw"}


@pytest.mark.parametrize(
    ("model", "x", "said"),
    [
        (qbp.mlp(2, 2), [[0.0, 1.0]], "`model` must have been trained by qbp.fit"),
        (3, [[0.0, 1.0]], "argument should be|expected str"),
        ("nowhere", [[0.0, 1.0]], "There is no nowhere"),
    ],
)
def test_what_cannot_answer_is_told(model: Any, x: Any, said: str) -> None:
    with pytest.raises((ArgumentError, ConfigError, TypeError), match=said):
        qbp.predict(model, x)


# ---- runs ------------------------------------------------------------------------------------------------------------

ELSEWHERE = """
import json, sys
import numpy as np, qbp
said = qbp.predict(sys.argv[1], sys.argv[2], probabilities=True)
print(json.dumps([said.tolist(), qbp.predict(sys.argv[1], sys.argv[2]).tolist()]))
"""


@pytest.mark.parametrize("copied", [False, True])
def test_a_run_answers_from_anywhere_bit_by_bit(copied: bool, tmp_path: Path) -> None:
    """In another folder, process and working directory, without the data."""
    x, y = table()
    home = tmp_path / "home"
    (home / "configs").mkdir(parents=True)
    x.assign(state=y).to_csv(home / "fruit.csv", index=False)
    text = "data: {name: ../fruit.csv, features: 3}\nmodel: {kind: hybrid, n_qubits: 2, n_layers: 1}\ntwin: false\n"
    (home / "configs" / "fruit.yaml").write_text(f"{text}train: {{epochs: 3}}\ncopy_data: {str(copied).lower()}\n")
    config = configs.load(home / "configs" / "fruit.yaml")
    result = runs.train(config, home / "runs" / "fruit")
    _, test = runs.load_data(config)
    _, model, (_, held_out) = runs.restore(home / "runs" / "fruit")
    assert held_out.hash() == test.hash()
    with torch.no_grad():
        wanted = model.eval()(test.x).double().softmax(1)
    raw = x.iloc[_rows_of(x, test)]
    (tmp_path / "new").mkdir()
    raw[["n", "hue", "size"]].to_csv(tmp_path / "new" / "rows.csv", index=False)
    if copied:
        (home / "fruit.csv").unlink()
        (home / "configs" / "fruit.yaml").unlink()
        assert runs.evaluate(home / "runs" / "fruit")["accuracy"] == result["models"]["hybrid"]["accuracy"]
    (home / "runs").rename(tmp_path / "moved")
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(tmp_path / "moved" / "fruit"), "rows.csv"],
        capture_output=True,
        text=True,
        cwd=tmp_path / "new",
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(qbp.__file__).parents[1])},
    )
    shares, names = json.loads(done.stdout)
    assert shares == wanted.tolist()
    assert (np.array(names) == np.array(test.classes)[test.y.numpy()]).mean() == result["models"]["hybrid"]["accuracy"]
    if not copied:
        with pytest.raises(ConfigError, match=r"needs its data, but there is no .*fruit\.csv"):
            runs.evaluate(tmp_path / "moved" / "fruit")


def _rows_of(x: pd.DataFrame, test: Any) -> list[int]:
    """Which rows of a table those of a data set are, in their order."""
    everything = test.preprocessing.transform(x).tolist()
    return [everything.index(row) for row in test.x.tolist()]


def test_data_that_changed_are_noticed(tmp_path: Path) -> None:
    x, y = table()
    x.assign(state=y).to_csv(tmp_path / "fruit.csv", index=False)
    (tmp_path / "fruit.yaml").write_text("data: {name: fruit.csv}\nmodel: {kind: mlp}\ntrain: {epochs: 1}\n")
    runs.train(configs.load(tmp_path / "fruit.yaml"), tmp_path / "run")
    assert (tmp_path / "run" / "config.yaml").read_text().count("../fruit.csv") == 1
    x.assign(state=y, n=0).to_csv(tmp_path / "fruit.csv", index=False)
    with pytest.raises(ConfigError, match=r"fruit\.csv is not what run .* was trained on"):
        runs.evaluate(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"fruit\.csv is not what run .* was trained on"):
        runs.train(configs.load(tmp_path / "fruit.yaml"), tmp_path / "run", resume=True)


def test_a_run_of_stages_names_its_models(tmp_path: Path) -> None:
    from qbp.runs.stages import run

    text = "data: {name: iris}\nmodel: {kind: hybrid, n_qubits: 2, n_layers: 1}\ntrain: {epochs: 1}\nprune: {by: l1}\n"
    (tmp_path / "small.yaml").write_text(text)
    run(configs.load(tmp_path / "small.yaml"), tmp_path / "small")
    with pytest.raises(ConfigError, match=r"give the file of one, as .*2-prune/model\.safetensors"):
        qbp.predict(tmp_path / "small", [[5.0, 3.0, 1.0, 0.2]])
    predictions = qbp.predict(tmp_path / "small" / "2-prune" / "model.safetensors", [[5.0, 3.0, 1.0, 0.2]])
    assert predictions[0] in ("setosa", "versicolor", "virginica")
