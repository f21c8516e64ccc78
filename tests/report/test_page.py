"""The page: whole, labelled, readable everywhere, without network; and it says what the numbers say."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import qbp
from qbp import report as page
from qbp.analysis.diagnosis import Finding, Picture
from qbp.cli import main
from qbp.comparison.comparing import COLUMNS, Comparison, load_comparison, save_tables, sorted_rows
from qbp.comparison.controls import CONTROLS, LAYER_CONTROLS
from qbp.comparison.estimators import CLASSIFIERS
from qbp.comparison.grid import cell_path
from qbp.comparison.verdicts import judge
from qbp.errors import ArgumentError, ConfigError
from qbp.nn.simulability import Simulability
from qbp.report import charts, parts, text
from qbp.report import comparison as comparison_page
from qbp.report.charts import cliques
from qbp.report.circuit import circuit
from qbp.report.document import (
    Badge,
    Code,
    Column,
    Details,
    Document,
    Dot,
    Grid,
    Heading,
    Heat,
    Paragraph,
    Scale,
    Section,
    Strong,
    Table,
    Verdict,
)
from qbp.report.html import STYLE, to_html
from qbp.runs import config
from qbp.runs import run as runs
from qbp.runs import stages as pipeline
from qbp.runs.folder import read_config
from qbp.training.checkpoint import History

HOSTILE = """<script>alert("1")</script> & 'co'"""


# ---- a comparison and a run -----------------------------------------------------------------------------------------


def make_comparison(gains: dict[str, float], n_seeds: int = 8) -> Comparison:
    """Rows as `qbp compare` writes them: on each data set "hybrid" has so much more accuracy than all else."""
    rng = np.random.default_rng(0)
    models = {
        "hybrid": "subject",
        **{f"hybrid/{role}": role for role in CONTROLS},
        **{name: name for name in CLASSIFIERS},
    }
    rows, curves = [], []
    for (dataset, gain), seed in itertools.product(gains.items(), range(n_seeds)):
        luck = rng.normal(0, 0.02)
        for size in (100, 400):
            for model, role in models.items():
                base = 0.6 if "linear" in role or role == "logistic_regression" else 0.8
                right = round(1000 * (base + luck + rng.normal(0, 0.004) - 0.1 * (size == 100)))
                if role == "subject":
                    right += round(1000 * gain)
                confusion = [[right // 2, 500 - right // 2], [500 - (right - right // 2), right - right // 2]]
                circuit = role in ("subject", "frozen", "separable")
                row: dict[str, Any] = dict.fromkeys(COLUMNS)
                row |= {"dataset": dataset, "split": f"{seed:064x}", "seed": seed, "model": model, "role": role}
                row |= {"subject": "hybrid" if model.startswith("hybrid") else "", "n_train": size, "n_test": 1000}
                row |= {key: right / 1000 for key in ("accuracy", "balanced_accuracy", "f1", "auc", "cv_score")}
                row |= {
                    "log_loss": None if role == "svm_rbf" else 0.4,
                    "brier": 0.3,
                    "ece": 0.05,
                    "tried": json.dumps([0.7, 0.8, None, 0.9]) if role != "majority" else None,
                    "confusion": json.dumps(confusion),
                }
                row |= {"train_seconds": 0.1 * len(model), "tune_seconds": 0.0, "n_parameters": 7 * len(model)}
                row |= {"n_gates": 36 * circuit, "two_qubit_gates": 8 * circuit, "circuits_per_step": 900 * circuit}
                row |= {"multiply_adds": 20 + 500 * circuit, "quantum_seconds": 9000.0 * circuit, "epochs": 3}
                rows.append(row | {"converged": seed > 0, "hyperparameters": "{}", "overlap": 0.0})
                about = {"dataset": dataset, "model": model, "seed": seed, "n_train": size}
                curves += [about | {"epoch": e, "loss": 0.7 / e, "accuracy": 0.5 + 0.1 * e} for e in (1, 2, 3)]
    verdicts, ranks, complexity = judge(rows, fresh=dict.fromkeys(gains, True))
    settings = {
        "metric": "accuracy",
        "rope": 0.01,
        "alpha": 0.05,
        "budget": 4,
        "folds": 3,
        "seeds": list(range(n_seeds)),
    }
    return Comparison(tuple(rows), verdicts, ranks, complexity, tuple(curves), settings, {"python": "3.11"})


def write_comparison(comparison: Comparison, folder: Path) -> Path:
    """Keep it as `qbp compare` does."""
    for row in comparison.rows:
        size = None if row["n_train"] == 400 else row["n_train"]
        path = folder / cell_path(row["dataset"], row["model"], row["seed"], size)
        path.parent.mkdir(parents=True, exist_ok=True)
        keys = ("dataset", "model", "seed", "n_train")
        curve = [c for c in comparison.curves if all(c[k] == row[k] for k in keys)]
        path.write_text(
            json.dumps({"row": row, "curve": [{k: v for k, v in c.items() if k not in keys} for c in curve]})
        )
    (folder / "comparison.yaml").write_text(yaml.safe_dump(dict(comparison.config or {})))
    (folder / "versions.json").write_text(json.dumps(dict(comparison.versions or {})))
    save_tables(comparison, folder)
    return folder


@pytest.fixture(scope="module")
def one() -> Comparison:
    return make_comparison({"spirals": 0.0})


@pytest.fixture(scope="module")
def three() -> Comparison:
    return make_comparison({"won": 0.05, "lost": -0.05, "even": 0.0})


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "small"
    overrides = ["data={name: iris, features: 2}", "train.epochs=3", "train.validation=0.2", "train.batch_size=32"]
    runs.train(config.load("xor", [*overrides, "name=small"]), folder)
    (folder / "noise.csv").write_text("backend,test_accuracy,shots\nfake_torino,0.91,1000\nexact,0.95,\n")
    return folder


@pytest.fixture(scope="module")
def pages(one: Comparison, three: Comparison, run_folder: Path) -> dict[str, Document]:
    documents = {"one": comparison_page.comparison_document(one), "three": comparison_page.comparison_document(three)}
    return documents | {"run": page.read(run_folder)}


NAMES = ("one", "three", "run")


# ---- HTML -----------------------------------------------------------------------------------------------------------

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Tree(HTMLParser):
    """Every element with its attributes and its text; raises where a tag is not closed, or closed twice."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[int] = []
        self.elements: list[tuple[str, dict[str, str], list[int]]] = []
        self.text: list[str] = []
        self.feed(source)
        self.close()
        assert not self.open, [self.elements[k][0] for k in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), (tag, attrs)
        self.elements.append((tag, {k: v or "" for k, v in attrs}, list(self.open)))
        self.text.append("")
        if tag not in VOID:
            self.open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.elements[self.open[-1]][0] == tag, (tag, [self.elements[k][0] for k in self.open])
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for k in self.open:
            self.text[k] += data

    def all(self, tag: str) -> Iterator[tuple[int, dict[str, str]]]:
        yield from ((k, attrs) for k, (name, attrs, _) in enumerate(self.elements) if name == tag)

    def inside(self, k: int, tag: str) -> list[int]:
        return [j for j, (name, _, above) in enumerate(self.elements) if name == tag and k in above]


@pytest.fixture(scope="module")
def trees(pages: dict[str, Document]) -> dict[str, Tree]:
    return {name: Tree(to_html(document)) for name, document in pages.items()}


@pytest.mark.parametrize("name", NAMES)
def test_needs_no_network_and_runs_nothing(pages: dict[str, Document], trees: dict[str, Tree], name: str) -> None:
    source = to_html(pages[name])
    assert not re.search(r"https?:|//[a-z]|@import|javascript:|<script|<link|<img|\ssrc=|\son[a-z]+=", source)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]+)\)", source))
    links = [attrs["href"] for _, attrs, _ in trees[name].elements if "href" in attrs]
    ids = [attrs["id"] for _, attrs, _ in trees[name].elements if "id" in attrs]
    assert links and {link[1:] for link in links} <= set(ids) and all(link[0] == "#" for link in links)
    assert len(ids) == len(set(ids))
    named = [attrs["aria-labelledby"] for _, attrs, _ in trees[name].elements if "aria-labelledby" in attrs]
    assert set(named) <= set(ids)


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).parents[2].glob("docs/examples/**/*.html")), ids=lambda path: path.stem
)
def test_committed_pages_are_as_pages_are_now(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    Tree(source)
    assert STYLE.read_text(encoding="utf-8") in source, f"write it again: qbp report runs/{path.stem}"
    assert not re.search(r"https?:|<script|/tmp/|/home/|/root/", source)


@pytest.mark.parametrize("name", NAMES)
def test_everything_is_labelled(trees: dict[str, Tree], name: str) -> None:
    tree = trees[name]
    drawings = [attrs for k, attrs in tree.all("svg")]
    assert len(drawings) > 5 and all(attrs["role"] == "img" and len(attrs["aria-label"]) > 5 for attrs in drawings)
    for k, _ in tree.all("figure"):
        (caption,) = tree.inside(k, "figcaption")
        assert tree.text[caption].strip()
    tables = list(tree.all("table"))
    assert tables
    for k, _ in tables:
        (caption,) = tree.inside(k, "caption")
        assert tree.text[caption].strip()
        heads = [tree.elements[j][1] for j in tree.inside(k, "th")]
        assert {attrs["scope"] for attrs in heads} == {"col", "row"}
        counts = {len(tree.inside(j, "th")) + len(tree.inside(j, "td")) for j in tree.inside(k, "tr")}
        assert len(counts) == 1
    scrolls = [attrs for _, attrs, _ in tree.elements if attrs.get("role") in ("region", "group")]
    assert scrolls and all(attrs["tabindex"] == "0" for attrs in scrolls)
    assert next(attrs for _, attrs in tree.all("html"))["lang"] == "en"
    levels = [int(tag[1]) for tag, _, _ in tree.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1 and all(b <= a + 1 for a, b in itertools.pairwise(levels))


@pytest.mark.parametrize("name", NAMES)
def test_figures_follow_light_and_dark(pages: dict[str, Document], name: str) -> None:
    body = to_html(pages[name]).split("</style>")[1]
    assert not re.search(r"#[0-9a-fA-F]{6}\b", body), "a colour of its own"
    assert "var(--series-0)" in body


def test_text_is_escaped_everywhere() -> None:
    document = comparison_page.comparison_document(make_comparison({HOSTILE: 0.0}))
    assert all("alert" in write(document) for write in page.FORMATS.values())
    source = to_html(document)
    assert "<script" not in source and "&lt;script&gt;" in source
    Tree(source)
    Tree(to_html(Document(HOSTILE, HOSTILE, (Verdict("TIES", HOSTILE, HOSTILE, HOSTILE),), ((HOSTILE, HOSTILE),), ())))


def test_every_block_and_cell_is_escaped_and_text_to_copy_stays_as_it_is() -> None:
    cells = (HOSTILE, Strong(HOSTILE), Badge(HOSTILE), Heat(HOSTILE, 0.5), Dot(1.0, 0.0, 2.0))
    columns = tuple(Column(HOSTILE, "dots" if isinstance(cell, Dot) else "text") for cell in cells)
    scale = Scale(0.0, 2.0, ((1.0, HOSTILE),), line=1.0, band=(0.5, 1.5))
    table = Table(HOSTILE, columns, (cells,), HOSTILE, scale)
    code = Code(HOSTILE, f"  two\n\n   lines {HOSTILE}\n")
    drawing = circuit(qbp.QuantumLayer("basic_entangler", n_qubits=2, n_layers=1).circuit, HOSTILE)
    blocks = (Heading(HOSTILE), Paragraph(HOSTILE), Grid((code, drawing)), Details(HOSTILE, (table,)))
    source = to_html(Document(HOSTILE, "", (), (), (Section("a", HOSTILE, blocks),)))
    tree = Tree(source)
    assert "<script" not in source and {tag for tag, _, _ in tree.elements}.isdisjoint({"script", "b", "img"})
    (copied,) = (tree.text[k] for k, _ in tree.all("code"))
    assert copied == code.text
    hostile_drawing = charts.curves({HOSTILE: History(({"epoch": 1, "loss": 0.5},))}, "loss", HOSTILE)
    assert "<script" not in hostile_drawing.svg


def luminance(colour: str) -> float:
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, two: str) -> float:
    dark, light = sorted((luminance(one), luminance(two)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1, 2], ids=["light", "dark", "print"])
def test_contrast_is_enough(scheme: int) -> None:
    """Text at least 4.5 to 1, lines and points at least 3 to 1 (WCAG 2.2, AA)."""
    css = re.sub(r"#([0-9a-f])([0-9a-f])([0-9a-f])\b(?![0-9a-f])", r"#\1\1\2\2\3\3", STYLE.read_text())
    schemes = [dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", part)) for part in css.split(":root {")[1:4]]
    colours = schemes[0] | schemes[scheme]
    for back in ("surface", "raised"):
        for name in ("ink", "quiet", "link"):
            assert contrast(colours[name], colours[back]) >= 4.5, (name, back)
        for k in range(6):
            assert contrast(colours[f"series-{k}"], colours[back]) >= 3, (k, back)
    for tone in ("good", "bad", "even", "open"):
        assert contrast(colours[tone], colours[f"{tone}-back"]) >= 4.5, tone


# ---- what it says ---------------------------------------------------------------------------------------------------


def test_the_verdict_comes_first_and_says_when_the_quantum_part_did_not_help(
    one: Comparison, pages: dict[str, Document]
) -> None:
    document = pages["one"]
    words = {row["control"]: row["verdict"] for row in one.verdicts}
    circuit, everything = document.verdicts
    assert (circuit.word, everything.word) == (words["circuit"], words["all"])
    source = to_html(document)
    assert source.index('class="verdict') < source.index("<table")
    for gain, word in ((-0.05, "LOSES"), (0.05, "BEATS")):
        both = list(comparison_page._verdicts(make_comparison({"some": gain})))
        assert [verdict.word for verdict in both] == [word, word]
        helps = "The quantum part helps" if word == "BEATS" else "The quantum part does not help"
        assert all(verdict.heading.startswith(helps) for verdict in both)


def test_several_data_sets(pages: dict[str, Document]) -> None:
    document = pages["three"]
    assert [verdict.heading for verdict in document.verdicts] == [
        "The quantum part is shown to help on 1 of 3 data sets."
    ] * 2
    source = to_html(document)
    assert "critical difference" in source and source.count("What does the circuit do?") == 3


def test_the_tables_hold_the_numbers(one: Comparison, pages: dict[str, Document]) -> None:
    written = text.markdown(pages["one"])
    for row in one.verdicts:
        if row["control"] in ("all", "circuit"):
            continue
        low, high = (parts.points(row[key]) for key in ("low", "high"))
        said = f"{parts.points(row['difference'])} \\[{low}, {high}\\]"
        assert said in written, row["control"]
    scores = one.column("accuracy", model="svm_rbf", n_train=400)
    from scipy import stats

    interval = stats.ttest_1samp(scores, 0).confidence_interval()
    assert f"{100 * np.mean(scores):.1f} % \\[{100 * interval.low:.1f}, {100 * interval.high:.1f}\\]" in written
    assert all(comparison_page.TITLES[role] in written for role in (*CONTROLS, *CLASSIFIERS))
    counts = sum(np.array(json.loads(c)) for c in one.column("confusion", model="hybrid", n_train=400))
    assert f"| {counts[0][0]:,} | {counts[0][1]:,} |" in written


def test_the_gain_of_more_tuning_is_told_model_by_model(pages: dict[str, Document]) -> None:
    written = text.markdown(pages["one"])
    one, three = np.mean([0.7, 0.8, 0.9]), 0.7 / 27 + 0.8 * 7 / 27 + 0.9 * 19 / 27  # what diverged is none of them
    assert "expected of the best of k configurations" in written
    assert f"| hybrid | {100 * one:.1f} % |" in written and f"{100 * three:.1f} %" in written


def test_the_ladder_goes_from_no_circuit_to_the_whole_model(one: Comparison, pages: dict[str, Document]) -> None:
    (section,) = (s for s in pages["one"].sections if s.title == "What does the circuit do?")
    (table,) = section.blocks
    assert isinstance(table, Table) and len(table.rows) == len(LAYER_CONTROLS) + 1
    assert table.rows[0][0] == "noise instead" and table.rows[-1][2] == parts_percent(one)


def parts_percent(comparison: Comparison) -> str:
    return f"{100 * np.mean(comparison.column('accuracy', model='hybrid', n_train=400)):.1f} %"


def test_a_comparison_that_is_not_finished_says_so(one: Comparison) -> None:
    some = Comparison(tuple(row for row in one.rows if row["seed"] < 2), config=one.config)
    (verdict,) = comparison_page.comparison_document(some).verdicts
    assert verdict.word == "INCONCLUSIVE" and "not finished" in verdict.heading


TOLD = {
    "n_qubits": 60,
    "outputs": [{"qubits": 3, "words": 9, "seconds": 2e-6, "device": 1.4}] * 3
    + [{"qubits": 30, "words": None, "seconds": None, "device": 1.4}],
    "limit": 1000,
    "words": None,
    "windows": 5e-4,
    "state": None,
    "device": 1.4,
    "shots": 4000,
    "without": None,
}


def test_what_a_circuit_takes_without_a_quantum_computer_is_told(one: Comparison) -> None:
    written = text.markdown(comparison_page.comparison_document(replace(one, simulability={"hybrid": [TOLD]})))
    assert "Outputs see at most 30 of 60 qubits and become at most 9 Pauli words, 1 of 4 more than 1,000" in written
    assert "| 0 to 2 | 3 | 9 | 2 µs | 1.4 s |" in written and "| 3 | 30 | more than 1,000 | - | 1.4 s |" in written
    assert "without a quantum computer" not in text.markdown(comparison_page.comparison_document(one))


def test_wide_circuits_are_counted_and_not_drawn() -> None:
    layer = qbp.QuantumLayer("hardware_efficient", n_qubits=60, n_layers=1)
    paragraph, table = parts.circuit_blocks(layer)
    assert "60 qubits" in paragraph.text and "too wide to be drawn" in paragraph.text and isinstance(table, Table)


def test_the_page_of_a_run(pages: dict[str, Document], run_folder: Path) -> None:
    document = pages["run"]
    result = json.loads((run_folder / "result.json").read_text())
    written = text.markdown(document)
    hybrid, twin = (result["models"][name] for name in ("hybrid", "twin"))
    assert document.verdicts[0].word == ("INCONCLUSIVE" if hybrid["accuracy"] > twin["accuracy"] else "TIES")
    assert f"{100 * hybrid['accuracy']:.1f} %" in written and str(twin["parameters"]) in written
    train, _ = runs.load_data(read_config(run_folder))
    assert train.hash() in written and "name: small" in written and f"qbp train {run_folder}" in written
    assert "BARREN\\_PLATEAU" in written and "| fake\\_torino | 0.91 | 1,000 |" in written
    assert "Circuit of 2 qubits: 2 RX" in to_html(document)
    (told,) = json.loads((run_folder / "simulability.json").read_text())["hybrid"]
    assert str(Simulability.from_json(told)) in written  # measured once, and kept


def test_the_page_of_a_smaller_model(tmp_path: Path) -> None:
    overrides = ["data={name: iris, features: 2}", "train.epochs=2", "twin=false", "name=tiny", "prune={amount: 0.5}"]
    pipeline.run(config.load("xor", overrides), tmp_path / "tiny")
    document = page.read(tmp_path / "tiny")
    stages = json.loads((tmp_path / "tiny/result.json").read_text())["stages"]
    written = text.markdown(document)
    for name, row in zip(("1-train: trained", "2-prune: pruned"), stages.values(), strict=True):
        assert re.search(rf"\| {name} \| {100 * row['accuracy']:.1f} % .* {row['parameters']} \|", written)
    assert document.verdicts[0].heading.startswith("Pruned: ") and "fewer parameters" in document.verdicts[0].sentence
    assert to_html(document).count('class="circuit"') == 2
    assert list(json.loads((tmp_path / "tiny/simulability.json").read_text())) == list(stages)


def test_warnings_of_a_diagnosis_stand_above_what_passes() -> None:
    picture = Picture("line", (1, 2), (0.1, 0.01), "qubits", "variance", True, (0.05,))
    bad = Finding("BARREN_PLATEAU", "Gradient variance", 0.01, 0.05, True, "Flat.", picture, "below")
    fine = Finding("DEAD_PARAMETERS", "Parameters", 0.0, 0.5, False, "Alive.", picture)
    written = text.markdown(
        Document("t", "s", (), (), (comparison_page.Section("d", "d", parts.diagnosis([bad, fine])),))
    )
    assert (
        "1 of 2 checks warn." in written
        and "BARREN\\_PLATEAU: Flat." in written
        and "DEAD\\_PARAMETERS: Al" not in written
        and "below 0.05" in written
    )


def test_cliques_join_what_the_critical_difference_does_not_part() -> None:
    assert cliques([1, 2, 3, 4], 5) == [(1, 4)]
    assert cliques([1, 3, 5], 1) == []
    assert cliques([1, 1.9, 2.5, 3.2], 1) == [(1, 1.9), (1.9, 2.5), (2.5, 3.2)]


def test_latex_and_markdown_tables_are_whole(pages: dict[str, Document]) -> None:
    for document in pages.values():
        tex = text.latex(document)
        for body in re.findall(r"\\begin{tabular}{(\w+)}(.*?)\\end{tabular}", tex, re.DOTALL):
            lines = [line for line in body[1].splitlines() if line.endswith(r"\\")]
            assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {len(body[0])}
        assert tex.count(r"\begin{table}") == tex.count(r"\end{table}") > 2
        assert not re.search(r"(?<!\\)[%#_]", re.sub(r"(?m)^%.*$|\\label{.*?}", "", tex))
        rows = [line for line in text.markdown(document).splitlines() if line.startswith("| ")]
        assert len(rows) > 10
    table = Table("c", (parts.Column("a", "text"), parts.Column("b")), (("x|y", Heat("1", 0.5)),))
    written = text.markdown(Document("t", "s", (), (), (comparison_page.Section("a", "A", (table,)),)))
    assert "| x\\|y | 1 |" in written


# ---- the command ----------------------------------------------------------------------------------------------------


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as done:
        main(["report", *arguments])
    return int(done.value.code or 0)


def test_the_command_writes_runs_and_comparisons(one: Comparison, run_folder: Path, tmp_path: Path, capsys) -> None:
    folder = write_comparison(one, tmp_path / "cmp")
    assert load_comparison(folder).rows == sorted_rows(one.rows)
    assert command(str(folder)) == 0
    first = (folder / "report.html").read_bytes()
    assert command(str(folder), "--output", str(tmp_path / "page.html")) == 0
    assert (tmp_path / "page.html").read_bytes() == first, "the same every time"
    assert command(str(run_folder), "--format", "md", "--output", str(tmp_path / "run.md")) == 0
    assert (tmp_path / "run.md").read_text().startswith("# small\n")
    assert command(str(run_folder), "--format", "docx") == 2
    assert "must be one of 'html', 'md', 'tex', but is 'docx'" in capsys.readouterr().err
    assert command(str(tmp_path)) == 2
    with pytest.raises(ConfigError, match="is no run"):
        page.write(tmp_path)
    with pytest.raises(ArgumentError, match="format"):
        page.write(folder, format="pdf")


# ---- in a browser ---------------------------------------------------------------------------------------------------

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
QUIET = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-first-run",
)


class Browser:
    """Chromium without a window, told what to do through a pipe."""

    def __init__(self, folder: Path) -> None:
        read_in, self.write = os.pipe()
        self.read, write_out = os.pipe()

        def pipes() -> None:
            os.dup2(read_in, 3)
            os.dup2(write_out, 4)

        options = (
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={folder}",
            "--remote-debugging-pipe",
        )
        self.process = subprocess.Popen(
            [str(BROWSER), *options, *QUIET],
            preexec_fn=pipes,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_in)
        os.close(write_out)
        self.buffer, self.number, self.session, self.events = b"", 0, "", list[dict[str, Any]]()
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def __call__(self, method: str, **options: Any) -> dict[str, Any]:
        self.number += 1
        message = {"id": self.number, "method": method, "params": options}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            chunk = os.read(self.read, 2**20)
            assert chunk, "the browser is gone"
            self.buffer += chunk
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def load(self, path: Path) -> None:
        self("Page.enable")
        self("Network.enable")
        self.events.clear()
        self("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def value(self, expression: str) -> Any:
        return self("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.write)
        os.close(self.read)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if BROWSER is None:
        pytest.skip("no Chromium here")
    started = Browser(tmp_path_factory.mktemp("browser"))
    yield started
    started.close()


@pytest.mark.parametrize("name", NAMES)
def test_in_a_browser(browser: Browser, pages: dict[str, Document], tmp_path: Path, name: str) -> None:
    path = tmp_path / "page.html"
    path.write_text(to_html(pages[name]), encoding="utf-8")
    browser("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
    browser.load(path)
    asked = [e["params"]["request"]["url"] for e in browser.events if e.get("method") == "Network.requestWillBeSent"]
    assert asked == [path.as_uri()]

    size = {"height": 800, "deviceScaleFactor": 1, "mobile": False}
    for width in (1280, 768, 390, 320):
        browser("Emulation.setDeviceMetricsOverride", width=width, **size)
        assert browser.value("document.documentElement.scrollWidth") <= width, f"it is wider than {width} pixels"
    wide = "[...document.querySelectorAll('figure > svg:not(.circuit) text')]"
    assert browser.value(f"{wide}.every(t => t.getBoundingClientRect().height >= 7)"), "too small to read on a phone"
    dots = "[...document.querySelectorAll('td.dots svg')].every(s => s.getBoundingClientRect().width > 200)"
    assert browser.value(dots)

    light = browser.value("getComputedStyle(document.body).backgroundColor")
    browser("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    dark = browser.value("getComputedStyle(document.body).backgroundColor")
    assert [sum(map(int, re.findall(r"\d+", colour))) > 380 for colour in (light, dark)] == [True, False]

    for kind in ("rawKeyDown", "keyUp"):
        browser("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
    assert browser.value("document.activeElement.className") == "skip"
    browser("Emulation.clearDeviceMetricsOverride")
    assert len(browser("Page.printToPDF", printBackground=False)["data"]) > 10_000
    browser("Emulation.setEmulatedMedia", media="print", features=[])
    assert browser.value(
        "[...document.querySelectorAll('nav, .skip')].every(e => getComputedStyle(e).display === 'none')"
    )
