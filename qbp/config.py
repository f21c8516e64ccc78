"""Configs of `qbp train`: what a YAML file may say, and what it says wrong, by key and line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from qbp.data import DATASETS, REDUCTIONS, SCALES
from qbp.data.files import SUFFIXES
from qbp.errors import ConfigError
from qbp.expectation import DIFF_METHODS
from qbp.importance import SCORES
from qbp.lesson import LOSSES as LESSONS
from qbp.models import ACTIVATIONS
from qbp.prune import SCHEDULES as PRUNING_SCHEDULES
from qbp.train import LOSSES, OPTIMIZERS, SCHEDULES

__all__ = ["Config", "Data", "Distill", "Hybrid", "Mlp", "Prune", "Train", "differences", "dump", "load", "packaged"]

PACKAGED = Path(__file__).parent / "configs"


def _among(choices: Iterable[str | None]) -> AfterValidator:
    allowed = list(choices)

    def check(value: str | None) -> str | None:
        if value not in allowed:
            raise PydanticCustomError("choice", "is not a choice", {"allowed": allowed})
        return value

    return AfterValidator(check)


def _data_name(value: str) -> str:
    if value not in DATASETS and not value.endswith(tuple(SUFFIXES)):
        raise PydanticCustomError("choice", "is not a choice", {"allowed": [*DATASETS, *(f"*{s}" for s in SUFFIXES)]})
    return value


def _not_bool(value: Any) -> Any:
    if isinstance(value, bool):  # YAML reads `lr: on` as true, and pydantic true as 1.0
        raise PydanticCustomError("number", "must be a number")
    return value


def _label(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise PydanticCustomError("label", "must be the name or the number of a class")
    return value


Count = Annotated[int, Field(strict=True, ge=1)]
Number = Annotated[float, BeforeValidator(_not_bool)]  # not strict: YAML reads 1e-3 (no dot) as a string
Positive = Annotated[Number, Field(gt=0)]
Label = Annotated[str | int, BeforeValidator(_label)]
Share = Annotated[Number, Field(gt=0, lt=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Data(_Section):
    """What `qbp.data.load` takes; `name` may be the path of a file of your own."""

    name: Annotated[str, AfterValidator(_data_name)]
    classes: tuple[Label, ...] | None = None
    features: Count | None = None
    reduce: Annotated[str, _among(REDUCTIONS)] = "pca"
    n_samples: Count | None = None
    noise: Annotated[Number, Field(ge=0)] | None = None
    test_size: Share = 0.25
    scale: Annotated[str | None, _among(SCALES)] = "standard"
    target: Label | None = None
    options: dict[str, Number] | None = None


class Hybrid(_Section):
    """What `qbp.models.hybrid` takes."""

    kind: Literal["hybrid"] = "hybrid"
    circuit: str = "strongly_entangling"
    n_qubits: Count = 4
    n_layers: Count = 2
    backend: str = "auto"
    diff_method: Annotated[str, _among(DIFF_METHODS)] = "best"
    shots: Count | None = None


class Mlp(_Section):
    """What `qbp.models.mlp` takes; `hidden` are the widths of the hidden layers."""

    kind: Literal["mlp"] = "mlp"
    hidden: tuple[Count, ...] = (8,)
    activation: Annotated[str, _among(ACTIVATIONS)] = "tanh"


class Train(_Section):
    """What `qbp.train.fit` takes."""

    epochs: Count = 20
    lr: Positive = 0.01
    optimizer: Annotated[str, _among(OPTIMIZERS)] = "adam"
    batch_size: Count = 32
    schedule: Annotated[str | None, _among([None, *SCHEDULES])] = None
    validation: Share | None = None
    loss: Annotated[str | None, _among([None, *LOSSES])] = None
    early_stopping: Count | None = None
    clip_grad_norm: Positive | None = None


Model = Annotated[Hybrid | Mlp, Field(discriminator="kind")]


class Prune(_Section):
    """What `qbp.prune` takes; `finetune` is as `train`."""

    amount: Share = 0.5
    by: Annotated[str, _among([*SCORES, "exact"])] = "taylor"
    what: Annotated[str, _among(["neurons", "gates", "both"])] = "both"
    schedule: Annotated[str, _among(PRUNING_SCHEDULES)] = "one-shot"
    steps: Count | None = None
    finetune: Train | None = None


class Distill(_Section):
    """What `qbp.distill` takes; `student` is as `model`, and `train` as the whole config's, which is the default.

    Without a student the pruned model is taught.
    """

    student: Model | None = None
    temperature: Positive = 4.0
    alpha: Annotated[Number, Field(ge=0, le=1)] = 0.5
    method: Annotated[str, _among(LESSONS)] = "kd"
    layers: tuple[str, str] | None = None
    logit_norm: Annotated[bool, Field(strict=True)] = False
    train: Train | None = None


class Config(_Section):
    """One run of `qbp train`; with `prune` or `distill` one of `qbp run`.

    Attributes:
        name: the run's directory; by default the file's name.
        seed: of the split, the initial weights and the order of the rows.
        threads: torch's threads. One is fastest for models of this size: with more, each small step waits for all.
        twin: whether a hybrid model's classical twin (`qbp.models.matched_mlp`) is trained beside it.
        prune: how the trained model is pruned.
        distill: how the trained model then teaches a smaller one, or the pruned one.

    Example:
        >>> config = load("xor", ["train.epochs=5"])
        >>> config.data.name, config.train.epochs
        ('xor', 5)
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**32)] = 0
    threads: Count = 1
    data: Data
    model: Model = Hybrid()
    train: Train = Train()
    twin: Annotated[bool, Field(strict=True)] = True
    prune: Prune | None = None
    distill: Distill | None = None


KINDS: dict[str, type[_Section]] = {"hybrid": Hybrid, "mlp": Mlp}
SECTIONS: dict[str, type[_Section]] = {
    "data": Data,
    "train": Train,
    "prune": Prune,
    "finetune": Train,
    "distill": Distill,
    **KINDS,
}


def packaged() -> tuple[str, ...]:
    """Return the names of the configs that come with qbp."""
    return tuple(sorted(path.stem for path in PACKAGED.glob("*.yaml")))


def load(config: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read and check a config.

    Args:
        config: the path of a YAML file, or the name of a config that comes with qbp (see `packaged`).
        overrides: "key=value" with a dotted key, as in "train.lr=0.02"; the value is read as YAML.

    Returns:
        The config with every default filled in.

    Raises:
        ConfigError: no such file; not YAML; a key is unknown, missing or twice there; a value is wrong.
    """
    path = Path(config)
    if not path.is_file():
        if str(config) not in packaged():
            raise ConfigError(
                f"Config {str(config)!r} is neither a file nor one of {', '.join(packaged())}"
                + _meant(str(config), packaged())
            )
        path = PACKAGED / f"{config}.yaml"
    values, lines = _read(path)
    values.setdefault("name", path.stem)
    for override in overrides:
        keys = _override(values, override)
        lines = {key: line for key, line in lines.items() if key[: len(keys)] != keys} | {keys: 0}
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        said = map(_explain, error.errors())
        raise ConfigError(
            "\n".join(f"{_at(path, lines, key)}key `{'.'.join(key)}` {what}" for key, what in said)
        ) from error


def dump(config: Config) -> str:
    """Return a config as YAML, every key spelled out; `load` of it gives an equal config."""
    text: str = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return text


def differences(one: Config, other: Config) -> list[str]:
    """Return what two configs do not have in common, as in "train.lr: 0.01 / 0.02"."""
    flat_one, flat_other = (dict(_flat(config.model_dump())) for config in (one, other))
    keys = [key for key in {**flat_one, **flat_other} if flat_one.get(key) != flat_other.get(key)]
    return [f"{key}: {flat_one.get(key)} / {flat_other.get(key)}" for key in keys]


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


Key = tuple[str, ...]


def _read(path: Path) -> tuple[dict[str, Any], dict[Key, int]]:
    """Read a file: its values, and the line of every key (`load` adds 0 for a key that was overridden)."""
    try:
        text = path.read_text(encoding="utf-8")
        lines: dict[Key, int] = {}
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if not isinstance(root, yaml.MappingNode):
            raise ConfigError(f"{path}: a config must be a mapping, as in `data: {{name: mnist}}`")
        _locate(path, root, (), lines, set())
        values: dict[str, Any] = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read config {path}: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{place}: not YAML: {getattr(error, 'problem', None) or error}") from error
    return values, lines


def _locate(path: Path, node: yaml.MappingNode, above: Key, lines: dict[Key, int], seen: set[int]) -> None:
    """Note the line of every key below `node`, and refuse keys that are twice there (YAML takes the last)."""
    seen.add(id(node))  # an alias can make a node contain itself
    for key_node, value_node in node.value:
        key, line = (*above, str(key_node.value)), key_node.start_mark.line + 1
        if key in lines:
            raise ConfigError(f"{path}, line {line}: key `{'.'.join(key)}` is already there, in line {lines[key]}")
        lines[key] = line
        if isinstance(value_node, yaml.MappingNode) and id(value_node) not in seen:
            _locate(path, value_node, key, lines, seen)


def _override(values: dict[str, Any], override: str) -> Key:
    dotted, equals, text = override.partition("=")
    keys = tuple(dotted.strip().split("."))
    if not equals or not all(keys):
        raise ConfigError(f"Override {override!r} must look like `train.lr=0.02`")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"Override {override!r} has a value that is not YAML: {text!r}") from error
    *sections, last = keys
    for section in sections:
        inner = values.get(section)
        values[section] = inner = dict(inner) if isinstance(inner, dict) else {}
        values = inner
    values[last] = value
    return keys


# In YAML's words what pydantic says in Python's.
WORDS = {
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "tuple_type": "must be a list",
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be a string",
}


def _explain(error: Any) -> tuple[Key, str]:
    """Return the key that pydantic's error is about, and what is wrong with it."""
    kind, given, context = error["type"], error["input"], error.get("ctx", {})
    key = _key(error["loc"])
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        key, given = (*key, "kind"), given.get("kind")
        kind, context = ("choice", {"allowed": list(KINDS)}) if "invalid" in kind else ("missing", {})
    if kind == "missing":
        return key, "is missing"
    if kind == "extra_forbidden":
        section = SECTIONS[error["loc"][-2]] if len(error["loc"]) > 1 else Config
        known = list(section.model_fields)
        return key, f"is unknown (known here: {', '.join(known)}){_meant(key[-1], known)}"
    if kind == "choice":
        allowed = [_yaml(choice) for choice in context["allowed"]]
        return key, f"must be one of {', '.join(allowed)}, but is {_yaml(given)}{_meant(given, allowed)}"
    wanted = error["msg"].replace("Input should be", "must be").replace("String should", "must")
    return key, f"{WORDS.get(kind, wanted)}, but is {_yaml(given)}"


def _key(location: Sequence[str | int]) -> Key:
    # pydantic names the branch of a union after its key
    branch = [k > 0 and location[k - 1] in ("model", "student") for k in range(len(location))]
    return tuple(str(part) for part, named in zip(location, branch, strict=True) if not named)


def _meant(word: Any, choices: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(word), list(choices), n=1)
    return f"; did you mean `{near[0]}`?" if near else ""


def _yaml(value: Any) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    text = text if not isinstance(value, str) else value or "''"
    return text if len(text) <= 60 else text[:57] + "..."


def _at(path: Path, lines: dict[Key, int], key: Key) -> str:
    while key and key not in lines:
        key = key[:-1]
    if key and lines[key] == 0:
        return "Override: "
    return f"{path}, line {lines[key]}: " if key else f"{path}: "
