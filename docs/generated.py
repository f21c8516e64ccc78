"""Tables of the documentation site that are made of the code and of measurements, so that they cannot be wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined

from qbp.runs.schema import Compare, Config, Section

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
SECTIONS_OF = {"train": "train", "finetune": "train", "student": "model"}  # keys whose values are another section


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def keys_of(section: type[Section]) -> list[tuple[str, str, str]]:
    """Key, what it may be, and its default."""
    schema = section.model_json_schema()
    shown = schema.get("properties", {})
    return [
        (f"`{name}`", _kind(shown[name], schema), _default(field.default))
        for name, field in section.model_fields.items()
    ]


def _kind(schema: dict[str, Any], whole: dict[str, Any]) -> str:
    """A JSON schema in words."""
    if "$ref" in schema:
        return "section `" + schema["$ref"].rsplit("/", 1)[1].lower() + "`"
    for many in ("anyOf", "oneOf"):
        if many in schema:
            return " or ".join(dict.fromkeys(_kind(each, whole) for each in schema[many]))
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = schema.get("type")
    if kind == "array":
        items = schema.get("items")
        return "list of " + _kind(items, whole) if items else "list"
    if kind == "object":
        values = schema.get("additionalProperties")
        return "mapping of names to " + _kind(values, whole) if isinstance(values, dict) else "mapping"
    words = {"integer": "whole number", "number": "number", "boolean": "true or false", "string": "text"}
    bounds = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    limits = [f"{word} {schema[key]:,}" for key, word in bounds.items() if key in schema]
    return " ".join([words.get(str(kind), "null" if kind == "null" else "anything"), ", ".join(limits)]).strip()


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "**needed**"
    if isinstance(value, Section) or type(value).__name__ == "Training":
        return "its defaults"
    return f"`{json.dumps(value, default=list)}`"


def configs() -> str:
    """Every key of `qbp train`, `run`, `compare` and `trial`, from the schema that checks them."""
    from qbp.runs.schema import SECTIONS
    from qbp.trials.claim import Claim, Figure, Rule, Source
    from qbp.trials.models import Published
    from qbp.trials.protocols.comparison import Options

    parts = []
    for command, config in (("qbp train, qbp run", Config), ("qbp compare", Compare)):
        parts += [f"## The file of `{command}`\n", table(("key", "what it may be", "default"), keys_of(config))]
    parts += ["## The file of `qbp trial`\n", table(("key", "what it may be", "default"), keys_of(Claim))]
    claims = {"source": Source, "figures": Figure, "rule": Rule, "options, protocol: comparison": Options}
    for name, section in {**SECTIONS, **claims, "model, kind: published": Published}.items():
        if name != "finetune":
            title = f"model, kind: {name}" if name in ("hybrid", "mlp") else name
            about = (section.__doc__ or "").split("\n\n")[0].replace("\n", " ")
            parts += [f"## `{title}`\n", about + "\n", table(("key", "what it may be", "default"), keys_of(section))]
    return "\n".join(parts)


def choices() -> str:
    """The names that a config may give, from the tables that hold them."""
    from qbp.circuit.ansatz import ANSATZE
    from qbp.comparison.verdicts import METRICS
    from qbp.compression.distillation_losses import LOSSES as LESSONS
    from qbp.compression.scores import SCORES
    from qbp.data import DATASETS, REDUCTIONS, SCALES
    from qbp.gradients.autograd import DIFF_METHODS
    from qbp.nn.models import ACTIVATIONS
    from qbp.training.metrics import LOSSES
    from qbp.training.options import OPTIMIZERS, SCHEDULES

    names: dict[str, Iterable[Any]] = {
        "data.name": DATASETS,
        "data.reduce": REDUCTIONS,
        "data.scale": SCALES,
        "model.circuit": ANSATZE,
        "model.diff_method": DIFF_METHODS,
        "model.activation": ACTIVATIONS,
        "train.optimizer": OPTIMIZERS,
        "train.schedule": SCHEDULES,
        "train.loss": LOSSES,
        "prune.by": [*SCORES, "exact"],
        "distill.method": LESSONS,
        "metric": METRICS,
    }
    return table(("key", "names"), ((f"`{key}`", ", ".join(f"`{n}`" for n in each)) for key, each in names.items()))


def commands() -> str:
    """Every command with its options, as `--help` has them."""
    import re

    import typer

    from qbp.cli import app

    command: Any = typer.main.get_command(app)
    parts = []
    for name, each in command.commands.items():
        rows = [
            (
                ", ".join(f"`{flag}`" for flag in (*p.opts, *p.secondary_opts))
                if p.opts[0][:1] == "-"
                else f"`{p.metavar or p.name.upper()}`",
                re.sub(r"\s+", " ", getattr(p, "help", None) or ""),
            )
            for p in each.params
        ]
        about = re.sub(r"\s+", " ", (each.help or "").split("\n\n")[0])
        parts += [f"## `qbp {name}`\n", about + "\n", table(("argument", "what"), rows) if rows else ""]
    return "\n".join(parts)


def trials() -> str:
    """Every claim that was tried, with its page, from `benchmarks/results/trials.json`."""
    head = "claim", "its figures", "the quantum part", "published", "ours", "minutes"
    rows = [
        (
            f"[{row['title']}](examples/trials/{row['claim']}.html), {row['source']}",
            row["figures"],
            row["quantum_part"],
            row["published"],
            row["ours"],
            f"{row['minutes']:.1f}",
        )
        for row in json.loads((RESULTS / "trials.json").read_text())
    ]
    return table(head, rows)


PEERS = {
    "default_qubit_backprop": "TorchLayer, default.qubit",
    "lightning_adjoint": "TorchLayer, lightning.qubit",
}


def speed() -> str:
    """Every peer of `benchmarks/results/speed.json`: how many times as long as qbp it takes."""
    rows = json.loads((RESULTS / "speed.json").read_text())["rows"]
    works: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        works.setdefault(row["name"], []).append(row)
    lines = []
    for name, peers in works.items():
        ours = next(row for row in peers if row["peer"] == "qbp_layer")
        depth = f"{ours['blocks']} blocks" if ours["blocks"] else f"{ours['n_layers']} layers"
        size = f"{name}: {ours['n_qubits']} qubits, {depth}, batch {ours['batch']}, {ours['mode']}"
        timed = sorted(
            (row["ratio"], row["version"], row["peer"])
            for row in peers
            if not row["peer"].startswith("qbp") and row.get("ratio")
        )
        lines.append(
            (
                size,
                f"{ours['median_ms']:.3g} ms",
                "; ".join(
                    f"{PEERS.get(peer, peer)} {ratio:,.0f} x"
                    if ratio >= 10
                    else f"{PEERS.get(peer, peer)} {ratio:.1f} x"
                    for ratio, _, peer in timed
                ),
            )
        )
    return table(("workload", "qbp, a step", "the others, times as long"), lines)


TABLES: dict[str, Callable[[], str]] = {
    "configs": configs,
    "choices": choices,
    "commands": commands,
    "speed": speed,
    "trials": trials,
}
