"""A run for each seed: each is what `qbp train` makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean, stdev

import pytest

from qbp.errors import ArgumentError, ConfigError
from qbp.runs import config as configs
from qbp.runs import run as runs
from qbp.runs.seeds import train_seeds


def test_seeds_are_runs(tmp_path: Path) -> None:
    table = "a,b,kind\n" + "".join(f"{k % 7},{k % 5},{'xy'[k % 7 > k % 5]}\n" for k in range(60))
    (tmp_path / "own.csv").write_text(table)
    (tmp_path / "own.yaml").write_text("data: {name: own.csv}\nmodel: {kind: mlp, hidden: [3]}\ntrain: {epochs: 4}\n")
    config = configs.load(tmp_path / "own.yaml")
    with pytest.raises(ArgumentError, match="`seeds`"):
        train_seeds(config, tmp_path / "seeds", [1, 1])
    with pytest.raises(ArgumentError, match="`executor`"):
        train_seeds(config, tmp_path / "seeds", 2, executor="threads")
    with pytest.raises(ConfigError, match="use `qbp run`"):
        train_seeds(configs.changed(config, {"prune": {}}), tmp_path / "seeds", 2)
    assert not (tmp_path / "seeds").exists()
    seen: list[tuple[int, int]] = []
    result = train_seeds(config, tmp_path / "seeds", [3, 5], progress=lambda done, total, _: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)] and result["seeds"] == [3, 5]
    for seed in (3, 5):
        alone = runs.train(config.model_copy(update={"seed": seed}), tmp_path / f"alone-{seed}")
        folder = tmp_path / "seeds" / f"seed-{seed}"
        pair = [path / "checkpoint.safetensors" for path in (folder, tmp_path / f"alone-{seed}")]
        assert pair[0].read_bytes() == pair[1].read_bytes()
        scores = alone["models"]["mlp"]
        assert runs.evaluate(folder)["accuracy"] == scores["accuracy"]  # its data are found from there
        assert scores["accuracy"] in result["models"]["mlp"]["accuracy"]["values"]
    accuracy = result["models"]["mlp"]["accuracy"]
    assert accuracy["mean"] == fmean(accuracy["values"]) and accuracy["std"] == stdev(accuracy["values"])
    # What is finished stays; what is not runs again.
    kept = tmp_path / "seeds" / "seed-3" / "result.json"
    before = kept.stat().st_mtime_ns
    (tmp_path / "seeds" / "seed-5" / "result.json").unlink()
    with pytest.raises(ConfigError, match="already there"):
        train_seeds(config, tmp_path / "seeds", [3, 5])
    again = train_seeds(config, tmp_path / "seeds", [3, 5], resume=True)
    assert again["models"]["mlp"]["accuracy"] == accuracy and kept.stat().st_mtime_ns == before
    assert json.loads((tmp_path / "seeds" / "result.json").read_text()) == again
    with pytest.raises(ConfigError, match="another config"):
        train_seeds(config, tmp_path / "seeds", 2, resume=True)
