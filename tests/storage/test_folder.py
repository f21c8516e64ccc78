"""The folder of one piece of work: claimed once, by whoever comes first, and gone on with by the same config only."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from qbp.errors import ConfigError
from qbp.storage.folder import RESULT, VERSIONS, RunFolder, differences

CONFIG = {"seed": 0, "train": {"lr": 0.01, "sizes": (1, 2)}}


@pytest.mark.parametrize("name", ["config.yaml", "submission.json"])
def test_it_is_claimed_once_and_gone_on_with_by_the_same_config(name: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "deep" / "er", name)
    plain = json.loads(json.dumps(CONFIG))
    folder.claim(plain, resume=False)
    before = {path.name: path.read_bytes() for path in folder.path.iterdir()}
    assert set(before) == {name, VERSIONS} and not folder.is_finished
    with pytest.raises(ConfigError, match=r"Run .*er is already there: go on with it"):
        folder.claim(plain, resume=False)
    folder.claim(plain, resume=True)
    with pytest.raises(ConfigError, match=r"holds a run of another config \(there / here\): train.lr: 0.01 / 0.02"):
        folder.claim({**plain, "train": {**plain["train"], "lr": 0.02}}, resume=True)
    assert before == {path.name: path.read_bytes() for path in folder.path.iterdir()}


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match=r"is no comparison to resume: it has thesis\.tex, but no comparison\.yaml"):
        RunFolder(tmp_path, "comparison.yaml", "comparison").claim(CONFIG, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_claim_that_was_killed_is_claimed_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    (folder.path / "config.yaml.tmp").write_text("seed: ")  # killed while it was written
    folder.claim({"seed": 0}, resume=True)
    assert folder.read(folder.path / "config.yaml") == {"seed": 0}


def test_of_many_one_wins(tmp_path: Path) -> None:
    def claim(k: int) -> bool:
        try:
            RunFolder(tmp_path / "run").claim({"seed": k}, resume=False)
        except ConfigError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(claim, range(16))) == 1


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(ConfigError, match=r"Cannot read .*result\.json"):
        folder.result()
    folder.finish({"accuracy": 0.5})
    assert folder.is_finished and folder.result() == {"accuracy": 0.5}
    (tmp_path / RESULT).write_text("{")
    with pytest.raises(ConfigError, match=r"Cannot read .*result\.json"):
        folder.result()
    assert folder.load("none.json", missing={}) == {}


def test_differences_are_of_plain_data() -> None:
    assert differences({"a": (1, 2), "b": {1: 2}}, {"a": [1, 2], "b": {"1": 2}}) == []
    assert differences({"a": {"b": 1}}, {"a": None}) == ["a.b: 1 / None"]
