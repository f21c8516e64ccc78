"""Smaller models as one run: train, prune, distil, each stage measured and its model kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from qbp.compression.distillation import distill
from qbp.compression.pruning import prune
from qbp.data import Dataset
from qbp.errors import ConfigError
from qbp.nn.resources import size
from qbp.nn.saving import load_model, save_model
from qbp.runs.config import Config, Distill, Hybrid, Mlp
from qbp.runs.folder import claim
from qbp.runs.run import build, load_data, restore, threads
from qbp.storage.folder import RunFolder
from qbp.training.fitting import evaluate, fit

__all__ = ["MODEL", "run", "teach"]

MODEL = "model.safetensors"

Stage = Callable[[Path], nn.Module]


def run(
    config: Config, directory: str | Path, *, resume: bool = False, progress: bool = False, trust: bool = False
) -> dict[str, Any]:
    """Train the config's model, prune it, and let it teach a smaller one, as far as the config says so.

    The directory then holds `config.yaml`, `versions.json`, `result.json`, and for each stage a directory with
    `model.safetensors` (see `qbp.load_model`), its own `result.json` and what its training leaves: "1-train",
    "2-prune", "3-distill", and "3-scratch", the distilled student trained on the labels alone. Killed at any moment
    and resumed, it ends with the bits of a run that was not: every stage begins with the files of those before it.

    Args:
        config: the config, with `prune` or `distill` or both.
        directory: where to.
        resume: go on with the run in the directory, if there is one.
        progress: draw a bar with the time left.
        trust: whether models in the directory may name a backend that has to be imported; see `qbp.load_model`.

    Returns:
        What `result.json` holds: `name`, `seed`, `data`, and by name of the stage `size` of its model and the metrics
        of `qbp.evaluate` on held-out data.

    Raises:
        ConfigError: there are no stages, the directory is taken, or it holds a run of another config.
        ArgumentError: a stage asks for what does not fit.
    """
    if config.prune is None and config.distill is None:
        raise ConfigError(f"Config {config.name} must have `prune` or `distill`: without them use `qbp train`")
    if config.prune is None and config.distill is not None and config.distill.student is None:
        raise ConfigError(f"Config {config.name} must have `distill.student`, or `prune`, whose model is then taught")
    folder = Path(directory)
    with threads(config.threads):
        train, test = load_data(config)
        model = _built(config, config.model, train)  # what cannot be built claims no directory
        student = _built(config, config.distill.student, train) if config.distill and config.distill.student else None
        whole = claim(folder, config, resume)
        if not whole.is_finished:
            stages = {
                name: _stage(RunFolder(folder / name), make, test, config.train.loss, trust)
                for name, make in _stages(config, folder, train, model, student, progress, trust).items()
            }
            whole.finish(_about(config, train, test) | {"stages": stages})
        return whole.result()


def _stages(
    config: Config,
    folder: Path,
    train: Dataset,
    model: nn.Module,
    student: nn.Module | None,
    progress: bool,
    trust: bool,
) -> dict[str, Stage]:
    """What makes the model of each stage, by the name of its directory."""

    def trained(run_dir: Path) -> nn.Module:
        fit(model, train, config.train, seed=config.seed, run_dir=run_dir, resume=True, progress=progress)
        return model

    def pruned(run_dir: Path) -> nn.Module:
        assert config.prune is not None
        options = config.prune.model_dump() | {"seed": config.seed}
        return prune(load_model(folder / "1-train" / MODEL, trust=trust), train, **options)

    def distilled(run_dir: Path) -> nn.Module:
        assert config.distill is not None
        taught = load_model(folder / "2-prune" / MODEL, trust=trust) if student is None else student
        return _distilled(
            config, [load_model(folder / "1-train" / MODEL, trust=trust)], taught, train, run_dir, progress
        )

    def scratch(run_dir: Path) -> nn.Module:
        assert config.distill is not None and student is not None
        training = config.distill.train or config.train
        fit(student, train, training, seed=config.seed, run_dir=run_dir, resume=True, progress=progress)
        return student

    stages: dict[str, Stage] = {"1-train": trained}
    if config.prune is not None:
        stages["2-prune"] = pruned
    if config.distill is not None:
        stages["3-distill"] = distilled
    if student is not None:
        stages["3-scratch"] = scratch  # changes the student: `distill` took a copy
    return stages


def teach(
    config: Config,
    teachers: Sequence[str | Path],
    directory: str | Path,
    *,
    resume: bool = False,
    progress: bool = False,
    trust: bool = False,
) -> dict[str, Any]:
    """Let finished models teach the config's model, with the settings of its `distill` section.

    The directory becomes a run like those of `qbp.runs.run.train`, with `model.safetensors` beside the checkpoint.

    Args:
        config: the config; its model is the student, without `distill.student`.
        teachers: directories of runs, or model files of `qbp.save_model`.
        directory, resume, progress, trust: as in `run`; the teachers' too.

    Returns:
        What `result.json` holds: as that of `qbp.runs.run.train`, with `models` "student" and "teacher 1" and so on.

    Raises:
        ConfigError: there are no such teachers, the directory is taken, or it holds a run of another config.
        ArgumentError: teacher, student and data do not fit.
    """
    if not teachers:
        raise ConfigError("Distillation needs at least one teacher: the directory of a run, or a model file")
    if config.distill is not None and config.distill.student is not None:
        raise ConfigError("The student is the config's `model` here: take `distill.student` out")
    if config.distill is None:
        config = config.model_copy(update={"distill": Distill()})
    folder = Path(directory)
    with threads(config.threads):
        train, test = load_data(config)
        student = _built(config, config.model, train)
        models = [
            load_model(each, trust=trust) if Path(each).is_file() else restore(Path(each), trust)[1]
            for each in teachers
        ]
        run = claim(folder, config, resume)
        if run.is_finished:
            return run.result()
        taught = _distilled(config, models, student, train, folder, progress)
        save_model(taught, folder / MODEL)
        named = {"student": taught, **{f"teacher {k}": model for k, model in enumerate(models, 1)}}
        scores = {
            name: size(model, test.x[:1]) | evaluate(model, test, loss=config.train.loss)
            for name, model in named.items()
        }
        run.finish(_about(config, train, test) | {"models": scores})
        return run.result()


def _stage(folder: RunFolder, make: Stage, test: Dataset, loss: Any, trust: bool) -> dict[str, Any]:
    """A stage's result; if it is not there yet, the stage is done, or gone on with."""
    if not folder.is_finished:
        folder.path.mkdir(exist_ok=True)
        save_model(make(folder.path), folder.path / MODEL)
        model = load_model(folder.path / MODEL, trust=trust)
        folder.finish(size(model, test.x[:1]) | evaluate(model, test, loss=loss))
    return folder.result()


def _distilled(
    config: Config, teachers: Sequence[nn.Module], student: nn.Module, train: Dataset, run_dir: Path, progress: bool
) -> nn.Module:
    assert config.distill is not None
    options: Mapping[str, Any] = config.distill.model_dump(exclude={"student", "train"})
    training = config.distill.train or config.train
    where: dict[str, Any] = {"seed": config.seed, "run_dir": run_dir, "resume": True, "progress": progress}
    return distill(teachers, student, train, training, **options, **where)


def _built(config: Config, model: Hybrid | Mlp, train: Dataset) -> nn.Module:
    return next(iter(build(config.model_copy(update={"model": model, "twin": False}), train).values()))


def _about(config: Config, train: Dataset, test: Dataset) -> dict[str, Any]:
    return {
        "name": config.name,
        "seed": config.seed,
        "data": {"name": test.name, "train": len(train), "test": len(test)},
    }
