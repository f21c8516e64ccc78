"""What the checks of a diagnosis look at, and what they say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from qbp.data import Dataset
from qbp.nn.flow import exact_copy
from qbp.nn.layer import QuantumLayer
from qbp.training.checkpoint import History
from qbp.training.metrics import Loss, objective

__all__ = ["Finding", "Picture", "Probe", "Stage", "constant_loss", "look"]

ROWS = 100  # of the data that are looked at


@dataclass(frozen=True)
class Picture:
    """What a finding looks like: numbers to draw.

    Attributes:
        kind: "line", "points", "bars" (y by the names x) or "histogram" (of y).
        x, y: the numbers; x is empty for a histogram.
        x_label, y_label: what they are.
        log: whether y is drawn logarithmically.
        limits: where the thresholds are: values of y, of a histogram values along it.
    """

    kind: str
    x: tuple[Any, ...]
    y: tuple[float, ...]
    x_label: str
    y_label: str
    log: bool = False
    limits: tuple[float, ...] = ()


@dataclass(frozen=True)
class Finding:
    """One number of a diagnosis.

    Attributes:
        code: a stable name, as in "BARREN_PLATEAU".
        title: what was measured.
        value: the number.
        threshold: where a warning begins.
        warns: whether it is one.
        says: a sentence: what the number means here and, of a warning, what to do.
        picture: the numbers behind it.
        side: "above" or "below": where values warn; "" of a diagnosis kept by an earlier version.
    """

    code: str
    title: str
    value: float
    threshold: float
    warns: bool
    says: str
    picture: Picture
    side: str = ""

    @property
    def limit(self) -> str:
        """Where a warning begins, as in "above 0.5"."""
        return f"{self.side} {self.threshold:.3g}".lstrip()

    def to_json(self) -> dict[str, Any]:
        """The finding as plain data."""
        return asdict(self)

    @staticmethod
    def from_json(content: dict[str, Any]) -> Finding:
        """The finding that `to_json` wrote."""
        drawn: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content["picture"].items()}
        return Finding(**{**content, "picture": Picture(**drawn)})


@dataclass(frozen=True)
class Stage:
    """A module that was called: what came in and went out."""

    name: str
    module: nn.Module
    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class Probe:
    """The model, exact and in float64, and what it does with some rows of the data."""

    model: nn.Module
    data: Dataset
    outputs: Tensor
    stages: tuple[Stage, ...]  # the modules without children, in the order of their calls
    history: History | None
    loss: float  # of these rows
    constant: float  # loss of the best constant prediction
    seed: int

    @property
    def labels(self) -> bool:
        return self.data.n_classes is not None

    @property
    def quantum(self) -> Iterator[tuple[str, QuantumLayer, Tensor, Tensor]]:
        """Name, layer, inputs (B, I) and outputs (B, M) of the quantum layers whose circuit is known, and all that
        they compute."""
        stages = [
            stage
            for stage in self.stages
            if isinstance(stage.module, QuantumLayer) and stage.module.executor and not stage.module.is_combined
        ]
        for stage in stages:
            if isinstance(stage.module, QuantumLayer):
                where = f" of layer {stage.name}" if len(stages) > 1 else ""
                yield where, stage.module, stage.x.flatten(0, -2), stage.y.reshape(stage.x[..., 0].numel(), -1)

    @property
    def learnt(self) -> bool:
        """Whether the model is far better than a constant."""
        return self.loss < self.constant / 2


def look(model: nn.Module, data: Dataset, history: History | None, loss: str | Loss | None, seed: int) -> Probe:
    """Take an exact copy of the model, in float64 and evaluation mode, and watch it work on some rows."""
    rows = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:ROWS]
    some = data.subset(rows.tolist())
    some = replace(some, x=some.x.double(), y=some.y.double() if some.y.is_floating_point() else some.y)
    replica = exact_copy(model).cpu().double()
    stages: list[Stage] = []
    hooks = []
    for name, module in replica.named_modules():
        if not any(True for _ in module.children()):

            def watch(module: nn.Module, x: tuple[Tensor, ...], y: Tensor, name: str = name) -> None:
                stages.append(Stage(name, module, x[0].detach(), y.detach()))

            hooks.append(module.register_forward_hook(watch))
    with torch.no_grad():
        outputs = replica(some.x)
    for hook in hooks:
        hook.remove()
    value = objective(some, loss)(outputs, some.y).item()
    constant = constant_loss(some, loss, outputs.shape[1])
    return Probe(replica, some, outputs, tuple(stages), history, value, constant, seed)


def constant_loss(data: Dataset, loss: str | Loss | None, n_outputs: int | None = None) -> float:
    """The loss of predicting the same for every row: the classes' shares, or the mean (of "l1" the median) target."""
    if data.n_classes is None:
        centre = data.y.median(0).values if loss == "l1" else data.y.mean(0)
    else:
        shares = torch.bincount(data.y, minlength=data.n_classes) / len(data)
        centre = shares.clamp(min=1e-12).log()
        if n_outputs == 1 or loss == "bce":
            centre = centre[-1:] - centre[:1]
    return objective(data, loss)(centre.expand(len(data), -1), data.y).item()
