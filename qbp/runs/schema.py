"""The sections of a config: what each key may be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, create_model
from pydantic_core import PydanticCustomError, core_schema

from qbp.comparison.verdicts import METRICS
from qbp.compression.distillation_losses import LOSSES as LESSONS
from qbp.compression.pruning import SCHEDULES as PRUNING_SCHEDULES
from qbp.compression.scores import SCORES
from qbp.data import DATASETS, REDUCTIONS, SCALES
from qbp.data.files import SUFFIXES
from qbp.gradients.autograd import DIFF_METHODS
from qbp.nn.models import ACTIVATIONS
from qbp.training.metrics import LOSSES
from qbp.training.options import INTERVALS, OPTIMIZERS, SCHEDULES, Training

__all__ = [
    "KINDS",
    "SECTIONS",
    "TRAIN",
    "Compare",
    "Config",
    "Data",
    "Distill",
    "Hybrid",
    "Mlp",
    "Prune",
    "Section",
]


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


def _class_weight(value: Any) -> Any:
    weights = value.values() if isinstance(value, dict) else value
    try:
        if value in (None, "balanced"):
            return value
        if not weights or not all(isinstance(w, int | float) and not isinstance(w, bool) and w >= 0 for w in weights):
            raise TypeError
    except TypeError:
        raise PydanticCustomError("weights", "must be balanced, null, or weights of at least 0 by class") from None
    return {str(key): float(w) for key, w in value.items()} if isinstance(value, dict) else tuple(map(float, value))


def _seeds(value: Any) -> int | tuple[int, ...]:
    numbers = range(value) if isinstance(value, int) and not isinstance(value, bool) else value
    whole = isinstance(numbers, range | list | tuple) and all(isinstance(n, int) and n >= 0 for n in numbers)
    if not whole or len(set(numbers)) < max(5, len(numbers)):
        raise PydanticCustomError("seeds", "must be 5 or more, or a list of as many different ones")
    return value if isinstance(numbers, range) else tuple(numbers)


Count = Annotated[int, Field(strict=True, ge=1)]
Number = Annotated[float, BeforeValidator(_not_bool)]  # not strict: YAML reads 1e-3 (no dot) as a string
Positive = Annotated[Number, Field(gt=0)]
Label = Annotated[str | int, BeforeValidator(_label)]
Share = Annotated[Number, Field(gt=0, lt=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]


class Section(BaseModel):
    """Keys that are all known, none of which changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Data(Section):
    """What `qbp.data.load` takes; `name` may be the path of a file of your own, from the config's folder."""

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


class Hybrid(Section):
    """What `qbp.nn.models.hybrid` takes."""

    kind: Literal["hybrid"] = "hybrid"
    circuit: str = "strongly_entangling"
    n_qubits: Count = 4
    n_layers: Count = 2
    coupling_map: str | tuple[tuple[int, int], ...] | None = None
    backend: str = "auto"
    noise: Annotated[str, Field(pattern=r"^fake:[A-Za-z0-9_]+$")] | None = None
    diff_method: Annotated[str, _among(DIFF_METHODS)] = "best"
    shots: Count | None = None


class Mlp(Section):
    """What `qbp.nn.models.mlp` takes; `hidden` are the widths of the hidden layers."""

    kind: Literal["mlp"] = "mlp"
    hidden: tuple[Count, ...] = (8,)
    activation: Annotated[str, _among(ACTIVATIONS)] = "tanh"


def _of_file(name: str, kind: Any) -> Any:
    """What a file may say of an option of `Training`: plain values and names; functions and data are for Python."""
    if name in NAMED:
        optional = type(None) in get_args(kind)
        return Annotated[str | None, _among([None, *NAMED[name]])] if optional else Annotated[str, _among(NAMED[name])]
    if name in ("validation", "ema_decay"):
        return Share | None
    if name == "monitor":
        return str | None
    if name == "class_weight":
        return Annotated[Any, AfterValidator(_class_weight)]
    plain: dict[type, Any] = {int: Count, float: Positive, bool: Annotated[bool, Field(strict=True)]}
    base = next(each for each in (bool, int, float) if each in (kind, *get_args(kind)))
    return plain[base] | None if type(None) in get_args(kind) else plain[base]


NAMED: dict[str, Iterable[str]] = {
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "loss": LOSSES,
    "mode": ("min", "max"),
    "schedule_interval": INTERVALS,
}
ONLY_PYTHON = ("metrics",)  # functions
_KINDS = get_type_hints(Training)
_OPTIONS: dict[str, Any] = {
    each.name: (_of_file(each.name, _KINDS[each.name]), each.default)
    for each in fields(Training)
    if each.name not in ONLY_PYTHON
}
TRAIN: type[Section] = create_model(
    "Train",
    __base__=Section,
    __doc__="What `qbp.Training` takes.",
    **_OPTIONS,
)


class _FromFile:
    """Checks a mapping by `TRAIN`, key by key, and makes it a `Training`."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        checked = core_schema.no_info_after_validator_function(
            lambda section: Training(**dict(section)), handler.generate_schema(TRAIN)
        )
        plain = core_schema.plain_serializer_function_ser_schema(_said)
        return core_schema.no_info_before_validator_function(
            lambda value: _said(value) if isinstance(value, Training) else value, checked, serialization=plain
        )


def _said(training: Training) -> dict[str, Any]:
    """What a file says of a training."""
    return {key: value for key, value in vars(training).items() if key not in ONLY_PYTHON}


Train = Annotated[Training, _FromFile]


Model = Annotated[Hybrid | Mlp, Field(discriminator="kind")]


class Prune(Section):
    """What `qbp.prune` takes; `finetune` is as `train`."""

    amount: Share = 0.5
    by: Annotated[str, _among([*SCORES, "exact"])] = "taylor"
    what: Annotated[str, _among(["neurons", "gates", "both"])] = "both"
    schedule: Annotated[str, _among(PRUNING_SCHEDULES)] = "one-shot"
    steps: Count | None = None
    finetune: Train | None = None


class Distill(Section):
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


class Config(Section):
    """One run of `qbp train`; with `prune` or `distill` one of `qbp run`.

    Attributes:
        name: the run's directory; by default the file's name.
        seed: of the split, the initial weights and the order of the rows.
        threads: torch's threads. One is fastest for models of this size: with more, each small step waits for all.
        twin: whether a hybrid model's classical twin (`qbp.nn.models.matched_mlp`) is trained beside it.
        copy_data: whether a file of your own is copied into the run, which then needs nothing else on another machine.
        prune: how the trained model is pruned.
        distill: how the trained model then teaches a smaller one, or the pruned one.

    Example:
        >>> from qbp.runs.config import load
        >>> config = load("xor", ["train.epochs=5"])
        >>> config.data.name, config.train.epochs
        ('xor', 5)
    """

    name: Name
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**32)] = 0
    threads: Count = 1
    data: Data
    model: Model = Hybrid()
    train: Train = Training()
    twin: Annotated[bool, Field(strict=True)] = True
    copy_data: Annotated[bool, Field(strict=True)] = False
    prune: Prune | None = None
    distill: Distill | None = None


class Compare(Section):
    """One comparison of `qbp compare`; what the keys mean is said in `qbp.compare`.

    Attributes:
        name: the comparison's directory; by default the file's name.
        data: data sets by name.
        models: the subjects by name; their controls come by themselves.

    Example:
        >>> from qbp.runs.config import load
        >>> config = load("moons", ["seeds=6"], kind=Compare)
        >>> list(config.data), list(config.models), config.seeds
        (['moons'], ['hybrid'], 6)
    """

    name: Name
    seeds: Annotated[Any, AfterValidator(_seeds)] = 10
    data: Annotated[dict[str, Data], Field(min_length=1)]
    models: Annotated[dict[str, Model], Field(min_length=1)]
    train: Train = Training()
    budget: Annotated[int, Field(strict=True, ge=1, le=12)] = 4
    folds: Annotated[int, Field(strict=True, ge=2, le=20)] = 3
    sizes: tuple[Count, ...] = ()
    metric: Annotated[str, _among(METRICS)] = "accuracy"
    rope: Share = 0.01
    alpha: Share = 0.05


KINDS: dict[str, type[Section]] = {"hybrid": Hybrid, "mlp": Mlp}
SECTIONS: dict[str, type[Section]] = {
    "data": Data,
    "train": TRAIN,
    "prune": Prune,
    "finetune": TRAIN,
    "distill": Distill,
    **KINDS,
}
