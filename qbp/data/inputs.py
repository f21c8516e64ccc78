"""Models that take several inputs: side by side in one row while they are data, apart when the model is called."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from qbp.data.frames import array_of
from qbp.errors import ArgumentError

__all__ = ["Input", "call", "check_inputs", "inputs_of", "pack"]


class Input(NamedTuple):
    """One input of a model.

    Attributes:
        name: of the argument; "" where it goes by its place.
        shape: of a row of it.
        is_integer: whether the model gets whole numbers, as an embedding wants them.
    """

    name: str
    shape: tuple[int, ...]
    is_integer: bool = False


def inputs_of(x: Any) -> dict[str, Any] | None:
    """Return several inputs by name: of a tuple or a mapping of arrays of which one has two axes or more (else they are
    rows, or columns, of one table); None of anything else. Those of a tuple are named "0", "1"..."""
    parts = dict(enumerate(x)) if isinstance(x, tuple) else dict(x) if isinstance(x, Mapping) else {}
    arrays = [isinstance(part, Tensor | np.ndarray) for part in parts.values()]
    if not parts or not all(arrays) or all(part.ndim < 2 for part in parts.values()):
        return None
    return {str(name): part for name, part in parts.items()}


def pack(x: Any) -> tuple[Tensor, tuple[Input, ...]]:
    """Put several inputs side by side: rows (n, sum of their sizes), and what is where.

    Raises:
        ArgumentError: they have different numbers of rows, or hold something else than numbers.

    Example:
        >>> rows, inputs = pack({"image": np.zeros((3, 2, 2)), "table": np.ones((3, 5), np.float32)})
        >>> rows.shape, inputs[0]
        (torch.Size([3, 9]), Input(name='image', shape=(2, 2), is_integer=False))
    """
    parts = {name: array_of("x", part) for name, part in (inputs_of(x) or {}).items()}
    lengths = {name: len(part) for name, part in parts.items()}
    if len(set(lengths.values())) > 1 or not all(lengths.values()):
        raise ArgumentError(f"Argument `x` must have as many rows in each input, but has {lengths}")
    if wrong := [name for name, part in parts.items() if part.dtype.kind not in "biuf"]:
        raise ArgumentError(f"Argument `x` must hold numbers, but input {wrong[0]!r} is {parts[wrong[0]].dtype}")
    is_named = isinstance(x, Mapping)
    inputs = tuple(
        Input(name if is_named else "", tuple(part.shape[1:]), part.dtype.kind in "iu") for name, part in parts.items()
    )
    kind = np.result_type(np.float32, *(part.dtype for part in parts.values() if part.dtype.kind == "f"))
    rows = np.concatenate([part.reshape(len(part), -1).astype(kind) for part in parts.values()], axis=1)
    return torch.from_numpy(rows), inputs


def check_inputs(inputs: tuple[Input, ...], wanted: tuple[Input, ...]) -> None:
    """Raise `ArgumentError` unless inputs are those that a model was trained on."""
    plain = [[(each.name, each.shape) for each in some] for some in (inputs, wanted)]
    if plain[0] != plain[1]:
        said = [", ".join(f"{each.name} {each.shape}".strip() for each in some) for some in (wanted, inputs)]
        raise ArgumentError(
            f"Argument `x` must have the inputs {said[0]}, as rows of each, but has {said[1] or 'none'}"
        )


def call(model: nn.Module, x: Tensor, inputs: tuple[Input, ...] = ()) -> Any:
    """Call a model with rows, each of several inputs as an argument of its own."""
    if not inputs:
        return model(x)
    parts = x.split([math.prod(each.shape) for each in inputs], dim=1)
    given = [
        (part.round().long() if each.is_integer else part).reshape(len(x), *each.shape)
        for part, each in zip(parts, inputs, strict=True)
    ]
    if inputs[0].name:
        return model(**{each.name: part for each, part in zip(inputs, given, strict=True)})
    return model(*given)
