"""The sections of a config: what each key may be."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, create_model
from pydantic_core import core_schema

from qbp.comparison.scores import METRICS
from qbp.compression.distillation_losses import LOSSES as LESSONS
from qbp.compression.pruning import SCHEDULES as PRUNING_SCHEDULES
from qbp.compression.scores import SCORES
from qbp.data import REDUCTIONS, SCALES
from qbp.gradients.autograd import DIFF_METHODS
from qbp.nn.models import ACTIVATIONS
from qbp.runs.values import among, class_weight, data_name, flat_keys, label, listed, not_bool, number, search, seeds_of
from qbp.storage.markup import Origin
from qbp.training.metrics import LOSSES
from qbp.training.options import INTERVALS, OPTIMIZERS, SCHEDULES, Training
from qbp.training.tracking import TRACKERS

__all__ = [
    "SECTIONS",
    "TRAIN",
    "Compare",
    "Config",
    "Data",
    "Distill",
    "Hybrid",
    "Mlp",
    "Prune",
    "Rules",
    "Section",
    "Sweep",
]


Count = Annotated[int, Field(strict=True, ge=1)]
Number = Annotated[float, BeforeValidator(not_bool)]  # not strict: YAML reads 1e-3 (no dot) as a string
Positive = Annotated[Number, Field(gt=0)]
Label = Annotated[str | int, BeforeValidator(label)]
Share = Annotated[Number, Field(gt=0, lt=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]


class Section(BaseModel):
    """Keys that are all known, none of which changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Data(Section):
    """What `qbp.data.load` takes; `name` may be the path of a file of your own, from the config's folder."""

    name: Annotated[str, AfterValidator(data_name)]
    classes: tuple[Label, ...] | None = None
    features: Count | None = None
    reduce: Annotated[str, among(REDUCTIONS)] = "pca"
    n_samples: Count | None = None
    noise: Annotated[Number, Field(ge=0)] | None = None
    test_size: Share = 0.25
    scale: Annotated[str | None, among(SCALES)] = "standard"
    target: Label | None = None
    options: dict[str, Annotated[Any, AfterValidator(number)]] | None = None


class Hybrid(Section):
    """What `qbp.nn.models.hybrid` takes."""

    kind: Literal["hybrid"] = "hybrid"
    circuit: str = "strongly_entangling"
    n_qubits: Count = 4
    n_layers: Count = 2
    coupling_map: str | tuple[tuple[int, int], ...] | None = None
    backend: str = "auto"
    noise: Annotated[str, Field(pattern=r"^fake:[A-Za-z0-9_]+$")] | None = None
    diff_method: Annotated[str, among(DIFF_METHODS)] = "best"
    shots: Count | None = None
    encoder: Annotated[bool, Field(strict=True)] = True


class Mlp(Section):
    """What `qbp.nn.models.mlp` takes; `hidden` are the widths of the hidden layers."""

    kind: Literal["mlp"] = "mlp"
    hidden: tuple[Count, ...] = (8,)
    activation: Annotated[str, among(ACTIVATIONS)] = "tanh"


def _of_file(name: str, kind: Any) -> Any:
    """What a file may say of an option of `Training`: plain values and names; functions and data are for Python."""
    if name in NAMED:
        optional = type(None) in get_args(kind)
        return Annotated[str | None, among([None, *NAMED[name]])] if optional else Annotated[str, among(NAMED[name])]
    if name in ("validation", "ema_decay"):
        return Share | None
    if name == "monitor":
        return str | None
    if name == "class_weight":
        return Annotated[Any, AfterValidator(class_weight)]
    plain: dict[type, Any] = {int: Count, float: Positive, bool: Annotated[bool, Field(strict=True)]}
    base = next(each for each in (bool, int, float) if each in (kind, *get_args(kind)))
    return plain[base] | None if type(None) in get_args(kind) else plain[base]


NAMED: dict[str, Collection[str]] = {
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

SAMPLERS = ("tpe", "random")
PRUNERS = (None, "median")

Model = Annotated[Hybrid | Mlp, Field(discriminator="kind")]


class Prune(Section):
    """What `qbp.prune` takes; `finetune` is as `train`."""

    amount: Share = 0.5
    by: Annotated[str, among([*SCORES, "exact"])] = "taylor"
    what: Annotated[str, among(["neurons", "gates", "both"])] = "both"
    schedule: Annotated[str, among(PRUNING_SCHEDULES)] = "one-shot"
    steps: Count | None = None
    finetune: Train | None = None


class Distill(Section):
    """What `qbp.distill` takes; `student` is as `model`, and `train` as the whole config's, which is the default.

    Without a student the pruned model is taught.
    """

    student: Model | None = None
    temperature: Positive = 4.0
    alpha: Annotated[Number, Field(ge=0, le=1)] = 0.5
    method: Annotated[str, among(LESSONS)] = "kd"
    layers: tuple[str, str] | None = None
    logit_norm: Annotated[bool, Field(strict=True)] = False
    train: Train | None = None


class Sweep(Section):
    """What `qbp sweep` searches.

    Attributes:
        search: keys of the config by their dotted names, as "train.lr", with a list of choices, or with `low` and
            `high` (both included; integers if both are), and `log: true` or a `step`.
        trials: how many configs are tried.
        parallel: trials that run side by side, on however many workers: they are drawn, and pruned, knowing those
            before them only, so that a sweep comes to the same on one core, on a cluster, and after a kill.
        sampler: what draws them: "tpe" goes on where it was good (arXiv 2304.11127), "random" does not.
        pruner: "median" ends a trial whose best is, after the same epoch, below the median of those before it; null.
        warmup_epochs: of a trial, before which it is not pruned.
        metric: the column of validation by which trials are judged; null: val_accuracy of classes, val_r2 of targets.
        mode: whether the largest ("max") or the smallest ("min") is the best; null: as the metric's name says.
        seeds: of initial weights and order of the rows, for each of which a trial trains: how many, from the config's
            `seed` on, or which; their mean counts. The split into train and test rows is the config's own.
    """

    search: Annotated[
        dict[str, Annotated[Any, AfterValidator(search)]], BeforeValidator(flat_keys), Field(min_length=1)
    ]
    trials: Count = 20
    parallel: Count = 4
    sampler: Annotated[str, among(SAMPLERS)] = "tpe"
    pruner: Annotated[str | None, among(PRUNERS)] = "median"
    warmup_epochs: Annotated[int, Field(strict=True, ge=0)] = 5
    metric: str | None = None
    mode: Annotated[str | None, among([None, "min", "max"])] = None
    seeds: Annotated[Any, seeds_of(1, "must be how many seeds, or a list of different ones")] = 1


class Rules(Section):
    """How models are compared: the options of `qbp.compare`."""

    seeds: Annotated[Any, seeds_of(5, "must be 5 or more, or a list of as many different ones")] = 10
    budget: Annotated[int, Field(strict=True, ge=1, le=12)] = 4
    folds: Annotated[int, Field(strict=True, ge=2, le=20)] = 3
    sizes: tuple[Count, ...] = ()
    metric: Annotated[str | None, among([None, *METRICS])] = None
    rope: Share = 0.01
    alpha: Share = 0.05
    primary: str | None = None


class Config(Section):
    """One run of `qbp train`; with `prune` or `distill` one of `qbp run`, with `sweep` one of `qbp sweep`.

    Attributes:
        name: the run's directory; by default the file's name.
        seed: of the split, the initial weights and the order of the rows.
        threads: torch's threads. One is fastest for models of this size: with more, each small step waits for all.
        twin: whether a hybrid model's classical twin (`qbp.nn.models.matched_mlp`) is trained beside it.
        copy_data: whether a file of your own is copied into the run, which then needs nothing else on another machine.
        tracking: tensorboard, mlflow or a list of both: where metrics go besides the run's own files.
        prune: how the trained model is pruned.
        distill: how the trained model then teaches a smaller one, or the pruned one.
        sweep, compare: which keys are searched; how the model is compared.

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
    tracking: Annotated[tuple[Annotated[str, among(TRACKERS)], ...], BeforeValidator(listed)] = ()
    prune: Prune | None = None
    distill: Distill | None = None
    sweep: Sweep | None = None
    compare: Rules | None = None
    _origin: Origin = Origin()


class Compare(Rules):
    """One comparison of `qbp compare`; what the keys mean is said in `qbp.compare`.

    A config of `qbp train` is one, too: its data and its model, by its section `compare`.

    Attributes:
        name: the comparison's directory; by default the file's name.
        data: data sets by name.
        models: the subjects by name; their controls come by themselves.

    Example:
        >>> from qbp.runs.config import load
        >>> config = load("digits", ["compare.seeds=6"], kind=Compare)
        >>> config.name, list(config.data), list(config.models), config.seeds
        ('digits-compare', ['mnist'], ['hybrid'], 6)
    """

    name: Name
    data: Annotated[dict[str, Data], Field(min_length=1)]
    models: Annotated[dict[str, Model], Field(min_length=1)]
    train: Train = Training()


SECTIONS: dict[str, type[Section]] = {
    "data": Data,
    "train": TRAIN,
    "prune": Prune,
    "finetune": TRAIN,
    "distill": Distill,
    "sweep": Sweep,
    "compare": Rules,
    "hybrid": Hybrid,
    "mlp": Mlp,
}
