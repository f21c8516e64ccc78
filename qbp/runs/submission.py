"""Runs on a quantum computer: planned, confirmed, sent, and collected later, from another process if need be."""

from __future__ import annotations

import json
import math
import re
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from qbp.errors import ConfigError, check_choice
from qbp.executors import check_trusted
from qbp.executors.qiskit_primitive.options import Options
from qbp.hardware import planning, transfer
from qbp.jobs.cost import Budget, Cost
from qbp.jobs.retry import Patience
from qbp.runs.config import Config, Hybrid, load
from qbp.runs.folder import read_config
from qbp.runs.run import build, load_data, threads
from qbp.storage.container import load_state, save_state
from qbp.storage.folder import RunFolder
from qbp.training.fitting import fit, load_checkpoint
from qbp.training.metrics import evaluate
from qbp.training.options import Training

__all__ = ["SUBMISSION", "Submission", "read", "submission"]

SUBMISSION, WEIGHTS = "submission.json", "weights.safetensors"
MODES = ("job", "batch", "session")


@dataclass(frozen=True)
class Submission:
    """A model to be trained or evaluated on a backend.

    Attributes:
        directory: where all of it is kept.
        config: of the model, its data and its training.
        backend, shots, options: as in `qbp.on_backend`.
        epochs: of training there; 0 to evaluate only.
        budget: most quantum seconds.
        rate: money for a quantum second.
        mode: "job", "batch" or "session".
        run: the run whose weights it starts from; None for new ones.
    """

    directory: Path
    config: Config
    backend: str
    shots: int | None = None
    epochs: int = 0
    budget: float | None = None
    rate: float | None = None
    mode: str = "job"
    options: Options = field(default_factory=Options)
    run: Path | None = None

    def __post_init__(self) -> None:
        if self.budget is not None or self.rate is not None:
            Budget(seconds=math.inf if self.budget is None else self.budget, rate=self.rate)  # refuses what is none
        check_choice("mode", self.mode, MODES)
        if self.options.layer_noise_model is not None:
            raise ConfigError("A learned noise model is not stored with a submission: use `qbp.on_backend`")

    def model(self) -> nn.Module:
        """The model before it goes to the backend."""
        train, _ = load_data(self.config)
        ((_, model),) = build(self.config, train).items()
        if (self.directory / WEIGHTS).exists():
            model.load_state_dict(load_state(self.directory / WEIGHTS)["model"])
        elif self.run is not None:
            load_checkpoint(model, self.run, best=self.config.train.early_stopping is not None)
        return model

    def plan(self) -> Cost:
        """What it will cost, from the start; nothing is sent."""
        train, test = load_data(self.config)
        model = self.model()
        where: dict[str, Any] = {"backend": self.backend, "shots": self.shots, "options": self.options}
        cost = planning.plan(model, test, **where)
        if self.epochs:
            cost += planning.plan(model, train, self._training(), seed=self.config.seed, **where)
        return cost.at(self.rate)

    def write(self) -> None:
        """Claim the directory, with all that is needed to go on from it alone.

        Raises:
            ConfigError: it holds another submission.
        """
        about = asdict(self) | {"config": self.config.model_dump(mode="json"), "directory": None}
        about["run"] = None if self.run is None else str(self.run)
        weights = self.directory / WEIGHTS
        state = None if weights.exists() else {"model": self.model().state_dict()}
        RunFolder(self.directory, SUBMISSION, "submission").claim(about, resume=True)
        if state is not None:
            save_state(weights, state)

    def send(self, patience: Patience | None = None) -> int:
        """Send all jobs of an evaluation without waiting for them; how many are not done."""
        _, test = load_data(self.config)
        with threads(self.config.threads):
            return transfer.send(self._on_chip(wait=False, patience=patience), test)

    def collect(self, *, progress: bool = False, patience: Patience | None = None) -> dict[str, Any]:
        """Do what is not done yet, wait for it, and return what `result.json` then holds: the metrics, and the cost.

        Raises:
            BudgetError: the budget is used up; with a larger one it goes on from there.
            JobError: a job failed or the service cannot be used; the same call goes on from there.
        """
        folder = RunFolder(self.directory)
        if folder.is_finished:
            return folder.result()
        train, test = load_data(self.config)
        with threads(self.config.threads), ExitStack() as stack:
            model = self._on_chip(wait=True, patience=patience)
            if self.mode != "job":
                stack.enter_context(transfer.session(model, self.mode))
            if self.epochs:
                training, seed, run_dir = self._training(), self.config.seed, self.directory
                fit(model, train, training, seed=seed, run_dir=run_dir, resume=True, progress=progress)
            metrics = evaluate(model, test, loss=self.config.train.loss)
        spent = transfer.spent(model).at(self.rate)
        cost = {name: amount for name, amount in asdict(spent).items() if name != "at_most"}
        folder.finish({"backend": self.backend, "shots": self.shots, "epochs": self.epochs, **metrics, "cost": cost})
        return folder.result()

    def _training(self) -> Training:
        return replace(self.config.train, epochs=self.epochs)

    def _on_chip(self, *, wait: bool, patience: Patience | None) -> nn.Module:
        return transfer.on_backend(
            self.model(),
            self.backend,
            shots=self.shots,
            budget=None if self.budget is None else Budget(seconds=self.budget),
            run_dir=self.directory,
            options=self.options,
            wait=wait,
            patience=patience,
        )


def submission(
    source: str,
    backend: str,
    *,
    overrides: tuple[str, ...] = (),
    name: str | None = None,
    runs_dir: Path = Path("runs"),
    shots: int | None = None,
    epochs: int | None = None,
    trust: bool = False,
    **more: Any,
) -> Submission:
    """What `qbp submit` is asked for: a run's model evaluated (or trained further), or a config trained there.

    Args:
        source: directory of a run, or a config.
        backend: as in `QuantumLayer`.
        overrides: keys of the config, as in "train.lr=0.02".
        name: of the submission; by default the backend's.
        runs_dir: where runs are kept.
        shots: by default the config's.
        epochs: by default none for a run, and the config's for a config.
        trust: as in `qbp.runs.config.load`; the run's own backend is not used.
        more: `budget`, `rate`, `mode`, `options`.

    Raises:
        ConfigError: there is no such run or config, or its model has no circuit.
    """
    label = backend.partition(":")[2] or backend
    dry = "-dry-run" if more.get("options") is not None and more["options"].dry_run else ""
    label = _inside(name or f"{label}{dry}")
    run = Path(source) if Path(source).is_dir() else None
    if run is not None:
        if overrides:
            raise ConfigError("`--set` is for a config: a run has its own")
        config, directory = read_config(run, trust=True), run / "hardware" / label
    else:
        config = load(source, overrides, trust=trust)
        directory = runs_dir / (name or _inside(f"{config.name}-{label}"))
    if not isinstance(config.model, Hybrid):
        raise ConfigError(f"The model of {source} has no circuit: there is nothing to run on {backend}")
    shots = config.model.shots if shots is None else shots
    model = config.model.model_copy(update={"backend": "auto", "shots": None, "diff_method": "best"})
    rule = config.model.diff_method
    if rule in ("spsa", "parameter-shift"):
        model = model.model_copy(update={"diff_method": rule})
    if epochs is None:
        epochs = 0 if run is not None else config.train.epochs
    config = config.model_copy(update={"model": model, "twin": False})
    return Submission(directory, config, backend, shots=shots, epochs=epochs, run=run, **more)


def _inside(name: str) -> str:
    """The name, if it names a directory inside another one."""
    if re.fullmatch(r"[\w+@=,-][\w.+@=, -]{0,99}", name) is None or name.endswith((".", " ")):
        raise ConfigError(
            f"Name {name!r} must be letters, digits, '-', '_' and '.', at most 100 of them, since a directory gets it: "
            "give another one (`--name`)"
        )
    return name


def read(directory: Path, trust: bool = False) -> Submission:
    """The submission in a directory.

    Args:
        directory: where it is kept.
        trust: whether it may name a backend that has to be imported; one of IBM's, which was asked about, it may.

    Raises:
        ConfigError: there is none.
    """
    try:
        about = json.loads((directory / SUBMISSION).read_text(encoding="utf-8"))
        options = about["options"]
        for name, value in options.items():
            options[name] = tuple(value) if isinstance(value, list) else value
        config = Config.model_validate(about["config"])
        about |= {"directory": directory, "config": config}
        source = str(directory / SUBMISSION)
        check_trusted(about["backend"], source, trust or str(about["backend"]).startswith("ibm:"))
        if isinstance(config.model, Hybrid):
            check_trusted(config.model.backend, source, trust)
        about |= {"options": Options(**options), "run": None if about["run"] is None else Path(about["run"])}
        return Submission(**about)
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise ConfigError(f"{directory} is no submission of `qbp submit`: {error}") from error
