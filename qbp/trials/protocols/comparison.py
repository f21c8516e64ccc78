"""A comparison with controls, as of `qbp compare`: subjects on data sets, and all that can take a circuit's place."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from torch import nn

from qbp.comparison.cells import Progress
from qbp.comparison.comparing import Comparison
from qbp.comparison.comparing import compare as compare_models
from qbp.comparison.controls import CONTROLS
from qbp.comparison.estimators import CLASSIFIERS
from qbp.comparison.twins import TWIN
from qbp.runs.run import model_of
from qbp.runs.schema import Data, Hybrid, Mlp, Section, Train
from qbp.training.options import Training
from qbp.trials.cell import Cell, Row
from qbp.trials.models import Published, build_published

__all__ = ["Options", "build", "cells", "compare", "rows_of"]

Model = Annotated[Hybrid | Mlp | Published, Field(discriminator="kind")]


class Options(Section):
    """What is compared, as in a config of `qbp compare`.

    Attributes:
        data: data sets by name, as `qbp.data.load` takes them.
        models: the subjects by name; their controls, "SUBJECT/CONTROL", come by themselves.
        train: how they are trained.
        budget: configurations that every model tries.
        folds: of the cross-validation by which it chooses.
    """

    data: Annotated[dict[str, Data], Field(min_length=1)]
    models: Annotated[dict[str, Model], Field(min_length=1)]
    train: Train = Training()
    budget: Annotated[int, Field(strict=True, ge=1, le=12)] = 1
    folds: Annotated[int, Field(strict=True, ge=2, le=20)] = 3


def cells(options: Options, seeds: Sequence[int]) -> list[Cell]:
    """Return what arms there may be: of a model without a circuit there are not all."""
    own = [name for s in options.models for name in (s, *(f"{s}/{control}" for control in (*CONTROLS, TWIN)))]
    return [Cell(dataset, arm, seed) for seed in seeds for dataset in options.data for arm in (*own, *CLASSIFIERS)]


def compare(
    options: Options,
    seeds: Sequence[int],
    directory: Path,
    *,
    metric: str,
    primary: str | None,
    rope: float,
    alpha: float,
    workers: int = 1,
    executor: str = "processes",
    progress: Progress | None = None,
) -> Comparison:
    """Run it, or go on with it; the rest is as in `qbp.compare`."""
    return compare_models(
        {name: partial(build, model) for name, model in options.models.items()},
        data={name: data.model_dump() for name, data in options.data.items()},
        seeds=seeds,
        training=options.train,
        budget=options.budget,
        folds=options.folds,
        metric=metric,
        primary=primary,
        rope=rope,
        alpha=alpha,
        directory=directory,
        workers=workers,
        executor=executor,
        progress=progress,
        about={"subjects": {name: model.model_dump(mode="json") for name, model in options.models.items()}},
    )


def build(model: Any, n_inputs: int, n_outputs: int) -> nn.Module:
    """Build a subject from its section."""
    if isinstance(model, Published):
        return build_published(model.name, n_inputs, n_outputs, model.options)
    return model_of(model, n_inputs, n_outputs)


def rows_of(comparison: Comparison) -> list[Row]:
    """The rows of a comparison as those of a trial."""
    shares = {row["dataset"]: row["test_share"] for row in comparison.verdicts}
    return [{"arm": row["model"], "test_share": shares.get(row["dataset"]), **row} for row in comparison.rows]
