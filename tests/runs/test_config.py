"""Configs: what loads, what is refused, and whether the message says where and what instead."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from qbp import data
from qbp.errors import ArgumentError, ConfigError
from qbp.nn import models
from qbp.runs import config as configs
from qbp.runs import run
from qbp.runs.folder import plain
from qbp.runs.schema import TRAIN
from qbp.storage.folder import differences
from qbp.training import fitting as train
from qbp.training.options import Training

GOOD = """\
data:
  name: moons
  n_samples: 100
model:
  kind: mlp
  hidden: [4]
train:
  epochs: 3
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "moons-small.yaml"
    file.write_text(GOOD)
    return file


def refusal(source: Any, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        configs.load(source, overrides)
    return str(caught.value)


def test_a_file_gets_its_name_and_every_default(path: Path) -> None:
    config = configs.load(path)
    assert config.name == "moons-small"
    assert config.data == configs.Data(name="moons", n_samples=100)
    assert config.model == configs.Mlp(hidden=(4,))
    assert config.train == Training(epochs=3)
    assert (config.seed, config.twin) == (0, True)


@pytest.mark.parametrize("name", configs.packaged())
def test_packaged_configs_load_by_bare_name(name: str) -> None:
    assert configs.load(name).name == name


def test_there_are_packaged_configs() -> None:
    assert {"digits", "xor"} <= set(configs.packaged())


@pytest.mark.parametrize(
    ("section", "function"),
    [
        (configs.Data, data.load),
        (configs.Hybrid, models.hybrid),
        (configs.Mlp, models.mlp),
        (TRAIN, train.fit),
    ],
)
def test_keys_and_defaults_are_those_of_the_function_they_are_passed_to(section: Any, function: Any) -> None:
    parameters = inspect.signature(function).parameters
    for key, field in section.model_fields.items():
        if key in ("kind", "hidden"):  # `kind` chooses the function, `hidden` are positional arguments
            continue
        assert key in parameters
        if parameters[key].default is not inspect.Parameter.empty:
            assert field.default == parameters[key].default, key


@pytest.mark.parametrize("name", configs.packaged())
def test_dump_and_load_are_inverse_and_dump_spells_out_every_key(name: str, tmp_path: Path) -> None:
    config = configs.load(name, ["train.lr=3e-3", "data.classes=[a, 3]", "seed=7"])
    (tmp_path / "other.yaml").write_text(configs.dump(config))
    assert configs.load(tmp_path / "other.yaml") == config
    written = yaml.safe_load(configs.dump(config))
    assert set(written) == set(configs.Config.model_fields)
    assert set(written["train"]) == set(TRAIN.model_fields)


def test_overrides_are_typed_by_yaml(path: Path) -> None:
    config = configs.load(
        path,
        ["train.lr=2e-2", "train.schedule=cosine", "data.classes=[0, upper]", "twin=false", "train.epochs=5"],
    )
    assert config.train.lr == 0.02
    assert config.train.schedule == "cosine"
    assert config.data.classes == (0, "upper")
    assert config.twin is False
    assert config.train.epochs == 5
    assert configs.load(path, ["train.schedule="]).train.schedule is None
    assert configs.load(path, ["model={kind: hybrid, n_qubits: 3}"]).model == configs.Hybrid(n_qubits=3)
    assert configs.load(path, ["train.epochs=5", "train.epochs=6"]).train.epochs == 6


@pytest.mark.parametrize(
    ("change", "line", "words"),
    [
        (
            ("epochs: 3", "epoch: 3"),
            8,
            ["key `train.epoch` is unknown", "did you mean `epochs`?", "batch_size"],
        ),
        (("train:", "trian:"), 7, ["key `trian` is unknown", "did you mean `train`?"]),
        (("hidden: [4]", "n_qubits: 4"), 6, ["key `model.n_qubits` is unknown (known here: kind, hidden, "]),
        (("kind: mlp", "kind: hybird"), 5, ["`model.kind` must be one of hybrid, mlp", "mean `hybrid`?"]),
        (
            ("name: moons", "name: mons"),
            2,
            ["`data.name` must be one of xor, ", "but is mons", "mean `moons`?"],
        ),
        (("  name: moons\n", ""), 1, ["key `data.name` is missing"]),
        (("epochs: 3", "epochs: 0"), 8, ["key `train.epochs` must be greater than or equal to 1, but is 0"]),
        (("epochs: 3", "epochs: 2.5"), 8, ["key `train.epochs` must be an integer, but is 2.5"]),
        (("epochs: 3", "epochs: true"), 8, ["key `train.epochs` must be an integer, but is true"]),
        (("epochs: 3", "epochs: many"), 8, ["key `train.epochs` must be an integer, but is many"]),
        (("epochs: 3", "lr: on"), 8, ["key `train.lr` must be a number, but is true"]),
        (("epochs: 3", "lr: .inf"), 8, ["key `train.lr` must be a finite number, but is inf"]),
        (("epochs: 3", "lr: -1"), 8, ["key `train.lr` must be greater than 0, but is -1"]),
        (("epochs: 3", "validation: 1.5"), 8, ["key `train.validation` must be less than 1, but is 1.5"]),
        (("epochs: 3", "optimizer: adem"), 8, ["must be one of sgd, momentum, ", "did you mean `adam`?"]),
        (("hidden: [4]", "hidden: [4, x]"), 6, ["key `model.hidden.1` must be an integer, but is x"]),
        (("hidden: [4]", "hidden: 4"), 6, ["key `model.hidden` must be a list, but is 4"]),
        (
            ("n_samples: 100", "classes: [[1]]"),
            3,
            ["`data.classes.0` must be the name or the number of a class"],
        ),
        (("epochs: 3", "epochs: 3\nseed: -1"), 9, ["key `seed` must be greater than or equal to 0"]),
        (("epochs: 3", "epochs: 3\ntwin: maybe"), 9, ["key `twin` must be true or false, but is maybe"]),
        (("epochs: 3", "epochs: 3\nname: ../up"), 9, ["key `name` must match pattern"]),
        (("epochs: 3", "epochs: 3\n  epochs: 4"), 9, ["key `train.epochs` is already there, in line 8"]),
        (("epochs: 3", "epochs: [3"), 9, ["not YAML"]),
        (
            ("epochs: 3", "epochs: !!python/name:os.system"),
            8,
            ["not YAML", "could not determine a constructor"],
        ),
    ],
)
def test_an_error_names_file_line_key_and_what_would_do(
    path: Path, change: tuple[str, str], line: int, words: list[str]
) -> None:
    assert GOOD.count(change[0]) == 1
    path.write_text(GOOD.replace(*change))
    message = refusal(path)
    assert message.startswith(f"{path}, line {line}: ")
    assert "\n" not in message
    for word in words:
        assert word in message


def test_every_error_of_a_file_is_told_at_once(path: Path) -> None:
    path.write_text(GOOD.replace("epochs: 3", "epochs: 0").replace("hidden: [4]", "hiden: [4]"))
    assert len(refusal(path).splitlines()) == 2


@pytest.mark.parametrize("text", ["", "- 1", "moons", "3: {name: moons}"])
def test_a_config_must_be_a_mapping_with_data(path: Path, text: str) -> None:
    path.write_text(text)
    assert "must be a mapping" in refusal(path) or "key `data` is missing" in refusal(path)


@pytest.mark.parametrize("data", ["moons", "[moons]", "3", "null"])
def test_a_comparison_whose_data_are_no_mapping_is_refused(path: Path, data: str) -> None:
    path.write_text(f"data: {data}\nmodels:\n  hybrid: {{kind: hybrid}}\n")
    with pytest.raises(ConfigError, match=r"line 1: key `data` must be a mapping"):
        configs.load(path, kind=configs.Compare)


def test_aliases_that_contain_themselves_end(path: Path) -> None:
    path.write_text(GOOD + "  more: &a\n    again: *a\n")
    assert "line 9: a value that contains itself" in refusal(path)


def test_a_name_that_is_no_config_gets_the_list() -> None:
    message = refusal("digit")
    assert "neither a file nor one of digits, " in message
    assert "did you mean `digits`?" in message


def test_a_directory_and_bytes_are_refused(path: Path, tmp_path: Path) -> None:
    assert "neither a file" in refusal(tmp_path)
    path.write_bytes(b"\xff\xfe\x00")
    assert "Cannot read config" in refusal(path)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.lr", "must look like `train.lr=0.02`"),
        ("=3", "must look like"),
        ("train..lr=3", "must look like"),
        ("train.lr=[", "not YAML"),
        ("train.lr=0", "Override: key `train.lr` must be greater than 0, but is 0"),
        ("train.lrs=1", "Override: key `train.lrs` is unknown"),
        ("train=3", "Override: key `train` must be a mapping, but is 3"),
        ("model.kind=hybrid", "key `model.hidden` is unknown"),
    ],
)
def test_a_wrong_override_is_refused(path: Path, override: str, words: str) -> None:
    assert words in refusal(path, override)


def test_values_that_stay_are_named_when_they_clash_with_an_override(path: Path) -> None:
    path.write_text("data:\n  name: iris\n  classes: [setosa, virginica]\nmodel:\n  kind: hybrid\n  n_qubits: 3\n")
    config = configs.load(path, ["data.name=wine"])
    with pytest.raises(ArgumentError) as refused:
        run.load_data(config)
    line = f"`data.classes` is [setosa, virginica] in {path}, line 3: what an override does not change stays"
    assert str(refused.value).endswith(f"\n{line}")
    with pytest.raises(ArgumentError) as refused:
        run.load_data(configs.load(path, ["data.classes=[setsa]"]))
    assert "line 3" not in str(refused.value)
    assert config == configs.load(path, ["data.name=wine"]) == type(config)(**config.model_dump())
    with pytest.raises(ConfigError) as wrong:
        configs.load(path, ["model.kind=mlp", "model.hidden=[3, 4]"])
    assert f"{path}, line 6: key `model.n_qubits` is unknown" in str(wrong.value)
    said = str(wrong.value).splitlines()[-1]
    assert said.endswith("--set 'model={kind: mlp, hidden: [3, 4]}' replaces all of `model`")
    assert configs.load(path, ["model={kind: mlp, hidden: [3, 4]}"]).model.hidden == (3, 4)


def test_a_run_is_named_by_the_letters_that_a_name_may_have(tmp_path: Path) -> None:
    for stem, name in (("my run (2)", "my-run-2"), (".hidden", "hidden"), ("über", "ber"), ("((", "run")):
        (tmp_path / f"{stem}.yaml").write_text(GOOD)
        assert configs.load(tmp_path / f"{stem}.yaml").name == name


def test_differences_name_the_keys(path: Path) -> None:
    one = plain(configs.load(path), path.parent)
    assert differences(one, plain(configs.load(path), path.parent)) == []
    assert differences(one, plain(configs.load(path, ["train.lr=0.02", "seed=1"]), path.parent)) == [
        "seed: 0 / 1",
        "train.lr: 0.01 / 0.02",
    ]
    other = plain(configs.load(path, ["model={kind: hybrid}"]), path.parent)
    assert "model.kind: mlp / hybrid" in differences(one, other)
    assert "model.n_qubits: None / 4" in differences(one, other)


yaml_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(["name", "data", "model", "train", "data.classes", "model.kind", "train.lr", "x", "data.x.y"])


@given(key=keys, value=yaml_values)
def test_whatever_a_value_is_it_loads_or_is_refused_in_words(key: str, value: Any) -> None:
    try:
        config = configs.load("digits", [f"{key}={yaml.safe_dump(value)}"])
    except ConfigError as error:
        assert "key `" in str(error) or "YAML" in str(error)
    else:
        assert yaml.safe_load(configs.dump(config))


@pytest.mark.parametrize("name", ["plugin:Thing", "os:system", "ibm:torino", "some.device"])
def test_backends_of_a_file_want_trust(name, tmp_path):
    """But not those that the user gives beside it."""
    model = f"{{kind: hybrid, backend: '{name}'}}"
    files = {
        "run.yaml": f"data: {{name: xor}}\nmodel: {model}\n",
        "student.yaml": f"data: {{name: xor}}\ndistill:\n  student: {model}\n",
        "compare.yaml": f"data: {{xor: {{name: xor}}}}\nmodels: {{a: {model}}}\n",
    }
    for file, text in files.items():
        (tmp_path / file).write_text(text)
        kind = configs.Compare if file == "compare.yaml" else configs.Config
        with pytest.raises(ConfigError, match=rf"{file}, line \d names the backend '{name}', which would"):
            configs.load(tmp_path / file, kind=kind)
        configs.load(tmp_path / file, kind=kind, trust=True)
    key = {"run.yaml": "model.backend", "student.yaml": "distill.student.backend"}
    for file, dotted in key.items():
        configs.load(tmp_path / file, [f"{dotted}={name}"])


def test_data_of_a_comparison_that_are_no_mapping_are_told(path: Path) -> None:
    path.write_text("data: moons\nmodels: {mlp: {kind: mlp}}\n")
    with pytest.raises(ConfigError, match="line 1: key `data` must be a mapping, but is moons"):
        configs.load(path, kind=configs.Compare)


def test_a_train_config_is_one_of_compare(tmp_path: Path) -> None:
    """Its model on its data, by its section `compare`; faults are told by its own keys."""
    file = tmp_path / "mine.yaml"
    text = "data: {name: moons, n_samples: 120}\nmodel: {kind: hybrid, n_qubits: 2}\ntrain: {epochs: 5}\n"
    file.write_text(text + "compare: {seeds: 7, folds: 2}\n")
    train, compare = configs.load(file), configs.load(file, ["train.lr=0.5"], kind=configs.Compare)
    assert (compare.name, train.name) == ("mine-compare", "mine")
    assert compare.data == {"moons": train.data} and compare.models == {"hybrid": train.model}
    assert (compare.seeds, compare.folds, compare.budget, compare.train.lr) == (7, 2, 4, 0.5)
    assert configs.load(file, ["name=other"], kind=configs.Compare).name == "other"
    with pytest.raises(ConfigError, match=r"key `compare.seedz` is unknown .*did you mean `seeds`"):
        configs.load(file, ["compare.seedz=7"], kind=configs.Compare)
    file.write_text(text.replace("moons", "moonz"))
    with pytest.raises(ConfigError, match=r"line 1: key `data.name` must be one of .*did you mean `moons`"):
        configs.load(file, kind=configs.Compare)
    with pytest.raises(ConfigError, match=r"neither a file nor one of .*did you mean `digits`"):
        configs.load("digitz", kind=configs.Compare)
