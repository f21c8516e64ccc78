"""Figures of a page: drawn by matplotlib, coloured by the page's style sheet, so that they follow light and dark."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qbp.analysis.diagnosis import Picture
from qbp.report.document import FIGURE, Figure
from qbp.report.plots.training import COLOURS, GRID, INK, draw_curves, draw_picture, label
from qbp.report.templating import render
from qbp.training.checkpoint import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["curves", "finding", "learning", "ranks", "scatter"]

SIZE = (5.0, 3.1)  # inches: 360 by 223 points, which is how wide a phone shows it
FONT, SMALLEST = 10.5, 9.5

# The colours that figures are drawn in, and what the style sheet calls them.
THEME = {
    **{colour.lower(): f"var(--series-{k})" for k, colour in enumerate(COLOURS)},
    INK: "var(--quiet)",
    GRID: "var(--grid)",
    "#000000": "var(--ink)",
    "#ffffff": "var(--surface)",
}


def curves(histories: Mapping[str, History], metric: str, caption: str) -> Figure:
    """Draw a metric by epoch, dotted for train and solid for validation."""
    ends = [f"{name} {history.column(metric)[-1]:.3g}" for name, history in histories.items()]
    n_epochs = max(len(history.rows) for history in histories.values())
    alt = f"{metric} over {n_epochs} epochs; at the end, on the train data: {', '.join(ends)}."
    return _figure(lambda axes: draw_curves(axes, histories, metric), caption, alt)


def finding(picture: Picture, caption: str, alt: str) -> Figure:
    """Draw the numbers of a finding."""
    return _figure(lambda axes: draw_picture(axes, picture), caption, alt, (4.2, 2.4))


Points = Mapping[str, Sequence[tuple[float, float, float, float]]]  # name -> (x, y, low, high) of points


def scatter(points: Points, named: Sequence[str], x: str, y: str, caption: str, alt: str) -> Figure:
    """Draw a point (x, y) for each name, x logarithmically; those `named` with name and interval, the first in blue."""
    places = {name: rows[0] for name, rows in points.items()}

    def draw(axes: Axes) -> None:
        for name, (at, value, low, high) in places.items():
            shown = name in named
            colour = COLOURS[0] if name == named[0] else INK
            if shown:
                axes.plot([at, at], [low, high], color=colour, linewidth=1.2)
            axes.plot([at], [value], "o", color=colour, markersize=6 if shown else 4, alpha=1 if shown else 0.45)
        axes.set_xscale("log")
        axes.margins(x=0.12)
        _name_points(axes, {name: places[name][:2] for name in named}, named[0])
        _plain(axes, [p[0] for p in places.values()])
        label(axes, x, y)

    return _figure(draw, caption, alt)


def _name_points(axes: Axes, places: Mapping[str, tuple[float, float]], first: str) -> None:
    """Write names beside their points, from the lowest up, none nearer to the one below it than a line of text."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    line, last, aside = (high - low) / 13, low, (right / left) ** 0.022
    for name, (x, y) in sorted(places.items(), key=lambda place: place[1][1]):
        last = max(y + line / 2, last + line)
        before = x > math.sqrt(left * right)
        axes.annotate(
            name,
            (x, y),
            (x / aside if before else x * aside, last),
            ha="right" if before else "left",
            va="center",
            color=COLOURS[0] if name == first else INK,
            annotation_clip=False,
        )


def _plain(axes: Axes, values: Sequence[float]) -> None:
    """Round ticks along a logarithmic axis, as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    decades = math.log10(max(values) / min(values))
    steps = (1.0,) if decades > 3 else (1.0, 3.0) if decades > 1.5 else (1.0, 2.0, 5.0)
    axes.xaxis.set_major_locator(LogLocator(subs=steps, numticks=8))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))


def learning(points: Points, x: str, y: str, caption: str, alt: str, *, ticks: Sequence[float] | None = None) -> Figure:
    """Draw each name's line with its band; with `ticks` x is logarithmic."""

    def draw(axes: Axes) -> None:
        for k, (name, rows) in enumerate(points.items()):
            colour = COLOURS[k % len(COLOURS)]
            at, value, low, high = zip(*rows, strict=True)
            axes.fill_between(at, low, high, color=colour, alpha=0.1, linewidth=0)
            line = "o-" if len(rows) < 10 else "-"
            axes.plot(at, value, line, color=colour, markersize=3.5, linewidth=1.6, label=name)
        if ticks is not None:
            axes.set_xscale("log")
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.set_xticks([], minor=True)
        label(axes, x, y)
        axes.figure.legend(loc="outside lower center", ncols=2, frameon=False, labelcolor=INK)

    return _figure(draw, caption, alt, (SIZE[0], SIZE[1] + 0.2 * -(-len(points) // 2)))


def ranks(models: Sequence[str], mean_ranks: Sequence[float], distance: float, caption: str, alt: str) -> Figure:
    """Draw mean ranks on a line, best at the left; bars join models that the critical distance does not part."""

    def draw(axes: Axes) -> None:
        n = len(models)
        half = -(-n // 2)
        low, high = 1.0, float(max(n, 2))
        axes.plot([low, high], [0, 0], color=INK, linewidth=1)
        for tick in range(1, n + 1):
            axes.plot([tick, tick], [0, 0.12], color=INK, linewidth=1)
            axes.text(tick, 0.2, str(tick), ha="center", va="bottom", color=INK, fontsize=8)
        for k, (name, at) in enumerate(zip(models, mean_ranks, strict=True)):
            left = k < half
            level = -0.9 - 0.42 * (k if left else n - 1 - k)
            end = low - 0.05 * (high - low) if left else high + 0.05 * (high - low)
            axes.plot([at, at, end], [0, level, level], color=INK, linewidth=0.9)
            side = "right" if left else "left"
            pad = -0.02 * (high - low) if left else 0.02 * (high - low)
            axes.text(end + pad, level, f"{name} ({at:.2f})", ha=side, va="center", color=INK, fontsize=8.5)
        for row, (first, last) in enumerate(cliques(mean_ranks, distance)):
            y = -0.22 - 0.16 * row
            axes.plot([first - 0.04, last + 0.04], [y, y], color=COLOURS[0], linewidth=4, solid_capstyle="round")
        axes.plot([low, low + distance], [0.95, 0.95], color=COLOURS[1], linewidth=2)
        axes.text(low + distance / 2, 1.05, f"critical difference {distance:.2f}", ha="center", va="bottom", fontsize=8)
        axes.set_ylim(-1.2 - 0.42 * half, 1.5)
        axes.set_axis_off()

    return _figure(draw, caption, alt, (7.2, 1.6 + 0.22 * len(models)), wide=True)


def cliques(mean_ranks: Sequence[float], distance: float) -> list[tuple[float, float]]:
    """Return the widest runs of ranks (ascending) whose ends lie less than `distance` apart.

    Example:
        >>> cliques([1.0, 1.5, 2.2, 3.5], 1.0)
        [(1.0, 1.5), (1.5, 2.2)]
    """
    runs: list[tuple[float, float]] = []
    for i, first in enumerate(mean_ranks):
        last = max(rank for rank in mean_ranks[i:] if rank - first < distance)
        if last > first and not any(last <= other for _, other in runs):
            runs.append((first, last))
    return runs


def _figure(
    draw: Callable[[Axes], None], caption: str, alt: str, size: tuple[float, float] = SIZE, *, wide: bool = False
) -> Figure:
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas
    from matplotlib.text import Text

    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": caption,
        "font.size": FONT,
        "axes.edgecolor": INK,
    }
    with mpl.rc_context(settings):
        canvas = Canvas(figsize=size, layout="constrained")
        draw(canvas.subplots())
        for text in canvas.findobj(Text):
            text.set_fontsize(max(text.get_fontsize(), SMALLEST))
        content = io.StringIO()
        canvas.savefig(content, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Figure(_themed(content.getvalue(), alt), caption, alt, wide)


def _themed(svg: str, alt: str) -> str:
    """The drawing as part of a page: its colours are the style sheet's, its identifiers begin with `FIGURE`."""
    body = svg[svg.index("<svg") :]
    box = re.search(r'viewBox="([^"]+)"', body)
    assert box is not None
    inside = body[body.index(">") + 1 : body.rindex("</svg>")]
    inside = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", inside, flags=re.DOTALL)
    inside = re.sub(r'\bid="([^"]+)"', rf'id="{FIGURE}-\1"', inside)
    inside = re.sub(r'(?:xlink:)?href="#([^"]+)"', rf'href="#{FIGURE}-\1"', inside)
    inside = re.sub(r"url\(#([^)]+)\)", rf"url(#{FIGURE}-\1)", inside)
    inside = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font-size: \1px", inside)
    for colour, name in THEME.items():
        inside = re.sub(re.escape(colour), name, inside, flags=re.IGNORECASE)
    width = f"{float(box[1].split()[2]) * 1.5:.0f}"
    return render("drawing.svg", box=box[1], alt=alt, width=width, inside=inside.strip())
