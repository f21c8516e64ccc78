"""Pictures of a run: training curves, the learning-rate range test, the confusion matrix, a diagnosis."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qbp.analysis.diagnosis import Finding, Picture
from qbp.errors import ArgumentError, check_shape
from qbp.storage.atomic import write_atomic
from qbp.training.checkpoint import History
from qbp.training.learning_rate import LearningRateTest
from qbp.training.metrics import main_metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

__all__ = [
    "confusion_matrix",
    "diagnosis",
    "draw_curves",
    "draw_picture",
    "learning_rate",
    "training_curves",
]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito: for all eyes
INK = "#444444"
GRID = "#e5e5e5"


def training_curves(histories: Mapping[str, History], path: str | Path) -> Path:
    """Draw loss and accuracy (of a regression: r2) by epoch; dotted for train, solid for validation.

    Args:
        histories: what `fit` returned, by the name of the model.
        path: where to; the suffix (.png, .svg, .pdf) is the format.

    Returns:
        The path.

    Raises:
        ArgumentError: there is no model or no epoch to draw, or the format is unknown.

    Example:
        >>> import tempfile
        >>> rows = {"epoch": 1, "loss": 0.7, "accuracy": 0.5}, {"epoch": 2, "loss": 0.4, "accuracy": 0.9}
        >>> history = History(rows)
        >>> training_curves({"hybrid": history}, Path(tempfile.mkdtemp()) / "training.png").name
        'training.png'
    """
    if not histories or not all(history.rows for history in histories.values()):
        raise ArgumentError("Argument `histories` must hold a model with at least one epoch each, but does not")
    rows = next(iter(histories.values())).rows
    score = main_metric(rows[0])
    figure = _figure(8.0, 3.2)
    for axes, metric in zip(figure.subplots(1, 2), ("loss", score), strict=True):
        draw_curves(axes, histories, metric)
    return _save(figure, path)


def draw_curves(axes: Axes, histories: Mapping[str, History], metric: str) -> None:
    """Draw one metric by epoch for every model; dotted for train, solid for validation."""
    for k, (name, history) in enumerate(histories.items()):
        colour = COLOURS[k % len(COLOURS)]
        validated = f"val_{metric}" in history.rows[0]
        styles = [("train", metric, ":" if validated else "-")]
        styles += [("validation", f"val_{metric}", "-")] if validated else []
        for part, column, line in styles:
            axes.plot(
                history.column("epoch"),
                history.column(column),
                line,
                color=colour,
                marker="o" if len(history.rows) == 1 else None,
                label=f"{name}, {part}",
            )
    label(axes, "epoch", metric)
    axes.locator_params(axis="x", integer=True)
    axes.legend(frameon=False, fontsize=8, labelcolor=INK)


def learning_rate(test: LearningRateTest, path: str | Path) -> Path:
    """Draw the smoothed loss by learning rate, and the rate that `lr_range_test` suggests.

    Args:
        test: what `lr_range_test` returned.
        path: where to; the suffix is the format.

    Returns:
        The path.

    Raises:
        ArgumentError: the format is unknown.
    """
    figure = _figure(5.0, 3.2)
    axes = figure.subplots()
    axes.semilogx(test.lrs, test.losses, color=COLOURS[0])
    axes.axvline(test.suggestion, color=COLOURS[1], linestyle="--", label=f"suggestion: {test.suggestion:.2g}")
    label(axes, "learning rate", "loss (smoothed)")
    axes.legend(frameon=False, fontsize=8)
    return _save(figure, path)


def confusion_matrix(confusion: Sequence[Sequence[int]], classes: Sequence[str], path: str | Path) -> Path:
    """Draw how many rows of each class were taken for which.

    Args:
        confusion: counts, row = true class, column = predicted class, as `evaluate` returns them.
        classes: names of the classes.
        path: where to; the suffix is the format.

    Returns:
        The path.

    Raises:
        ArgumentError: the counts are not square, or do not fit the classes; the format is unknown.
    """
    n = len(classes)
    check_shape("confusion", (len(confusion), *{len(row) for row in confusion}), (n, n))
    side = 2.2 + 0.35 * n
    figure = _figure(side + 0.4, side)
    axes = figure.subplots()
    shares = [[count / max(sum(row), 1) for count in row] for row in confusion]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in range(n):
        for column in range(n):
            colour = "white" if shares[row][column] > 0.5 else INK
            axes.text(column, row, str(confusion[row][column]), ha="center", va="center", color=colour, fontsize=9)
    _name(axes.xaxis, classes)
    axes.set_yticks(range(n), classes)
    label(axes, "predicted", "true")
    axes.grid(False)
    return _save(figure, path)


def diagnosis(findings: Sequence[Finding], path: str | Path) -> Path:
    """Draw the numbers behind every finding, a panel each; the thresholds are dashed.

    Args:
        findings: what `qbp.diagnose` returned.
        path: where to; the suffix is the format.

    Returns:
        The path.

    Raises:
        ArgumentError: there is nothing to draw, or the format is unknown.
    """
    if not findings:
        raise ArgumentError("Argument `findings` must hold at least one finding, but is empty")
    columns = min(3, len(findings))
    rows = -(-len(findings) // columns)
    figure = _figure(4.2 * columns, 3.0 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, finding in zip(panels, findings, strict=False):
        draw_picture(axes, finding.picture)
        said, colour = (" (!)", COLOURS[1]) if finding.warns else ("", INK)
        axes.set_title(finding.code + said, fontsize=9, color=colour)
    for axes in panels[len(findings) :]:
        axes.set_axis_off()
    return _save(figure, path)


def draw_picture(axes: Axes, picture: Picture) -> None:
    """Draw the numbers of one finding."""
    if picture.kind == "histogram":
        axes.hist(picture.y, bins=30, color=COLOURS[0])
    elif picture.kind == "bars":
        axes.bar(range(len(picture.y)), picture.y, color=COLOURS[0])
        if len(picture.x) <= 12:
            _name(axes.xaxis, [str(name) for name in picture.x])
    else:
        axes.plot(picture.x, picture.y, "o-" if picture.kind == "line" else "o", color=COLOURS[0], markersize=4)
    if picture.log:
        axes.set_yscale("log")
    for limit in picture.limits:
        mark = axes.axvline if picture.kind == "histogram" else axes.axhline
        mark(limit, color=COLOURS[1], linestyle="--", linewidth=1.2)
    label(axes, picture.x_label, picture.y_label)


def _figure(width: float, height: float) -> Figure:
    """Return a figure without pyplot: no window, no global state, the same with and without a screen."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def label(axes: Axes, x: str, y: str) -> None:
    """Name the axes, and draw them as all pictures have them."""
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.tick_params(colors=INK, labelsize=8)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _name(axis: Axis, names: Sequence[str]) -> None:
    """Write names at 0, 1, ...; slanted where they are long."""
    long = max(map(len, names), default=0) > 3
    axis.set_ticks(range(len(names)), names, rotation=45 if long else 0, ha="right" if long else "center")


def _save(figure: Figure, path: str | Path) -> Path:
    path, content = Path(path), io.BytesIO()
    try:
        figure.savefig(content, format=path.suffix[1:] or "png", dpi=150)
    except ValueError as error:
        raise ArgumentError(f"Argument `path` must end in .png, .svg or .pdf, but is {str(path)!r}") from error
    write_atomic(path, content.getvalue())
    return path
