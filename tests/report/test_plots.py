"""Pictures: that they are drawn, in the format asked for, of the numbers given, without a screen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import image

from qbp.errors import ArgumentError
from qbp.report.plots import training as report
from qbp.training.checkpoint import History
from qbp.training.learning_rate import LearningRateTest


def history(losses: list[float], **more: list[float]) -> History:
    columns = {"epoch": list(range(1, len(losses) + 1)), "loss": losses, **more}
    return History(tuple(dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)))


RUN = history([0.7, 0.5], accuracy=[0.5, 0.75], val_loss=[0.6, 0.55], val_accuracy=[0.6, 0.7])
PLAIN = history([0.9, 0.8, 0.7], accuracy=[0.5, 0.75, 1.0])


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect the figures, to look at what was put into them."""
    figures: list[Any] = []
    save = report._save
    monkeypatch.setattr(report, "_save", lambda figure, path: (figures.append(figure), save(figure, path))[1])
    return figures


def test_training_curves_show_every_model_train_and_validation(tmp_path: Path, drawn: list[Any]) -> None:
    path = report.training_curves({"hybrid": RUN, "twin": PLAIN}, tmp_path / "training.png")
    assert path == tmp_path / "training.png"
    loss, accuracy = drawn[0].axes
    assert [line.get_label() for line in loss.lines] == ["hybrid, train", "hybrid, validation", "twin, train"]
    assert [list(line.get_ydata()) for line in loss.lines] == [[0.7, 0.5], [0.6, 0.55], [0.9, 0.8, 0.7]]
    assert [list(line.get_ydata()) for line in accuracy.lines] == [[0.5, 0.75], [0.6, 0.7], [0.5, 0.75, 1.0]]
    assert [line.get_linestyle() for line in loss.lines] == [":", "-", "-"]
    assert len({line.get_color() for line in loss.lines}) == 2
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == ("loss", "accuracy")
    assert image.imread(path).std() > 0.01


def test_a_regression_shows_r2_and_one_epoch_is_seen(tmp_path: Path, drawn: list[Any]) -> None:
    report.training_curves({"mlp": history([0.5], mae=[0.4], r2=[0.2])}, tmp_path / "one.svg")
    assert drawn[0].axes[1].get_ylabel() == "r2"
    assert drawn[0].axes[0].lines[0].get_marker() == "o"


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_the_suffix_is_the_format(tmp_path: Path, suffix: str) -> None:
    content = report.training_curves({"mlp": PLAIN}, tmp_path / f"new/training.{suffix}").read_bytes()
    assert {"png": b"\x89PNG", "svg": b"<svg", "pdf": b"%PDF"}[suffix] in content[:600]
    assert [file.name for file in (tmp_path / "new").iterdir()] == [f"training.{suffix}"]


def test_an_unknown_format_is_refused_and_leaves_the_old_picture(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"must end in \.png, \.svg or \.pdf, but is '.*training\.xyz'"):
        report.training_curves({"mlp": PLAIN}, tmp_path / "training.xyz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("histories", [{}, {"mlp": History(())}])
def test_nothing_to_draw_is_refused(tmp_path: Path, histories: dict[str, History]) -> None:
    with pytest.raises(ArgumentError, match="`histories` must hold"):
        report.training_curves(histories, tmp_path / "training.png")


def test_learning_rate_marks_the_suggestion(tmp_path: Path, drawn: list[Any]) -> None:
    lrs = tuple(np.geomspace(1e-4, 1, 9).tolist())
    losses = (0.7, 0.69, 0.6, 0.5, 0.45, 0.44, 0.5, 0.9, 2.0)
    report.learning_rate(LearningRateTest(lrs, losses, 1e-3), tmp_path / "lr.png")
    curve, mark = drawn[0].axes[0].lines
    assert list(curve.get_ydata()) == list(losses)
    assert list(mark.get_xdata()) == [1e-3, 1e-3]
    assert drawn[0].axes[0].get_xscale() == "log"


def test_confusion_matrix_writes_counts_row_by_true_class(tmp_path: Path, drawn: list[Any]) -> None:
    report.confusion_matrix([[9, 1], [4, 0]], ("three", "five"), tmp_path / "confusion.png")
    axes = drawn[0].axes[0]
    assert {text.get_position(): text.get_text() for text in axes.texts} == {
        (0, 0): "9",
        (1, 0): "1",
        (0, 1): "4",
        (1, 1): "0",
    }
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.9, 0.1], [1.0, 0.0]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["three", "five"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")


def test_a_class_without_rows_is_drawn(tmp_path: Path, drawn: list[Any]) -> None:
    report.confusion_matrix([[3, 0], [0, 0]], ("a", "b"), tmp_path / "confusion.png")
    np.testing.assert_allclose(drawn[0].axes[0].images[0].get_array(), [[1, 0], [0, 0]])


@pytest.mark.parametrize("confusion", [[[1, 2]], [[1, 2], [3]], [[1, 2, 3], [4, 5, 6]]])
def test_counts_that_do_not_fit_are_refused(tmp_path: Path, confusion: list[list[int]]) -> None:
    with pytest.raises(ArgumentError, match=r"`confusion` must have shape \(2, 2\)"):
        report.confusion_matrix(confusion, ("a", "b"), tmp_path / "confusion.png")


def test_importing_and_drawing_never_needs_a_screen(tmp_path: Path) -> None:
    code = (
        "import sys; from qbp.report.plots import training as report; from qbp.training.checkpoint import History;"
        "assert 'matplotlib' not in sys.modules;"
        "report.training_curves({'m': History(({'epoch': 1, 'loss': 1.0, 'accuracy': 0.5},))}, sys.argv[1]);"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    env = {"PATH": "/usr/bin:/bin", "MPLBACKEND": "TkAgg", "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "training.png")], env=env, check=True, cwd=Path.cwd())
    assert (tmp_path / "training.png").stat().st_size > 1000
