"""`qbp.compare`: what it writes can be read again, whole or half finished."""

from __future__ import annotations

import json

import numpy as np
import pytest

from qbp.compare import COLUMNS, Comparison, cell_path, load_comparison, save_tables
from qbp.errors import ArgumentError, ConfigError


def row(**values: object) -> dict[str, object]:
    empty = {str: "", int: 0, float: 0.5, bool: True}
    return {name: empty[kind] for name, kind in COLUMNS.items()} | values


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "comparison.yaml").write_text("name: small\nseeds: [0, 1]\n")
    for seed in (1, 0):
        found = row(dataset="moons", model="hybrid/frozen", seed=seed, n_train=90, log_loss=None)
        cell = {"row": found, "curve": [{"epoch": 1, "loss": 0.7}, {"epoch": 2, "loss": 0.6}]}
        path = tmp_path / cell_path("moons", "hybrid/frozen", seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(cell))
        np.savez(path.with_suffix(".npz"), y=np.array([0, 1]), predicted=np.array([seed, 1]))
    return tmp_path


def test_a_half_finished_comparison_loads(directory):
    found = load_comparison(directory)
    assert found.config == {"name": "small", "seeds": [0, 1]} and found.verdicts == ()
    assert found.column("seed") == [0, 1] and found.column("accuracy", seed=1) == [0.5]
    assert [(c["seed"], c["epoch"]) for c in found.curves] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert found.predictions("moons", "hybrid/frozen", 1)["predicted"].tolist() == [1, 1]
    with pytest.raises(ArgumentError, match="no cell"):
        found.predictions("moons", "hybrid", 1)


def test_tables(directory):
    import pandas
    from pyarrow import parquet

    found = load_comparison(directory)
    full = Comparison(found.rows, ({"verdict": "TIES"},), {"n": 3}, ({"n_needed": 32},), config=found.config)
    save_tables(full, directory)
    again = load_comparison(directory)
    assert (again.rows, again.verdicts, again.ranks) == (full.rows, full.verdicts, full.ranks)
    assert again.sample_complexity == full.sample_complexity
    csv = pandas.read_csv(directory / "rows.csv")
    assert list(csv.columns) == list(COLUMNS) and csv["log_loss"].isna().all()
    assert parquet.read_table(directory / "rows.parquet").to_pylist() == list(found.rows)


def test_damaged(tmp_path, directory):
    with pytest.raises(ConfigError, match=r"no comparison\.yaml"):
        load_comparison(tmp_path / "nowhere")
    (directory / "verdicts.json").write_text("{")
    with pytest.raises(ConfigError, match="Cannot read"):
        load_comparison(directory)
