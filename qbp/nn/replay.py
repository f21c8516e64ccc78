"""What the quantum layers of a model gave, noted and given again: changed, and without running a circuit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from qbp.nn.layer import QuantumLayer

__all__ = ["Call", "Record", "recorded", "redrawn", "replayed"]


class Call(NamedTuple):
    """What a quantum layer gave once.

    Attributes:
        outputs: (*, M), without gradients.
        stds: (B, M) standard errors, where the backend tells them.
        truncation: (B, M) how far the outputs may be off, where the backend approximates.
        sources: which execution each row was read from (`qbp.executors.Results.sources`).
    """

    outputs: Tensor
    stds: Tensor | None
    truncation: Tensor | None
    sources: Tensor | None


Record = list[Call]
"""The calls of one layer."""


@contextmanager
def recorded(model: nn.Module) -> Iterator[list[Record]]:
    """Note what each quantum layer of a model gives: a record for each, in the order of `modules()`."""
    layers = _layers(model)
    records: list[Record] = [[] for _ in layers]

    def note(record: Record) -> Any:
        def hook(layer: QuantumLayer, inputs: Any, outputs: Tensor) -> None:
            record.append(Call(outputs.detach(), layer.last_stds, layer.last_truncation, layer._errors.sources))

        return hook

    handles = [layer.register_forward_hook(note(record)) for layer, record in zip(layers, records, strict=True)]
    try:
        yield records
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def replayed(model: nn.Module, records: Sequence[Record], change: Callable[[Call], Tensor]) -> Iterator[None]:
    """Let the quantum layers give what was recorded, changed, call by call, instead of running.

    What a layer would make of other inputs is not seen: where one feeds another, the latter's outputs stay.
    """
    layers = _layers(model)

    def again(record: Record) -> Any:
        calls = iter(record)
        return lambda inputs: change(next(calls))

    try:
        for layer, record in zip(layers, records, strict=True):
            layer.forward = again(record)  # type: ignore[method-assign]
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def redrawn(call: Call) -> Tensor:
    """Draw the outputs of a call again, from normal distributions with their standard errors."""
    if call.stds is None:
        return call.outputs
    drawn = torch.randn_like(call.stds)
    if call.sources is not None:  # equal rows err alike
        drawn = drawn[call.sources]
    return call.outputs + (call.stds * drawn).reshape(call.outputs.shape).to(call.outputs)


def _layers(model: nn.Module) -> list[QuantumLayer]:
    return [module for module in model.modules() if isinstance(module, QuantumLayer)]
