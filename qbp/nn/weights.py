"""The weights of a quantum layer: their first values, and all of them by name."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn

from qbp.errors import ArgumentError

__all__ = ["Weights", "initial_weight"]


class Weights(MutableMapping[str, Tensor]):
    """A layer's weights by name; assigning a tensor makes it the weight."""

    def __init__(self, layer: nn.Module):
        self._layer: Any = layer

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._layer._weight_names:
            raise KeyError(name)
        return getattr(self._layer, name)

    def __setitem__(self, name: str, value: Tensor) -> None:
        if name not in self._layer._weight_names:
            raise KeyError(name)
        setattr(self._layer, name, value if isinstance(value, nn.Parameter) else nn.Parameter(value.detach()))

    def __delitem__(self, name: str) -> None:
        raise TypeError("A layer's weights cannot be deleted")

    def __iter__(self) -> Iterator[str]:
        return iter(self._layer._weight_names)

    def __len__(self) -> int:
        return len(self._layer._weight_names)


def initial_weight(name: str, shape: tuple[int, ...], init_method: Any) -> Tensor:
    """The first value of a weight, as `init_method` of a layer says; uniform in [0, 2 pi) where it is None."""
    if init_method is None:
        init: Any = functools.partial(nn.init.uniform_, b=2 * math.pi)
    elif isinstance(init_method, Mapping):
        init = init_method[name]
        if isinstance(init, Tensor):
            if tuple(init.shape) != shape:
                raise ArgumentError(
                    f"Argument `init_method` for {name!r} must have shape {shape}, but has {tuple(init.shape)}"
                )
            return init.detach().clone()
    else:
        init = init_method
    return init(torch.empty(shape)) if shape else init(torch.empty(1))[0]
