"""What a run leaves on disk: a row per epoch (JSON lines), and its whole state in one safetensors file."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qbp.data.preprocessing import Preprocessing, attach
from qbp.errors import ConfigError, check_choice
from qbp.nn.layer import QuantumLayer
from qbp.nn.seeding import gpus
from qbp.storage.atomic import sweep, write_atomic
from qbp.storage.container import load_state
from qbp.training.metrics import modes

__all__ = ["CHECKPOINT", "METRICS", "History", "load_checkpoint"]

CHECKPOINT = "checkpoint.safetensors"
METRICS = "metrics.jsonl"
Row = dict[str, float]


@dataclass(frozen=True)
class History:
    """The metrics of a run, one row per epoch; what "best" looks at, what was trained, and how many models at once.

    A row holds `epoch` (from 1), `loss`, `accuracy` (or `mae` and `r2`), the same for validation as
    `val_loss` and so on, `lr` and `seconds`. Metrics of the train data are taken while the weights move.

    Example:
        >>> history = History(({"epoch": 1, "loss": 0.7}, {"epoch": 2, "loss": 0.5}))
        >>> history.last["loss"], history.column("loss")
        (0.5, [0.7, 0.5])
    """

    rows: tuple[Row, ...]
    monitor: str | None = None
    mode: str = "min"
    model: nn.Module | None = field(default=None, compare=False)
    together: int = field(default=1, compare=False)

    def __repr__(self) -> str:
        last = ", ".join(
            f"{name}={value:.4g}" for name, value in (self.rows[-1] if self.rows else {}).items() if name != "epoch"
        )
        return f"History({len(self.rows)} epochs{': ' + last if last else ''})"

    @property
    def last(self) -> Row:
        """The last epoch's row."""
        return self.rows[-1]

    @property
    def best(self) -> Row:
        """The first row with the best value of `monitor`: the smallest validation loss (or loss, without validation),
        if nothing else was asked for."""
        return (max if self.mode == "max" else min)(self.rows, key=lambda row: monitored(row, self.monitor))

    def column(self, name: str) -> list[float]:
        """Return one metric, epoch by epoch."""
        check_choice("name", name, self.rows[0] if self.rows else ())
        return [row[name] for row in self.rows]

    def to_jsonl(self, path: str | Path) -> None:
        """Write one JSON object per line, atomically."""
        write_atomic(Path(path), "".join(map(to_line, self.rows)).encode())

    @classmethod
    def from_jsonl(cls, path: str | Path) -> History:
        """Read a `metrics.jsonl`; a last line that was cut off (a killed process) does not count.

        Raises:
            ConfigError: the file is missing, or a line is not a JSON object.
        """
        try:
            *lines, _cut = Path(path).read_text(encoding="utf-8").split("\n")
            return cls(tuple(json.loads(line) for line in lines))
        except (OSError, ValueError) as error:
            raise ConfigError(f"Cannot read metrics from {path}: {error}") from error


def monitored(row: Row, monitor: str | None = None) -> float:
    """Return the number that early stopping and "best" look at."""
    return row.get("val_loss", row["loss"]) if monitor is None else row[monitor]


def to_line(row: Row) -> str:
    """Return a row as one line of JSON."""
    return json.dumps(row) + "\n"


def load_checkpoint(model: nn.Module, run_dir: str | Path, best: bool = False) -> int:
    """Load a run's weights into `model`.

    Args:
        model: a model like the one that was trained.
        run_dir: the directory given to `fit`, or to `distill`, whose student's weights these are.
        best: take the weights of the best epoch (as `History.best`) instead of the last; before the first epoch has
            ended there is no such thing.

    Returns:
        The epoch the weights are from.

    Raises:
        ConfigError: there is no checkpoint, or it does not fit the model.
    """
    state = load_state(Path(run_dir) / CHECKPOINT)
    part = state.get("best") if best and state.get("epoch") else state
    weights: Any = part.get("model") if isinstance(part, dict) else None
    epoch = part.get("epoch") if isinstance(part, dict) else None
    if isinstance(weights, dict) and not best and isinstance(average := state.get("average"), dict):
        weights = {**weights, **average}  # which is what training ends with
    is_whole = isinstance(weights, dict) and all(isinstance(value, Tensor) for value in weights.values())
    if not is_whole or not isinstance(epoch, int) or not all(isinstance(key, str) for key in weights):
        raise ConfigError(f"The checkpoint in {run_dir} is damaged: it holds no weights of an epoch")
    student = "student."  # a run of `distill` holds the student beside its regressors
    if any(key.startswith(student) for key in weights) and not hasattr(model, "student"):
        weights = {key.removeprefix(student): value for key, value in weights.items() if key.startswith(student)}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ConfigError(f"The checkpoint in {run_dir} does not fit the model: {error}") from error
    if isinstance(kept := state.get("preprocessing"), dict):
        attach(model, Preprocessing.from_state(kept))
    return epoch


def get_random(model: nn.Module) -> dict[str, Any]:
    """Return what training draws from and gradient rules remember: torch's state, that of layers with an `rng_state`,
    and that of rules of `qbp.gradients.stateful`."""
    own = {name: getattr(module, "rng_state", None) for name, module in model.named_modules()}
    return {
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state(gpu) for gpu in gpus(model)],
        "modules": {name: state for name, state in own.items() if state is not None},
        "rules": {name: copy.deepcopy(rule.state()) for name, rule in _rules(model).items()},
    }


def set_random(model: nn.Module, state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    for gpu, own in zip(gpus(model), state["cuda"], strict=True):
        torch.cuda.set_rng_state(own, gpu)
    modules = dict(model.named_modules())
    for name, own in state["modules"].items():
        modules[name].rng_state = own
    for name, rule in _rules(model).items():
        rule.load_state(state["rules"][name])


def _rules(model: nn.Module) -> dict[str, Any]:
    rules = {name: getattr(module, "rule", None) for name, module in model.named_modules()}
    return {name: rule for name, rule in rules.items() if rule is not None}


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put weights, buffers, gradients, modes and random states back afterwards."""
    weights, random = copy.deepcopy(model.state_dict()), get_random(model)
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    try:
        with modes(model):
            yield
    finally:
        model.load_state_dict(weights)
        set_random(model, random)
        for parameter, gradient in gradients:
            parameter.grad = gradient


def check_new(run: Path, resume: bool) -> None:
    """Raise `ConfigError` where a run would be overwritten."""
    if (run / CHECKPOINT).exists() and not resume:
        raise ConfigError(f"{run} holds a checkpoint already: resume it (`resume=True`), or use another `run_dir`")


def open_run(
    run: Path, resume: bool, config: dict[str, Any], epochs: int, opaque: Sequence[str] = ()
) -> dict[str, Any] | None:
    """Return the state to go on from with the rows up to it; None, with empty metrics, for a fresh start.

    Args:
        run: the directory.
        resume: whether a state that is there may be gone on with.
        config: what the run depends on, as plain data.
        epochs: most epochs of the state.
        opaque: what the run depends on besides, which cannot be compared.

    Raises:
        ConfigError: there is a state that must not, or cannot, be gone on with.

    Warns:
        UserWarning: something cannot be compared.
    """
    check_new(run, resume)
    sweep(run)
    if not (run / CHECKPOINT).exists():
        write_atomic(run / METRICS, b"")
        return None
    state = load_state(run / CHECKPOINT)
    old = {"accumulate_grad_batches": 1, "schedule_interval": "epoch"} | state["config"]  # which 0.1.0 did not know
    changed = [_change(key, old.get(key), config[key]) for key in config if old.get(key) != config[key]]
    if changed:
        raise ConfigError(f"Cannot resume {run} with other arguments: {'; '.join(changed)}")
    if opaque:
        warnings.warn(
            f"Whether {', '.join(opaque)} is as when {run} began cannot be compared: that it is, is up to you",
            stacklevel=3,
        )
    if state["epoch"] > epochs:
        raise ConfigError(f"Cannot resume {run}: it has {state['epoch']} epochs, more than `epochs` = {epochs}")
    # A kill between row and checkpoint leaves a row that will be made again.
    rows = [row for row in History.from_jsonl(run / METRICS).rows if row["epoch"] <= state["epoch"]]
    if [row["epoch"] for row in rows] != list(range(1, state["epoch"] + 1)):
        raise ConfigError(f"{run / METRICS} must have a row for each of the {state['epoch']} epochs, but has not")
    History(tuple(rows)).to_jsonl(run / METRICS)
    return state | {"rows": rows}


def _change(key: str, old: Any, new: Any) -> str:
    names = [value.partition("#")[0] if isinstance(value, str) else value for value in (old, new)]
    if names[0] == names[1]:
        return f"`{key}` was another {names[0]}: its code, or the values that it holds or uses, differ"
    return f"`{key}` was {names[0]!r}, is {names[1]!r}"


def fingerprint(model: nn.Module) -> str:
    """Return a hash of the model's structure, not of its weights."""
    shapes = [(key, str(value.dtype), tuple(value.shape)) for key, value in model.named_parameters()]
    structure = re.sub(r" at 0x[0-9a-f]+", "", repr(model))
    circuits = [layer.describe() for layer in model.modules() if isinstance(layer, QuantumLayer)]
    return hashlib.sha256(f"{structure}{shapes}{circuits}".encode()).hexdigest()
