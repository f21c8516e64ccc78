"""Runs on disk: train what a config says into a directory, go on after a kill, evaluate again later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from qbp import data
from qbp.analysis.diagnosis import Finding, stalled
from qbp.analysis.diagnosis import diagnose as diagnose_model
from qbp.data import Dataset, Preprocessing
from qbp.errors import ConfigError, did_you_mean
from qbp.nn import models
from qbp.nn.copying import copied
from qbp.nn.saving import load_model
from qbp.runs.config import Config, Hybrid, Mlp, naming_inherited
from qbp.runs.folder import TWIN, check_data_file, claim, read_config
from qbp.storage.container import load_state
from qbp.storage.folder import RunFolder, flat
from qbp.training.checkpoint import CHECKPOINT, METRICS
from qbp.training.fitting import History, fit, load_checkpoint
from qbp.training.fitting import evaluate as evaluate_model
from qbp.training.metrics import main_metric
from qbp.training.tracking import Tracking

__all__ = [
    "build",
    "check_trains",
    "diagnose",
    "evaluate",
    "load_data",
    "model_of",
    "opened",
    "restore",
    "tracking",
    "train",
    "verdict",
]

DIAGNOSIS = "diagnosis.json"


def load_data(config: Config, preprocessing: Preprocessing | None = None) -> tuple[Dataset, Dataset]:
    """Return (train, test) as the config says, prepared as was fitted earlier where that is given."""
    with naming_inherited(config):
        return data.load(**config.data.model_dump(), seed=config.seed, preprocessing=preprocessing)


def build(config: Config, train: Dataset | Preprocessing) -> dict[str, nn.Module]:
    """Build the models of a run: the config's, under the name of its kind, and the twin of a hybrid one.

    Args:
        config: the config.
        train: the data, or what is done to them, for the numbers of inputs and outputs.

    Returns:
        The models by name, the config's first.

    Raises:
        ArgumentError: the model cannot be built, or has no twin of its size.
    """
    n_inputs, n_outputs = train.n_features, train.n_outputs
    if config.train.loss == "bce":
        n_outputs = 1
    if not isinstance(config.model, Hybrid):
        return {"mlp": model_of(config.model, n_inputs, n_outputs, seed=config.seed)}
    with naming_inherited(config):
        hybrid = model_of(config.model, n_inputs, n_outputs, seed=config.seed)
    if not config.twin:
        return {"hybrid": hybrid}
    return {"hybrid": hybrid, TWIN: models.matched_mlp(hybrid, n_inputs, n_outputs, seed=config.seed)}


def model_of(section: Hybrid | Mlp, n_inputs: int, n_outputs: int, seed: int = 0) -> nn.Sequential:
    """Build the model of a config's section, for so many columns and outputs."""
    if isinstance(section, Hybrid):
        return models.hybrid(n_inputs, n_outputs, seed=seed, **section.model_dump(exclude={"kind"}))
    return models.mlp(n_inputs, *section.hidden, n_outputs, activation=section.activation, seed=seed)


def train(config: Config, directory: str | Path, *, resume: bool = False, progress: bool = False) -> dict[str, Any]:
    """Train what a config says, and its twin, and evaluate both on held-out data.

    The directory then holds `config.yaml`, `versions.json`, `metrics.jsonl` (a row per epoch),
    `checkpoint.safetensors` and `result.json`, and `twin/` the same of the twin. Whatever a kill leaves there,
    resuming ends with the bits of a run that was not killed. A model that learnt nothing is diagnosed.

    Args:
        config: the config.
        directory: where to.
        resume: go on with the run in the directory, if there is one.
        progress: draw a bar with the time left.

    Returns:
        What `result.json` holds: `name`, `seed`, `data`, `classes` (their names), and by name of the model its
        `parameters`, `epochs`, `seconds` of training and the metrics of `qbp.evaluate`; of one that learnt nothing also
        `diagnosis`, the sentences of what warns.

    Raises:
        ConfigError: the directory is taken, or holds a run of another config.
        ArgumentError: the config asks for what cannot be built.
    """
    folder = Path(directory)
    check_trains(config)
    with threads(config.threads):
        train_data, test_data = load_data(config)
        built = build(config, train_data)  # what cannot be built claims no directory
        watch = {name: tracking(config, folder, name) for name in built}
        run = claim(folder, config, resume)
        if not run.is_finished:
            run.finish(_train(config, folder, resume, progress, (train_data, test_data), built, watch))
        return run.result()


def check_trains(config: Config) -> None:
    """Raise `ConfigError` where a config asks for more than to be trained."""
    if config.prune is not None or config.distill is not None:
        raise ConfigError(f"Config {config.name} has `prune` or `distill`: use `qbp run`, or take them out")
    if config.sweep is not None:
        raise ConfigError(f"Config {config.name} has `sweep`: use `qbp sweep`, or take it out")


def _train(
    config: Config,
    folder: Path,
    resume: bool,
    progress: bool,
    split: tuple[Dataset, Dataset],
    built: dict[str, nn.Module],
    watch: dict[str, list[Tracking]],
) -> dict[str, Any]:
    train_data, test_data = split
    if progress:
        print(train_data.summary(), flush=True)
    results = {}
    for name, model in built.items():
        run_dir = folder / TWIN if name == TWIN else folder
        if progress:
            print(f"{name}: {models.n_parameters(model)} parameters", flush=True)
        _warm_up(config, model, train_data)
        where: dict[str, Any] = {"run_dir": run_dir, "resume": resume, "progress": progress}
        with _closing(watch[name]):
            history = fit(model, train_data, config.train, seed=config.seed, callbacks=watch[name], **where)
        results[name] = {
            "parameters": models.n_parameters(model),
            "epochs": len(history.rows),
            "seconds": sum(history.column("seconds")),
            **evaluate_model(model, test_data, loss=config.train.loss),
        }
        for each in watch[name]:
            each.finish({f"test_{key}": value for key, value in results[name].items()}, len(history.rows))
        if stalled(history, train_data, config.train.loss):
            findings = _diagnose(config, model, train_data, history, run_dir)
            results[name]["diagnosis"] = [finding.says for finding in findings if finding.warns]
    about = {"name": test_data.name, "train": len(train_data), "test": len(test_data)}
    classes = {"classes": list(test_data.classes)} if test_data.n_classes is not None else {}
    return {"name": config.name, "seed": config.seed, "data": about, **classes, "models": results}


def tracking(config: Config, folder: Path, name: str) -> list[Tracking]:
    """Return what tracks a model of a run: nothing, or a callback."""
    if not config.tracking:
        return []
    where, called = (folder / TWIN, f"{config.name}/{TWIN}") if name == TWIN else (folder, config.name)
    values = config.model_dump(mode="json", exclude={"tracking"}, exclude_none=True)
    return [Tracking(config.tracking, where, called, dict(flat(values)), store=folder.parent)]


@contextmanager
def _closing(watch: list[Tracking]) -> Iterator[None]:
    """Tell trackers where a training is cut off."""
    try:
        yield
    except BaseException:
        for each in watch:
            each.finish()
        raise


def evaluate(
    directory: str | Path, *, backend: str | None = None, shots: int | None = None, trust: bool = False
) -> dict[str, Any]:
    """Evaluate the model of a run, finished or not, on the held-out data.

    Args:
        directory: the run's.
        backend: where the circuit runs, instead of the config's backend.
        shots: how many times each circuit is sampled, instead of the config's `shots`.
        trust: whether the run's config may name a backend that has to be imported; see `qbp.runs.config.load`.

    Returns:
        `model`, `epoch` of the weights, and the metrics of `qbp.evaluate`.

    Raises:
        ConfigError: there is no such run, it has no checkpoint yet, or its model has no circuit.
    """
    folder = Path(directory)
    config = read_config(folder, trust=trust or backend is not None)
    changes: dict[str, Any] = {"backend": backend, "shots": shots}
    changes = {key: value for key, value in changes.items() if value is not None}
    if changes and not isinstance(config.model, Hybrid):
        raise ConfigError(f"The model of run {folder} has no circuit: it takes neither a backend nor shots")
    if changes:
        changes["diff_method"] = "best"  # the training's rule may not fit, and no gradient is taken
    config = config.model_copy(update={"model": config.model.model_copy(update=changes)})
    with threads(config.threads):
        name, model, epoch, split = _restored(config, folder)
        return {"model": name, "epoch": epoch, **evaluate_model(model, split[1], loss=config.train.loss)}


def diagnose(directory: str | Path, *, trust: bool = False) -> tuple[Finding, ...]:
    """Diagnose the model of a run, and keep what was found there, as `diagnosis.json`.

    Args:
        directory: the run's.
        trust: as in `evaluate`.

    Returns:
        The findings, those that warn first; see `qbp.diagnose`.

    Raises:
        ConfigError: there is no such run, or it has no checkpoint yet.
    """
    folder = Path(directory)
    config, model, (train_data, _) = restore(folder, trust)
    with threads(config.threads):
        return _diagnose(config, model, train_data, History.from_jsonl(folder / METRICS), folder)


def restore(folder: Path, trust: bool = False) -> tuple[Config, nn.Module, tuple[Dataset, Dataset]]:
    """Return the config, the trained model and the data of a run.

    Raises:
        ConfigError: there is no such run, or it has no checkpoint yet.
    """
    config = read_config(folder, trust)
    _, model, _, split = _restored(config, folder)
    return config, model, split


def _restored(config: Config, folder: Path) -> tuple[str, nn.Module, int, tuple[Dataset, Dataset]]:
    """The name of a run's model, the model, the epoch of its weights, and the data."""
    check_data_file(config, folder)
    split = load_data(config, _preprocessing(folder))
    name, model, epoch = _trained(config, folder, split[0])
    return name, model, epoch, split


def _trained(config: Config, folder: Path, like: Dataset | Preprocessing) -> tuple[str, nn.Module, int]:
    ((name, model),) = build(config.model_copy(update={"twin": False}), like).items()
    epoch = load_checkpoint(model, folder, best=config.train.early_stopping is not None)
    return name, model, epoch


def _preprocessing(folder: Path) -> Preprocessing | None:
    """What was done to the rows of a run's data; None where an earlier version did not keep it."""
    kept = load_state(folder / CHECKPOINT).get("preprocessing")
    return Preprocessing.from_state(kept) if isinstance(kept, dict) else None


def opened(source: Path, trust: bool = False) -> tuple[nn.Module, int]:
    """Return the model of a run, whose data are not needed, or of a model file; and how many threads it is run with.

    Raises:
        ConfigError: there is no such run or file.
    """
    if source.is_file():
        return load_model(source, trust=trust), torch.get_num_threads()
    if not source.exists():
        near = did_you_mean(source.name, [other.name for other in source.parent.glob("*")])
        raise ConfigError(f"There is no {source}: give the directory of a run, or a model file{near}")
    config = read_config(source, trust)
    if not (source / CHECKPOINT).exists() and (files := sorted(source.glob("*/*.safetensors"))):
        raise ConfigError(f"{source} is a run of several models: give the file of one, as {files[-1]}")
    kept = _preprocessing(source)
    _, model, _ = _trained(config, source, load_data(config)[0] if kept is None else kept)
    return model, config.threads


def _diagnose(config: Config, model: nn.Module, train: Dataset, history: History, run_dir: Path) -> tuple[Finding, ...]:
    findings = diagnose_model(model, train, history=history, loss=config.train.loss, seed=config.seed)
    RunFolder(run_dir).write(DIAGNOSIS, {"findings": [finding.to_json() for finding in findings]})
    return findings


def verdict(result: dict[str, Any]) -> str | None:
    """Return in a sentence what a result says of the quantum layer; None without a twin.

    One seed is one draw of split and initial weights, so the sentence claims no more than this run.
    """
    scores = result["models"]
    if TWIN not in scores:
        return None
    hybrid, twin = scores["hybrid"], scores[TWIN]
    metric = main_metric(hybrid)
    if twin[metric] >= hybrid[metric]:
        return (
            "The classical twin is as good or better: in this run the quantum layer does not help. "
            "(One seed; other seeds may differ.)"
        )
    if metric == "accuracy":
        more = round((hybrid[metric] - twin[metric]) * result["data"]["test"])
        gain = f"{more} of {result['data']['test']} test rows more right than"
    else:
        gain = f"a larger r2 ({hybrid[metric]:.3f} against {twin[metric]:.3f}) than"
    return (
        f"The hybrid model has {gain} its classical twin. "
        "One seed is no evidence that the quantum layer helps: repeat with other seeds."
    )


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _warm_up(config: Config, model: nn.Module, train: Dataset) -> None:
    """Take a step with a copy, so that compiling kernels, once on each machine, does not count as training."""
    if isinstance(config.model, Hybrid) and config.model.backend in ("auto", "native"):
        copied(model)(train.x[: config.train.batch_size]).sum().backward()
