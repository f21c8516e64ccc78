"""A model tried out without its backends: copies whose circuits run elsewhere, and rows that it takes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from qbp.executors import Executor
from qbp.nn.layer import QuantumLayer

__all__ = ["elsewhere", "random_rows", "run_with", "widths"]


def elsewhere(model: nn.Module, make: Callable[[QuantumLayer], tuple[Executor, str]]) -> nn.Module:
    """A copy of a model whose circuits run on another executor, with another gradient rule; those of QNodes that run
    themselves stay. What the model's own circuits run on is not copied."""
    memo: dict[int, Any] = {id(layer.executor): layer.executor for layer in _layers(model)}
    copied = copy.deepcopy(model, memo)
    for layer in _layers(copied):
        run_with(layer, *make(layer))
    return copied


def run_with(layer: QuantumLayer, executor: Executor, diff_method: str) -> None:
    """Let a layer run on an executor with a gradient rule of `qbp.gradients.rules`, or its own."""
    layer._executor, layer._diff_method = executor, diff_method


def _layers(model: nn.Module) -> list[QuantumLayer]:
    return [m for m in model.modules() if isinstance(m, QuantumLayer) and m.executor is not None]


def widths(model: nn.Module) -> list[int]:
    """Numbers of inputs that the model may take, the likeliest first: what its modules take, in their order."""
    found = [
        size
        for module in model.modules()
        for name in ("in_features", "n_inputs", "num_features")
        if isinstance(size := getattr(module, name, None), int) and size > 0
    ]
    return list(dict.fromkeys(found))


def random_rows(model: nn.Module, rows: int, width: int) -> Iterator[Tensor]:
    """Random rows (rows, width) of the model's dtype: plain, and of length 1 as circuits that begin with amplitudes
    may want them. The model's data have no part in them."""
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    draws = torch.randn(rows, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for x in (draws, nn.functional.normalize(draws)):
        yield x.to(dtype=like.dtype, device=like.device)
