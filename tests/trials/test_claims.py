"""Claims as files: what they may say, what is refused, and the hash of what was fixed beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import qbp
from qbp.errors import ConfigError
from qbp.trials.claim import left_out, load, packaged
from qbp.trials.protocols.comparison import build

MINIMAL: dict[str, Any] = {
    "title": "A small claim",
    "source": {"authors": "A, B", "title": "T", "arxiv": "1234.56789", "where": "table 1", "read": "abstract"},
    "claimed": "One is ahead of the other.",
    "seeds": 6,
    "primary": "hybrid/frozen",
    "figures": [{"arm": "hybrid", "than": "svm_rbf", "rule": {"kind": "greater"}}],
    "options": {
        "data": {"moons": {"name": "moons", "n_samples": 80}},
        "models": {"hybrid": {"kind": "hybrid", "n_qubits": 2, "n_layers": 1}},
        "train": {"epochs": 2},
    },
}


def write(path: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump(MINIMAL | changes))
    return path


def test_every_packaged_claim_is_whole():
    assert {"mari_spirals", "classical_out_of_the_box", "breast_cancer_441", "reuploaded_qubit"} <= set(packaged())
    for name in packaged():
        claim, quick = load(name), load(name, quick=True)
        assert claim.name == name and claim.deviations and claim.claimed.endswith(".")
        assert claim.source.arxiv or claim.source.doi
        assert left_out(name) and quick.sha256 != claim.sha256
        assert len(quick.numbers) < len(claim.numbers) or quick.options != claim.options


@pytest.mark.parametrize("name", packaged())
def test_data_and_models_of_a_comparison_can_be_had(name: str):
    claim = load(name)
    if claim.protocol != "comparison":
        return
    options = claim.protocol_options
    for data in options.data.values():
        train, _ = qbp.data.load(**data.model_dump(), seed=0)
        for model in options.models.values():
            assert build(model, train.x.shape[1], train.n_classes or 0)(train.x[:3]).shape == (3, train.n_classes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tittle": "x"}, "did you mean `title`"),
        ({"source": MINIMAL["source"] | {"read": "abstrakt"}}, "did you mean `abstract`"),
        ({"source": MINIMAL["source"] | {"arxive": "1"}}, "did you mean `arxiv`"),
        ({"protocol": "comparision"}, "did you mean `comparison`"),
        ({"figures": []}, "figures"),
        ({"figures": [{"arm": "hybird", "rule": {"kind": "greater"}}]}, "did you mean `hybrid`"),
        ({"figures": [{"arm": "hybrid", "rule": {"kind": "grater"}}]}, "did you mean `greater`"),
        ({"figures": [{"arm": "hybrid", "valu": 1}]}, "did you mean `value`"),
        ({"figures": [{"arm": "hybrid", "dataset": "moon", "rule": {"kind": "greater"}}]}, "did you mean `moons`"),
        ({"figures": [{"arm": "hybrid", "rule": {"kind": "not_worse"}}]}, "`figures.0.than` is missing"),
        ({"figures": [{"arm": "hybrid", "rule": {"kind": "equal"}}]}, "`figures.0.value` is missing"),
        ({"figures": [{"arm": "hybrid", "value": 1, "rule": {"kind": "equal"}}]}, "`figures.0.deviation` is missing"),
        ({"figures": [{"arm": "hybrid", "value": 1, "deviation": 0.1, "rule": {"kind": "equal"}}]}, "figures.0.n"),
        ({"figures": [{"arm": "hybrid"}]}, "the claim's own `rule`"),
        ({"primary": "hybrid/frozzen"}, "must be one of"),
        ({"controls": ["svm"]}, "`controls.0` must be one of"),
        ({"seeds": 1}, "must be 2 or more"),
        ({"options": MINIMAL["options"] | {"bugdet": 2}}, "`options.bugdet` is unknown"),
        ({"options": MINIMAL["options"] | {"train": {"epoch": 2}}}, "did you mean `epochs`"),
        (
            {"options": MINIMAL["options"] | {"models": {"hybrid": {"kind": "published", "name": "dresed"}}}},
            "did you mean `dressed`",
        ),
        (
            {
                "options": MINIMAL["options"]
                | {"models": {"hybrid": {"kind": "hybrid", "backend": "evil.module:Thing"}}}
            },
            "trust",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, changes: dict[str, Any], says: str):
    with pytest.raises(ConfigError, match=f"(?s).*{says}") as error:
        load(write(tmp_path / "own.yaml", **changes))
    assert "own.yaml" in str(error.value)


def test_a_claim_that_is_not_there():
    with pytest.raises(ConfigError, match="did you mean `mari_spirals`"):
        load("mari_spiral")


def test_the_hash_is_of_what_was_fixed(tmp_path: Path):
    """Prose and defaults that are spelled out leave it as it is; anything that decides changes it."""
    same = load(write(tmp_path / "a.yaml")).sha256
    assert load(write(tmp_path / "b.yaml", title="Other words", claimed="Others.", deviations=["One."])).sha256 == same
    source = MINIMAL["source"] | {"where": "elsewhere"}
    assert load(write(tmp_path / "c.yaml", source=source, quick={"seeds": 5})).sha256 == same
    spelled = [MINIMAL["figures"][0] | {"says": "a word", "rule": {"kind": "greater", "size": 0.0}}]
    assert load(write(tmp_path / "d.yaml", figures=spelled, rope=0.01)).sha256 == same
    options = MINIMAL["options"] | {"budget": 1}
    assert load(write(tmp_path / "e.yaml", options=options)).sha256 == same
    general = {"figures": [{"arm": "hybrid", "than": "svm_rbf"}], "rule": {"kind": "greater"}}
    assert load(write(tmp_path / "f.yaml", **general)).sha256 == same
    for k, change in enumerate(
        (
            {"seeds": 7},
            {"primary": "hybrid/svm_rbf"},
            {"rope": 0.02},
            {"figures": [MINIMAL["figures"][0] | {"value": 0.1}]},
            {"options": MINIMAL["options"] | {"train": {"epochs": 3}}},
        )
    ):
        assert load(write(tmp_path / f"{k}.yaml", **change)).sha256 != same, change


def test_quick_changes_some_keys_and_says_which(tmp_path: Path):
    data = {"moons": {"name": "moons", "n_samples": 80}, "circles": {"name": "circles"}}
    path = write(
        tmp_path / "own.yaml",
        options=MINIMAL["options"] | {"data": data},
        quick={"seeds": 5, "options": {"data": {"circles": None}, "train": {"epochs": 1}}},
    )
    quick = load(path, quick=True)
    assert list(quick.options["data"]) == ["moons"] and quick.options["train"]["epochs"] == 1 and quick.seeds == 5
    assert {"seeds: 6 / 5", "options.train.epochs: 2 / 1"} <= set(left_out(path))
