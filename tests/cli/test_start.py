"""What a new user types first: `qbp init`, a table of one's own, `train`, `predict`, `summary`."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import qbp
from qbp.cli import main
from qbp.runs import config as configs

Run = Callable[..., tuple[int, str, str]]
SHOP = "age;income;city;share;bought\n" + "".join(
    f"{20 + k % 50};{1000 + 7 * k},5;{('Ulm', 'Köln', 'Berlin')[k % 3]};{k % 90}%;{'yes' if k % 50 > 20 else 'no'}\n"
    for k in range(60)
)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in a directory that holds `shop.csv`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    Path("shop.csv").write_text(SHOP)

    def command(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        said = capsys.readouterr()
        return int(stopped.value.code or 0), said.out, said.err

    return command


def test_a_template_with_a_table_has_its_name_and_no_other_word_of_it_changes(run: Run) -> None:
    assert run("init", "compare", "--data", "shop.csv")[0] == 0
    assert list(configs.load("compare.yaml", kind=configs.Compare).data) == ["shop"]
    assert run("init", "submit", "--data", "shop.csv")[0] == 0
    assert "--backend ibm:NAME prints the bill" in Path("submit.yaml").read_text()


def test_names_with_spaces_give_commands_that_can_be_copied(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "my files"
    folder.mkdir()
    (folder / "my shop.csv").write_text(SHOP)
    code, said, _ = run("init", "train", "--data", "my files/my shop.csv", "--out", "my files/my shop.yaml")
    command = said.removeprefix("Written: my files/my shop.yaml. Next: ").strip()
    assert code == 0 and shlex.split(command) == ["qbp", "train", "my files/my shop.yaml"]
    text = (folder / "my shop.yaml").read_text()
    assert f"#   {command}\n" in text and "runs/my-shop new.csv" in text and max(map(len, text.splitlines())) <= 120
    quick = ("--set", "train.epochs=1", "--set", "model.n_qubits=2", "--set", "twin=false")
    code, said, err = run(*shlex.split(command)[1:], "-q", *quick)
    assert code == 0, err
    assert "Saved in runs/my-shop" in said


def test_from_a_table_to_its_predictions(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    code, said, _ = run("init", "train", "--data", "shop.csv", "--out", "shop.yaml")
    assert code == 0 and said == "Written: shop.yaml. Next: qbp train shop.yaml\n"
    assert "classification of `bought` in 2 classes" in Path("shop.yaml").read_text()
    assert configs.load("shop.yaml").data.name == str(Path("shop.csv").resolve())
    quick = ("--set", "train.epochs=3", "--set", "model.n_qubits=2", "--set", "model.n_layers=1")
    code, said, err = run("train", "shop.yaml", "-q", *quick)
    assert code == 0, err
    code, said, _ = run("predict", "runs/shop", "shop.csv")
    assert code == 0 and "bought" in said and "and 40 rows more: `--out FILE` writes all of them" in said
    assert max(map(len, said.splitlines()[:-1])) <= 80
    assert run("predict", "runs/shop", "shop.csv", "--out", "said.csv")[1] == "Written: said.csv (60 rows)\n"
    with open("said.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["bought", "p(no)", "p(yes)"]
    shares = qbp.predict("runs/shop", "shop.csv", probabilities=True)
    assert [[float(row["p(no)"]), float(row["p(yes)"])] for row in rows] == shares.tolist()
    assert [row["bought"] for row in rows] == qbp.predict("runs/shop", "shop.csv").tolist()
    for width in ("80", "40"):
        monkeypatch.setenv("COLUMNS", width)
        code, said, _ = run("summary", "runs/shop")
        assert code == 0 and "QuantumLayer" in said and "classes: no, yes" in said and "twin" in said
        tables = [line for line in said.splitlines() if line[:1] in "┏┃┡│└" or line.startswith("  ")]
        assert tables and all(len(line) <= int(width) or "qubits" in line for line in tables)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("age;income;share\n30;1000,5;3%\n", "lacks city (it has age, income, share)"),
        ("Age;income;city;share\n30;1000,5;Ulm;3%\n", "lacks age; is it `Age`?"),
        ("age;income;city;share\n30;1000,5;Paris;3%\n", "'city' must hold one of Berlin, Köln, Ulm"),
        ("age;income;city;share\n30;;Ulm;3%\n", "'income' must have a value in each row, but 1 of 1 have none (row 1"),
        ("age;income;city;share\n", "must have rows below the names of the columns"),
    ],
)
def test_a_table_that_does_not_fit_is_told(run: Run, text: str, said: str) -> None:
    if not Path("runs/shop").exists():
        Path("shop.yaml").write_text("data: {name: shop.csv}\nmodel: {kind: mlp}\ntrain: {epochs: 1}\n")
        assert run("train", "shop.yaml", "-q")[0] == 0
    Path("new.csv").write_text(text)
    code, _, err = run("predict", "runs/shop", "new.csv")
    assert code == 2 and said in err and err.startswith("Error: ") and err.count("\n") == 1


def test_every_template_runs(run: Run) -> None:
    """Not all of what it asks for, but each key of it."""
    for kind in ("train", "compare", "submit"):
        assert run("init", kind)[0] == 0
        code, _, err = run("init", kind)
        assert code == 2 and f"{kind}.yaml is already there" in err
    train, submit = configs.load("train.yaml"), configs.load("submit.yaml")
    assert run("train", "train.yaml", "-q", "--set", "train.epochs=2", "--set", "model.n_qubits=2")[0] == 0
    assert train.train.early_stopping == 10 and submit.train.epochs == 1
    config = configs.load("compare.yaml", kind=configs.Compare)
    assert list(config.models) == ["hybrid"] and config.seeds == 5
    assert run("init", "compare", "--data", "shop.csv", "--out", "mine.yaml")[0] == 0
    own = configs.load("mine.yaml", kind=configs.Compare).data["shop"]
    assert own.name == str(Path("shop.csv").resolve()) and own.n_samples is None
    code, _, err = run("init", "train", "--data", "none.csv", "--out", "other.yaml")
    assert code == 2 and "there is no none.csv" in err and not Path("other.yaml").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [("compare", "compare.yaml", "-q"), ("submit", "submit.yaml", "--backend", "fake:manila", "--shots", "50")],
)
def test_whole_templates_run(run: Run, command: tuple[str, ...]) -> None:
    assert run("init", command[0])[0] == 0
    code, said, err = run(*command)
    assert code == 0, err
    assert "Saved in runs" in said


def test_names_that_are_nearly_right(run: Run) -> None:
    from qbp._version import __version__

    assert run("--version") == (0, f"qbp {__version__}\n", "")
    Path("runs/shop").mkdir(parents=True)
    Path("runs/shop/config.yaml").write_text("data: {name: iris}\n")
    for command, said in (
        (("trian",), "'train'?"),
        (("train", "digit"), "did you mean `digits`?"),
        (("train", "digits", "--set", "train.epoch=3"), "did you mean `epochs`?"),
        (("train", "digits", "--set", "train.optimizer=adm"), "did you mean `adam`?"),
        (("predict", "runs/shpo", "shop.csv"), "did you mean `shop`?"),
        (("evaluate", "runs/shpo"), "did you mean `shop`?"),
        (("train", "digits", "--rsume"), "--resume"),
    ):
        code, _, err = run(*command)
        assert code == 2 and said in err, command


def test_regressions_are_predicted_in_their_units(run: Run) -> None:
    rows = "".join(f"{k / 10};{k * 3.25 + 0.1:.2f}\n" for k in range(40))
    Path("line.csv").write_text("x;y\n" + rows)
    Path("line.yaml").write_text("data: {name: line.csv}\nmodel: {kind: mlp}\ntrain: {epochs: 40, lr: 0.1}\n")
    assert run("train", "line.yaml", "-q")[0] == 0
    assert run("predict", "runs/line", "line.csv", "-o", "said.csv")[0] == 0
    predictions = np.loadtxt("said.csv", skiprows=1)
    assert np.abs(predictions - (np.arange(40) * 3.25 + 0.1)).max() < 20
    code, said, _ = run("predict", "runs/line", "line.csv")
    assert code == 0 and "probability" not in said
